"""The LSTM, as in the paper."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from peephole.ops.reference.scan import scan


def lstm(
    gates_x: Tensor,
    offsets: Tensor,
    weight_hh: Tensor,
    *,
    weight_ch: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Equations 7 to 11 of Graves 2013, Generating sequences with recurrent neural networks.

    The input's part of each sum, W_x x(t) + b, is ``gates_x``. Peepholes are the terms in c:
    i and f look at c(t-1), o at c(t). The paper's matrices for them are diagonal; full ones and
    none are the same equations. Arguments as in ``peephole.ops.lstm``.
    """
    W_h = weight_hh.t()
    look, (W_ci, W_cf, W_co) = _peepholes(weight_ch)

    def step(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        a_i, a_f, a_g, a_o = torch.addmm(x, h, W_h).chunk(4, dim=1)
        i = torch.sigmoid(look(a_i, c, W_ci))  # (7)
        f = torch.sigmoid(look(a_f, c, W_cf))  # (8)
        c = f * c + i * torch.tanh(a_g)  # (9)
        o = torch.sigmoid(look(a_o, c, W_co))  # (10)
        h = o * torch.tanh(c)  # (11)
        return h, c

    y, (h_n, c_n) = scan(step, gates_x, offsets, (h0, c0), reverse)
    return y, (h_n, c_n)


def _peepholes(
    weight_ch: Tensor | None,
) -> tuple[Callable[..., Tensor], Sequence[Tensor | None]]:
    """How a gate's sum takes in the cell, a + W_c c, and W_c for i, f and o."""
    if weight_ch is None:
        return (lambda a, c, none: a), (None, None, None)
    if weight_ch.shape[0] == 3:
        return torch.addcmul, weight_ch.unbind()
    return torch.addmm, weight_ch.t().chunk(3, dim=1)
