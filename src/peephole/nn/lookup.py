"""Inputs that are ids, each of which stands for a row of an embedding."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from peephole.nn.checks import check_like
from peephole.nn.forms import Batch
from peephole.nn.kind import Kind
from peephole.ops import cpu_cannot, in_transform, is_training
from peephole.ragged import Ragged

# When to fold: with so many times fewer rows than steps, and rows so wide that a row's product
# takes longer than to write it down and to read it again for each step. Three products are saved in
# training, one otherwise. Measured: docs/log.md.
FEWER = 2
WIDE = 128
WIDE_WITHOUT_GRADIENT = 256

# Of a direction: the input's part of its gates [N, G * H], and the tensors that are left.
Folded = tuple[Tensor, dict[str, Tensor]]


def columns(input: Any) -> Any:
    """Ids as a batch with one number a step, in the same form; anything else as it is.

    Raises:
        ValueError: dimensions besides those of a batch.
    """
    if isinstance(input, Ragged):
        _check_dimensions(input.values, (1,), "a Ragged's values must be [N]")
        return input.with_values(input.values.unsqueeze(-1))
    if isinstance(input, PackedSequence):
        _check_dimensions(input.data, (1,), "a PackedSequence's data must be [N]")
        return input._replace(data=input.data.unsqueeze(-1))
    if isinstance(input, Tensor):
        _check_dimensions(input, (1, 2), "a tensor must be [T], [T, B] or [B, T]")
        return input.unsqueeze(-1)
    return input


def _check_dimensions(ids: Tensor, allowed: tuple[int, ...], what: str) -> None:
    if ids.dim() not in allowed:
        raise ValueError(
            f"with an embedding the input holds ids, and {what}; got {ids.dim()} dimensions"
        )


def ids_of(batch: Batch) -> Tensor:
    """The ids ``[N]`` of a batch of ``columns``; 0 for steps that do not exist."""
    ids = batch.values.squeeze(-1)
    if batch.lengths is None:
        return ids
    by_sequence = ids.view(batch.layout.sequences, -1)
    steps = torch.arange(by_sequence.shape[1], device=ids.device)
    return by_sequence.masked_fill(steps >= batch.lengths[:, None], 0).flatten()


def check(ids: Tensor, embedding: Tensor, input_size: int, weight: Tensor) -> None:
    """Raise unless these go with each other, and with the layer that has this weight.

    Args:
        ids: ``[N]``.
        embedding: ``[A, I]``.
        input_size: I.
        weight: of the layer.

    Raises:
        TypeError: ``embedding`` is no tensor.
        ValueError: shape, dtype or device.
    """
    if not isinstance(embedding, Tensor):
        raise TypeError(
            f"the embedding must be a tensor [A, {input_size}], got {type(embedding).__name__}; "
            "of an nn.Embedding give its weight"
        )
    if embedding.dim() != 2 or embedding.shape[1] != input_size:
        raise ValueError(
            f"the embedding must be [A, {input_size}] for input_size={input_size}, got "
            f"{list(embedding.shape)}"
        )
    check_like("the embedding", embedding, weight)
    if ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"with an embedding the input holds ids, int64 or int32, and not {ids.dtype}"
        )
    if ids.device != weight.device:
        raise ValueError(f"the input has device {ids.device}, but the layer has {weight.device}")


def look_up(
    kind: Kind,
    ids: Tensor,
    embedding: Tensor,
    weights: Sequence[dict[str, Tensor]],
    *,
    may_fold: bool,
) -> tuple[Tensor, list[Folded]]:
    """The input that ids stand for.

    Where the product of an embedding's rows costs much less than that of all steps, the directions
    that read the input get the input's part of their gates instead: on the compiled kernels, which
    otherwise make that product on the way.

    Args:
        kind: of the recurrence.
        ids: ``[N]``.
        embedding: ``[A, I]``.
        weights: of those directions.
        may_fold: whether the layer has no other use for the input.

    Returns:
        A row for each step ``[N, ...]``: the input ``[N, I]``, or for the first direction its
        gates' part; and for each direction what it is given instead, none where that is nothing.

    Raises:
        ValueError: an id without a row.
    """
    # Where nothing watches or transforms what is computed.
    plain = not (
        torch.compiler.is_compiling() or in_transform() or torch._C._len_torch_dispatch_stack()
    )
    if plain and ids.is_cpu:
        _check_range(ids, len(embedding))
    gates_of_input = kind.gates_of_input
    if (
        not (plain and may_fold)
        or gates_of_input is None
        or len(ids) < FEWER * len(embedding)
        or embedding.shape[1] < (WIDE if is_training(embedding, weights) else WIDE_WITHOUT_GRADIENT)
        or cpu_cannot(kind.name, embedding, weights[0]) is not None
    ):
        return F.embedding(ids, embedding), []
    folded = []
    for own in weights:
        gates, rest = gates_of_input(embedding, own)
        folded.append((gates.index_select(0, ids), dict(rest)))
    return folded[0][0], folded


def _check_range(ids: Tensor, rows: int) -> None:
    if not len(ids):
        return
    low, high = (int(bound) for bound in torch.aminmax(ids))
    if low < 0 or high >= rows:
        raise ValueError(
            f"the input holds the id {low if low < 0 else high}; the embedding has {rows} rows, "
            f"so that ids are from 0 to {rows - 1}"
        )
