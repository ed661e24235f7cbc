"""The GRU on the compiled kernels."""

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
        recurrent_mask: as in ``peephole.ops.gru``, as all up to ``return_states``.
        zoneout_h: see there.
        reverse: see there.
        return_states: see there.
        again: computes the same in plain PyTorch, for second derivatives.
    """

    layout: Layout
    recurrent_mask: Tensor | None
    zoneout_h: Zoneout
    reverse: bool
    return_states: bool
    again: Again

    def held(self) -> list[Tensor]:
        """Tensors that may not change before the backward pass."""
        return held(self.layout, self.recurrent_mask, self.zoneout_h)

    def model(
        self, sizes: Sizes, weight_hh: Tensor, bias_hn: Tensor | None, h0: Tensor | None
    ) -> tuple[Any, ...]:
        """What a kernel is told of the model."""
        B, _, H, dtype = sizes
        return (
            address("weight_hh", weight_hh, (3 * H, H), dtype),
            address("bias_hn", bias_hn, (H,), dtype),
            address("h0", h0, (B, H), dtype),
            address("recurrent_mask", self.recurrent_mask, (B, H), dtype),
            *zoneout_addresses("zoneout_h", self.zoneout_h, sizes),
        )


# y, h_n, gates, and what stands inside the reset: W_hn h + b_hn.
Results = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def gru(
    c: Call,
    keep: bool,
    x: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hh: Tensor,
    h0: Tensor | None,
) -> Results:
    """The forward pass; without ``weight_ih`` x is ``gates_x``, and ``bias_hh`` is ``bias_hn``.

    The gates and what stands inside the reset are None unless they are to be kept.
    """
    H = weight_hh.shape[1]
    sizes = Sizes(c.layout.sequences, x.shape[0], H, x.dtype)
    B, N, _, dtype = sizes
    bias_hn = None if bias_hh is None else bias_hh[-H:]
    gates = n_h = None
    if keep:
        gates, n_h = x.new_empty(N, 3 * H), x.new_empty(N, H)
    y, h_n = x.new_empty(N, H), x.new_empty(B, H)
    offsets, told = batch(c.layout, sizes, c.reverse)
    call("gru_forward", dtype)(
        *told,
        *c.model(sizes, weight_hh, bias_hn, h0),
        *input_addresses(x, weight_ih, bias_ih, bias_hh, sizes, 3 * H),
        y.data_ptr(),
        h_n.data_ptr(),
        own_address(gates),
        own_address(n_h),
    )
    del offsets
    return y, h_n, gates, n_h


class Gru(Recurrence):
    """``gru`` with derivatives; gates are given out only where they are asked for."""

    @staticmethod
    def forward(ctx: Any, c: Call, *given: Any) -> tuple[Tensor | None, ...]:
        y, h_n, gates, n_h = gru(c, True, *given)
        ctx.c = c
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *c.held(), y, gates, n_h)
        return y, h_n, gates if c.return_states else None

    @staticmethod
    @untraced(OPAQUE)
    def backward(
        ctx: Any, d_y: Tensor | None, d_h_n: Tensor | None, upstream_gates: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        c: Call = ctx.c
        saved = ctx.saved_tensors
        given, (y, gates, n_h) = saved[:6], saved[-3:]
        d = (d_y, d_h_n, upstream_gates)
        if beyond_kernels(d):
            return None, *computed_again(c.again, given, d)
        x, weight_ih, _, bias_hh, weight_hh, h0 = given
        _, needs_x, needs_ih, needs_bias_ih, needs_bias_hh, needs_hh, needs_h0 = (
            ctx.needs_input_grad
        )
        H = weight_hh.shape[1]
        sizes = Sizes(c.layout.sequences, x.shape[0], H, x.dtype)
        B, N, _, dtype = sizes
        bias_hn = None if bias_hh is None else bias_hh[-H:]
        d_y, d_h_n, upstream_gates = map(contiguous, d)
        overwrite = may_overwrite(ctx)
        d_gates = gates if overwrite and not c.return_states else torch.empty_like(gates)
        d_n_h = n_h if overwrite else torch.empty_like(n_h)
        d_h0 = x.new_empty(B, H) if needs_h0 else None
        d_hh = torch.empty_like(weight_hh) if needs_hh else None
        d_ih = torch.empty_like(weight_ih) if needs_ih else None
        d_x = torch.empty_like(x) if needs_x and weight_ih is not None else None
        inputs = x.shape[1]
        # Of r, z and n, then of what stands inside the reset.
        d_biases = x.new_empty(4 * H) if needs_bias_ih or needs_bias_hh else None
        d_bias = None if d_biases is None else d_biases[: 3 * H]
        d_bias_hn = None if d_biases is None else d_biases[3 * H :]
        offsets, told = batch(c.layout, sizes, c.reverse)
        call("gru_backward", dtype)(
            *told,
            *c.model(sizes, weight_hh, bias_hn, h0),
            address("y", y, (N, H), dtype),
            address("gates", gates, (N, 3 * H), dtype),
            address("n_h", n_h, (N, H), dtype),
            address("d_y", d_y, (N, H), dtype),
            address("d_h_n", d_h_n, (B, H), dtype),
            address("upstream_gates", upstream_gates, (N, 3 * H), dtype),
            own_address(d_gates),
            own_address(d_n_h),
            own_address(d_h0),
            own_address(d_bias),
            own_address(d_bias_hn),
            own_address(d_hh),
            address("x", x, (N, inputs), dtype),
            inputs,
            own_address(d_ih),
            address("weight_ih", weight_ih, (3 * H, inputs), dtype),
            own_address(d_x),
        )
        del offsets
        if needs_x and weight_ih is None:
            d_x = d_gates
        d_bias_hh = d_bias_hn
        if weight_ih is not None and d_biases is not None and needs_bias_hh:
            d_bias_hh = torch.cat([d_biases[: 2 * H], d_biases[3 * H :]])
        return (
            None,
            d_x,
            d_ih,
            d_bias if needs_bias_ih else None,
            d_bias_hh if needs_bias_hh else None,
            d_hh,
            d_h0,
        )
