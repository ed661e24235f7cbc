"""The simple recurrent network of Elman 1990."""

import torch
from torch import Tensor

from peephole.ops.reference.scan import scan


def rnn(
    gates_x: Tensor,
    offsets: Tensor,
    weight_hh: Tensor,
    *,
    nonlinearity: str,
    h0: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """h(t) = phi(W_x x(t) + b + W_h h(t-1)), phi one of tanh and relu.

    The input's part, W_x x(t) + b, is ``gates_x``. Arguments as in ``peephole.ops.rnn``.
    """
    W_h = weight_hh.t()
    phi = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]

    def step(x: Tensor, h: Tensor) -> tuple[Tensor]:
        return (phi(torch.addmm(x, h, W_h)),)

    y, (h_n,) = scan(step, gates_x, offsets, (h0,), reverse)
    return y, h_n
