"""Recurrent layers on ragged batches, with torch.nn's parameters."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peephole import ops
from peephole.ragged import Ragged

PEEPHOLES = (None, "diagonal", "full")
State = tuple[Tensor, ...]


class Direction(NamedTuple):
    """One pass over the sequences: a layer, forwards or in reverse."""

    layer: int
    reverse: bool

    @property
    def suffix(self) -> str:
        return f"_l{self.layer}" + ("_reverse" if self.reverse else "")


class Recurrent(nn.Module):
    """Stacks layers and directions; a subclass says what one direction computes.

    Parameters are named, shaped, ordered and drawn as in ``torch.nn``: for each layer and
    direction ``weight_ih_l0 [G * H, I]``, ``weight_hh_l0 [G * H, H]``, ``bias_ih_l0 [G * H]``,
    ``bias_hh_l0 [G * H]``, then ``..._l0_reverse``, then ``..._l1``.
    """

    gates: ClassVar[int]
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        single_bias: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
        ):
            if size < 1:
                raise ValueError(f"{name}={size}; it must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}; it must be from 0 up to, not including, 1")
        if dropout and num_layers == 1:
            raise ValueError("dropout acts between layers, and num_layers=1 has no such place")
        if single_bias and not bias:
            raise ValueError("single_bias=True asks for a bias and bias=False for none")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.single_bias = single_bias
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.backend = backend
        self._make_parameters(device, dtype)
        self.reset_parameters()

    def _make_parameters(
        self, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        G_H, H = self.gates * self.hidden_size, self.hidden_size
        # The attributes of each direction's weights, by their names without the suffix.
        self._names: dict[Direction, dict[str, str]] = {d: {} for d in self._directions()}
        for direction in self._directions():
            layer_input = H * (1 + self.bidirectional) if direction.layer else self.input_size
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (G_H, layer_input),
                "weight_hh": (G_H, H),
            }
            if self.bias:
                shapes |= {"bias_ih": (G_H,)}
            if self.bias and not self.single_bias:
                shapes |= {"bias_hh": (G_H,)}
            self._register(shapes, direction, device, dtype)
        # After all that torch.nn has, so that the same seed draws the same weights.
        for direction in self._directions():
            self._register(self._extra_shapes(), direction, device, dtype)

    def _extra_shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameters of one direction that ``torch.nn`` does not have."""
        return {}

    def _register(
        self,
        shapes: dict[str, tuple[int, ...]],
        direction: Direction,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name + direction.suffix, parameter)
            self._names[direction][name] = name + direction.suffix

    def reset_parameters(self) -> None:
        """Draw every parameter from U(-1 / sqrt(H), 1 / sqrt(H)), as ``torch.nn`` does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def _directions(self) -> Iterator[Direction]:
        for layer in range(self.num_layers):
            for reverse in (False, True)[: 1 + self.bidirectional]:
                yield Direction(layer, reverse)

    def _stack(self, input: Ragged, hx: State | None) -> tuple[Ragged, State]:
        """Run all layers; states are tuples of ``[L * D, B, H]``."""
        self._check_input(input, hx)
        finals: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                dropped = F.dropout(input.values, self.dropout, self.training)
                input = input.with_values(dropped)
            outputs = []
            for reverse in (False, True)[: 1 + self.bidirectional]:
                initial = None if hx is None else tuple(s[len(finals)] for s in hx)
                weights = self._weights(Direction(layer, reverse))
                y, final = self._run(input, weights, initial, reverse)
                outputs.append(y)
                finals.append(final)
            input = input.with_values(torch.cat(outputs, 1) if self.bidirectional else outputs[0])
        return input, tuple(torch.stack(s) for s in zip(*finals, strict=True))

    @abstractmethod
    def _run(
        self, input: Ragged, weights: dict[str, Tensor], initial: State | None, reverse: bool
    ) -> tuple[Tensor, State]:
        """One direction with its own weights, by their names without the suffix.

        Returns:
            The output ``[N, H]`` and the final states, each ``[B, H]``.
        """

    def _weights(self, direction: Direction) -> dict[str, Tensor]:
        return {name: getattr(self, full) for name, full in self._names[direction].items()}

    def _check_input(self, input: Ragged, hx: State | None) -> None:
        if not isinstance(input, Ragged):
            raise TypeError(
                f"{type(self).__name__} takes a peephole.Ragged, got {type(input).__name__}; "
                "make one with Ragged.from_padded, from_packed, from_nested or from_list"
            )
        if input.values.dim() != 2 or input.values.shape[1] != self.input_size:
            raise ValueError(
                f"the input's values must be [N, {self.input_size}] for "
                f"input_size={self.input_size}, got {list(input.values.shape)}"
            )
        weight = self.weight_ih_l0
        for what, given, wanted in (
            ("dtype", input.dtype, weight.dtype),
            ("device", input.device, weight.device),
        ):
            if given != wanted:
                raise ValueError(f"the input has {what} {given}, but the layer has {wanted}")
        if hx is not None and len(hx) != self.states:
            raise ValueError(f"the initial state must be (h, c), two tensors, got {len(hx)}")
        shape = (self.num_layers * (1 + self.bidirectional), len(input), self.hidden_size)
        for state in hx or ():
            if tuple(state.shape) != shape:
                raise ValueError(
                    f"the initial state must be {list(shape)} (layers * directions, sequences, "
                    f"hidden units), got {list(state.shape)}"
                )

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = (
            ("num_layers", 1),
            ("bias", True),
            ("single_bias", False),
            ("dropout", 0.0),
            ("bidirectional", False),
            ("peephole", None),
            ("nonlinearity", "tanh"),
        )
        for name, default in defaults:
            value = getattr(self, name, default)
            if value != default:
                parts.append(f"{name}={value!r}")
        return ", ".join(parts)


class LSTM(Recurrent):
    """Long short-term memory, with or without peepholes.

    The equations are in ``peephole/ops/reference/lstm.py`` (Graves 2013, equations 7 to 11); with
    ``peephole=None`` they are those of ``torch.nn.LSTM``.

    Args:
        input_size: features a step, I.
        hidden_size: hidden units, H.
        num_layers: layers, one on top of the other.
        bias: whether the gates have biases: ``bias_ih`` and ``bias_hh`` as in ``torch.nn``, and
            for full peepholes ``bias_ch``.
        dropout: share of the units dropped between layers while training.
        bidirectional: run each layer forwards and in reverse, and join the outputs.
        peephole: None, "diagonal" (each gate looks into its own cell: ``weight_ch_l0 [3, H]``) or
            "full" (into all cells: ``weight_ch_l0 [3 * H, H]``, ``bias_ch_l0 [3 * H]``); gates in
            the order i, f, o.
        single_bias: one bias a gate (``bias_ih``) instead of one for each product.
        backend: "auto" or "reference".
        device: where the parameters are made.
        dtype: their dtype.

    Raises:
        ValueError: an option out of range, or two that contradict each other.
    """

    gates = 4
    states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        peephole: str | None = None,
        single_bias: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if peephole not in PEEPHOLES:
            raise ValueError(f"peephole={peephole!r}; it is one of None, 'diagonal' and 'full'")
        self.peephole = peephole
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            dropout,
            bidirectional,
            single_bias=single_bias,
            backend=backend,
            device=device,
            dtype=dtype,
        )

    def _extra_shapes(self) -> dict[str, tuple[int, ...]]:
        H = self.hidden_size
        if self.peephole is None:
            return {}
        if self.peephole == "diagonal":
            return {"weight_ch": (3, H)}
        has_bias = self.bias and not self.single_bias
        return {"weight_ch": (3 * H, H)} | ({"bias_ch": (3 * H,)} if has_bias else {})

    def forward(
        self, input: Ragged, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Ragged, tuple[Tensor, Tensor]]:
        """Run over a ragged batch.

        Args:
            input: values ``[N, I]``.
            hx: initial h and c, each ``[L * D, B, H]``, directions within layers; zeros if None.

        Returns:
            The last layer's output, values ``[N, D * H]``, and the final (h, c), each
            ``[L * D, B, H]``: the state at each sequence's own end (its start for the reverse
            direction), the initial state where a sequence is empty.

        Raises:
            ValueError: an input or a state that does not fit the layer.
        """
        output, (h_n, c_n) = self._stack(input, hx)
        return output, (h_n, c_n)

    def _run(
        self, input: Ragged, weights: dict[str, Tensor], initial: State | None, reverse: bool
    ) -> tuple[Tensor, State]:
        bias = _sum(weights.get("bias_ih"), weights.get("bias_hh"))
        if (bias_ch := weights.get("bias_ch")) is not None:
            b_i, b_f, b_o = bias_ch.chunk(3)
            bias = _sum(bias, torch.cat([b_i, b_f, torch.zeros_like(b_i), b_o]))
        h0, c0 = initial or (None, None)
        return ops.lstm(
            F.linear(input.values, weights["weight_ih"], bias),
            input.offsets,
            weights["weight_hh"],
            weight_ch=weights.get("weight_ch"),
            h0=h0,
            c0=c0,
            reverse=reverse,
            backend=self.backend,
        )


class GRU(Recurrent):
    """Gated recurrent unit, as ``torch.nn.GRU``.

    Arguments and errors as ``peephole.LSTM``, without ``peephole``. With ``single_bias`` the
    new gate's recurrent part has no bias of its own.
    """

    gates = 3

    def forward(self, input: Ragged, hx: Tensor | None = None) -> tuple[Ragged, Tensor]:
        """Run over a ragged batch; as ``peephole.LSTM.forward`` with one state, h."""
        output, (h_n,) = self._stack(input, None if hx is None else (hx,))
        return output, h_n

    def _run(
        self, input: Ragged, weights: dict[str, Tensor], initial: State | None, reverse: bool
    ) -> tuple[Tensor, State]:
        bias, bias_hn = weights.get("bias_ih"), None
        if (bias_hh := weights.get("bias_hh")) is not None:
            H = self.hidden_size
            bias_hn = bias_hh[2 * H :]
            bias = _sum(bias, F.pad(bias_hh[: 2 * H], (0, H)))
        y, h_n = ops.gru(
            F.linear(input.values, weights["weight_ih"], bias),
            input.offsets,
            weights["weight_hh"],
            bias_hn=bias_hn,
            h0=None if initial is None else initial[0],
            reverse=reverse,
            backend=self.backend,
        )
        return y, (h_n,)


class RNN(Recurrent):
    """Simple recurrent network, as ``torch.nn.RNN``.

    Arguments and errors as ``peephole.LSTM``, with ``nonlinearity``, "tanh" or "relu", instead
    of ``peephole``.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        single_bias: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity={nonlinearity!r}; it is one of 'tanh' and 'relu'")
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            dropout,
            bidirectional,
            single_bias=single_bias,
            backend=backend,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Ragged, hx: Tensor | None = None) -> tuple[Ragged, Tensor]:
        """Run over a ragged batch; as ``peephole.LSTM.forward`` with one state, h."""
        output, (h_n,) = self._stack(input, None if hx is None else (hx,))
        return output, h_n

    def _run(
        self, input: Ragged, weights: dict[str, Tensor], initial: State | None, reverse: bool
    ) -> tuple[Tensor, State]:
        bias = _sum(weights.get("bias_ih"), weights.get("bias_hh"))
        y, h_n = ops.rnn(
            F.linear(input.values, weights["weight_ih"], bias),
            input.offsets,
            weights["weight_hh"],
            nonlinearity=self.nonlinearity,
            h0=None if initial is None else initial[0],
            reverse=reverse,
            backend=self.backend,
        )
        return y, (h_n,)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
