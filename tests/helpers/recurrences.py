"""Each recurrence of ``peephole.ops`` as the tests call it, with tensors to call it on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from peephole import ops
from tests.helpers.batches import offsets_of

Tensors = dict[str, Tensor]
Shape = tuple[int, ...]

BY_STEP = ("gates_x", "zoneout_h", "zoneout_c")
BY_SEQUENCE = ("h0", "c0", "recurrent_mask")


@dataclass(frozen=True)
class Recurrence:
    """One op with one choice of its options.

    Attributes:
        op: the function in ``peephole.ops``.
        gates: gates per hidden unit, G.
        states: the names of its initial states.
        extras: shapes of further weights, given H.
        options: arguments that are not tensors.
        masks: masks to draw, and whether as booleans.
        backend: what it runs on, where a call does not say otherwise.
    """

    op: Callable[..., Any]
    gates: int
    states: tuple[str, ...] = ("h0",)
    extras: Mapping[str, Callable[[int], Shape]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, bool] = field(default_factory=dict)
    backend: str = "auto"

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that compute it, by name: the kernels lack projection and layer norm."""
        lacking = self.extras.keys() & {"weight_hr", "weight_ln_hh", "weight_ln_c"}
        return ("reference",) if lacking else ("reference", "cpu")

    def output_size(self, hidden_size: int) -> int:
        """P, the width of h."""
        projection = self.extras.get("weight_hr")
        return projection(hidden_size)[0] if projection else hidden_size

    def draw(
        self,
        lengths: Sequence[int],
        hidden_size: int = 3,
        dtype: torch.dtype = torch.float64,
        initial: bool = True,
    ) -> Tensors:
        """Random tensors for every argument, all but the offsets and masks leaves of autograd."""
        GH, P = self.gates * hidden_size, self.output_size(hidden_size)
        shapes = {"gates_x": (sum(lengths), GH), "weight_hh": (GH, P)}
        shapes |= {name: shape(hidden_size) for name, shape in self.extras.items()}
        if initial:
            widths = {"h0": P, "c0": hidden_size}
            shapes |= {name: (len(lengths), widths[name]) for name in self.states}
        # Drawn in float64, so that every dtype gets the same numbers but for rounding.
        tensors = {
            name: torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()
            for name, shape in shapes.items()
        }
        return (
            tensors
            | self._draw_masks(lengths, hidden_size, dtype)
            | {"offsets": offsets_of(lengths)}
        )

    def _draw_masks(self, lengths: Sequence[int], hidden_size: int, dtype: torch.dtype) -> Tensors:
        P = self.output_size(hidden_size)
        shapes = {
            "recurrent_mask": (len(lengths), P),
            "zoneout_h": (sum(lengths), P),
            "zoneout_c": (sum(lengths), hidden_size),
        }
        drawn = {name: torch.rand(shapes[name]) < 0.5 for name in self.masks}
        # Dropout scales what it keeps, here by 1 / (1 - 0.5).
        scale = {"recurrent_mask": 2}
        return {
            name: mask if self.masks[name] else mask.to(dtype) * scale.get(name, 1)
            for name, mask in drawn.items()
        }

    def __call__(self, tensors: Tensors, **options: Any) -> tuple[Tensor, ...]:
        """Run the op: y, then each final state, then with return_states what each step held."""
        options = {"backend": self.backend, **self.options, **options}
        return tuple(_flat(self.op(**tensors, **options)))


def _flat(outputs: Any) -> Iterator[Tensor]:
    for output in (outputs,) if isinstance(outputs, Tensor) else outputs:
        yield from (output,) if isinstance(output, Tensor) else _flat(output)


def lstm(
    peephole: str = "none",
    coupled: bool = False,
    cell_clip: float | None = None,
    projected: bool = False,
    layer_norm: bool = False,
    **dropped: Any,
) -> Recurrence:
    """``ops.lstm`` with these options; ``dropped`` as for ``dropping``."""
    G, looking = (3, 2) if coupled else (4, 3)
    extras: dict[str, Callable[[int], Shape]] = {}
    if peephole == "diagonal":
        extras["weight_ch"] = lambda size: (looking, size)
    if peephole == "full":
        extras["weight_ch"] = lambda size: (looking * size, size)
    if projected:
        extras["weight_hr"] = lambda size: (size - 1, size)
    if layer_norm:
        extras["weight_ln_hh"] = lambda size: (G * size,)
        extras["weight_ln_c"] = extras["bias_ln_c"] = lambda size: (size,)
    options = {"coupled": True} if coupled else {}
    options |= {} if cell_clip is None else {"cell_clip": cell_clip}
    return dropping(Recurrence(ops.lstm, G, ("h0", "c0"), extras, options), **dropped)


def gru(bias_hn: bool = False, layer_norm: bool = False, **dropped: Any) -> Recurrence:
    """``ops.gru`` with these options; ``dropped`` as for ``dropping``."""
    extras: dict[str, Callable[[int], Shape]] = {}
    if bias_hn:
        extras["bias_hn"] = lambda size: (size,)
    if layer_norm:
        extras["weight_ln_hh"] = lambda size: (3 * size,)
    return dropping(Recurrence(ops.gru, 3, extras=extras), **dropped)


