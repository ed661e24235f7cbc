"""One step of a cell for a few sequences, as a model takes them that answers while it listens."""

import torch
from torch import Tensor

from peephole.ops.cpu.extension import CALLS

# Of more sequences torch's operators make one matrix product, which is faster.
SEQUENCES = 4
_CELLS = {"lstm": 0, "gru": 1, "rnn": 2}


def step(
    kind: str,
    nonlinearity: str | None,
    x: Tensor,
    state: tuple[Tensor, ...],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
) -> tuple[Tensor, ...] | None:
    """The new state, without derivatives, by the equations of ``torch.nn``'s cells.

    Args:
        kind: "lstm", "gru" or "rnn".
        nonlinearity: of the last one, "tanh" or "relu".
        x: ``[B, I]``.
        state: h ``[B, H]``, and for the LSTM c ``[B, H]``.
        weight_ih: ``[G * H, I]``.
        weight_hh: ``[G * H, H]``.
        bias_ih: ``[G * H]``, or None.
        bias_hh: ``[G * H]``, or None.

    Returns:
        None where torch's operators serve as well or better, or where they must: derivatives are
        asked for, or something is no plain tensor without gaps.
    """
    calls = CALLS.get(x.dtype)
    if calls is None or x.shape[0] > SEQUENCES or torch._C._len_torch_dispatch_stack():
        return None
    h, c = state if len(state) > 1 else (state[0], None)
    if torch.is_grad_enabled():
        for tensor in (weight_ih, weight_hh, bias_ih, bias_hh, x, h, c):
            if tensor is not None and tensor.requires_grad:
                return None
    new_h = torch.empty_like(h)
    new_c = None if c is None else torch.empty_like(c)
    cell = _CELLS[kind] + (nonlinearity == "relu")
    if not calls.step(cell, x.dtype, x, weight_ih, weight_hh, bias_ih, bias_hh, h, c, new_h, new_c):
        return None
    return (new_h,) if new_c is None else (new_h, new_c)
