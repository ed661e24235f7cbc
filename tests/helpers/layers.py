"""The layers beside ``torch.nn``'s modules, and what the tests do with both."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence, unpack_sequence

import peephole
from peephole import Ragged
from peephole.nn import Layer
from tests.helpers.batches import offsets_of

# Not one divides another.
INPUT, HIDDEN, PROJECTED = 3, 5, 2


class Kind(NamedTuple):
    """One kind of layer.

    Attributes:
        ours: the layer.
        theirs: the module of ``torch.nn``.
        options: what both are made with.
    """

    ours: type[Layer]
    theirs: type[nn.RNNBase]
    options: Mapping[str, Any]

    @property
    def states(self) -> int:
        return 2 if self.theirs is nn.LSTM else 1

    def layer(self, **options: Any) -> Layer:
        made = {"input_size": INPUT, "hidden_size": HIDDEN, "dtype": torch.float64}
        return self.ours(**{**made, **self.options, **options})

    def pair(self, backend: str = "auto", **options: Any) -> tuple[Layer, nn.RNNBase]:
        """A layer and the module of ``torch.nn`` with the same random weights."""
        options = {"dtype": torch.float64, **self.options, **options}
        sizes = {"input_size": INPUT, "hidden_size": HIDDEN} | options
        layer, truth = self.ours(**sizes, backend=backend), self.theirs(**sizes)
        layer.load_state_dict(truth.state_dict())
        return layer, truth

    def initial(self, layer: Layer, sequences: int | None) -> Any:
        """Random initial states for it, leaves of autograd, as it takes them.

        Args:
            layer: one with a single width.
            sequences: None for a single sequence, without a dimension for the batch.
        """
        rows = layer.num_layers * (1 + layer.bidirectional)
        batch = () if sequences is None else (sequences,)
        weight = layer.weight_ih_l0
        states = tuple(
            torch.randn(rows, *batch, width, dtype=torch.float64).to(weight.dtype).requires_grad_()
            for width in layer.state_sizes(layer.hidden_size)
        )
        return as_given(states)


KINDS = {
    "LSTM": Kind(peephole.LSTM, nn.LSTM, {}),
    "LSTM-projected": Kind(peephole.LSTM, nn.LSTM, {"proj_size": PROJECTED}),
    "GRU": Kind(peephole.GRU, nn.GRU, {}),
    "RNN-tanh": Kind(peephole.RNN, nn.RNN, {}),
    "RNN-relu": Kind(peephole.RNN, nn.RNN, {"nonlinearity": "relu"}),
}
NAMES = ("LSTM", "GRU", "RNN")

EVERY = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
BY_NAME = pytest.mark.parametrize("name", NAMES)
# One to three layers, and both directions, not each with each.
STACKS = pytest.mark.parametrize(
    ("num_layers", "bidirectional"),
    [(1, False), (1, True), (2, False), (3, True)],
    ids=["1 layer", "1 layer both ways", "2 layers", "3 layers both ways"],
)
BOTH = pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
BACKENDS = pytest.mark.parametrize("backend", ["reference", "torch", "cpu", "auto"])
# Every kind on every backend that has it.
SERVED = {
    f"{name}-{backend}": (kind, backend)
    for name, kind in KINDS.items()
    for backend in ("reference", "torch", "cpu", "auto")
    if (name, backend) != ("LSTM-projected", "cpu")
}
EVERY_SERVED = pytest.mark.parametrize(("kind", "backend"), SERVED.values(), ids=SERVED)
# torch says so once in a process, for its own modules as well as for our layers.
float32_projection = pytest.mark.filterwarnings(
    "ignore:LSTM with projections is not supported with oneDNN:UserWarning"
)
BATCH_FIRST = pytest.mark.parametrize("batch_first", [False, True], ids=["[T, B]", "[B, T]"])


def as_tuple(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def as_given(states: Sequence[Tensor]) -> Any:
    """What a module takes: the LSTM both its states, the others their one."""
    return tuple(states) if len(states) == 2 else states[0]


def random_sequences(
    lengths: Iterable[int], features: int = INPUT, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Sequences, each a leaf of autograd; the numbers are the same in every dtype."""
    drawn = [torch.randn(length, features, dtype=torch.float64) for length in lengths]
    return [sequence.to(dtype).requires_grad_() for sequence in drawn]


