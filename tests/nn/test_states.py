"""``return_states``: what every layer computed at every step, against the equations."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import peephole
from peephole import Ragged
from peephole.nn import Steps
from tests.helpers.batches import LENGTHS, NONEMPTY
from tests.helpers.errors import raises
from tests.helpers.layerwise import (
    Expected,
    parameters_of,
    random_batch,
    randomized,
    run_direction,
    run_layer,
    spy_on_masks,
)

LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any], tuple[str, ...]]] = {
    "LSTM": (peephole.LSTM, {}, ("i", "f", "g", "o")),
    "LSTM-full": (peephole.LSTM, {"peephole": "full"}, ("i", "f", "g", "o")),
    "LSTM-coupled": (peephole.LSTM, {"coupled": True}, ("i", "g", "o")),
    "LSTM-projected": (peephole.LSTM, {"proj_size": 2, "skip": True}, ("i", "f", "g", "o")),
    "LSTM-zoneout": (
        peephole.LSTM,
        {
            "peephole": "diagonal",
            "cell_clip": 0.5,
            "zoneout": (0.2, 0.4),
            "recurrent_dropout": 0.3,
        },
        ("i", "f", "g", "o"),
    ),
    "LSTM-dropped": (
        peephole.LSTM,
        {"layer_norm": True, "cell_clip": 0.5, "zoneout": (0.2, 0.4), "recurrent_dropout": 0.3},
        ("i", "f", "g", "o"),
    ),
    "GRU": (peephole.GRU, {}, ("r", "z", "n")),
    "GRU-zoneout": (peephole.GRU, {"zoneout": 0.3, "recurrent_dropout": 0.3}, ("r", "z", "n")),
    "GRU-dropped": (peephole.GRU, {"layer_norm": True, "zoneout": 0.3}, ("r", "z", "n")),
    "RNN": (peephole.RNN, {}, ()),
    "RNN-zoneout": (peephole.RNN, {"zoneout": 0.3, "recurrent_dropout": 0.3}, ()),
    "RNN-dropped": (peephole.RNN, {"layer_norm": True, "zoneout": 0.3}, ()),
}
EVERY = pytest.mark.parametrize(("kind", "options", "gates"), LAYERS.values(), ids=LAYERS)
# What has no kernels.
LACKING = {"layer_norm", "proj_size"}
RUNS = {
    f"{name}-{backend}": (*layer, backend)
    for name, layer in LAYERS.items()
    for backend in ("auto", "reference", "cpu")
    if backend != "cpu" or not LACKING & layer[1].keys()
}
EVERY_RUN = pytest.mark.parametrize(
    ("kind", "options", "gates", "backend"), RUNS.values(), ids=RUNS
)
PLAIN = pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])


def close(given: Any, wanted: Any) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


def make(kind: type[nn.Module], **options: Any) -> Any:
    return randomized(kind(3, 5, 2, bidirectional=True, **options))


class TestAgainstTheEquations:
    @EVERY_RUN
    @pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
    def test_every_step_of_every_layer(
        self,
        kind: type[nn.Module],
        options: dict[str, Any],
        gates: tuple[str, ...],
        backend: str,
        training: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        layer = make(kind, backend=backend, **options).train(training)
        masks = spy_on_masks(monkeypatch)
        x = random_batch(LENGTHS, 3)
        y, final, steps = layer(x, return_states=True)
        auto = "reference" if LACKING & options.keys() else "cpu"
        assert layer.backend_used == (auto if backend == "auto" else backend)
        assert isinstance(steps, tuple)
        assert len(steps) == 4
        options = {**options, "bidirectional": True}
        by_hand = run_layer(layer, x, options, masks if training else None)
        close(y.values, by_hand.y)
        close(final if isinstance(final, tuple) else (final,), by_hand.states())

        hidden = torch.cat([each.hidden.values for each in steps], 1)
        close(hidden if options.get("skip") else hidden[:, -by_hand.y.shape[1] :], by_hand.y)
        for each, wanted in zip(steps, by_hand.steps, strict=True):
            self.check(each, wanted, gates, x)

    @staticmethod
    def check(each: Steps, wanted: tuple[Tensor, ...], gates: tuple[str, ...], x: Ragged) -> None:
        assert isinstance(each, Steps)
        assert tuple(each.gates) == gates
        parts = [each.hidden, *each.gates.values(), *([each.cells] if each.cells else [])]
        for part in parts:
            assert isinstance(part, Ragged)
            torch.testing.assert_close(part.offsets, x.offsets, rtol=0, atol=0)
        assert (each.cells is not None) == ("o" in gates)
        if gates:
            close(torch.cat([gate.values for gate in each.gates.values()], 1), wanted[0])
        if each.cells is not None:
            close(each.cells.values, wanted[1])

    @EVERY
    def test_each_layer_s_hidden(
        self, kind: type[nn.Module], options: dict[str, Any], gates: tuple[str, ...]
    ) -> None:
        """Those of the layers below stand in no output: one direction at a time, by hand."""
        layer = make(kind, **options).eval()
        x = random_batch(LENGTHS, 3)
        _, _, steps = layer(x, return_states=True)
        for k in range(2):
            below = x.values
            if k:
                below = torch.cat([steps[0].hidden.values, steps[1].hidden.values], 1).detach()
                below = torch.cat([x.values, below], 1) if options.get("skip") else below
            for d, suffix in enumerate((f"_l{k}", f"_l{k}_reverse")):
                by_hand: Expected = run_direction(
                    kind.__name__,
                    parameters_of(layer, suffix),
                    x.with_values(below),
                    options,
                    None,
                    None,
                    reverse=bool(d),
                )
                close(steps[2 * k + d].hidden.values, by_hand.y)


class TestLstm:
    """What an LSTM's gates and cells are to each other: Graves 2013, equations 9 and 11."""

    @pytest.mark.parametrize("coupled", [False, True], ids=["f", "1 - i"])
    @pytest.mark.parametrize("peepholes", [None, "diagonal", "full"])
    def test_holds_on_what_is_returned(self, coupled: bool, peepholes: str | None) -> None:
        layer = make(peephole.LSTM, coupled=coupled, peephole=peepholes)
        x = random_batch(LENGTHS, 3)
        c0 = torch.randn(4, len(LENGTHS), 5, dtype=torch.float64)
        _, _, steps = layer(x, (torch.randn_like(c0), c0), return_states=True)
        for k, each in enumerate(steps):
            i, g, o = (each.gates[name].values for name in "igo")
            f = 1 - i if coupled else each.gates["f"].values
            assert each.cells is not None
            close(each.hidden.values, o * each.cells.values.tanh())
            cells = each.cells.to_list() if k % 2 == 0 else each.cells.reverse().to_list()
            before = [torch.cat([c0[k, b : b + 1], c])[:-1] for b, c in enumerate(cells)]
            ragged = Ragged.from_list(before)
            c_before = ragged.values if k % 2 == 0 else ragged.reverse().values
            close(each.cells.values, f * c_before + i * g)
            for gate in (i, f, o):
                assert gate.min() > 0
                assert gate.max() < 1
            assert g.min() < 0

    def test_final_cells_are_the_last_ones(self) -> None:
        layer = make(peephole.LSTM)
        x = random_batch(NONEMPTY, 3)
        _, (h_n, c_n), steps = layer(x, return_states=True)
        for k, each in enumerate(steps):
            end = (lambda r: r.last()) if k % 2 == 0 else (lambda r: r.first())
            close(end(each.cells), c_n[k])
            close(end(each.hidden), h_n[k])


