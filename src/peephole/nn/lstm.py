"""The LSTM: its parameters, its layer and its cell."""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from peephole.nn.cell import Cell
from peephole.nn.checks import check_flag, check_number
from peephole.nn.kind import Kind, KindOptions, Shapes, Tensors
from peephole.nn.layer import Layer, LayerOptions
from peephole.nn.terms import input_term, total, without_input
from peephole.offsets import Layout
from peephole.ops import Found, reference

PEEPHOLES = (None, "diagonal", "full")


def gates_of_input(x: Tensor, tensors: Tensors) -> tuple[Tensor, Tensors]:
    """W_x x + b, all biases included."""
    weight_ih, rest = tensors["weight_ih"], without_input(tensors, "bias_hh", "bias_ch")
    bias = total(tensors.get("bias_ih"), tensors.get("bias_hh"))
    if (bias_ch := tensors.get("bias_ch")) is not None:
        # The peepholes' gates are all but g, which stands before the last.
        H = tensors["weight_ch"].shape[1]
        before, o = bias_ch[:-H], bias_ch[-H:]
        bias = total(bias, torch.cat([before, torch.zeros_like(o), o]))
    weight_ln_ih = tensors.get("weight_ln_ih")
    return input_term(x, weight_ih, bias, weight_ln_ih, [weight_ih.shape[0]]), rest


def lstm(x: Tensor, layout: Layout, tensors: Tensors, options: Mapping[str, Any]) -> Found:
    """One direction in plain PyTorch: W_x x + b, then ``peephole.ops.lstm``."""
    if "weight_ih" in tensors:
        x, tensors = gates_of_input(x, tensors)
    y, final, states = reference.lstm(
        x,
        layout,
        tensors["weight_hh"],
        weight_ch=tensors.get("weight_ch"),
        weight_hr=tensors.get("weight_hr"),
        weight_ln_hh=tensors.get("weight_ln_hh"),
        weight_ln_c=tensors.get("weight_ln_c"),
        bias_ln_c=tensors.get("bias_ln_c"),
        h0=tensors["h0"],
        c0=tensors["c0"],
        recurrent_mask=tensors.get("recurrent_mask"),
        zoneout_h=tensors.get("zoneout_h", options.get("zoneout_h")),
        zoneout_c=tensors.get("zoneout_c", options.get("zoneout_c")),
        cell_clip=options["cell_clip"],
        coupled=options["coupled"],
        reverse=options["reverse"],
        return_states=options["return_states"],
    )
    return Found(y, final, *(states or ()))


class LSTMKind(Kind):
    name = "lstm"
    states = ("h", "c")
    recurrence = staticmethod(lstm)
    gates_of_input = staticmethod(gates_of_input)
    torch_name = "LSTM"
    own_options: ClassVar[Mapping[str, Any]] = {
        "peephole": None,
        "coupled": False,
        "cell_clip": None,
        "forget_bias": None,
    }

    proj_size = 0

    def _take_own(
        self,
        peephole: str | None,
        coupled: bool,
        cell_clip: float | None,
        forget_bias: float | None,
    ) -> None:
        if peephole not in PEEPHOLES:
            raise ValueError(f"peephole={peephole!r}; it is one of None, 'diagonal' and 'full'")
        self.peephole = peephole
        self.coupled = check_flag("coupled", coupled)
        self.cell_clip = (
            None if cell_clip is None else check_number("cell_clip", cell_clip, above=0)
        )
        self.forget_bias = None if forget_bias is None else check_number("forget_bias", forget_bias)
        self.gates = ("i", "g", "o") if coupled else ("i", "f", "g", "o")
        self.retention = {"i": -1} if coupled else {"f": 1, "i": -1}

    def _take(self, *, bias: bool, **options: Any) -> None:
        super()._take(bias=bias, **options)
        if self.forget_bias is None:
            return
        if not bias:
            raise ValueError("forget_bias sets a bias, and bias=False leaves none")
        if isinstance(self.initialization, tuple):
            raise ValueError(
                "forget_bias and chrono initialization both set the forget gate's bias"
            )

    def state_sizes(self, hidden_size: int) -> tuple[int, ...]:
        return (self.proj_size or hidden_size, hidden_size)

    def shapes(self, input_size: int, hidden_size: int) -> Shapes:
        projection = {"weight_hr": (self.proj_size, hidden_size)} if self.proj_size else {}
        return super().shapes(input_size, hidden_size) | projection

    def extra_shapes(self, hidden_size: int) -> Shapes:
        H, looking = hidden_size, len(self.gates) - 1
        shapes: Shapes = {}
        if self.peephole == "diagonal":
            shapes |= {"weight_ch": (looking, H)}
        if self.peephole == "full":
            shapes |= {"weight_ch": (looking * H, H)}
            shapes |= {"bias_ch": (looking * H,)} if self.bias and not self.single_bias else {}
        shapes |= super().extra_shapes(H)
        if self.layer_norm:
            shapes |= {"weight_ln_c": (H,), "bias_ln_c": (H,)}
        return shapes

    def recurrence_options(self) -> dict[str, Any]:
        return {"cell_clip": self.cell_clip, "coupled": self.coupled}


