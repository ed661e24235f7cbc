"""The backends of a layer: each computes the same; which one ran, and what a person is told."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peephole
from peephole import Ragged
from peephole.nn import Layer
from peephole.offsets import Layout
from peephole.ops import run
from peephole.ops.torch import direction
from tests.helpers.batches import offsets_of
from tests.helpers.layers import (
    BOTH,
    BY_NAME,
    EVERY,
    EVERY_SERVED,
    HIDDEN,
    INPUT,
    KINDS,
    SERVED,
    Kind,
    as_tuple,
    assert_agree,
    assert_close,
    float32_projection,
    ragged,
    random_sequences,
    shared,
)
from tests.helpers.marks import DIRECTIONS

pytestmark = float32_projection

# Much padding, little padding, none; empty sequences first, last and between; one sequence.
UNEVEN = [5, 1, 0, 3, 7, 7, 0]
LENGTHS = {
    "much padding": [9, 1, 0, 3, 2, 2, 0],
    "little padding": [0, 5, 6, 6, 4, 6],
    "even": [5, 5, 5],
    "one sequence": [7],
}
BATCHES = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
# Rounding in float32, of sums of about 20 numbers of size 1 and gradients of size 10.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-5}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
OTHERS = {name: case for name, case in SERVED.items() if case[1] != "reference"}
EVERY_OTHER = pytest.mark.parametrize(("kind", "backend"), OTHERS.values(), ids=OTHERS)


def flat(result: tuple[Ragged, Any]) -> list[Tensor]:
    return [result[0].values, *as_tuple(result[1])]


def copies(layer: Layer, **options: Any) -> Layer:
    """The same layer with other options that add no parameters."""
    made = {
        name: getattr(layer, name)
        for name in ("input_size", "hidden_size", "num_layers", "bias", "bidirectional")
    }
    made |= {name: value for name, (value, _) in layer.options().items()}
    made |= {"dtype": layer.weight_ih_l0.dtype, "proj_size": layer.proj_size}
    other = type(layer)(**(made | options))
    other.load_state_dict(layer.state_dict())
    return other


def agree(given: Layer, wanted: Layer, lengths: Sequence[int], initial: bool = True) -> None:
    """Assert that two layers with the same weights do the same."""
    dtype = given.weight_ih_l0.dtype
    sequences = random_sequences(lengths, dtype=dtype)
    kind = next(k for k in KINDS.values() if k.ours is type(given))
    hx = kind.initial(given, len(lengths)) if initial else None
    x = ragged(sequences)
    leaves = {
        name: (parameter, wanted.get_parameter(name))
        for name, parameter in given.named_parameters()
    }
    leaves |= shared(x=sequences) | (shared(hx=hx) if initial else {})
    assert_agree(flat(given(x, hx)), flat(wanted(x, hx)), leaves, TOLERANCE[dtype])


class TestLayers:
    @EVERY_OTHER
    @BOTH
    @BATCHES
    @DTYPES
    def test_agree_with_the_reference(
        self,
        kind: Kind,
        bidirectional: bool,
        lengths: list[int],
        dtype: torch.dtype,
        backend: str,
    ) -> None:
        layer = kind.layer(
            num_layers=2, bidirectional=bidirectional, dtype=dtype, backend="reference"
        )
        agree(copies(layer, backend=backend), layer, lengths)

    @EVERY_OTHER
    @DTYPES
    @pytest.mark.parametrize("option", ["bias", "single_bias"])
    def test_with_fewer_biases(
        self, kind: Kind, dtype: torch.dtype, backend: str, option: str
    ) -> None:
        options = {option: option != "bias"}
        layer = kind.layer(
            num_layers=2, bidirectional=True, dtype=dtype, backend="reference", **options
        )
        for lengths in LENGTHS.values():
            agree(copies(layer, backend=backend), layer, lengths, initial=False)

    @EVERY_OTHER
    def test_wide(self, kind: Kind, backend: str) -> None:
        # With as many units "auto" takes another way than with few.
        wide = {"proj_size": 64} if "proj_size" in kind.options else {}
        layer = kind.layer(hidden_size=65, backend="reference", bidirectional=True, **wide)
        for lengths in LENGTHS.values():
            agree(copies(layer, backend=backend), layer, lengths)

    @EVERY_OTHER
    @DTYPES
    def test_without_gradients(self, kind: Kind, dtype: torch.dtype, backend: str) -> None:
        layer = kind.layer(num_layers=2, bidirectional=True, dtype=dtype, backend="reference")
        other = copies(layer, backend=backend)
        for lengths in LENGTHS.values():
            x = ragged(random_sequences(lengths, dtype=dtype))
            with torch.no_grad():
                pairs = zip(flat(other(x)), flat(layer(x)), strict=True)
                for given, wanted in pairs:
                    assert_close(given, wanted, TOLERANCE[dtype])

    @EVERY_OTHER
    @DTYPES
    def test_gradients_of_a_frozen_layer_in_evaluation(
        self, kind: Kind, dtype: torch.dtype, backend: str
    ) -> None:
        layer = kind.layer(bidirectional=True, dtype=dtype, backend="reference")
        other = copies(layer, backend=backend)
        for module in (layer, other):
            module.requires_grad_(False).eval()
        for lengths in LENGTHS.values():
            sequences = [s.detach() for s in random_sequences(lengths, dtype=dtype)]
            hx = kind.initial(layer, len(lengths))
            # Of the initial states alone, then of the input too.
            for _ in range(2):
                leaves = shared(hx=hx) | shared(x=[s for s in sequences if s.requires_grad])
                x = ragged(sequences)
                assert_agree(flat(other(x, hx)), flat(layer(x, hx)), leaves, TOLERANCE[dtype])
                sequences = [s.requires_grad_() for s in sequences]

    @EVERY_OTHER
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_rounds_no_worse_than_twice_the_reference(
        self, kind: Kind, backend: str, dtype: torch.dtype
    ) -> None:
        layer = kind.layer(hidden_size=17, dtype=dtype, backend="reference")
        truth, other = copies(layer, dtype=torch.float64), copies(layer, backend=backend)
        for lengths in LENGTHS.values():
            sequences = random_sequences(lengths, dtype=dtype)
            upstream = [torch.randn_like(each) for each in flat(layer(ragged(sequences)))]
            errors = []
            wanted = results(truth, [s.double() for s in sequences], upstream)
            for module in (other, layer):
                given = results(module, sequences, upstream)
                pairs = zip(given, wanted, strict=True)
                errors.append([(g - w).abs().max().item() for g, w in pairs])
            sizes = [w.abs().max().item() for w in wanted]
            epsilon = torch.finfo(dtype).eps
            for ours, reference, size in zip(*errors, sizes, strict=True):
                assert ours <= 2 * reference + 2 * epsilon * size


def results(layer: Layer, sequences: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
    """Outputs, states and gradients in float64."""
    outputs = flat(layer(ragged(sequences)))
    gradients = torch.autograd.grad(
        outputs, list(layer.parameters()), [u.to(outputs[0].dtype) for u in upstream]
    )
    return [each.detach().double() for each in (*outputs, *gradients)]


WAYS = pytest.mark.parametrize("way", ["padded", "packed"])


class TestTorchsOperators:
    """Each way through them, one layer and one direction."""

    @EVERY
    @BATCHES
    @DIRECTIONS
    @DTYPES
    @WAYS
    def test_equal_the_reference(
        self, kind: Kind, lengths: list[int], reverse: bool, dtype: torch.dtype, way: str
    ) -> None:
        self.compare(kind, kind.layer(dtype=dtype), lengths, way, reverse)

    @EVERY
    @DIRECTIONS
    @WAYS
    @pytest.mark.parametrize("option", [{"bias": False}, {"single_bias": True}], ids=str)
    def test_with_fewer_biases(
        self, kind: Kind, reverse: bool, way: str, option: dict[str, bool]
    ) -> None:
        self.compare(kind, kind.layer(**option), LENGTHS["little padding"], way, reverse)

    def compare(
        self, kind: Kind, layer: Layer, lengths: list[int], way: str, reverse: bool
    ) -> None:
        weights = {
            name.removesuffix("_l0"): parameter for name, parameter in layer.named_parameters()
        }
        dtype = layer.weight_ih_l0.dtype
        (x,) = random_sequences([sum(lengths)], dtype=dtype)
        state = tuple(s[0] for s in as_tuple(kind.initial(layer, len(lengths))))
        layout = Layout(offsets_of(lengths))
        name = layer.name
        nonlinearity = layer.nonlinearity if name == "rnn" else None
        y, final = direction(
            (name, nonlinearity), way, x, layout, weights, state, reverse=reverse, training=True
        )
        initial = {f"{s}0": each for s, each in zip(layer.states, state, strict=True)}
        options = {
            **layer.recurrence_options(),
            "way": "reference",
            "reverse": reverse,
            "return_states": False,
            "training": True,
        }
        found = run(name, x, layout, {**weights, **initial}, options)
        leaves = shared(x=x, state=state, weights=list(weights.values()))
        assert_agree([y, *final], [found.y, *found.final], leaves, TOLERANCE[dtype])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_what_grows_in_padding_stays_there(self, dtype: torch.dtype) -> None:
        # The first sequence holds h at 0; the other one's would double at each step after its
        # end, and in padding it does, up to infinity.
        layers = [
            peephole.RNN(1, 1, nonlinearity="relu", bias=False, backend=backend, dtype=dtype)
            for backend in ("reference", "torch", "cpu", "auto")
        ]
        x = Ragged.from_list(
            [torch.full((1200, 1), -1, dtype=dtype), torch.ones(1, 1, dtype=dtype)]
        )
        for layer in layers:
            nn.init.ones_(layer.weight_ih_l0)
            nn.init.constant_(layer.weight_hh_l0, 2)
            output, h_n = layer(x)
            (output.values.sum() + h_n.sum()).backward()
            assert h_n.flatten().tolist() == [0, 1]
            assert layer.weight_ih_l0.grad.item() == 2
            assert layer.weight_hh_l0.grad.item() == 0


class TestWithoutSteps:
    @EVERY_SERVED
    @pytest.mark.parametrize("lengths", [[0, 0, 0], []], ids=["all empty", "no sequences"])
    def test_gives_the_initial_states(self, kind: Kind, backend: str, lengths: list[int]) -> None:
        layer = kind.layer(num_layers=2, bidirectional=True, backend=backend)
        x = Ragged(torch.zeros(0, INPUT, dtype=torch.float64), offsets_of(lengths))
        hx = kind.initial(layer, len(lengths))
        output, states = layer(x, hx)
        # torch's operators refuse to.
        kernels = backend in ("cpu", "auto") and "proj_size" not in kind.options
        assert layer.backend_used == ("cpu" if kernels else "reference")
        assert output.values.shape == (0, layer.output_size)
        assert_agree(
            as_tuple(states),
            as_tuple(hx),
            {n: (p, p) for n, p in layer.named_parameters()} | shared(hx=hx),
        )

    @BY_NAME
    def test_of_every_form(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, backend="torch")
        for shape, lengths in (
            ((0, 2, INPUT), None),
            ((4, 0, INPUT), None),
            ((0, INPUT), None),
            ((4, 2, INPUT), [0, 0]),
        ):
            output, _ = layer(torch.ones(shape), None, lengths)
            assert output.shape == (*shape[:-1], HIDDEN)
            assert not output.any()
            assert layer.backend_used == "reference"


class TestInference:
    @EVERY_SERVED
    @DTYPES
    def test_then_training_on_the_same_batch(
        self, kind: Kind, dtype: torch.dtype, backend: str
    ) -> None:
        # What is kept of a batch must be of use to autograd later.
        for lengths in (LENGTHS["much padding"], LENGTHS["little padding"]):
            layer = kind.layer(num_layers=2, bidirectional=True, dtype=dtype, backend=backend)
            x = ragged([s.detach() for s in random_sequences(lengths, dtype=dtype)])
            for way in {"torch", backend}:
                with torch.inference_mode():
                    copies(layer, backend=way)(x)
            output, states = layer(x)
            sum(each.sum() for each in (output.values, *as_tuple(states))).backward()
            assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())

    @BY_NAME
    def test_a_batch_made_there_can_be_read_later(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN)
        padded = torch.randn(3, 7, INPUT)
        with torch.inference_mode():
            x = Ragged.from_padded(padded, [5, 0, 7])
            wanted = layer(x)[0].values.clone()
        # The values themselves torch keeps from autograd; a copy of them it takes.
        x = x.with_values(x.values.clone())
        output, _ = layer(x)
        output.values.sum().backward()
        assert_close(output.values, wanted, 1e-6)


@pytest.mark.usefixtures("without_kernels")
class TestWithoutKernels:
    """As where they could not be compiled: "auto" is the faster of the others."""

    @EVERY
    @BATCHES
    @DTYPES
    def test_agrees_with_the_reference(
        self, kind: Kind, lengths: list[int], dtype: torch.dtype
    ) -> None:
        layer = kind.layer(num_layers=2, bidirectional=True, dtype=dtype, backend="reference")
        other = copies(layer, backend="auto")
        agree(other, layer, lengths)
        assert other.backend_used in ("reference", "torch")
        # Where nothing is recorded it takes other ways.
        x = ragged(random_sequences(lengths, dtype=dtype))
        with torch.no_grad():
            for given, wanted in zip(flat(other(x)), flat(layer(x)), strict=True):
                assert_close(given, wanted, TOLERANCE[dtype])
        assert other.backend_used == "torch"

    @EVERY
    def test_wide(self, kind: Kind) -> None:
        # With as many units it takes another way than with few.
        wide = {"proj_size": 64} if "proj_size" in kind.options else {}
        layer = kind.layer(hidden_size=65, backend="reference", bidirectional=True, **wide)
        for lengths in LENGTHS.values():
            agree(copies(layer, backend="auto"), layer, lengths)
