"""Each recurrence of ``peephole.ops`` as the tests call it, with tensors to call it on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from peephole import ops
from tests.helpers.batches import offsets_of

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Recurrence:
    """One op with one choice of its options.

    Attributes:
        op: the function in ``peephole.ops``.
        gates: gates per hidden unit, G.
        states: the names of its initial states.
        extras: shapes of further weights, given H.
        options: arguments that are not tensors.
    """

    op: Callable[..., Any]
    gates: int
    states: tuple[str, ...] = ("h0",)
    extras: Mapping[str, Callable[[int], tuple[int, ...]]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def draw(
        self,
        lengths: Sequence[int],
        hidden_size: int = 3,
        dtype: torch.dtype = torch.float64,
        initial: bool = True,
    ) -> Tensors:
        """Random tensors for every argument, all but the offsets leaves of autograd."""
        GH = self.gates * hidden_size
        shapes = {"gates_x": (sum(lengths), GH), "weight_hh": (GH, hidden_size)}
        shapes |= {name: shape(hidden_size) for name, shape in self.extras.items()}
        if initial:
            shapes |= dict.fromkeys(self.states, (len(lengths), hidden_size))
        # Drawn in float64, so that every dtype gets the same numbers but for rounding.
        tensors = {
            name: torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()
            for name, shape in shapes.items()
        }
        return tensors | {"offsets": offsets_of(lengths)}

    def __call__(self, tensors: Tensors, **options: Any) -> tuple[Tensor, ...]:
        """Run the op: y, then each final state."""
        y, final = self.op(**tensors, **self.options, **options)
        return (y, *final) if isinstance(final, tuple) else (y, final)


LSTM_STATES = ("h0", "c0")
LSTM = Recurrence(ops.lstm, 4, LSTM_STATES)
DIAGONAL = Recurrence(ops.lstm, 4, LSTM_STATES, {"weight_ch": lambda size: (3, size)})
FULL = Recurrence(ops.lstm, 4, LSTM_STATES, {"weight_ch": lambda size: (3 * size, size)})
GRU = Recurrence(ops.gru, 3)
GRU_BIAS = Recurrence(ops.gru, 3, extras={"bias_hn": lambda size: (size,)})
RNN_TANH = Recurrence(ops.rnn, 1, options={"nonlinearity": "tanh"})
RNN_RELU = Recurrence(ops.rnn, 1, options={"nonlinearity": "relu"})

RECURRENCES = {
    "lstm": LSTM,
    "lstm-diagonal": DIAGONAL,
    "lstm-full": FULL,
    "gru": GRU,
    "gru-bias_hn": GRU_BIAS,
    "rnn-tanh": RNN_TANH,
    "rnn-relu": RNN_RELU,
}


def leaves(tensors: Tensors) -> Tensors:
    """The tensors that have gradients: all but the offsets."""
    return {name: tensor for name, tensor in tensors.items() if name != "offsets"}


def pick(tensors: Tensors, sequences: Sequence[int]) -> Tensors:
    """The same call for some of the sequences, in the order given."""
    rows = [torch.arange(*tensors["offsets"][b : b + 2].tolist()) for b in sequences]
    picked = {name: tensors[name][list(sequences)] for name in ("h0", "c0") if name in tensors}
    picked["gates_x"] = tensors["gates_x"][torch.cat([torch.arange(0), *rows])]
    picked["offsets"] = offsets_of([len(r) for r in rows])
    return tensors | picked


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
