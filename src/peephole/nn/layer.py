"""Recurrent layers over batches of any form: what all kinds share."""

import functools
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from peephole.nn import forms, lookup, states
from peephole.nn.autocast import autocast_off
from peephole.nn.checks import (
    check_backend,
    check_dropout,
    check_flag,
    check_input,
    check_projection,
    check_size,
    checked_widths,
    torch_lacks,
)
from peephole.nn.forms import Batch, Lengths
from peephole.nn.initialization import initialize
from peephole.nn.kind import Kind, KindOptions, Shapes, refuse_tracing
from peephole.nn.stack import stack
from peephole.nn.steps import steps_of
from peephole.nn.whole import run_whole
from peephole.ops import (
    BACKENDS,
    Found,
    choose,
    is_training,
    run,
    run_compiled,
)
from peephole.ragged import Ragged

log = logging.getLogger("peephole")


class LayerOptions(KindOptions, total=False):
    """What every layer takes besides ``torch.nn``'s arguments."""

    skip: bool
    backend: str


class Direction(NamedTuple):
    """One pass over the sequences: a layer, forwards or in reverse.

    Attributes:
        layer: which, from 0.
        reverse: whether it runs from each sequence's last step to its first.
        parameters: attributes of its parameters by their names without the suffix.
    """

    layer: int
    reverse: bool
    parameters: dict[str, str]