class LSTM(LSTMKind, Layer):
    """Long short-term memory: ``torch.nn.LSTM``, and what it lacks.

    The equations are in ``peephole/ops/reference/lstm.py`` (Graves 2013, equations 7 to 11);
    without options they are those of ``torch.nn.LSTM``. Arguments, inputs and outputs that the
    layers share are described in ``peephole.nn.Layer``.

    Args:
        input_size: as in ``torch.nn.LSTM``, as all up to ``dtype``.
        hidden_size: hidden units, H, or a sequence with a width for each layer.
        num_layers: layers, one on top of the other.
        bias: whether the gates have biases: ``bias_ih`` and ``bias_hh`` as in ``torch.nn``, and
            for full peepholes ``bias_ch``.
        batch_first: padded input and output are ``[B, T, ...]``.
        dropout: share of the units dropped between layers while training.
        bidirectional: run each layer forwards and in reverse, and join the outputs.
        proj_size: width P of the projected output, less than H (Sak et al. 2014); 0 for none.
        device: where the parameters are made.
        dtype: their dtype.
        peephole: None, "diagonal" (each gate looks into its own cell: ``weight_ch_l0 [3, H]``) or
            "full" (into all cells: ``weight_ch_l0 [3 * H, H]``, ``bias_ch_l0 [3 * H]``); gates in
            the order i, f, o (Gers & Schmidhuber 2000; Graves 2013).
        coupled: f = 1 - i (Greff et al. 2017): three gates, i, g, o, and two peepholes, i, o.
        cell_clip: hold each new cell, before zoneout, within plus and minus this.
        forget_bias: first value of the forget gates' bias.
        zoneout: share of the units that keep their old state in a step; for all, or (hidden,
            cell) (Krueger et al. 2017).
        options: ``recurrent_dropout``, ``layer_norm``, ``learn_initial_state``, ``skip``,
            ``initialization``, ``single_bias`` and ``backend``, as in ``peephole.nn.Layer``.

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
        peephole: str | None = None,
        coupled: bool = False,
        cell_clip: float | None = None,
        forget_bias: float | None = None,
        zoneout: float | tuple[float, float] = 0.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        self._take_own(peephole, coupled, cell_clip, forget_bias)
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


class LSTMCell(LSTMKind, Cell):
    """One step of an LSTM, as ``torch.nn.LSTMCell``: ``cell(x, (h, c)) -> (h, c)``.

    Arguments as ``torch.nn.LSTMCell``'s, then those of ``peephole.LSTM``; see
    ``peephole.nn.Cell``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        peephole: str | None = None,
        coupled: bool = False,
        cell_clip: float | None = None,
        forget_bias: float | None = None,
        zoneout: float | tuple[float, float] = 0.0,
        **options: Unpack[KindOptions],
    ) -> None:
        self._take_own(peephole, coupled, cell_clip, forget_bias)
        super().__init__(input_size, hidden_size, bias, device, dtype, zoneout=zoneout, **options)
