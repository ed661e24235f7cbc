"""Arithmetic on the offsets of a ragged batch: checks, rows, and the order of its steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Int64
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
        batch_sizes: the counts as a tensor on the CPU, as a ``PackedSequence`` has them.
        sequences: ``[B]``, the sequences, longest first, equal lengths in their own order.
        ranks: ``[B]``, the place of each sequence in ``sequences``.
    """

    rows: Int64[Tensor, "N"]
    places: Int64[Tensor, "N"]
    counts: list[int]
    batch_sizes: Int64[Tensor, "T"]
    sequences: Int64[Tensor, "B"]
    ranks: Int64[Tensor, "B"]


def may_keep() -> bool:
    """Whether tensors made now may serve later: under a mode, as of fake tensors, they may not."""
    return not torch._C._len_torch_dispatch_stack()


class _Numbers(NamedTuple):
    """What ``Layout`` reads from the device, at once."""

    bounds: NDArray[np.int64]
    lengths: NDArray[np.int64]
    steps: int
    longest: int
    some_empty: bool


def _numbers(bounds: NDArray[np.int64]) -> _Numbers:
    # np.diff is Python, and takes several times as long on a small batch.
    lengths = bounds[1:] - bounds[:-1]
    longest = int(lengths.max()) if len(lengths) else 0
    return _Numbers(bounds, lengths, int(bounds[-1]), longest, not lengths.all())


