"""The simple recurrent network of Elman 1990."""

import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.reference.scan import scan
from peephole.ops.reference.terms import hidden_term, zoneout


def rnn(
    gates_x: Tensor,
    layout: Layout,
    weight_hh: Tensor,
    *,
    nonlinearity: str,
    weight_ln_hh: Tensor | None,
    h0: Tensor,
    recurrent_mask: Tensor | None,
    zoneout_h: Tensor | float | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """h(t) = phi(W_x x(t) + b + W_h h(t-1)), phi one of tanh and relu.

    The input's part, W_x x(t) + b, is ``gates_x``. Arguments as in ``peephole.ops.rnn``.
    """
    hidden = hidden_term(weight_hh, weight_ln_hh)
    phi = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]

    def step(
        x: Tensor, z_h: Tensor | float | None, h: Tensor, m: Tensor | None
    ) -> tuple[tuple[Tensor], tuple[Tensor]]:
        h = zoneout(h, phi(hidden(x, h, m)), z_h)
        return (h,), (h,)

    (y,), (h_n,) = scan(
        step, (gates_x, zoneout_h), layout, (h0,), constants=(recurrent_mask,), reverse=reverse
    )
    return y, h_n