class Layer(Kind):
    """Layers and directions of one kind; ``LSTM``, ``GRU`` and ``RNN`` are its subclasses.

    Parameters are named, shaped, ordered and drawn as in ``torch.nn``: for each layer and
    direction ``weight_ih_l0 [G * H, I]``, ``weight_hh_l0 [G * H, H]``, ``bias_ih_l0 [G * H]``,
    ``bias_hh_l0 [G * H]``, then ``..._l0_reverse``, then ``..._l1``. Those that ``torch.nn`` does
    not have come after all of these.

    Besides ``torch.nn``'s arguments, every kind takes these by name:

    Args:
        recurrent_dropout: share of h that the gates do not see while training, from 0 up to 1;
            which, is drawn once a sequence and kept over its steps (Gal & Ghahramani 2016).
        zoneout: share of the units that keep their old state in a step, from 0 to 1; a number for
            all, or for the LSTM (hidden, cell). In evaluation, the expectation (Krueger et al.
            2017).
        layer_norm: normalize the gates' two parts, W_x x and W_h h, and the LSTM's cell where h
            looks at it (Ba et al. 2016). Scales are ``weight_ln_ih_l0 [G * H]``,
            ``weight_ln_hh_l0 [G * H]``, ``weight_ln_c_l0 [H]``; the biases are added after
            normalization, and ``bias_ln_c_l0 [H]`` goes to the cell's.
        learn_initial_state: begin from parameters ``h_0_l0``, ``c_0_l0`` instead of zeros.
        skip: the input goes to every layer, and every layer's output, side by side, to the output
            (Graves 2013, equations 1 to 3).
        initialization: "torch"; "orthogonal": orthogonal recurrent matrices, Glorot's input
            matrices, biases 0 but the forget gate's 1; ("chrono", T_max): biases for memories of
            up to T_max steps (Tallec & Ollivier 2018); or a function that is called with each
            parameter's name (without a suffix for layer and direction) and the parameter, after
            torch's draws.
        single_bias: one bias a gate (``bias_ih``) instead of one for each product.
        backend: "cpu", compiled kernels; "reference", the equations in plain PyTorch; "torch", the
            operators of ``torch.nn``, where it has the layer; "auto", the fastest that can.

    Attributes:
        backend_used: what the last eager call ran on; None before the first. A compiled graph
            chooses when it runs, and does not tell.
    """

    layer_options: ClassVar[Mapping[str, Any]] = {
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "proj_size": 0,
        "skip": False,
        "backend": "auto",
    }

    proj_size = 0
    backend_used: str | None = None

    def __init__(
        self,
        input_size: int,
        hidden_size: int | list[int] | tuple[int, ...],
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
        *,
        skip: bool = False,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__()
        check_size("input_size", input_size)
        self.widths = checked_widths(hidden_size, num_layers)
        self.input_size = input_size
        self.hidden_size = hidden_size if isinstance(hidden_size, int) else self.widths
        self.num_layers = len(self.widths)
        self.dropout = check_dropout(dropout, self.num_layers)
        self.batch_first = check_flag("batch_first", batch_first)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        self.proj_size = check_projection(proj_size, self.widths, projects="c" in self.states)
        self.skip = check_flag("skip", skip)
        self._take(bias=bias, **options)
        self.backend = check_backend(backend)
        if backend == "torch" and not self.is_torchs():
            raise ValueError(torch_lacks(self.beyond_torch()))
        self._make_parameters(device, dtype)
        self.reset_parameters()

    # Parameters

    def _make_parameters(
        self, device: torch.device | str | int | None, dtype: torch.dtype | None
    ) -> None:
        self._directions = [
            Direction(layer, reverse, {})
            for layer in range(self.num_layers)
            for reverse in (False, True)[: 1 + self.bidirectional]
        ]
        for direction in self._directions:
            width = self._input_width(direction.layer)
            shapes = self.shapes(width, self.widths[direction.layer])
            self._register(direction, shapes, device, dtype)
        # After all that torch.nn has, so that the same seed draws the same weights.
        for direction in self._directions:
            shapes = self.extra_shapes(self.widths[direction.layer])
            self._register(direction, shapes, device, dtype)

    def _register(
        self,
        direction: Direction,
        shapes: Shapes,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
    ) -> None:
        suffix = f"_l{direction.layer}" + ("_reverse" if direction.reverse else "")
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name + suffix, parameter)
            direction.parameters[name] = name + suffix

    def _input_width(self, layer: int) -> int:
        if layer == 0:
            return self.input_size
        below = self.state_sizes(self.widths[layer - 1])[0] * (1 + self.bidirectional)
        return below + (self.input_size if self.skip else 0)

    @property
    def output_size(self) -> int:
        """Width of the output: D * P, or with ``skip`` that of all layers together."""
        widths = self.widths if self.skip else self.widths[-1:]
        return sum(self.state_sizes(width)[0] for width in widths) * (1 + self.bidirectional)

    def reset_parameters(self) -> None:
        """Draw every parameter anew, as ``initialization`` says."""
        initialize(
            self,
            [
                ({n: getattr(self, full) for n, full in d.parameters.items()}, self.widths[d.layer])
                for d in self._directions
            ],
        )

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """For each layer and direction its parameters, as in ``torch.nn``."""
        return [
            [getattr(self, name) for name in direction.parameters.values()]
            for direction in self._directions
        ]

    def flatten_parameters(self) -> None:
        """Do nothing; ``torch.nn`` has it for cuDNN."""

    def extra_repr(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        layer = {name: (getattr(self, name), d) for name, d in self.layer_options.items()}
        if not isinstance(self.hidden_size, int):
            del layer["num_layers"]
        shown += [
            f"{name}={value!r}"
            for name, (value, default) in {**layer, **self.options()}.items()
            if value != default
        ]
        return ", ".join(shown)

    # Running

    def forward(
        self,
        input: Ragged | Tensor | PackedSequence,
        hx: Any = None,
        lengths: Lengths | None = None,
        *,
        embedding: Tensor | None = None,
        return_states: bool = False,
    ) -> Any:
        """Run over a batch.

        Args:
            input: a Ragged with values ``[N, I]``; a padded tensor ``[T, B, I]``, or
                ``[B, T, I]`` with ``batch_first``; one sequence ``[T, I]``; a
                ``PackedSequence``; or a nested tensor with the jagged layout.
            hx: initial h, or for the LSTM (h, c), as ``h_n`` below; zeros, or the learned state,
                if None.
            lengths: ``[B]``, with a padded tensor: the steps of each sequence, whole numbers from
                0 to T in any order, on any device. What stands past them changes nothing.
            embedding: ``[A, I]``, with an input of ids, whole numbers from 0 to A - 1 without the
                dimension of size I: each stands for that row. It is the same as the rows
                themselves. On the compiled kernels the first layer's input product is of each row
                instead of each step where that is faster.
            return_states: give every layer's gates and cells at every step too.

        Returns:
            The last layer's output in the input's form, D * P wide (with ``skip`` all layers'),
            padded ones zero past each end; and ``h_n``, or for the LSTM ``(h_n, c_n)``: the state
            at each sequence's own end (its start for the reverse direction), the initial one
            where it is empty. ``h_n`` is ``[L * D, B, P]`` and ``c_n`` ``[L * D, B, H]``,
            directions within layers, without B for one sequence; with a width for each layer
            they are tuples, ``[D, B, H_l]`` for each. With ``return_states`` a third, a tuple
            with ``Steps`` for each layer and direction.

        Raises:
            ValueError: an input, lengths or a state that does not fit the layer, or a backend
                that cannot serve.
            TypeError: an input of none of these forms, or an embedding that is no tensor.
        """
        refuse_tracing(self)
        weights = self._weights()
        whole = lengths is None and not return_states and not isinstance(input, Ragged)
        if whole and embedding is None and self._may_run_whole():
            result = run_whole(self, input, hx, weights)
            if result is not None:
                return result
        input = input if embedding is None else lookup.columns(input)
        batch = forms.read(input, lengths, self.batch_first, type(self).__name__)
        hx = None if hx is None else states.as_tuple(hx, self.states, type(self).__name__)
        if embedding is None:
            values, ids = batch.values, None
            check_input(values, self.input_size, weights[0]["weight_ih"])
        else:
            values, ids = embedding, lookup.ids_of(batch)
            lookup.check(ids, values, self.input_size, weights[0]["weight_ih"])
        cast, context = autocast_off(values)
        with context:
            if cast is not None:
                values = values.to(cast)
                weights = [{n: w.to(cast) for n, w in each.items()} for each in weights]
            folded: list[lookup.Folded] = []
            if ids is not None:
                first = weights[: 1 + self.bidirectional]
                may_fold = not self.skip and self.backend in ("auto", "cpu")
                values, folded = lookup.look_up(self, ids, values, first, may_fold=may_fold)
            if values is not batch.values:
                batch = batch._replace(values=values)
            initial = self._initial(hx, batch, weights, cast)
            y, found = self._run(batch, initial, weights, folded, return_states)
        ends = states.joined([each.final for each in found], self._by_layer)
        result = (batch.restore(y), states.as_given(ends, batch))
        if return_states:
            return (*result, tuple(steps_of(each, self.gates, batch) for each in found))
        return result

    @property
    def _by_layer(self) -> int | None:
        """Directions of a layer where each has a width of its own, and so states of its own."""
        return None if isinstance(self.hidden_size, int) else 1 + self.bidirectional

    def _may_run_whole(self) -> bool:
        """Whether ``torch.nn`` has the very layer, states and all."""
        return (
            self.backend in ("auto", "torch")
            and isinstance(self.hidden_size, int)
            and not (self.skip or self.single_bias or self.learn_initial_state)
            and not torch.compiler.is_compiling()
            and self.is_torchs()
        )

    def _run(
        self,
        batch: Batch,
        initial: list[states.State] | None,
        weights: list[dict[str, Tensor]],
        folded: list[lookup.Folded],
        return_states: bool,
    ) -> tuple[Tensor, list[Found]]:
        if initial is None:
            initial = [()] * len(self._directions)
        training = is_training(batch.values, weights, *(s for state in initial for s in state))
        is_torchs = self.is_torchs() and not return_states
        if self.backend == "torch" and not is_torchs:
            raise ValueError(torch_lacks("return_states" if return_states else self.beyond_torch()))
        options = {
            **self.recurrence_options(),
            "way": self._way(batch, weights[0], training, is_torchs),
            "return_states": return_states,
            "training": training,
            "is_torchs": is_torchs,
        }
        own = [*folded, *((None, each) for each in weights[len(folded) :])]
        runs = [
            functools.partial(self._run_one, direction, batch, state, *gates_and_weights, options)
            for direction, state, gates_and_weights in zip(
                self._directions, initial, own, strict=True
            )
        ]
        if len(runs) == 1:
            found = runs[0](batch.values)
            return found.y, [found]
        D = 1 + self.bidirectional
        layers = [runs[k : k + D] for k in range(0, len(runs), D)]
        return stack(layers, batch.values, functools.partial(self._drop, batch), skip=self.skip)

    def _run_one(
        self,
        direction: Direction,
        batch: Batch,
        state: states.State,
        gates_x: Tensor | None,
        weights: dict[str, Tensor],
        options: dict[str, Any],
        x: Tensor,
    ) -> Found:
        x = x if gates_x is None else gates_x
        H, layout = self.widths[direction.layer], batch.layout
        masks, numbers = self.draw(layout.sequences, x.shape[0], H, x)
        tensors = {**weights, **masks}
        for name, initial in zip(self.states, state, strict=False):
            tensors[f"{name}0"] = initial
        zeros: dict[str, int] = {}
        if not state:
            widths = zip(self.states, self.state_sizes(H), strict=True)
            zeros = {f"{name}0": width for name, width in widths}
        options = {**options, **numbers, "zeros": zeros, "reverse": direction.reverse}
        if not torch.compiler.is_compiling():
            return run(self.name, x, layout, tensors, options)
        sizes = self.state_sizes(H)
        # What has one sum only, as the simple recurrent network, has no gates to give.
        count = len(self.gates) if options["return_states"] and len(self.gates) > 1 else 0
        return run_compiled(
            self.name, x, layout.offsets, batch.lengths, tensors, options, sizes, count * H
        )

    def _weights(self) -> list[dict[str, Tensor]]:
        """Each direction's parameters, as they are now: somebody may have put others there."""
        own = self._parameters
        return [
            {
                name: getattr(self, full) if (weight := own.get(full)) is None else weight
                for name, full in direction.parameters.items()
            }
            for direction in self._directions
        ]

    def _drop(self, batch: Batch, values: Tensor) -> Tensor:
        if not self.dropout or not self.training:
            return values
        if torch.compiler.is_compiling() or (drawn := batch.drawn()) is None:
            return F.dropout(values, self.dropout)
        return values * F.dropout(torch.ones_like(values), self.dropout).index_select(0, drawn)

    def _way(
        self, batch: Batch, weights: dict[str, Tensor], training: bool, is_torchs: bool
    ) -> str:
        """The backend, or how torch's; see ``peephole.ops.direction.run``."""
        if torch.compiler.is_compiling():
            return self.backend
        way, why = choose(
            self.backend,
            self.name,
            batch.values,
            lambda: batch.layout.waste,
            weights,
            is_torchs=is_torchs,
            training=training,
        )
        self.note_backend(way if way in BACKENDS else "torch", why)
        return way

    def note_backend(self, backend: str, why: str | None = None) -> None:
        """Keep what this call runs on; say once why, where it is not the first choice."""
        if why is not None:
            _log_choice(type(self).__name__, backend, why)
        # Not by setattr: nn.Module's takes longer than a step of a small network.
        self.__dict__["backend_used"] = backend

    def _initial(
        self,
        hx: tuple[Any, ...] | None,
        batch: Batch,
        weights: list[dict[str, Tensor]],
        cast: torch.dtype | None,
    ) -> list[states.State] | None:
        """The initial states of each direction, ``[B, width]`` each; None for zeros."""
        if hx is not None:
            sizes = [self.state_sizes(self.widths[d.layer]) for d in self._directions]
            return states.apart(hx, sizes, batch, self._by_layer, cast)
        if not self.learn_initial_state:
            return None
        B = batch.layout.sequences
        return [tuple(w[f"{s}_0"].expand(B, -1) for s in self.states) for w in weights]


@functools.cache
def _log_choice(layer: str, backend: str, why: str) -> None:
    log.info("peephole.%s runs on the %s backend: %s", layer, backend, why)
