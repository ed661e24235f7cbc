"""The GRU: its parameters, its layer and its cell."""

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from peephole.nn.cell import Cell
from peephole.nn.kind import Kind, KindOptions, Tensors
from peephole.nn.layer import Layer, LayerOptions
from peephole.nn.terms import input_term, total, without_input
from peephole.offsets import Layout
from peephole.ops import Found, reference


def gates_of_input(x: Tensor, tensors: Tensors) -> tuple[Tensor, Tensors]:
    """W_x x + b, all biases included but b_hn, which is all that is left of ``bias_hh``."""
    rest, H = dict(without_input(tensors)), tensors["weight_hh"].shape[1]
    bias = tensors.get("bias_ih")
    if (bias_hh := tensors.get("bias_hh")) is not None:
        bias_hh_rz, rest["bias_hh"] = torch.split_with_sizes(bias_hh, [2 * H, H])
        bias = total(bias, torch.cat([bias_hh_rz, bias_hh_rz.new_zeros(H)]))
    # Ba et al. 2016 normalize r and z together, n by itself.
    weight_ln_ih = tensors.get("weight_ln_ih")
    return input_term(x, tensors["weight_ih"], bias, weight_ln_ih, [2 * H, H]), rest


def gru(x: Tensor, layout: Layout, tensors: Tensors, options: Mapping[str, Any]) -> Found:
    """One direction in plain PyTorch: W_x x + b, then ``peephole.ops.gru``."""
    if "weight_ih" in tensors:
        x, tensors = gates_of_input(x, tensors)
    y, h_n, gates = reference.gru(
        x,
        layout,
        tensors["weight_hh"],
        bias_hn=tensors.get("bias_hh"),
        weight_ln_hh=tensors.get("weight_ln_hh"),
        h0=tensors["h0"],
        recurrent_mask=tensors.get("recurrent_mask"),
        zoneout_h=tensors.get("zoneout_h", options.get("zoneout_h")),
        reverse=options["reverse"],
        return_states=options["return_states"],
    )
    return Found(y, (h_n,), gates)


class GRUKind(Kind):
    name = "gru"
    gates = ("r", "z", "n")
    recurrence = staticmethod(gru)
    gates_of_input = staticmethod(gates_of_input)
    torch_name = "GRU"
    retention: Mapping[str, int] = {"z": 1}


class GRU(GRUKind, Layer):
    """Gated recurrent unit: ``torch.nn.GRU``, and what it lacks.

    The equations are in ``peephole/ops/reference/gru.py``. Arguments as ``torch.nn.GRU``'s up to
    ``dtype`` (``proj_size`` is refused, as there); ``hidden_size`` may be a sequence, a width for
    each layer. Then ``zoneout``, the share of the units that keep their old state in a step, and
    the options that are described, with inputs and outputs, in ``peephole.nn.Layer``. With
    ``single_bias`` the new gate's recurrent part has no bias of its own.

    Raises:
        ValueError: an option out of range, or two that contradict each other.
        TypeError: a size that is no whole number, or an unknown option.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | list[int] | tuple[int, ...],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        zoneout: float = 0.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            zoneout=zoneout,
            **options,
        )


class GRUCell(GRUKind, Cell):
    """One step of a GRU, as ``torch.nn.GRUCell``: ``cell(x, h) -> h``.

    Arguments as ``torch.nn.GRUCell``'s, then those of ``peephole.GRU``; see ``peephole.nn.Cell``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        zoneout: float = 0.0,
        **options: Unpack[KindOptions],
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype, zoneout=zoneout, **options)