class TestForms:
    @PLAIN
    def test_any_form_gives_the_ragged_s(self, kind: type[nn.Module]) -> None:
        layer = make(kind)
        x = random_batch(NONEMPTY, 3)
        y, _, steps = layer(x, return_states=True)
        padded, lengths = x.to_padded(batch_first=False), x.lengths
        # What stands in the padding is read by nobody.
        hole = torch.ones_like(padded, dtype=torch.bool)
        for b, length in enumerate(NONEMPTY):
            hole[:length, b] = False
        padded = padded.masked_fill(hole, float("nan"))
        given = {
            "padded": layer(padded, lengths=lengths, return_states=True),
            "packed": layer(x.to_packed(), return_states=True),
            "nested": layer(x.to_nested(), return_states=True),
        }
        assert isinstance(given["padded"][0], Tensor)
        assert isinstance(given["packed"][0], PackedSequence)
        assert given["nested"][0].is_nested
        close(Ragged.from_packed(given["packed"][0]).values, y.values)
        close(Ragged.from_padded(given["padded"][0], lengths, batch_first=False).values, y.values)
        for _, _, theirs in given.values():
            self.assert_same(theirs, steps)

    @PLAIN
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_padded_without_lengths(self, kind: type[nn.Module], batch_first: bool) -> None:
        layer = make(kind, batch_first=batch_first)
        x = random_batch([4, 4, 4], 3)
        _, _, steps = layer(x, return_states=True)
        y, _, theirs = layer(x.to_padded(batch_first=batch_first), return_states=True)
        assert list(y.shape) == ([3, 4, 10] if batch_first else [4, 3, 10])
        self.assert_same(theirs, steps)

    @PLAIN
    def test_with_empty_sequences_among_lengths(self, kind: type[nn.Module]) -> None:
        layer = make(kind)
        x = random_batch(LENGTHS, 3)
        _, _, steps = layer(x, return_states=True)
        y, _, theirs = layer(x.to_padded(batch_first=False), lengths=LENGTHS, return_states=True)
        self.assert_same(theirs, steps)
        assert bool((y[:, LENGTHS.index(0)] == 0).all())

    @PLAIN
    def test_one_sequence(self, kind: type[nn.Module]) -> None:
        layer = make(kind)
        x = random_batch([7], 3)
        _, _, steps = layer(x, return_states=True)
        y, _, theirs = layer(x.values, return_states=True)
        assert list(y.shape) == [7, 10]
        self.assert_same(theirs, steps)

    @staticmethod
    def assert_same(given: tuple[Steps, ...], wanted: tuple[Steps, ...]) -> None:
        assert len(given) == len(wanted)
        for ours, theirs in zip(given, wanted, strict=True):
            assert ours.gates.keys() == theirs.gates.keys()
            pairs = [(ours.hidden, theirs.hidden)]
            pairs += [(gate, theirs.gates[name]) for name, gate in ours.gates.items()]
            if theirs.cells is not None:
                assert ours.cells is not None
                pairs.append((ours.cells, theirs.cells))
            for a, b in pairs:
                close(a.values, b.values)
                torch.testing.assert_close(a.offsets, b.offsets, rtol=0, atol=0)