def rnn(nonlinearity: str = "tanh", layer_norm: bool = False, **dropped: Any) -> Recurrence:
    """``ops.rnn`` with these options; ``dropped`` as for ``dropping``."""
    extras = {"weight_ln_hh": lambda size: (size,)} if layer_norm else {}
    options = {"nonlinearity": nonlinearity}
    return dropping(Recurrence(ops.rnn, 1, extras=extras, options=options), **dropped)


def dropping(
    recurrence: Recurrence,
    recurrent_mask: bool = False,
    zoneout_h: str | float | None = None,
    zoneout_c: str | float | None = None,
) -> Recurrence:
    """The recurrence with a recurrent mask, and with zoneout: "bool", "float" or a number."""
    masks = {"recurrent_mask": False} if recurrent_mask else {}
    options = dict(recurrence.options)
    for name, zoneout in {"zoneout_h": zoneout_h, "zoneout_c": zoneout_c}.items():
        if isinstance(zoneout, str):
            masks[name] = zoneout == "bool"
        elif zoneout is not None:
            options[name] = zoneout
    return replace(recurrence, masks=masks, options=options)


LSTM, DIAGONAL, FULL = lstm(), lstm("diagonal"), lstm("full")
GRU, GRU_BIAS = gru(), gru(bias_hn=True)
RNN_TANH, RNN_RELU = rnn("tanh"), rnn("relu")

RECURRENCES = {
    "lstm": LSTM,
    "lstm-diagonal": DIAGONAL,
    "lstm-full": FULL,
    "lstm-coupled-full-dropped": lstm(
        "full", coupled=True, recurrent_mask=True, zoneout_h="bool", zoneout_c="bool"
    ),
    "lstm-diagonal-projected-zoneout": lstm(
        "diagonal", projected=True, zoneout_h="bool", zoneout_c=0.2
    ),
    "lstm-full-clip-layer_norm-mask": lstm(
        "full", cell_clip=0.7, layer_norm=True, recurrent_mask=True
    ),
    "lstm-coupled-projected-layer_norm-dropped": lstm(
        coupled=True, projected=True, layer_norm=True, recurrent_mask=True, zoneout_c="float"
    ),
    "gru": GRU,
    "gru-bias_hn": GRU_BIAS,
    "gru-bias_hn-layer_norm-dropped": gru(
        bias_hn=True, layer_norm=True, recurrent_mask=True, zoneout_h="bool"
    ),
    "rnn-tanh": RNN_TANH,
    "rnn-relu": RNN_RELU,
    "rnn-tanh-layer_norm-dropped": rnn(
        "tanh", layer_norm=True, recurrent_mask=True, zoneout_h="float"
    ),
    "rnn-relu-dropped": rnn("relu", recurrent_mask=True, zoneout_h=0.3),
}


def on_backends(recurrences: Mapping[str, Recurrence]) -> dict[str, Recurrence]:
    """Each on every backend that computes it, by name."""
    return {
        f"{name}-{backend}": replace(recurrence, backend=backend)
        for name, recurrence in recurrences.items()
        for backend in recurrence.backends
    }


def leaves(tensors: Tensors) -> Tensors:
    """The tensors that have gradients: all but the offsets and masks."""
    return {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}


def spans(tensors: Tensors) -> list[range]:
    """The rows of each sequence."""
    return [range(*bounds) for bounds in pairwise(tensors["offsets"].tolist())]


def cut(tensors: Tensors, rows: Sequence[range]) -> Tensors:
    """The same call on some rows of each sequence, in the order given."""
    every = torch.tensor([row for span in rows for row in span], dtype=torch.int64)
    picked = {name: tensors[name][every] for name in BY_STEP if name in tensors}
    return tensors | picked | {"offsets": offsets_of([len(span) for span in rows])}


def pick(tensors: Tensors, sequences: Sequence[int]) -> Tensors:
    """The same call for some of the sequences, in the order given."""
    rows = spans(tensors)
    picked = {name: tensors[name][list(sequences)] for name in BY_SEQUENCE if name in tensors}
    return cut(tensors | picked, [rows[b] for b in sequences])


def assert_agree(
    given: Sequence[Tensor], wanted: Sequence[Tensor], tensors: Tensors, tolerance: float = 1e-10
) -> None:
    """Assert that outputs are equal, and every tensor's gradients from each of them too."""
    inputs = leaves(tensors)
    assert len(given) == len(wanted)
    for k, (ours, theirs) in enumerate(zip(given, wanted, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        upstream = torch.randn_like(theirs)
        gradients = (
            torch.autograd.grad(
                output, list(inputs.values()), upstream, retain_graph=True, materialize_grads=True
            )
            for output in (ours, theirs)
        )
        for name, d_ours, d_theirs in zip(inputs, *gradients, strict=True):
            torch.testing.assert_close(
                d_ours,
                d_theirs,
                rtol=tolerance,
                atol=tolerance,
                msg=lambda m, k=k, name=name: f"d_{name} from output {k}: {m}",
            )