class Layout:
    """What a batch's offsets say, each part worked out when it is first asked for, then kept.

    All of it is worked out on the CPU, in numpy, since loops need the counts as numbers; on a
    small batch numpy's calls take a third of the time of torch's.

    Attributes:
        offsets: ``[B + 1]``, on the device of the values; not to be changed in place.
    """

    __slots__ = ("_known", "_numbers", "offsets")

    def __init__(self, offsets: Tensor) -> None:
        if not torch.compiler.is_compiling() and offsets.is_inference():
            with torch.inference_mode(False):
                offsets = offsets.clone()
        self.offsets = offsets
        self._numbers: _Numbers | None = None
        self._known: dict[Any, Any] = {}

    @classmethod
    def of_numbers(cls, bounds: NDArray[np.int64], device: torch.device) -> Self:
        """For offsets whose numbers are known: no device has to be asked for them."""
        self = cls(torch.from_numpy(bounds).to(device))
        self._numbers = _numbers(bounds)
        return self

    def _read(self) -> "_Numbers":
        if (known := self._numbers) is None:
            known = _numbers(numbers(self.offsets))
            if may_keep():
                self._numbers = known
        return known

    @property
    def sequences(self) -> int:
        """B."""
        return self.offsets.shape[0] - 1

    @property
    def bounds(self) -> NDArray[np.int64]:
        """The offsets as numbers ``[B + 1]``."""
        return self._read().bounds

    @property
    def steps(self) -> int:
        """N."""
        return self._read().steps

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The steps of each sequence as numbers ``[B]``."""
        return self._read().lengths

    @property
    def longest(self) -> int:
        """T, the steps of the longest sequence; 0 where there is none."""
        return self._read().longest

    @property
    def waste(self) -> float:
        """How many steps a padded batch has for each that exists; 1 where none exists."""
        known = self._read()
        return len(known.lengths) * known.longest / known.steps if known.steps else 1.0

    @property
    def some_empty(self) -> bool:
        """Whether a sequence has no steps."""
        return self._read().some_empty

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if (known := self._known.get(key)) is not None:
            return known
        if not torch.is_inference_mode_enabled():
            made = make()
        else:
            # What inference mode makes, autograd could not use later.
            with torch.inference_mode(False):
                made = make()
        if may_keep():
            self._known[key] = made
        return made

    def order(self, reverse: bool = False) -> StepOrder:
        """The order in which a recurrence visits the steps; reversed, each from its last step."""
        order: StepOrder = self._once(("order", reverse), lambda: self._order(reverse))
        return order

    def _order(self, reverse: bool) -> StepOrder:
        bounds, lengths, steps = self.bounds, self.lengths, np.arange(self.steps)
        sequences = (-lengths).argsort(kind="stable")
        starts = (bounds[1:] - 1 if reverse else bounds[:-1])[sequences]
        # bincount's running sum at t counts the sequences that have ended before step t.
        counts = len(lengths) - np.bincount(lengths).cumsum()[:-1]
        step = np.arange(len(counts)).repeat(counts)
        rank = steps - (counts.cumsum() - counts).repeat(counts)
        rows = starts[rank] - step if reverse else starts[rank] + step
        places, ranks = np.empty_like(rows), np.empty_like(sequences)
        places[rows] = steps
        ranks[sequences] = np.arange(len(sequences))
        return StepOrder(
            self._tensor(rows),
            self._tensor(places),
            counts.tolist(),
            torch.from_numpy(counts),
            self._tensor(sequences),
            self._tensor(ranks),
        )

    def padded_rows(
        self, reverse: bool = False, batch_first: bool = False, longest: int | None = None
    ) -> Tensor:
        """Where each step stands ``[N]`` in a padded tensor whose first two dimensions are flat.

        Args:
            reverse: each sequence's last step comes first.
            batch_first: ``[B, T]`` rather than ``[T, B]``.
            longest: T, if it is more than the longest sequence's steps.
        """
        T = self.longest if longest is None else longest
        rows: Tensor = self._once(
            ("padded", reverse, batch_first, T),
            lambda: self._tensor(self._padded_places(reverse, batch_first, T)),
        )
        return rows

    def _padded_places(self, reverse: bool, batch_first: bool, longest: int) -> NDArray[np.int64]:
        bounds, lengths = self.bounds, self.lengths
        if reverse:
            step = (bounds[1:] - 1).repeat(lengths) - np.arange(self.steps)
        else:
            step = np.arange(self.steps) - bounds[:-1].repeat(lengths)
        sequence = np.arange(self.sequences).repeat(lengths)
        return sequence * longest + step if batch_first else step * self.sequences + sequence

    def padded_sources(self, reverse: bool = False) -> Tensor:
        """The row of the values that stands at each place of a padded ``[T, B]``, flattened.

        In the padding N, a row that the values do not have. ``reverse`` as in ``padded_rows``.
        """
        sources: Tensor = self._once(("sources", reverse), lambda: self._padded_sources(reverse))
        return sources

    def _padded_sources(self, reverse: bool) -> Tensor:
        sources = np.full(self.longest * self.sequences, self.steps)
        places = self._padded_places(reverse, batch_first=False, longest=self.longest)
        sources[places] = np.arange(self.steps)
        return self._tensor(sources)

    def final_rows(self, reverse: bool = False) -> Tensor:
        """The row of each sequence's final step ``[B]``: its last, or reversed its first.

        An empty sequence, which has none, gets some row.
        """
        rows: Tensor = self._once(("final", reverse), lambda: self._final_rows(reverse))
        return rows

    def _final_rows(self, reverse: bool) -> Tensor:
        rows = self.bounds[:-1] if reverse else self.bounds[1:] - 1
        return self._tensor(rows.clip(0, max(self.steps - 1, 0)))

    def _tensor(self, index: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(index).to(self.offsets.device)


def check_offsets(offsets: Tensor, values: Tensor, *, look: bool = True) -> None:
    """Raise ValueError unless ``offsets`` cut ``values`` into sequences.

    They must be whole numbers ``[B + 1]`` on the device of ``values``, begin with 0, never fall
    and end with N, the number of rows of ``values``. Without ``look`` only shape, dtype and device
    are checked: a graph that is being compiled has no numbers yet.
    """
    if values.dim() == 0:
        raise ValueError("values is a number; it must be [N, ...], one row a step")
    if offsets.dim() != 1 or not offsets.shape[0]:
        raise ValueError(f"offsets must be [B + 1], got shape {list(offsets.shape)}")
    if offsets.dtype.is_floating_point or offsets.dtype.is_complex or offsets.dtype == torch.bool:
        raise ValueError(f"offsets must be whole numbers, got {offsets.dtype}")
    if offsets.device != values.device:
        raise ValueError(f"offsets are on {offsets.device}, values on {values.device}")
    if not look:
        return
    bounds = numbers(offsets)
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


def numbers(offsets: Tensor) -> NDArray[np.int64]:
    """A tensor of whole numbers as an array on the CPU."""
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
    dtype = lengths.dtype
    if lengths.numel() and (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool):
        raise ValueError(f"lengths must be whole numbers, got {dtype}")
    if tuple(lengths.shape) != (sequences,):
        raise ValueError(
            f"lengths must be one for each of the {sequences} sequences, "
            f"got shape {tuple(lengths.shape)}"
        )
    lengths = lengths.to(torch.int64)
    for bad, why in (
        (lengths < 0, "is negative"),
        (lengths > steps, f"is longer than the padded input ({steps} steps)"),
    ):
        if bad.any():
            b = int(bad.int().argmax())
            raise ValueError(f"lengths[{b}] = {int(lengths[b])} {why}")
    return lengths


def rows_of(starts: Tensor, lengths: Tensor, offsets: Tensor) -> Tensor:
    """Rows ``starts[b], starts[b] + 1, ...`` of each sequence, one sequence after the other."""
    N = int(offsets[-1])
    shift = (starts - offsets[:-1]).repeat_interleave(lengths, output_size=N)
    return torch.arange(N, device=offsets.device) + shift


def packed_rows(
    batch_sizes: Tensor, unsorted: Tensor | None, device: torch.device
) -> tuple[Tensor, Layout]:
    """Where each step of a ``PackedSequence``'s sequences stands in its data, and their layout.

    Args:
        batch_sizes: how many sequences have each step, on the CPU.
        unsorted: the caller's order of sequences, by their place in the packed order; None if
            that is the order.
        device: of the data.
    """
    counts = numbers(batch_sizes)
    # Where the count falls by k after step t, k sequences have t + 1 steps: shortest first.
    ended = -np.diff(counts, append=0)[::-1]
    lengths = np.arange(len(counts), 0, -1).repeat(ended)
    places = np.arange(len(lengths)) if unsorted is None else numbers(unsorted)
    starts = counts.cumsum() - counts
    lengths = lengths[places]
    bounds = np.concatenate([[0], lengths.cumsum()])
    step = np.arange(bounds[-1]) - bounds[:-1].repeat(lengths)
    rows = starts[step] + places.repeat(lengths)
    return torch.from_numpy(rows).to(device), Layout.of_numbers(bounds, device)
