"""The LSTM, as in the paper."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.reference.scan import scan
from peephole.ops.reference.terms import hidden_term, zoneout


def lstm(
    gates_x: Tensor,
    layout: Layout,
    weight_hh: Tensor,
    *,
    weight_ch: Tensor | None,
    weight_hr: Tensor | None,
    weight_ln_hh: Tensor | None,
    weight_ln_c: Tensor | None,
    bias_ln_c: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    recurrent_mask: Tensor | None,
    zoneout_h: Tensor | float | None,
    zoneout_c: Tensor | float | None,
    cell_clip: float | None,
    coupled: bool,
    reverse: bool,
    return_states: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Equations 7 to 11 of Graves 2013, Generating sequences with recurrent neural networks.

    The input's part of each sum, W_x x(t) + b, is ``gates_x``. Peepholes are the terms in c:
    i and f look at c(t-1), o at c(t). The paper's matrices for them are diagonal; full ones and
    none are the same equations. Arguments as in ``peephole.ops.lstm``.
    """
    hidden = hidden_term(weight_hh, weight_ln_hh)
    look, (W_ci, W_cf, W_co) = _peepholes(weight_ch, coupled)
    squash = _squash(weight_ln_c, bias_ln_c)

    def step(
        x: Tensor,
        z_h: Tensor | float | None,
        z_c: Tensor | float | None,
        h: Tensor,
        c: Tensor,
        m: Tensor | None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
        a_i, *a_f, a_g, a_o = hidden(x, h, m).chunk(3 if coupled else 4, dim=1)
        i = torch.sigmoid(look(a_i, c, W_ci))  # (7)
        f = 1 - i if coupled else torch.sigmoid(look(a_f[0], c, W_cf))  # (8)
        g = torch.tanh(a_g)
        c_new = torch.addcmul(f * c, i, g)  # (9)
        if cell_clip is not None:
            c_new = c_new.clamp(-cell_clip, cell_clip)
        o = torch.sigmoid(look(a_o, c_new, W_co))  # (10)
        h_new = o * squash(c_new)  # (11)
        if weight_hr is not None:
            h_new = h_new @ weight_hr.t()
        h, c = zoneout(h, h_new, z_h), zoneout(c, c_new, z_c)
        if return_states:
            return (h, torch.cat((i, g, o) if coupled else (i, f, g, o), 1), c), (h, c)
        return (h,), (h, c)

    (y, *states), (h_n, c_n) = scan(
        step,
        (gates_x, zoneout_h, zoneout_c),
        layout,
        (h0, c0),
        constants=(recurrent_mask,),
        reverse=reverse,
    )
    return y, (h_n, c_n), (states[0], states[1]) if return_states else None


def _peepholes(
    weight_ch: Tensor | None, coupled: bool
) -> tuple[Callable[..., Tensor], Sequence[Tensor | None]]:
    """How a gate's sum takes in the cell, a + W_c c, and W_c for i, f and o."""
    if weight_ch is None:
        return (lambda a, c, none: a), (None, None, None)
    gates = 2 if coupled else 3
    if weight_ch.shape[0] == gates:
        W_ci, *W_cf, W_co = weight_ch.unbind()
        return torch.addcmul, (W_ci, W_cf[0] if W_cf else None, W_co)
    W_ci, *W_cf, W_co = weight_ch.t().chunk(gates, dim=1)
    return torch.addmm, (W_ci, W_cf[0] if W_cf else None, W_co)


def _squash(weight: Tensor | None, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """tanh(c), or tanh(LN(c)): Ba et al. 2016, equation 22."""
    if weight is None:
        return torch.tanh
    return lambda c: torch.tanh(F.layer_norm(c, weight.shape, weight, bias))
