"""The simple recurrent network on the compiled kernels."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.cpu.autograd import (
    OPAQUE,
    Again,
    Recurrence,
    beyond_kernels,
    computed_again,
    contiguous,
    for_each_bias,
    held,
    may_overwrite,
)
from peephole.ops.cpu.kernels import (
    Sizes,
    Zoneout,
    address,
    batch,
    call,
    input_addresses,
    own_address,
    zoneout_addresses,
)
from peephole.ops.untraced import untraced


class Call(NamedTuple):
    """What a call has besides the tensors that may have gradients.

    Attributes:
        layout: of the batch.
        nonlinearity: "tanh" or "relu".
        recurrent_mask: as in ``peephole.ops.rnn``, as ``zoneout_h`` and ``reverse``.
        zoneout_h: see there.
        reverse: see there.
        again: computes the same in plain PyTorch, for second derivatives.
    """

    layout: Layout
    nonlinearity: str
    recurrent_mask: Tensor | None
    zoneout_h: Zoneout
    reverse: bool
    again: Again

    def held(self) -> list[Tensor]:
        """Tensors that may not change before the backward pass."""
        return held(self.layout, self.recurrent_mask, self.zoneout_h)

    def model(self, sizes: Sizes, weight_hh: Tensor, h0: Tensor | None) -> tuple[Any, ...]:
        """What a kernel is told of the model."""
        B, _, H, dtype = sizes
        return (
            self.nonlinearity == "relu",
            address("weight_hh", weight_hh, (H, H), dtype),
            address("h0", h0, (B, H), dtype),
            address("recurrent_mask", self.recurrent_mask, (B, H), dtype),
            *zoneout_addresses("zoneout_h", self.zoneout_h, sizes),
        )


def rnn(
    c: Call,
    keep: bool,
    x: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hh: Tensor,
    h0: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The forward pass: y, h_n, and h before zoneout, None without it or unless it is to be kept.

    Without ``weight_ih`` x is ``gates_x``.
    """
    H = weight_hh.shape[1]
    sizes = Sizes(c.layout.sequences, x.shape[0], H, x.dtype)
    B, N, _, dtype = sizes
    y, h_n = x.new_empty(N, H), x.new_empty(B, H)
    new_h = x.new_empty(N, H) if keep and c.zoneout_h is not None else None
    offsets, told = batch(c.layout, sizes, c.reverse)
    call("rnn_forward", dtype)(
        *told,
        *c.model(sizes, weight_hh, h0),
        *input_addresses(x, weight_ih, bias_ih, bias_hh, sizes, H),
        y.data_ptr(),
        h_n.data_ptr(),
        own_address(new_h),
    )
    del offsets
    return y, h_n, new_h


class Rnn(Recurrence):
    """``rnn`` with derivatives."""

    @staticmethod
    def forward(ctx: Any, c: Call, *given: Any) -> tuple[Tensor, Tensor]:
        y, h_n, new_h = rnn(c, True, *given)
        ctx.c = c
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *c.held(), y, new_h)
        return y, h_n

    @staticmethod
    @untraced(OPAQUE)
    def backward(ctx: Any, d_y: Tensor | None, d_h_n: Tensor | None) -> tuple[Tensor | None, ...]:
        c: Call = ctx.c
        saved = ctx.saved_tensors
        given, (y, new_h) = saved[:6], saved[-2:]
        d = (d_y, d_h_n)
        if beyond_kernels(d):
            return None, *computed_again(c.again, given, d)
        x, weight_ih, _, _, weight_hh, h0 = given
        _, needs_x, needs_ih, *needs_biases, needs_hh, needs_h0 = ctx.needs_input_grad
        H = weight_hh.shape[1]
        sizes = Sizes(c.layout.sequences, x.shape[0], H, x.dtype)
        B, N, _, dtype = sizes
        d_y, d_h_n = map(contiguous, d)
        d_gates = new_h if new_h is not None and may_overwrite(ctx) else torch.empty_like(y)
        d_h0 = x.new_empty(B, H) if needs_h0 else None
        d_hh = torch.empty_like(weight_hh) if needs_hh else None
        d_ih = torch.empty_like(weight_ih) if needs_ih else None
        d_x = torch.empty_like(x) if needs_x and weight_ih is not None else None
        inputs = x.shape[1]
        d_bias = x.new_empty(H) if any(needs_biases) else None
        offsets, told = batch(c.layout, sizes, c.reverse)
        call("rnn_backward", dtype)(
            *told,
            *c.model(sizes, weight_hh, h0),
            address("y", y, (N, H), dtype),
            address("new_h", y if new_h is None else new_h, (N, H), dtype),
            address("d_y", d_y, (N, H), dtype),
            address("d_h_n", d_h_n, (B, H), dtype),
            own_address(d_gates),
            own_address(d_h0),
            own_address(d_bias),
            own_address(d_hh),
            address("x", x, (N, inputs), dtype),
            inputs,
            own_address(d_ih),
            address("weight_ih", weight_ih, (H, inputs), dtype),
            own_address(d_x),
        )
        del offsets
        if needs_x and weight_ih is None:
            d_x = d_gates
        d_biases = for_each_bias(d_bias, needs_biases)
        return None, d_x, d_ih, *d_biases, d_hh, d_h0
