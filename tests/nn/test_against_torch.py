"""The layers against ``torch.nn``'s modules in float64: values, states, all gradients, arguments.

Each test gives both the same weights, inputs and initial states. Every output and every state has
its own random upstream gradient.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_overloads

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import peephole
from peephole.nn import Layer
from tests.helpers.layers import (
    BY_NAME,
    EVERY,
    EVERY_SERVED,
    HIDDEN,
    INPUT,
    KINDS,
    STACKS,
    Kind,
    apart,
    as_tuple,
    assert_agree,
    assert_close,
    padded,
    parameters,
    random_sequences,
    run_torch,
    shared,
)

Make = Callable[[Tensor], Tensor | PackedSequence]
# For each form in which torch.nn takes a batch: the shape of a leaf, and the input made of it.
FORMS: dict[str, tuple[tuple[int, ...], Make]] = {
    "padded": ((5, 4, INPUT), lambda x: x),
    "batch first": ((4, 5, INPUT), lambda x: x),
    "unbatched": ((5, INPUT), lambda x: x),
    "packed": ((5, 4, INPUT), lambda x: pack_padded_sequence(x, [5, 3, 3, 1])),
    "packed unsorted": (
        (5, 4, INPUT),
        lambda x: pack_padded_sequence(x, [3, 1, 5, 3], enforce_sorted=False),
    ),
    "packed, nearly even": ((5, 4, INPUT), lambda x: pack_padded_sequence(x, [5, 5, 4, 4])),
}
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
# Longest not first, ties, an empty sequence; and one where padding wastes little.
WITH_LENGTHS = pytest.mark.parametrize(
    ("lengths", "batch_first"), [([3, 1, 0, 5, 5], False), ([4, 5, 5], True)], ids=str
)


def batch(form: str) -> tuple[Tensor, Tensor | PackedSequence, int | None]:
    """A leaf, the input made of it, and how many sequences it has."""
    shape, make = FORMS[form]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return x, make(x), None if form == "unbatched" else 4


def flat(result: tuple[Any, Any]) -> list[Tensor]:
    output, states = result
    return [output.data if isinstance(output, PackedSequence) else output, *as_tuple(states)]


class TestEqualsTorch:
    @EVERY_SERVED
    @STACKS
    @EVERY_FORM
    def test_with_initial_states(
        self, kind: Kind, num_layers: int, bidirectional: bool, backend: str, form: str
    ) -> None:
        layer, truth = kind.pair(
            backend,
            num_layers=num_layers,
            bidirectional=bidirectional,
            batch_first=form == "batch first",
        )
        x, input, sequences = batch(form)
        hx = kind.initial(layer, sequences)
        leaves = parameters(layer, truth) | shared(x=x, hx=hx)
        assert_agree(flat(layer(input, hx)), flat(truth(input, hx)), leaves)

    @EVERY_SERVED
    @EVERY_FORM
    def test_from_zero_without_biases(self, kind: Kind, backend: str, form: str) -> None:
        layer, truth = kind.pair(
            backend,
            num_layers=2,
            bidirectional=True,
            bias=False,
            batch_first=form == "batch first",
        )
        x, input, _ = batch(form)
        leaves = parameters(layer, truth) | shared(x=x)
        assert_agree(flat(layer(input)), flat(truth(input)), leaves)

    @EVERY_SERVED
    @EVERY_FORM
    def test_without_gradients(self, kind: Kind, backend: str, form: str) -> None:
        # Where nothing is recorded, "auto" takes other ways.
        layer, truth = kind.pair(
            backend, num_layers=2, bidirectional=True, batch_first=form == "batch first"
        )
        _, input, sequences = batch(form)
        hx = kind.initial(layer, sequences)
        with torch.no_grad():
            pairs = zip(flat(layer(input, hx)), flat(truth(input, hx)), strict=True)
            for given, wanted in pairs:
                assert_close(given, wanted)

    @EVERY_SERVED
    @STACKS
    @WITH_LENGTHS
    def test_padded_with_lengths_equals_packed(
        self,
        kind: Kind,
        num_layers: int,
        bidirectional: bool,
        backend: str,
        batch_first: bool,
        lengths: list[int],
    ) -> None:
        layer, truth = kind.pair(
            backend, num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first
        )
        sequences = random_sequences(lengths)
        hx = kind.initial(layer, len(lengths))
        output, states = layer(padded(sequences, batch_first), hx, torch.tensor(lengths))
        wanted, wanted_states = run_torch(truth, sequences, hx)
        assert_agree(
            [*apart(output, lengths, batch_first), *as_tuple(states)],
            [*wanted, *wanted_states],
            parameters(layer, truth) | shared(x=sequences, hx=hx),
        )

    @EVERY
    @pytest.mark.parametrize("form", ["padded", "packed"])
    def test_wide(self, kind: Kind, form: str) -> None:
        # With as many units "auto" takes another way than with few.
        wide = {"proj_size": 64} if "proj_size" in kind.options else {}
        layer, truth = kind.pair(num_layers=2, bidirectional=True, hidden_size=65, **wide)
        x, input, sequences = batch(form)
        hx = kind.initial(layer, sequences)
        given = flat(layer(input, hx))
        assert_agree(given, flat(truth(input, hx)), parameters(layer, truth) | shared(x=x, hx=hx))

    @EVERY
    @pytest.mark.parametrize("form", ["padded", "packed"])
    def test_second_derivatives(self, kind: Kind, form: str) -> None:
        # torch.nn has them on a CPU for float64, which is where both can be compared.
        layer, truth = kind.pair("reference", num_layers=2, bidirectional=True)
        x, input, sequences = batch(form)
        hx = kind.initial(layer, sequences)
        leaves = parameters(layer, truth) | shared(x=x, hx=hx)
        outputs = flat(layer(input, hx)), flat(truth(input, hx))
        upstream = [torch.randn_like(wanted, requires_grad=True) for wanted in outputs[1]]
        first = (
            torch.autograd.grad(
                each, [pair[k] for pair in leaves.values()], upstream, create_graph=True
            )
            for k, each in enumerate(outputs)
        )
        more = {f"upstream[{k}]": (each, each) for k, each in enumerate(upstream)}
        assert_agree(*first, leaves | more)


class TestArguments:
    @BY_NAME
    def test_the_constructor_begins_as_torch_s(self, name: str) -> None:
        # torch.nn documents its arguments by its first overload, where GRU and RNN leave out
        # proj_size, which they do take, to refuse it, before device.
        documented = get_overloads(getattr(nn, name).__init__)[0]
        wanted = [(p.name, p.default) for p in inspect.signature(documented).parameters.values()]
        given = [
            (p.name, p.default, p.kind)
            for p in inspect.signature(getattr(peephole, name).__init__).parameters.values()
        ]
        positional = [(n, d) for n, d, k in given if k == inspect.Parameter.POSITIONAL_OR_KEYWORD]
        if name != "LSTM":
            positional.remove(("proj_size", 0))
        assert positional == wanted

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("LSTM", (2, 5, 3, False, True, 0.25, True, 3, "cpu", torch.float64)),
            ("GRU", (2, 5, 3, False, True, 0.25, True, 0, "cpu", torch.float64)),
            ("RNN", (2, 5, 3, "relu", False, True, 0.25, True, 0, "cpu", torch.float64)),
        ],
    )
    def test_arguments_by_position(self, name: str, arguments: tuple[Any, ...]) -> None:
        layer: Layer = getattr(peephole, name)(*arguments)
        truth: nn.RNNBase = getattr(nn, name)(*arguments)
        names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"]
        names += ["bidirectional", "proj_size"]
        names += ["nonlinearity"] if name == "RNN" else []
        for each in names:
            assert getattr(layer, each) == getattr(truth, each), each
        given, wanted = (
            [(n, p.shape, p.dtype, p.device) for n, p in module.named_parameters()]
            for module in (layer, truth)
        )
        assert given == wanted

    @BY_NAME
    def test_arguments_by_name(self, name: str) -> None:
        wanted = inspect.signature(get_overloads(getattr(nn, name).__init__)[0]).parameters
        values = {
            "input_size": 2,
            "hidden_size": 5,
            "num_layers": 2,
            "nonlinearity": "relu",
            "bias": False,
            "batch_first": True,
            "dropout": 0.5,
            "bidirectional": True,
            "proj_size": 3,
            "device": "meta",
            "dtype": torch.bfloat16,
        }
        given = {n: values[n] for n in wanted if n != "self"}
        layer: Layer = getattr(peephole, name)(**given)
        for n in given.keys() - {"device", "dtype"}:
            assert getattr(layer, n) == given[n]
        assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}

    @BY_NAME
    def test_forward_begins_as_torch_s(self, name: str) -> None:
        wanted = list(inspect.signature(getattr(nn, name).forward).parameters)
        given = list(inspect.signature(getattr(peephole, name).forward).parameters)
        assert given[: len(wanted)] == wanted

    @EVERY
    def test_states_by_position_and_by_name(self, kind: Kind) -> None:
        layer, truth = kind.pair(num_layers=2)
        x = torch.randn(6, 4, INPUT, dtype=torch.float64)
        hx = kind.initial(layer, 4)
        wanted = flat(truth(x, hx=hx))
        for given in (layer(x, hx), layer(x, hx=hx), layer(input=x, hx=hx), layer(x, hx, None)):
            for ours, theirs in zip(flat(given), wanted, strict=True):
                assert_close(ours, theirs)

    def test_states_in_a_list(self) -> None:
        layer, truth = KINDS["LSTM"].pair()
        x = torch.randn(6, 4, INPUT, dtype=torch.float64)
        hx = list(torch.randn(2, 1, 4, HIDDEN, dtype=torch.float64))
        for ours, theirs in zip(flat(layer(x, hx)), flat(truth(x, hx)), strict=True):
            assert_close(ours, theirs)