class TestGradients:
    def test_flow_from_every_gate_and_the_cells(self) -> None:
        layer = make(peephole.LSTM, peephole="full")
        x = random_batch(LENGTHS, 3)
        x.values.requires_grad_()
        _, _, steps = layer(x, return_states=True)
        for each in steps[2:]:
            assert each.cells is not None
            for part in (*each.gates.values(), each.cells, each.hidden):
                # Down through the layer below to the input.
                names = ["weight_ih_l0", "weight_ch_l0", "bias_hh_l0_reverse"]
                parameters = [layer.get_parameter(name) for name in names]
                found = torch.autograd.grad(
                    part.values.square().sum(), [x.values, *parameters], retain_graph=True
                )
                assert all(d.abs().max() > 0 for d in found)

    def test_are_those_of_finite_differences(self) -> None:
        layer = randomized(peephole.GRU(3, 4))
        x = random_batch([3, 0, 2], 3)
        weights = torch.randn(5, 12, dtype=torch.float64)

        def weighted(values: Tensor) -> Tensor:
            (steps,) = layer(x.with_values(values), return_states=True)[2]
            gates = torch.cat([gate.values for gate in steps.gates.values()], 1)
            return (gates * weights).sum()

        assert torch.autograd.gradcheck(weighted, (x.values.clone().requires_grad_(),))


class TestBackends:
    @PLAIN
    def test_torch_s_has_none(self, kind: type[nn.Module]) -> None:
        layer = kind(3, 5, backend="torch")
        with raises(
            "backend='torch' cannot serve: torch.nn has no return_states; backend='reference' can"
        ):
            layer(torch.zeros(4, 2, 3), return_states=True)

    @PLAIN
    def test_changes_no_result(self, kind: type[nn.Module]) -> None:
        for backend in ("auto", "reference", "cpu"):
            layer = make(kind, backend=backend)
            x = random_batch(LENGTHS, 3)
            y, final, _ = layer(x, return_states=True)
            plain, plain_final = layer(x)
            close(y.values, plain.values)
            close(final, plain_final)

    def test_of_layers_of_different_widths(self) -> None:
        layer = randomized(peephole.LSTM(3, [5, 2], proj_size=1))
        x = random_batch(LENGTHS, 3)
        _, _, steps = layer(x, return_states=True)
        assert [each.cells.values.shape[1] for each in steps] == [5, 2]
        assert [each.gates["f"].values.shape[1] for each in steps] == [5, 2]
        assert [each.hidden.values.shape[1] for each in steps] == [1, 1]
