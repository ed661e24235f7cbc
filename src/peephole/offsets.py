"""Arithmetic on the offsets of a ragged batch: checks, rows, and the order of its steps."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int64
from numpy.typing import NDArray
from torch import Tensor


class StepOrder(NamedTuple):
    """A ragged batch read step by step: all first steps, then all second steps, and so on.

    Within a step the sequences are ordered longest first, so those that have a step t are the
    first ``counts[t]`` of ``sequences``. This is the order of a ``PackedSequence``.

    Attributes:
        rows: ``[N]``, the row of ``values`` at each place of this order.
        places: ``[N]``, the place of each row of ``values`` in this order.
        counts: ``[T]``, how many sequences have step t; never rising, no zeros.
        sequences: ``[B]``, the sequences, longest first, equal lengths in their own order.
        ranks: ``[B]``, the place of each sequence in ``sequences``.
    """

    rows: Int64[Tensor, "N"]
    places: Int64[Tensor, "N"]
    counts: list[int]
    sequences: Int64[Tensor, "B"]
    ranks: Int64[Tensor, "B"]


def step_order(offsets: Int[Tensor, "B_plus_1"], reverse: bool = False) -> StepOrder:
    """The order in which a recurrence visits the steps; reversed, each from its last step.

    The counts are needed as numbers, so all of it is worked out on the CPU, in numpy: on a small
    batch its calls take a third of the time of torch's.
    """
    bounds = _numbers(offsets)
    lengths = np.diff(bounds)
    sequences = (-lengths).argsort(kind="stable")
    starts = (bounds[1:] - 1 if reverse else bounds[:-1])[sequences]
    # bincount's running sum at t counts the sequences that have ended before step t.
    counts = len(lengths) - np.bincount(lengths).cumsum()[:-1]
    N = int(bounds[-1])
    step = np.arange(len(counts)).repeat(counts)
    rank = np.arange(N) - (counts.cumsum() - counts).repeat(counts)
    rows = starts[rank] - step if reverse else starts[rank] + step
    places, ranks = np.empty_like(rows), np.empty_like(sequences)
    places[rows] = np.arange(N)
    ranks[sequences] = np.arange(len(sequences))

    def tensor(index: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(index).to(offsets.device)

    return StepOrder(
        tensor(rows), tensor(places), counts.tolist(), tensor(sequences), tensor(ranks)
    )


def check_offsets(offsets: Tensor, values: Tensor) -> None:
    """Raise ValueError unless ``offsets`` cut ``values`` into sequences.

    They must be whole numbers ``[B + 1]`` on the device of ``values``, begin with 0, never fall
    and end with N, the number of rows of ``values``.
    """
    if values.dim() == 0:
        raise ValueError("values is a number; it must be [N, ...], one row a step")
    if offsets.dim() != 1 or not offsets.shape[0]:
        raise ValueError(f"offsets must be [B + 1], got shape {list(offsets.shape)}")
    if offsets.dtype.is_floating_point or offsets.dtype.is_complex or offsets.dtype == torch.bool:
        raise ValueError(f"offsets must be whole numbers, got {offsets.dtype}")
    if offsets.device != values.device:
        raise ValueError(f"offsets are on {offsets.device}, values on {values.device}")
    bounds = _numbers(offsets)
    if bounds[0] != 0:
        raise ValueError(f"offsets[0] = {bounds[0]}; it must be 0")
    if bounds[-1] != values.shape[0]:
        raise ValueError(
            f"offsets end at {bounds[-1]}, but values have {values.shape[0]} steps; they must agree"
        )
    if (falls := bounds[1:] < bounds[:-1]).any():
        b = int(falls.argmax())
        raise ValueError(
            f"offsets fall: offsets[{b}] = {bounds[b]}, offsets[{b + 1}] = {bounds[b + 1]}"
        )


def _numbers(offsets: Tensor) -> NDArray[np.int64]:
    try:
        numbers: NDArray[np.int64] = offsets.cpu().numpy()
    except RuntimeError:
        # Under torch.func's transforms a tensor has no memory that numpy could read.
        return np.array(offsets.tolist(), dtype=np.int64)
    return numbers.astype(np.int64, copy=False)


def offsets_from_lengths(lengths: Tensor) -> Tensor:
    """``[B + 1]`` int64 from ``[B]``."""
    offsets = lengths.new_zeros(lengths.shape[0] + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets


def checked_lengths(lengths: Tensor | Sequence[int], sequences: int, steps: int) -> Tensor:
    """``[B]`` int64; raise ValueError unless they are B whole numbers from 0 to ``steps``."""
    lengths = torch.as_tensor(lengths)
    if lengths.numel() and (lengths.dtype.is_floating_point or lengths.dtype == torch.bool):
        raise ValueError(f"lengths must be whole numbers, got {lengths.dtype}")
    if tuple(lengths.shape) != (sequences,):
        raise ValueError(
            f"lengths must be one for each of the {sequences} sequences, "
            f"got shape {tuple(lengths.shape)}"
        )
    for bad, why in (
        (lengths < 0, "is negative"),
        (lengths > steps, f"is longer than the padded input ({steps} steps)"),
    ):
        if bad.any():
            b = int(bad.int().argmax())
            raise ValueError(f"lengths[{b}] = {int(lengths[b])} {why}")
    return lengths.to(torch.int64)


def rows_of(starts: Tensor, lengths: Tensor, offsets: Tensor) -> Tensor:
    """Rows ``starts[b], starts[b] + 1, ...`` of each sequence, one sequence after the other."""
    N = int(offsets[-1])
    shift = (starts - offsets[:-1]).repeat_interleave(lengths, output_size=N)
    return torch.arange(N, device=offsets.device) + shift


def padded_rows(lengths: Tensor, offsets: Tensor, longest: int, batch_first: bool) -> Tensor:
    """Where each step stands in a padded tensor whose first two dimensions are flattened."""
    B, N = lengths.shape[0], int(offsets[-1])
    sequence = torch.arange(B, device=offsets.device).repeat_interleave(lengths, output_size=N)
    step = torch.arange(N, device=offsets.device) - offsets[sequence]
    return sequence * longest + step if batch_first else step * B + sequence
