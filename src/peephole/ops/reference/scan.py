"""One loop over the steps of a ragged batch, for every recurrence."""

from collections.abc import Callable

import torch
from torch import Tensor

from peephole.offsets import step_order

State = tuple[Tensor, ...]


def scan(
    step: Callable[..., State], inputs: Tensor, offsets: Tensor, state: State, reverse: bool
) -> tuple[Tensor, State]:
    """Carry a state through every sequence at once.

    Step t takes only the sequences that have a step t: they are ordered longest first, and one
    that ends drops off the end of the state.

    Args:
        step: ``(inputs [n, ...], *state [n, ...]) -> state``, for n sequences.
        inputs: ``[N, ...]``, in the order of the ragged batch's values.
        offsets: ``[B + 1]``.
        state: the initial state, tensors ``[B, ...]``. Its first one is also the output.
        reverse: run each sequence from its own last step to its first.

    Returns:
        The output at each step ``[N, ...]``, in the order of ``inputs``, and each sequence's
        state after its last visited step: its initial state where the sequence is empty.
    """
    order = step_order(offsets, reverse)
    state = tuple(s.index_select(0, order.sequences) for s in state)
    outputs: list[Tensor] = []
    ended: list[State] = []
    alive = offsets.shape[0] - 1
    # A batch without a step takes one of no rows, so that its results have gradients: zeros.
    for x in torch.split(inputs.index_select(0, order.rows), order.counts or [0]):
        count = x.shape[0]
        if count < alive:
            state, gone = _cut(state, count)
            ended.append(gone)
            alive = count
        state = step(x, *state)
        outputs.append(state[0])
    ended.append(state)
    # The sequences that ended last are the longest, which come first.
    final = zip(*reversed(ended), strict=True)
    y = torch.cat(outputs).index_select(0, order.places)
    return y, tuple(torch.cat(parts).index_select(0, order.ranks) for parts in final)


def _cut(state: State, count: int) -> tuple[State, State]:
    pieces = [torch.split(s, [count, s.shape[0] - count]) for s in state]
    return tuple(kept for kept, _ in pieces), tuple(gone for _, gone in pieces)
