"""The LSTM on the compiled kernels."""

import math
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
    PEEPHOLES,
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
        peephole: None, "diagonal" or "full".
        coupled: whether f = 1 - i.
        cell_clip: as in ``peephole.ops.lstm``, as all up to ``return_states``.
        recurrent_mask: see there.
        zoneout_h: see there.
        zoneout_c: see there.
        reverse: see there.
        return_states: see there.
        again: computes the same in plain PyTorch, for second derivatives.
    """

    layout: Layout
    peephole: str | None
    coupled: bool
    cell_clip: float | None
    recurrent_mask: Tensor | None
    zoneout_h: Zoneout
    zoneout_c: Zoneout
    reverse: bool
    return_states: bool
    again: Again

    @property
    def gates(self) -> int:
        return 3 if self.coupled else 4

    def held(self) -> list[Tensor]:
        """Tensors that may not change before the backward pass."""
        return held(self.layout, self.recurrent_mask, self.zoneout_h, self.zoneout_c)

    def peepholes(self, hidden: int) -> tuple[int, int]:
        """The shape of ``weight_ch``."""
        looking = self.gates - 1
        return (looking if self.peephole == "diagonal" else looking * hidden, hidden)

    def model(
        self,
        sizes: Sizes,
        weight_hh: Tensor,
        weight_ch: Tensor | None,
        h0: Tensor | None,
        c0: Tensor | None,
    ) -> tuple[Any, ...]:
        """What a kernel is told of the model."""
        B, _, H, dtype = sizes
        return (
            self.coupled,
            PEEPHOLES[self.peephole],
            math.inf if self.cell_clip is None else self.cell_clip,
            address("weight_hh", weight_hh, (self.gates * H, H), dtype),
            address("weight_ch", weight_ch, self.peepholes(H), dtype),
            address("h0", h0, (B, H), dtype),
            address("c0", c0, (B, H), dtype),
            address("recurrent_mask", self.recurrent_mask, (B, H), dtype),
            *zoneout_addresses("zoneout_h", self.zoneout_h, sizes),
            *zoneout_addresses("zoneout_c", self.zoneout_c, sizes),
        )


# y, h_n, c_n, gates, cells.
Results = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def lstm(
    c: Call,
    keep: bool,
    x: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    bias_ch: Tensor | None,
    weight_hh: Tensor,
    weight_ch: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
) -> Results:
    """The forward pass; without ``weight_ih`` x is ``gates_x``.

    Gates and cells are None unless they are to be kept.
    """
    H = weight_hh.shape[1]
    sizes = Sizes(c.layout.sequences, x.shape[0], H, x.dtype)
    B, N, _, dtype = sizes
    width = c.gates * H
    gates = cells = None
    if keep:
        gates, cells = x.new_empty(N, width), x.new_empty(N, H)
    y, h_n, c_n = x.new_empty(N, H), x.new_empty(B, H), x.new_empty(B, H)
    offsets, told = batch(c.layout, sizes, c.reverse)
    call("lstm_forward", dtype)(
        *told,
        *c.model(sizes, weight_hh, weight_ch, h0, c0),
        address("bias_ch", bias_ch, (width - H,), dtype),
        *input_addresses(x, weight_ih, bias_ih, bias_hh, sizes, width),
        y.data_ptr(),
        h_n.data_ptr(),
        c_n.data_ptr(),
        own_address(gates),
        own_address(cells),
    )
    del offsets
    return y, h_n, c_n, gates, cells


class Lstm(Recurrence):
    """``lstm`` with derivatives; gates and cells are given out only where they are asked for."""

    @staticmethod
    def forward(ctx: Any, c: Call, *given: Any) -> tuple[Tensor | None, ...]:
        y, h_n, c_n, gates, cells = lstm(c, True, *given)
        ctx.c = c
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *c.held(), y, gates, cells)
        return y, h_n, c_n, *((gates, cells) if c.return_states else (None, None))

    @staticmethod
    @untraced(OPAQUE)
    def backward(
        ctx: Any,
        d_y: Tensor | None,
        d_h_n: Tensor | None,
        d_c_n: Tensor | None,
        upstream_gates: Tensor | None,
        upstream_cells: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        c: Call = ctx.c
        saved = ctx.saved_tensors
        given, (y, gates, cells) = saved[:9], saved[-3:]
        d = (d_y, d_h_n, d_c_n, upstream_gates, upstream_cells)
        if beyond_kernels(d):
            return None, *computed_again(c.again, given, d)
        x, weight_ih, _, _, _, weight_hh, weight_ch, h0, c0 = given
        _, needs_x, needs_ih, *biases, needs_hh, needs_ch, needs_h0, needs_c0 = ctx.needs_input_grad
        *needs_biases, needs_bias_ch = biases
        H, G = weight_hh.shape[1], c.gates
        sizes = Sizes(c.layout.sequences, x.shape[0], H, x.dtype)
        B, N, _, dtype = sizes
        d_y, d_h_n, d_c_n, upstream_gates, upstream_cells = map(contiguous, d)
        overwrite = not c.return_states and may_overwrite(ctx)
        d_gates = gates if overwrite else torch.empty_like(gates)
        d_h0 = x.new_empty(B, H) if needs_h0 else None
        d_c0 = x.new_empty(B, H) if needs_c0 else None
        d_bias = x.new_empty(G * H) if any(biases) else None
        d_hh = torch.empty_like(weight_hh) if needs_hh else None
        d_ch = torch.empty_like(weight_ch) if needs_ch else None
        d_ih = torch.empty_like(weight_ih) if needs_ih else None
        d_x = torch.empty_like(x) if needs_x and weight_ih is not None else None
        # What o looks at is the new cell, before zoneout.
        separate = needs_ch and c.peephole == "full" and c.zoneout_c is not None
        new_cells = x.new_empty(N, H) if separate else None
        offsets, told = batch(c.layout, sizes, c.reverse)
        shape, inputs = (N, G * H), x.shape[1]
        call("lstm_backward", dtype)(
            *told,
            *c.model(sizes, weight_hh, weight_ch, h0, c0),
            address("y", y, (N, H), dtype),
            address("gates", gates, shape, dtype),
            address("cells", cells, (N, H), dtype),
            address("d_y", d_y, (N, H), dtype),
            address("d_h_n", d_h_n, (B, H), dtype),
            address("d_c_n", d_c_n, (B, H), dtype),
            address("upstream_gates", upstream_gates, shape, dtype),
            address("upstream_cells", upstream_cells, (N, H), dtype),
            own_address(d_gates),
            own_address(d_h0),
            own_address(d_c0),
            own_address(d_bias),
            own_address(d_hh),
            own_address(d_ch),
            own_address(new_cells),
            address("x", x, (N, inputs), dtype),
            inputs,
            own_address(d_ih),
            address("weight_ih", weight_ih, (G * H, inputs), dtype),
            own_address(d_x),
        )
        del offsets
        if needs_x and weight_ih is None:
            d_x = d_gates
        d_biases = for_each_bias(d_bias, needs_biases)
        d_bias_ch = None
        if needs_bias_ch and d_bias is not None:
            # All gates but g, which is before o, have peepholes.
            d_bias_ch = torch.cat([d_bias[: -2 * H], d_bias[-H:]])
        return None, d_x, d_ih, *d_biases, d_bias_ch, d_hh, d_ch, d_h0, d_c0
