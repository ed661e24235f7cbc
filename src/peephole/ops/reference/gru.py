"""The GRU, as in torch.nn and cuDNN."""

import torch
from torch import Tensor

from peephole.ops.reference.scan import scan


def gru(
    gates_x: Tensor,
    offsets: Tensor,
    weight_hh: Tensor,
    *,
    bias_hn: Tensor | None,
    h0: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Cho et al. 2014, with the reset gate applied after the product, as in ``torch.nn.GRU``.

    The input's part of each sum, W_x x(t) + b, is ``gates_x``; b_hn stands inside the reset.
    Arguments as in ``peephole.ops.gru``.
    """
    W_rz, W_n = torch.split(weight_hh.t(), [2 * h0.shape[1], h0.shape[1]], dim=1)

    def step(x: Tensor, h: Tensor) -> tuple[Tensor]:
        x_rz, x_n = torch.split(x, [W_rz.shape[1], W_n.shape[1]], dim=1)
        r, z = torch.sigmoid(torch.addmm(x_rz, h, W_rz)).chunk(2, dim=1)
        h_n = h @ W_n if bias_hn is None else torch.addmm(bias_hn, h, W_n)
        n = torch.tanh(x_n + r * h_n)
        h = (1 - z) * n + z * h
        return (h,)

    y, (h_n,) = scan(step, gates_x, offsets, (h0,), reverse)
    return y, h_n
