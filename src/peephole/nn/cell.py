"""Cells: one step of a recurrence, as ``torch.nn`` has them."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peephole.nn.autocast import autocast_off, is_cast
from peephole.nn.checks import check_size
from peephole.nn.initialization import initialize
from peephole.nn.kind import Kind, refuse_tracing
from peephole.nn.states import as_tuple
from peephole.offsets import Layout, may_keep
from peephole.ops import Found, is_training, run, run_compiled, step

# torch's operators take these, in this order.
_TORCHS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
State = tuple[Tensor, ...]


class Cell(Kind):
    """One step of one kind; ``LSTMCell``, ``GRUCell`` and ``RNNCell`` are its subclasses.

    Parameters and arguments are those of ``torch.nn``'s cells; then come by name, as in
    ``peephole.nn.Layer``: ``zoneout``, ``recurrent_dropout``, ``layer_norm``,
    ``learn_initial_state``, ``initialization`` and ``single_bias``.

    Recurrent dropout has one mask for all steps of a sequence. So a cell that has it is given the
    mask at each step while it trains (``cell(x, hx, recurrent_mask)``, drawn once by
    ``cell.draw_recurrent_mask``); ``peephole.Recurrent`` carries it in the state.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_size("input_size", input_size)
        check_size("hidden_size", hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self._take(bias=bias, **options)
        shapes = self.shapes(input_size, hidden_size) | self.extra_shapes(hidden_size)
        self._names = list(shapes)
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, parameter)
        if not bias:
            # As torch.nn's cells have it.
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter anew, as ``initialization`` says."""
        initialize(self, [({name: getattr(self, name) for name in self._names}, self.hidden_size)])

    def extra_repr(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        options = {"bias": (self.bias, True), **self.options()}
        shown += [f"{n}={value!r}" for n, (value, default) in options.items() if value != default]
        return ", ".join(shown)

    def forward(self, input: Tensor, hx: Any = None, recurrent_mask: Tensor | None = None) -> Any:
        """Take one step.

        Args:
            input: ``[B, I]`` or ``[I]``.
            hx: h ``[B, H]`` (``[H]``), or for the LSTM (h, c); as ``initial_state`` if None.
            recurrent_mask: ``[B, H]``, of recurrent dropout.

        Returns:
            The new h, or for the LSTM (h, c), in the shape of the input.

        Raises:
            ValueError: an input or a state that does not fit; no mask where there must be one.
        """
        refuse_tracing(self)
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if input.shape[-1] != self.input_size:
            raise ValueError(
                f"input has inconsistent input_size: got {input.shape[-1]} expected "
                f"{self.input_size}"
            )
        x = input if input.dim() == 2 else input.unsqueeze(0)
        state = self._initial(x) if hx is None else self._given(hx, input)
        new = self._as_torch_does(x, state) or self._step(x, state, recurrent_mask)
        if input.dim() == 1:
            new = tuple(s.squeeze(0) for s in new)
        return new if len(new) > 1 else new[0]

    def initial_state(self, batch_size: int) -> State:
        """The state of new sequences, each ``[B, H]``: zeros, or what was learned.

        With recurrent dropout its mask comes last.
        """
        if self.learn_initial_state:
            state = tuple(getattr(self, f"{s}_0").expand(batch_size, -1) for s in self.states)
        else:
            sizes = self.state_sizes(self.hidden_size)
            state = tuple(self.weight_ih.new_zeros(batch_size, size) for size in sizes)
        if self.recurrent_dropout:
            state += (self.draw_recurrent_mask(batch_size),)
        return state

    def draw_recurrent_mask(self, batch_size: int) -> Tensor:
        """Recurrent dropout's mask ``[B, H]`` for a batch of sequences; ones in evaluation."""
        return self._recurrent_mask(batch_size, self.hidden_size, self.weight_ih)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one step as ``peephole.Recurrent`` does: ``(x, state) -> (y, state)``."""
        k = len(self.states)
        mask = state[k] if len(state) > k else None
        new = self._as_torch_does(x, state[:k]) or self._step(x, state[:k], mask)
        return new[0], (*new, *state[k:])

    def _initial(self, x: Tensor) -> State:
        return self.initial_state(x.shape[0])[: len(self.states)]

    def _given(self, hx: Any, input: Tensor) -> State:
        state = as_tuple(hx, self.states, type(self).__name__)
        batch = input.shape[:-1]
        for s, size in zip(state, self.state_sizes(self.hidden_size), strict=True):
            if s.shape != (*batch, size):
                raise ValueError(
                    f"the state must be {[*batch, size]} to go with the input "
                    f"{list(input.shape)}, got {list(s.shape)}"
                )
        return state if input.dim() == 2 else tuple(s.unsqueeze(0) for s in state)

    def _as_torch_does(self, x: Tensor, state: State) -> State | None:
        """The new state, where torch has the cell; else None."""
        if not self.is_torchs() or self.single_bias or is_cast(x):
            return None
        own = self._parameters
        weights = [
            getattr(self, name) if (weight := own.get(name)) is None else weight for name in _TORCHS
        ]
        nonlinearity = self.recurrence_options().get("nonlinearity")
        return step(self.name, nonlinearity, x, state, weights)

    def _step(self, x: Tensor, state: State, recurrent_mask: Tensor | None) -> State:
        if self.recurrent_dropout and self.training and recurrent_mask is None:
            raise ValueError(
                f"{type(self).__name__} has recurrent_dropout={self.recurrent_dropout}, one mask "
                "for all steps of a sequence: draw it once, "
                "mask = cell.draw_recurrent_mask(batch_size), and give it to each step, "
                "cell(x, hx, mask), or last in the state of step and Recurrent"
            )
        cast, context = autocast_off(x)
        with context:
            if cast is not None:
                x, state = x.to(cast), tuple(s.to(cast) for s in state)
            weights = {
                name: getattr(self, name) if cast is None else getattr(self, name).to(cast)
                for name in self._names
                if not name.endswith("_0")
            }
            return self._recur(x, state, weights, recurrent_mask)

    def _recur(
        self, x: Tensor, state: State, weights: dict[str, Tensor], recurrent_mask: Tensor | None
    ) -> State:
        """The recurrence over sequences of one step."""
        B = x.shape[0]
        masks, numbers = self.draw_zoneout(B, self.hidden_size, x)
        if recurrent_mask is not None:
            masks["recurrent_mask"] = recurrent_mask.to(x.dtype)
        tensors = weights | masks
        tensors |= {f"{name}0": s for name, s in zip(self.states, state, strict=True)}
        options = {
            **self.recurrence_options(),
            **numbers,
            "way": "auto",
            "reverse": False,
            "return_states": False,
            "training": is_training(x, [weights]),
            "is_torchs": False,
            "zeros": {},
        }
        found: Found
        if torch.compiler.is_compiling():
            offsets = torch.arange(B + 1, device=x.device)
            sizes = self.state_sizes(self.hidden_size)
            found = run_compiled(self.name, x, offsets, None, tensors, options, sizes, 0)
        else:
            make = _single_steps if may_keep() else _single_steps.__wrapped__
            found = run(self.name, x, make(B, x.device), tensors, options)
        return found.final


@lru_cache(maxsize=16)
def _single_steps(sequences: int, device: torch.device) -> Layout:
    with torch.inference_mode(False):
        return Layout.of_numbers(np.arange(sequences + 1), device)
