"""The GRU, as in torch.nn and cuDNN."""

import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.reference.scan import scan
from peephole.ops.reference.terms import hidden_term, zoneout


def gru(
    gates_x: Tensor,
    layout: Layout,
    weight_hh: Tensor,
    *,
    bias_hn: Tensor | None,
    weight_ln_hh: Tensor | None,
    h0: Tensor,
    recurrent_mask: Tensor | None,
    zoneout_h: Tensor | float | None,
    reverse: bool,
    return_states: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cho et al. 2014, with the reset gate applied after the product, as in ``torch.nn.GRU``.

    The input's part of each sum, W_x x(t) + b, is ``gates_x``; b_hn stands inside the reset.
    Arguments as in ``peephole.ops.gru``.
    """
    sizes = [2 * h0.shape[1], h0.shape[1]]
    # Ba et al. 2016 normalize r and z together, n by itself.
    ln_rz, ln_n = (None, None) if weight_ln_hh is None else torch.split(weight_ln_hh, sizes)
    W_rz, W_n = torch.split(weight_hh, sizes)
    hidden_rz, hidden_n = hidden_term(W_rz, ln_rz), hidden_term(W_n, ln_n)
    b_hn = gates_x.new_zeros(()) if bias_hn is None else bias_hn

    def step(
        x_rz: Tensor, x_n: Tensor, z_h: Tensor | float | None, h: Tensor, m: Tensor | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor]]:
        r, z = torch.sigmoid(hidden_rz(x_rz, h, m)).chunk(2, dim=1)
        n = torch.tanh(torch.addcmul(x_n, r, hidden_n(b_hn, h, m)))
        h_new = torch.lerp(n, h, z)  # (1 - z) n + z h
        h = zoneout(h, h_new, z_h)
        return ((h, torch.cat((r, z, n), 1)) if return_states else (h,)), (h,)

    (y, *gates), (h_n,) = scan(
        step,
        (*torch.split(gates_x, sizes, dim=1), zoneout_h),
        layout,
        (h0,),
        constants=(recurrent_mask,),
        reverse=reverse,
    )
    return y, h_n, gates[0] if return_states else None
