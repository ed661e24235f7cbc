"""Layers on the compiled kernels, which take their input product along: beside the reference.

How they agree with ``torch.nn`` in every form of input is tested in ``tests/nn``.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peephole
from peephole import Ragged
from peephole.nn import Layer
from tests.helpers.batches import offsets_of
from tests.helpers.graphs import compiled, outcome, traceable  # noqa: F401
from tests.helpers.kernels import F64, assert_same
from tests.helpers.layers import (
    EVERY,
    KINDS,
    Kind,
    as_given,
    as_tuple,
    assert_agree,
    parameters,
    ragged,
    random_sequences,
    run_torch,
    shared,
)

LENGTHS = [5, 1, 0, 3, 2, 9, 0]
OPTIONS: dict[str, tuple[type[Layer], dict[str, Any]]] = {
    "lstm": (peephole.LSTM, {}),
    "lstm-diagonal": (peephole.LSTM, {"peephole": "diagonal", "zoneout": (0.1, 0.2)}),
    "lstm-full": (peephole.LSTM, {"peephole": "full", "cell_clip": 0.4, "skip": True}),
    "lstm-full-without-biases": (peephole.LSTM, {"peephole": "full", "bias": False}),
    "lstm-coupled": (peephole.LSTM, {"coupled": True, "recurrent_dropout": 0.4}),
    "lstm-coupled-full": (
        peephole.LSTM,
        {"peephole": "full", "coupled": True, "single_bias": True, "learn_initial_state": True},
    ),
    "gru": (peephole.GRU, {"dropout": 0.3}),
    "gru-without-biases": (peephole.GRU, {"bias": False, "recurrent_dropout": 0.4}),
    "gru-single_bias": (peephole.GRU, {"single_bias": True, "zoneout": 0.3, "skip": True}),
    "gru-learned": (peephole.GRU, {"learn_initial_state": True, "hidden_size": [6, 11]}),
    "rnn": (peephole.RNN, {"zoneout": 0.3, "dropout": 0.2}),
    "rnn-relu": (peephole.RNN, {"nonlinearity": "relu", "recurrent_dropout": 0.4}),
    "rnn-single_bias": (peephole.RNN, {"single_bias": True, "learn_initial_state": True}),
    "rnn-without-biases": (peephole.RNN, {"bias": False}),
}
EVERY_OPTION = pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS)
MODES = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def made(kind: type[Layer], options: dict[str, Any], backend: str, **others: Any) -> Layer:
    """The same layer on any backend, none of its parameters zero."""
    sizes = {"hidden_size": 11, "num_layers": 2, "bidirectional": True, "dtype": F64}
    layer = kind(**{"input_size": 4, **sizes, **options, **others}, backend=backend)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return layer


def results(layer: Layer, x: Ragged, hx: Any = None, keep: bool = False) -> dict[str, Tensor]:
    """Outputs and all gradients by name; the same masks are drawn in each call."""
    torch.manual_seed(5)
    y, final = layer(x, hx)
    outputs = [y.values, *torch.utils._pytree.tree_leaves(final)]
    leaves = {"x": x.values, **dict(layer.named_parameters())}
    leaves |= {f"hx{k}": s for k, s in enumerate(as_tuple(hx))} if hx is not None else {}
    leaves = {name: t for name, t in leaves.items() if t.requires_grad}
    generator = torch.Generator().manual_seed(6)
    upstream = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in outputs]
    # With a width for each layer there are states that do not depend on the last layer's weights.
    recorded = [(o, d) for o, d in zip(outputs, upstream, strict=True) if o.requires_grad]
    gradients = torch.autograd.grad(
        [o for o, _ in recorded],
        list(leaves.values()),
        [d for _, d in recorded],
        materialize_grads=True,
        retain_graph=keep,
    )
    found = {f"output {k}": output.detach() for k, output in enumerate(outputs)}
    return found | {f"d_{name}": d for name, d in zip(leaves, gradients, strict=True)}


def batch(lengths: list[int], leaf: bool = True) -> Ragged:
    values = torch.randn(sum(lengths), 4, dtype=F64, requires_grad=leaf)
    return Ragged(values, offsets_of(lengths))


def initial(layer: Layer, sequences: int) -> Any:
    if not isinstance(layer.hidden_size, int):
        return None
    return as_given(
        [
            torch.randn(layer.num_layers * 2, sequences, width, dtype=F64, requires_grad=True)
            for width in layer.state_sizes(layer.hidden_size)
        ]
    )


class TestAgree:
    @EVERY_OPTION
    @MODES
    def test_with_the_reference(
        self, kind: type[Layer], options: dict[str, Any], training: bool
    ) -> None:
        ours, theirs = (made(kind, options, each).train(training) for each in ("cpu", "reference"))
        for lengths in (LENGTHS, [4], [0, 0], [3, 3, 2]):
            x = batch(lengths)
            for hx in (None, initial(ours, len(lengths))):
                assert_same(results(ours, x, hx), results(theirs, x, hx), what=lengths)
        assert ours.backend_used == "cpu"

    @EVERY_OPTION
    def test_where_only_some_have_gradients(
        self, kind: type[Layer], options: dict[str, Any]
    ) -> None:
        ours, theirs = (made(kind, options, backend) for backend in ("cpu", "reference"))
        x = batch(LENGTHS, leaf=False)
        whole = results(theirs, x)
        names = [name for name, _ in ours.named_parameters()]
        for chosen in [*names, "biases", "all but weight_hh"]:
            for name, parameter in ours.named_parameters():
                parameter.requires_grad_(
                    name == chosen
                    or (chosen == "biases" and "bias" in name)
                    or (chosen == "all but weight_hh" and "weight_hh" not in name)
                )
            if not any(parameter.requires_grad for parameter in ours.parameters()):
                continue
            for keep in (False, True):
                found = results(ours, x, keep=keep)
                assert_same(found, {name: whole[name] for name in found}, what=chosen)

    @EVERY
    def test_with_torch_nn(self, kind: Kind) -> None:
        if "proj_size" in kind.options:
            pytest.skip("the kernels have no projection")
        for size in (5, 33):
            layer, truth = kind.pair("cpu", hidden_size=size, num_layers=2, bidirectional=True)
            sequences = random_sequences(LENGTHS)
            hx = kind.initial(layer, len(LENGTHS))
            y, states = layer(ragged(sequences), hx)
            wanted, wanted_states = run_torch(truth, sequences, hx)
            assert_agree(
                [*y.values.split(LENGTHS), *as_tuple(states)],
                [*wanted, *wanted_states],
                parameters(layer, truth) | shared(x=sequences, hx=hx),
            )

    @pytest.mark.parametrize("name", ["lstm-full", "lstm-coupled-full", "gru", "rnn"])
    def test_with_finite_differences(self, name: str) -> None:
        kind, options = OPTIONS[name]
        layer = made(kind, options, "cpu", hidden_size=2, num_layers=1, dropout=0.0).eval()
        names, weights = zip(*layer.named_parameters(), strict=True)
        x = batch([2, 0, 1])

        def run(values: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
            given = dict(zip(names, weights, strict=True))
            y, final = torch.func.functional_call(layer, given, (x.with_values(values),))
            return y.values, *as_tuple(final)

        assert torch.autograd.gradcheck(run, (x.values, *weights))


class TestInputs:
    """Of every width, and so many steps that they are taken in parts."""

    EVERY_KIND = pytest.mark.parametrize("name", ["lstm", "lstm-coupled", "gru", "rnn"])

    def check(self, name: str, width: int, lengths: list[int], **others: Any) -> None:
        kind, options = OPTIONS[name]
        x = torch.randn(sum(lengths), width, dtype=F64, requires_grad=True)
        one = {"input_size": width, "num_layers": 1, "bidirectional": False, "dropout": 0.0}
        found = [
            results(made(kind, options, each, **one, **others), Ragged(x, offsets_of(lengths)))
            for each in ("cpu", "reference")
        ]
        assert_same(*found, what=(width, lengths))

    @EVERY_KIND
    def test_every_width(self, name: str) -> None:
        for width in [*range(1, 37), 63, 64, 65, 130]:
            self.check(name, width, [4, 0, 3], hidden_size=6)

    # Only in float32 has a vector 16 lanes.
    @EVERY_KIND
    def test_every_width_in_float32(self, name: str) -> None:
        kind, options = OPTIONS[name]
        for width in [*range(1, 37), 63, 64, 65, 130]:
            one = {"input_size": width, "num_layers": 1, "bidirectional": False, "dropout": 0.0}
            # In evaluation, where nothing is drawn.
            ours, theirs = (
                made(kind, options, each, **one).eval() for each in ("cpu", "reference")
            )
            for lengths in ([4, 0, 3], [60, 40, 9]):
                exact, d_y = torch.randn(sum(lengths), width + 11, dtype=F64).split([width, 11], 1)
                found = []
                for layer, dtype in ((ours.float(), torch.float32), (theirs, F64)):
                    x = exact.to(dtype).contiguous().requires_grad_()
                    y, _ = layer(Ragged(x, offsets_of(lengths)))
                    (d_x,) = torch.autograd.grad(y.values, x, d_y.to(dtype))
                    found.append({"y": y.values.detach().double(), "d_x": d_x.double()})
                assert_same(*found, tolerance=1e-5, what=(width, lengths))

    # Rows go through in groups of 48, and of more than two groups a thread packs the weights.
    @EVERY_KIND
    @pytest.mark.parametrize("size", [5, 35])
    def test_many_steps(self, name: str, size: int) -> None:
        for steps in (47, 48, 49, 95, 96, 97, 239, 241, 256, 257, 479, 481, 1100):
            self.check(name, 9, [8] * (steps // 8) + [steps % 8], hidden_size=size)

    @EVERY_KIND
    def test_shared_out(self, name: str) -> None:
        count = torch.get_num_threads()
        try:
            for threads in (2, 3, 4):
                torch.set_num_threads(threads)
                self.check(name, 70, [11] * 130, hidden_size=65)
                # As few rows a thread as make it worth one, and more threads than sequences.
                self.check(name, 70, [3] * 20, hidden_size=130)
                self.check(name, 130, [3, 3, 2, 1], hidden_size=350)
                self.check(name, 33, [300], hidden_size=65)
        finally:
            torch.set_num_threads(count)


class TestMemory:
    @pytest.fixture
    def poisoned(self) -> Iterator[None]:
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)

    @EVERY_OPTION
    @pytest.mark.usefixtures("poisoned")
    def test_none_is_read_unwritten(self, kind: type[Layer], options: dict[str, Any]) -> None:
        layer = made(kind, options, "cpu")
        for lengths in (LENGTHS, [0, 0]):
            found = results(layer, batch(lengths), initial(layer, len(lengths)))
            assert not any(result.isnan().any() for result in found.values())

    @EVERY_OPTION
    def test_inputs_stay_and_the_graph_can_be_used_again(
        self, kind: type[Layer], options: dict[str, Any]
    ) -> None:
        layer, x = made(kind, options, "cpu"), batch(LENGTHS)
        before = [t.detach().clone() for t in (x.values, *layer.parameters())]
        y, _ = layer(x)
        value = y.values.detach().clone()
        leaves = [x.values, *layer.parameters()]
        first, second, last = (
            torch.autograd.grad(
                y.values.sin().sum(), leaves, retain_graph=keep, materialize_grads=True
            )
            for keep in (True, True, False)
        )
        assert all(map(torch.equal, first, second))
        assert all(map(torch.equal, first, last))
        assert torch.equal(y.values, value)
        assert all(map(torch.equal, before, leaves))

    @EVERY_OPTION
    def test_second_derivatives(self, kind: type[Layer], options: dict[str, Any]) -> None:
        found = []
        x = batch([3, 0, 2])
        for backend in ("cpu", "reference"):
            layer = made(kind, options, backend, hidden_size=5, num_layers=1, dropout=0.0)
            torch.manual_seed(5)
            y, _ = layer(x)
            leaves = [x.values, *layer.parameters()]
            first = torch.autograd.grad(
                y.values.sin().sum(), leaves, create_graph=True, materialize_grads=True
            )
            loss = sum(d.square().sum() for d in first)
            second = torch.autograd.grad(loss, leaves, materialize_grads=True)
            found.append(dict(enumerate([*(d.detach() for d in first), *second])))
        assert_same(*found)


class TestGraphs:
    @pytest.mark.parametrize("name", ["lstm-full", "lstm-diagonal", "gru", "rnn-relu"])
    @pytest.mark.usefixtures("traceable")
    def test_compiled(self, name: str) -> None:
        kind, options = OPTIONS[name]
        layer = made(kind, options, "cpu", dropout=0.0).eval()
        x = batch(LENGTHS)
        leaves = [x.values, *layer.parameters()]
        given = outcome(compiled(layer), leaves, x)
        assert_same(dict(enumerate(given)), dict(enumerate(outcome(layer, leaves, x))))

    @pytest.mark.parametrize("name", ["lstm-full", "gru", "rnn"])
    @pytest.mark.usefixtures("traceable")
    def test_the_operation(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        kind, options = OPTIONS[name]
        one = {"num_layers": 1, "bidirectional": False, "dropout": 0.0}
        layer = made(kind, options, "cpu", **one).eval()
        recurrence, calls = torch.ops.peephole.recurrence, []
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            patch.setattr(
                torch.ops.peephole, "recurrence", lambda *a: calls.append(a) or recurrence(*a)
            )
            layer(batch([3, 0, 2]))
        (call,) = calls
        assert "'way': 'cpu'" in call[1]
        leaf = [t.detach().clone().requires_grad_() for t in (call[3], *call[6])]
        given = (*call[:3], leaf[0], *call[4:6], leaf[1:])
        torch.library.opcheck(recurrence.default, given)


class TestAutocast:
    @pytest.mark.parametrize("backend", ["auto", "cpu"])
    @pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
    def test_bfloat16(self, kind: type[nn.Module], backend: str) -> None:
        layer = kind(4, 11, backend=backend)
        x = Ragged(torch.randn(sum(LENGTHS), 4, requires_grad=True), offsets_of(LENGTHS))
        exact, _ = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, _ = layer(x)
        assert y.values.dtype == torch.bfloat16
        torch.testing.assert_close(y.values.float(), exact.values, rtol=0.05, atol=0.05)
        y.values.float().square().sum().backward()
        assert x.values.grad.isfinite().all()
        assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


def test_every_kind_is_here() -> None:
    assert {kind for kind, _ in OPTIONS.values()} == {kind.ours for kind in KINDS.values()}
