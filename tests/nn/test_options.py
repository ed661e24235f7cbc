"""Each option of a layer against the papers' equations, layer by layer, in float64.

The equations are ``tests/helpers/equations.py``'s, in numpy; ``tests/helpers/layerwise.py`` puts
input products, biases, directions and layers around them. What masks are drawn, and how options
combine, is in ``test_masks.py`` and ``test_pairs.py``.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peephole
from peephole import Ragged
from tests.helpers.batches import LENGTHS, NONEMPTY
from tests.helpers.layerwise import random_batch, randomized, run_layer, spy_on_masks

Options = dict[str, Any]

# Of random cells about half lie beyond it.
CLIP = 0.5

COMMON: dict[str, Options] = {
    "none": {},
    "no bias": {"bias": False},
    "single bias": {"single_bias": True},
    "zoneout": {"zoneout": 0.3},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "both dropped": {"zoneout": 0.3, "recurrent_dropout": 0.4},
    "layer_norm": {"layer_norm": True},
    "layer_norm, no bias": {"layer_norm": True, "bias": False},
    "layer_norm, single bias": {"layer_norm": True, "single_bias": True},
    "learned": {"learn_initial_state": True},
    "skip": {"skip": True},
    "one layer": {"num_layers": 1},
}
LSTM: dict[str, Options] = {
    "diagonal": {"peephole": "diagonal"},
    "full": {"peephole": "full"},
    "full, no bias": {"peephole": "full", "bias": False},
    "full, single bias": {"peephole": "full", "single_bias": True},
    "coupled": {"coupled": True},
    "coupled diagonal": {"coupled": True, "peephole": "diagonal"},
    "coupled full": {"coupled": True, "peephole": "full"},
    "clip": {"cell_clip": CLIP},
    "clip and peepholes": {"cell_clip": CLIP, "peephole": "full"},
    "zoneout of two": {"zoneout": (0.1, 0.6)},
    "zoneout of h": {"zoneout": (0.5, 0.0)},
    "zoneout of c": {"zoneout": (0.0, 0.5)},
    "projected": {"proj_size": 2},
    "projected, dropped": {"proj_size": 2, "zoneout": (0.1, 0.6), "recurrent_dropout": 0.4},
    "projected, layer_norm": {"proj_size": 2, "layer_norm": True},
    "everything": {
        "proj_size": 2,
        "peephole": "full",
        "coupled": True,
        "cell_clip": CLIP,
        "zoneout": (0.1, 0.6),
        "recurrent_dropout": 0.4,
        "layer_norm": True,
        "learn_initial_state": True,
        "skip": True,
    },
}
DROPPED = {"zoneout": 0.3, "recurrent_dropout": 0.4, "layer_norm": True}
OTHERS: dict[str, Options] = {
    "everything": {**DROPPED, "learn_initial_state": True, "skip": True},
}
RELU: Options = {"nonlinearity": "relu"}
CASES = {
    **{f"LSTM {n}": (peephole.LSTM, o) for n, o in {**COMMON, **LSTM}.items()},
    **{f"GRU {n}": (peephole.GRU, o) for n, o in {**COMMON, **OTHERS}.items()},
    **{f"RNN {n}": (peephole.RNN, o) for n, o in {**COMMON, **OTHERS}.items()},
    **{f"RNN relu {n}": (peephole.RNN, {**RELU, **o}) for n, o in OTHERS.items()},
}
EACH = pytest.mark.parametrize(("kind", "options"), CASES.values(), ids=CASES)
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
KINDS = pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])


def make(kind: type[nn.Module], options: Options, input_size: int = 3, hidden: Any = 5) -> Any:
    options = {"num_layers": 2, "bidirectional": True, **options}
    return randomized(kind(input_size, hidden, **options)), options


def close(given: Any, wanted: Any) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


def as_tuple(states: Any) -> tuple[Any, ...]:
    return states if isinstance(states, tuple) else (states,)


def as_given(states: tuple[Any, ...]) -> Any:
    """What a layer takes: the LSTM both its states, the others their one."""
    return states if len(states) == 2 else states[0]


def random_states(layer: Any, sequences: int) -> tuple[Tensor, ...]:
    rows = layer.num_layers * (1 + layer.bidirectional)
    widths = layer.state_sizes(layer.hidden_size)
    return tuple(torch.randn(rows, sequences, w, dtype=torch.float64) for w in widths)


def by_direction(states: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(s.unbind(0) for s in states), strict=True))


class TestEquations:
    @EACH
    @TRAINING
    def test_holds(
        self,
        kind: type[nn.Module],
        options: Options,
        training: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        layer, options = make(kind, options)
        layer.train(training)
        masks = spy_on_masks(monkeypatch)
        x = random_batch(LENGTHS, 3)
        for hx in (None, random_states(layer, len(LENGTHS))):
            masks.clear()
            y, final = layer(x, None if hx is None else as_given(hx))
            assert any(masks) == (training and _has_masks(options))
            by_hand = run_layer(
                layer,
                x,
                options,
                masks if training else None,
                None if hx is None else by_direction(hx),
            )
            close(y.values, by_hand.y)
            close(as_tuple(final), by_hand.states())

    def test_clip_acts(self) -> None:
        layer, _ = make(peephole.LSTM, {"cell_clip": CLIP})
        _, _, steps = layer(random_batch(LENGTHS, 3), return_states=True)
        for each in steps:
            cells = each.cells.values.abs()
            assert cells.max() == CLIP
            assert 0.1 < (cells == CLIP).double().mean() < 0.9

    @KINDS
    def test_widths(self, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
        layer, options = make(kind, {"num_layers": 3, **DROPPED}, hidden=[5, 3, 4])
        x = random_batch(LENGTHS, 2 + 1)
        masks = spy_on_masks(monkeypatch)
        y, final = layer(x)
        by_hand = run_layer(layer, x, options, masks)
        close(y.values, by_hand.y)
        states = zip(*by_hand.finals, strict=True)
        for given, wanted in zip(final if kind is peephole.LSTM else (final,), states, strict=True):
            assert [list(s.shape) for s in given] == [[2, 6, 5], [2, 6, 3], [2, 6, 4]]
            close(torch.cat([s.flatten() for s in given]), torch.cat([s.flatten() for s in wanted]))


def _has_masks(options: Options) -> bool:
    return bool(options.get("zoneout") or options.get("recurrent_dropout"))


class TestLearnedInitialState:
    @KINDS
    def test_is_used_when_none_is_given(self, kind: type[nn.Module]) -> None:
        layer, _ = make(kind, {"learn_initial_state": True})
        x = random_batch(LENGTHS, 3)
        names = [s for s in ("h", "c") if hasattr(layer, f"{s}_0_l0")]
        assert len(names) == (2 if kind is peephole.LSTM else 1)
        suffixes = ("l0", "l0_reverse", "l1", "l1_reverse")
        learned = {s: [getattr(layer, f"{s}_0_{suffix}") for suffix in suffixes] for s in names}
        hx = tuple(
            torch.stack([p.detach().expand(len(LENGTHS), -1) for p in each]).requires_grad_()
            for each in learned.values()
        )
        y, final = layer(x)
        y_given, final_given = layer(x, as_given(hx))
        close(y.values, y_given.values)
        close(as_tuple(final), as_tuple(final_given))
        # A sequence without steps ends where it began.
        close(as_tuple(final)[0][0, LENGTHS.index(0)], learned["h"][0])

        weights = torch.randn_like(y.values)
        parameters = [p for each in learned.values() for p in each]
        d_learned = torch.autograd.grad((y.values * weights).sum(), parameters)
        d_given = torch.autograd.grad((y_given.values * weights).sum(), hx)
        for ours, theirs in zip(d_learned, torch.cat(d_given).sum(1), strict=True):
            assert theirs.abs().min() > 0
            close(ours, theirs)

    @KINDS
    def test_is_not_used_when_one_is_given(self, kind: type[nn.Module]) -> None:
        layer, _ = make(kind, {"learn_initial_state": True})
        x, hx = random_batch(LENGTHS, 3), as_given(random_states(layer, len(LENGTHS)))
        y, _ = layer(x, hx)
        y.values.sum().backward()
        learned = {n: p for n, p in layer.named_parameters() if "_0_l" in n}
        assert len(learned) == (8 if kind is peephole.LSTM else 4)
        assert all(p.grad is None for p in learned.values())
        with torch.no_grad():
            for parameter in learned.values():
                parameter.add_(1)
        close(layer(x, hx)[0].values, y.values)

    def test_begins_as_zeros(self) -> None:
        torch.manual_seed(1)
        learned = peephole.LSTM(3, 5, learn_initial_state=True).double()
        torch.manual_seed(1)
        plain = peephole.LSTM(3, 5).double()
        x = random_batch(LENGTHS, 3)
        close(learned(x)[0].values, plain(x)[0].values)


class TestStacking:
    """Against single layers of ``torch.nn``, stacked by hand."""

    @pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
    @pytest.mark.parametrize("skip", [False, True], ids=["stacked", "skip"])
    @pytest.mark.parametrize("hidden", [5, [5, 2, 4]], ids=["one width", "widths"])
    @pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
    def test_equals_layers_by_hand(
        self, name: str, hidden: Any, skip: bool, bidirectional: bool
    ) -> None:
        layer = randomized(
            getattr(peephole, name)(
                3,
                hidden,
                1 if isinstance(hidden, list) else 3,
                bidirectional=bidirectional,
                skip=skip,
            )
        )
        widths = hidden if isinstance(hidden, list) else [hidden] * 3
        D = 1 + bidirectional
        singles = []
        for k, width in enumerate(widths):
            below = 3 if k == 0 else D * widths[k - 1] + (3 if skip else 0)
            single = getattr(nn, name)(below, width, bidirectional=bidirectional).double()
            theirs = [n for n, _ in single.named_parameters()]
            single.load_state_dict(
                {n: layer.get_parameter(n.replace("_l0", f"_l{k}")) for n in theirs}
            )
            singles.append(single)
        x = random_batch(NONEMPTY, 3)
        x.values.requires_grad_()
        y, final = layer(x)

        outputs: list[Tensor] = []
        finals = []
        for k, single in enumerate(singles):
            below = outputs[-1] if k else x.values
            if k and skip:
                below = torch.cat([x.values, below], 1)
            packed, end = single(x.with_values(below).to_packed())
            outputs.append(Ragged.from_packed(packed).values)
            finals.append(as_tuple(end))
        by_hand = torch.cat(outputs, 1) if skip else outputs[-1]
        assert layer.output_size == by_hand.shape[1]
        assert layer.output_size == D * (sum(widths) if skip else widths[-1])
        close(y.values, by_hand)
        for given, wanted in zip(as_states(final, name), zip(*finals, strict=True), strict=True):
            if isinstance(hidden, list):
                close(given, wanted)
            else:
                close(given, torch.cat(wanted))

        weights = torch.randn_like(by_hand)
        d_x, d_ours = _gradients(y.values, weights, x.values, layer.parameters())
        d_x_by_hand, d_theirs = _gradients(
            by_hand, weights, x.values, [p for single in singles for p in single.parameters()]
        )
        close(d_x, d_x_by_hand)
        close(d_ours, d_theirs)

    def test_skip_of_one_layer_is_no_skip(self) -> None:
        plain = randomized(peephole.GRU(3, 5))
        skipping = peephole.GRU(3, 5, skip=True).double()
        skipping.load_state_dict(plain.state_dict())
        x = random_batch(LENGTHS, 3)
        close(skipping(x)[0].values, plain(x)[0].values)

    def test_states_of_layers_of_different_widths_go_in_and_out(self) -> None:
        layer, options = make(peephole.LSTM, {"num_layers": 2}, hidden=[5, 4])
        x, B = random_batch(LENGTHS, 3), len(LENGTHS)
        h, c = (
            tuple(torch.randn(2, B, width, dtype=torch.float64) for width in (5, 4))
            for _ in range(2)
        )
        y, (h_n, c_n) = layer(x, (h, c))
        hx = [(h[k][d], c[k][d]) for k in range(2) for d in range(2)]
        by_hand = run_layer(layer, x, options, hx=hx)
        close(y.values, by_hand.y)
        for k in range(2):
            for d in range(2):
                close((h_n[k][d], c_n[k][d]), by_hand.finals[2 * k + d])


def as_states(final: Any, name: str) -> tuple[Any, ...]:
    """The states one by one; a state may itself be a tuple, a tensor for each layer."""
    return final if name == "LSTM" else (final,)


def _gradients(
    y: Tensor, weights: Tensor, x: Tensor, parameters: Any
) -> tuple[Tensor, list[Tensor]]:
    d_x, *rest = torch.autograd.grad((y * weights).sum(), [x, *parameters])
    assert all(d.abs().max() > 0 for d in rest)
    return d_x, rest