def ragged(sequences: Sequence[Tensor]) -> Ragged:
    return Ragged(torch.cat(list(sequences)), offsets_of([len(s) for s in sequences]))


def padded(
    sequences: Sequence[Tensor], batch_first: bool, steps: int | None = None, fill: float = 0.0
) -> Tensor:
    """One row or column for each sequence, ``fill`` past its end."""
    steps = max(map(len, sequences)) if steps is None else steps
    rows = [
        torch.cat([s, s.new_full((steps - len(s), s.shape[1]), fill)]) if len(s) < steps else s
        for s in sequences
    ]
    return torch.stack(rows, 0 if batch_first else 1)


def apart(output: Any, lengths: Sequence[int], batch_first: bool = False) -> list[Tensor]:
    """The sequences of an output in any form, in the caller's order, none of it by our code."""
    if isinstance(output, Ragged):
        return list(torch.split(output.values, list(lengths)))
    if isinstance(output, PackedSequence):
        output, found = pad_packed_sequence(output)
        assert found.tolist() == list(lengths)
        batch_first = False
    if output.is_nested:
        return list(output.unbind())
    if output.dim() == 2:
        return [output]
    if not batch_first:
        output = output.transpose(0, 1)
    return [row[:length] for row, length in zip(output, lengths, strict=True)]


def run_torch(
    truth: nn.RNNBase, sequences: Sequence[Tensor], hx: Any
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """``torch.nn`` over sequences of any lengths, packed.

    It packs no empty one: the final state of that is its initial state, by our definition.

    Returns:
        Each sequence's output, and the final states.
    """
    full = [b for b, sequence in enumerate(sequences) if len(sequence)]
    packed = pack_sequence([sequences[b] for b in full], enforce_sorted=False)
    initial = as_tuple(hx)
    y, final = truth(packed, as_given([s[:, full] for s in initial]))
    places = {b: k for k, b in enumerate(full)}
    outputs = unpack_sequence(y)
    nothing = outputs[0][:0]
    states = (
        torch.stack(
            [ended[:, places[b]] if b in places else begun[:, b] for b in range(len(sequences))], 1
        )
        for ended, begun in zip(as_tuple(final), initial, strict=True)
    )
    return [outputs[places[b]] if b in places else nothing for b in range(len(sequences))], tuple(
        states
    )


Leaves = dict[str, tuple[Tensor, Tensor]]


def parameters(layer: nn.Module, truth: nn.Module) -> Leaves:
    """The parameters of both by name, which must be the same."""
    pairs = zip(layer.named_parameters(), truth.named_parameters(), strict=True)
    found = {}
    for (name, ours), (wanted, theirs) in pairs:
        assert name == wanted
        found[name] = (ours, theirs)
    return found


def shared(**inputs: Any) -> Leaves:
    """Inputs that both were given: a tensor or several by each name."""
    return {
        f"{name}[{k}]": (tensor, tensor)
        for name, given in inputs.items()
        for k, tensor in enumerate([given] if isinstance(given, Tensor) else given)
    }


def assert_close(given: Tensor, wanted: Tensor, tolerance: float = 1e-10, what: str = "") -> None:
    torch.testing.assert_close(
        given, wanted, rtol=tolerance, atol=tolerance, msg=lambda m: f"{what}: {m}"
    )


def assert_agree(
    given: Sequence[Tensor], wanted: Sequence[Tensor], leaves: Leaves, tolerance: float = 1e-10
) -> None:
    """Assert that outputs are equal, and every leaf's gradient.

    Each output has random upstream gradients of its own.
    """
    assert len(given) == len(wanted)
    for k, (ours, theirs) in enumerate(zip(given, wanted, strict=True)):
        assert_close(ours, theirs, tolerance, f"output {k}")
    upstream = [torch.randn_like(theirs) for theirs in wanted]
    d_ours, d_theirs = (
        torch.autograd.grad(
            outputs,
            [pair[k] for pair in leaves.values()],
            upstream,
            # Both may have come out of one packing.
            retain_graph=True,
            materialize_grads=True,
        )
        for k, outputs in enumerate((given, wanted))
    )
    for name, ours, theirs in zip(leaves, d_ours, d_theirs, strict=True):
        assert_close(ours, theirs, tolerance, f"d_{name}")
