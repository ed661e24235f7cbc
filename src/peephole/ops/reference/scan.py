"""One loop over the steps of a ragged batch, for every recurrence."""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from peephole.offsets import Layout

State = tuple[Tensor, ...]
# A stream has a row for each step, or is one number (or nothing) for all of them.
Stream = Tensor | float | None


def scan(
    step: Callable[..., tuple[State, State]],
    streams: Sequence[Stream],
    layout: Layout,
    state: State,
    *,
    constants: Sequence[Tensor | None] = (),
    reverse: bool = False,
) -> tuple[State, State]:
    """Carry a state through every sequence at once.

    Step t takes only the sequences that have a step t: they are ordered longest first, and one
    that ends drops off the end of the state.

    Args:
        step: ``(*streams [n, ...], *state [n, ...], *constants [n, ...]) -> (outputs, state)``,
            for n sequences.
        streams: ``[N, ...]`` each, in the order of the ragged batch's values; the first is a
            tensor.
        layout: of the batch.
        state: the initial state, tensors ``[B, ...]``.
        constants: what a sequence keeps over its steps, ``[B, ...]`` each.
        reverse: run each sequence from its own last step to its first.

    Returns:
        The outputs at each step ``[N, ...]``, in the order of the streams, and each sequence's
        state after its last visited step: its initial state where the sequence is empty.
    """
    order = layout.order(reverse)
    state = tuple(s.index_select(0, order.sequences) for s in state)
    kept = [c if c is None else c.index_select(0, order.sequences) for c in constants]
    # A batch without a step takes one of no rows, so that its results have gradients: zeros.
    counts = order.counts or [0]
    alive = layout.sequences
    outputs: list[State] = []
    ended: list[State] = []
    for count, *inputs in zip(counts, *_by_step(streams, order.rows, counts), strict=False):
        if count < alive:
            state, gone = _cut(state, count)
            kept = [c if c is None else c[:count] for c in kept]
            ended.append(gone)
            alive = count
        output, state = step(*inputs, *state, *kept)
        outputs.append(output)
    ended.append(state)
    # The sequences that ended last are the longest, which come first.
    final = (_joined(parts) for parts in zip(*reversed(ended), strict=True))
    return (
        tuple(torch.cat(o).index_select(0, order.places) for o in zip(*outputs, strict=True)),
        tuple(whole.index_select(0, order.ranks) for whole in final),
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """In the dtype of the first: under autocast a cell's states may have another than its first."""
    dtype = parts[0].dtype
    return torch.cat([part if part.dtype == dtype else part.to(dtype) for part in parts])


def _by_step(streams: Sequence[Stream], rows: Tensor, counts: list[int]) -> Iterable[Iterable[Any]]:
    for stream in streams:
        if isinstance(stream, Tensor):
            # What torch.split is in the end; its Python costs more than all of it.
            yield torch.split_with_sizes(stream.index_select(0, rows), counts)
        else:
            yield repeat(stream)


def _cut(state: State, count: int) -> tuple[State, State]:
    pieces = [torch.split_with_sizes(s, [count, s.shape[0] - count]) for s in state]
    return tuple(kept for kept, _ in pieces), tuple(gone for _, gone in pieces)
