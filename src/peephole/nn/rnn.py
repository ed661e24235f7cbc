"""The simple recurrent network: its parameters, its layer and its cell."""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from peephole.nn.cell import Cell
from peephole.nn.kind import Kind, KindOptions, Tensors
from peephole.nn.layer import Layer, LayerOptions
from peephole.nn.terms import input_term, total, without_input
from peephole.offsets import Layout
from peephole.ops import Found, reference


def gates_of_input(x: Tensor, tensors: Tensors) -> tuple[Tensor, Tensors]:
    """W_x x + b, both biases included."""
    weight_ih, weight_ln_ih = tensors["weight_ih"], tensors.get("weight_ln_ih")
    bias = total(tensors.get("bias_ih"), tensors.get("bias_hh"))
    gates_x = input_term(x, weight_ih, bias, weight_ln_ih, [weight_ih.shape[0]])
    return gates_x, without_input(tensors, "bias_hh")


def rnn(x: Tensor, layout: Layout, tensors: Tensors, options: Mapping[str, Any]) -> Found:
    """One direction in plain PyTorch: W_x x + b, then ``peephole.ops.rnn``."""
    if "weight_ih" in tensors:
        x, tensors = gates_of_input(x, tensors)
    y, h_n = reference.rnn(
        x,
        layout,
        tensors["weight_hh"],
        nonlinearity=options["nonlinearity"],
        weight_ln_hh=tensors.get("weight_ln_hh"),
        h0=tensors["h0"],
        recurrent_mask=tensors.get("recurrent_mask"),
        zoneout_h=tensors.get("zoneout_h", options.get("zoneout_h")),
        reverse=options["reverse"],
    )
    return Found(y, (h_n,))


class RNNKind(Kind):
    name = "rnn"
    # Of one sum; it has no gate.
    gates = ("h",)
    recurrence = staticmethod(rnn)
    gates_of_input = staticmethod(gates_of_input)
    torch_name = "RNN"
    own_options: ClassVar[Mapping[str, Any]] = {"nonlinearity": "tanh"}

    def _take_own(self, nonlinearity: str) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity={nonlinearity!r}; it is one of 'tanh' and 'relu'")
        self.nonlinearity = nonlinearity

    def recurrence_options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


class RNN(RNNKind, Layer):
    """Simple recurrent network: ``torch.nn.RNN``, and what it lacks.

    The equation is in ``peephole/ops/reference/rnn.py``. Arguments as ``torch.nn.RNN``'s up to
    ``dtype`` (``proj_size`` is refused, as there); ``hidden_size`` may be a sequence, a width for
    each layer. Then ``zoneout``, the share of the units that keep their old state in a step, and
    the options that are described, with inputs and outputs, in ``peephole.nn.Layer``.

    Raises:
        ValueError: an option out of range, or two that contradict each other.
        TypeError: a size that is no whole number, or an unknown option.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | list[int] | tuple[int, ...],
        num_layers: int = 1,
        nonlinearity: str = "tanh",
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
        self._take_own(nonlinearity)
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


class RNNCell(RNNKind, Cell):
    """One step of a simple recurrent network, as ``torch.nn.RNNCell``: ``cell(x, h) -> h``.

    Arguments as ``torch.nn.RNNCell``'s, then those of ``peephole.RNN``; see ``peephole.nn.Cell``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        zoneout: float = 0.0,
        **options: Unpack[KindOptions],
    ) -> None:
        self._take_own(nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype, zoneout=zoneout, **options)
