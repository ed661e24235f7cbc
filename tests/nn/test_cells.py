"""``LSTMCell``, ``GRUCell`` and ``RNNCell``: against ``torch.nn``'s, and as steps of the layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peephole
from tests.helpers.layerwise import random_batch, randomized, run_direction, spy_on_masks

B = 4
KINDS: dict[str, tuple[type[nn.Module], type[nn.Module], dict[str, Any]]] = {
    "LSTM": (peephole.LSTMCell, nn.LSTMCell, {}),
    "GRU": (peephole.GRUCell, nn.GRUCell, {}),
    "RNN-tanh": (peephole.RNNCell, nn.RNNCell, {}),
    "RNN-relu": (peephole.RNNCell, nn.RNNCell, {"nonlinearity": "relu"}),
}
EVERY = pytest.mark.parametrize(("ours", "theirs", "options"), KINDS.values(), ids=KINDS)
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])

COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "single_bias": {"single_bias": True},
    "zoneout": {"zoneout": 0.3},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "layer_norm": {"layer_norm": True},
    "learn_initial_state": {"learn_initial_state": True},
    "all": {
        "zoneout": 0.3,
        "recurrent_dropout": 0.4,
        "layer_norm": True,
        "learn_initial_state": True,
    },
}
LSTM: dict[str, dict[str, Any]] = {
    **COMMON,
    "diagonal": {"peephole": "diagonal"},
    "full": {"peephole": "full"},
    "coupled": {"coupled": True, "peephole": "full"},
    "cell_clip": {"cell_clip": 0.5},
    "zoneout of two": {"zoneout": (0.1, 0.6)},
    "all": {
        **COMMON["all"],
        "zoneout": (0.1, 0.6),
        "peephole": "full",
        "coupled": True,
        "cell_clip": 0.5,
    },
}
RNN = {**COMMON, "relu": {"nonlinearity": "relu", **COMMON["all"]}}
OPTIONS = {
    f"{name}-{key}": (name, option)
    for name, options in {"LSTM": LSTM, "GRU": COMMON, "RNN": RNN}.items()
    for key, option in options.items()
}
EACH = pytest.mark.parametrize(("name", "options"), OPTIONS.values(), ids=OPTIONS)


def close(given: Any, wanted: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(given, wanted, rtol=tolerance, atol=tolerance)


def as_tuple(state: Any) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def as_given(state: tuple[Tensor, ...]) -> Any:
    return state if len(state) == 2 else state[0]


def random_state(cell: Any, *shape: int) -> Any:
    h = torch.randn(*shape, 5, dtype=torch.float64, requires_grad=True)
    return (h, torch.randn_like(h, requires_grad=True)) if "LSTM" in type(cell).__name__ else h


class TestAgainstTorch:
    @EVERY
    @BIAS
    @pytest.mark.parametrize("batch", [(B,), (1,), (0,), ()], ids=["4", "1", "0", "unbatched"])
    @pytest.mark.parametrize("given", [True, False], ids=["hx", "no hx"])
    def test_values_and_gradients(
        self,
        ours: type[nn.Module],
        theirs: type[nn.Module],
        options: dict[str, Any],
        bias: bool,
        batch: tuple[int, ...],
        given: bool,
    ) -> None:
        reference = theirs(3, 5, bias, **options, dtype=torch.float64)
        cell = ours(3, 5, bias, **options, dtype=torch.float64)
        cell.load_state_dict(reference.state_dict())
        x = torch.randn(*batch, 3, dtype=torch.float64, requires_grad=True)
        hx = random_state(cell, *batch) if given else None
        new, wanted = as_tuple(cell(x, hx)), as_tuple(reference(x, hx))
        close(new, wanted)
        upstream = [torch.randn_like(s) for s in wanted]
        states = list(as_tuple(hx)) if given else []
        ours_d, theirs_d = (
            torch.autograd.grad(s, [x, *states, *module.parameters()], upstream)
            for s, module in ((new, cell), (wanted, reference))
        )
        close(ours_d, theirs_d)

    @EVERY
    @BIAS
    def test_same_weights_from_the_same_seed(
        self,
        ours: type[nn.Module],
        theirs: type[nn.Module],
        options: dict[str, Any],
        bias: bool,
    ) -> None:
        torch.manual_seed(7)
        reference = theirs(3, 5, bias, **options)
        torch.manual_seed(7)
        cell = ours(3, 5, bias, **options)
        given, wanted = cell.state_dict(), reference.state_dict()
        assert list(given) == list(wanted)
        for name, parameter in wanted.items():
            torch.testing.assert_close(given[name], parameter, rtol=0, atol=0)
        reference.load_state_dict(given)

    @EVERY
    def test_an_option_adds_to_the_same_weights(
        self, ours: type[nn.Module], theirs: type[nn.Module], options: dict[str, Any]
    ) -> None:
        cell = ours(3, 5, **options, layer_norm=True, learn_initial_state=True)
        missing = cell.load_state_dict(theirs(3, 5, **options).state_dict(), strict=False)
        assert not missing.unexpected_keys
        assert {name.split("_")[-1] for name in missing.missing_keys} <= {"ih", "hh", "c", "0"}

    @pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])
    def test_takes_torch_s_positions(self, name: str) -> None:
        extra = ["relu"] if name == "RNNCell" else []
        cell = getattr(peephole, name)(3, 5, False, *extra, "cpu", torch.float64)
        assert not cell.bias
        assert cell.weight_ih.dtype == torch.float64
        if extra:
            assert cell.nonlinearity == "relu"

    @EVERY
    def test_bf16_under_autocast(
        self, ours: type[nn.Module], theirs: type[nn.Module], options: dict[str, Any]
    ) -> None:
        cell = ours(3, 5, **options)
        x = torch.randn(B, 3)
        with torch.autocast("cpu", torch.bfloat16):
            new = as_tuple(cell(x))
        assert all(s.dtype == torch.bfloat16 for s in new)
        torch.testing.assert_close(new[0].float(), as_tuple(cell(x))[0], rtol=2e-2, atol=2e-2)


class TestAgainstTheLayer:
    """A loop of calls is a layer of one direction on the same weights."""

    @EACH
    @pytest.mark.parametrize("given", [True, False], ids=["hx", "no hx"])
    def test_in_evaluation(self, name: str, options: dict[str, Any], given: bool) -> None:
        cell = randomized(getattr(peephole, f"{name}Cell")(3, 5, **options)).eval()
        layer = randomized(getattr(peephole, name)(3, 5, **options)).eval()
        layer.load_state_dict({f"{key}_l0": p for key, p in cell.state_dict().items()})
        x = torch.randn(6, B, 3, dtype=torch.float64)
        hx = random_state(cell, B) if given else None
        y, final = layer(x, None if hx is None else as_given(tuple(s[None] for s in as_tuple(hx))))
        steps, state = [], hx
        for row in x:
            state = cell(row, state)
            steps.append(as_tuple(state)[0])
        close(torch.stack(steps), y)
        close(tuple(s[None] for s in as_tuple(state)), as_tuple(final))

        y_by_step, state = [], cell.initial_state(B) if hx is None else as_tuple(hx)
        for row in x:
            out, state = cell.step(row, state)
            y_by_step.append(out)
        close(torch.stack(y_by_step), y)

    @EACH
    def test_in_training_with_the_masks_given(
        self, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cell = randomized(getattr(peephole, f"{name}Cell")(3, 5, **options))
        x = torch.randn(6, B, 3, dtype=torch.float64)
        hx = random_state(cell, B)
        dropped = "recurrent_dropout" in options
        mask = cell.draw_recurrent_mask(B) if dropped else None
        drawn = spy_on_masks(monkeypatch, "draw_zoneout")
        steps, state = [], hx
        for row in x:
            state = cell(row, state, mask)
            steps.append(as_tuple(state)[0])
        # Sequences of six steps from the cell's single ones: rows [6, B] to [B, 6].
        batch = random_batch([6] * B, 3)
        batch = batch.with_values(x.transpose(0, 1).flatten(0, 1))
        zones = [key for key in (drawn[0] if drawn else {}) if key.startswith("zoneout")]
        assert bool(zones) == ("zoneout" in options)
        masks = {key: torch.stack([d[key] for d in drawn], 1).flatten(0, 1) for key in zones}
        masks |= {"recurrent_mask": mask} if dropped else {}
        weights = {key: p.detach().numpy() for key, p in cell.named_parameters()}
        by_hand = run_direction(
            name, weights, batch, options, masks or None, as_tuple(hx), reverse=False
        )
        close(torch.stack(steps, 1).flatten(0, 1), by_hand.y)
        close(as_tuple(state), by_hand.finals[0])

    @EACH
    def test_gradients_equal_the_layer_s(self, name: str, options: dict[str, Any]) -> None:
        cell = randomized(getattr(peephole, f"{name}Cell")(3, 5, **options)).eval()
        layer = randomized(getattr(peephole, name)(3, 5, **options)).eval()
        layer.load_state_dict({f"{key}_l0": p for key, p in cell.state_dict().items()})
        x = torch.randn(3, B, 3, dtype=torch.float64, requires_grad=True)
        y, _ = layer(x)
        steps, state = [], None
        for row in x:
            state = cell(row, state)
            steps.append(as_tuple(state)[0])
        upstream = torch.randn_like(y)
        theirs = torch.autograd.grad(y, [x, *layer.parameters()], upstream)
        ours = torch.autograd.grad(torch.stack(steps), [x, *cell.parameters()], upstream)
        names = [key.removesuffix("_l0") for key, _ in layer.named_parameters()]
        assert names == [key for key, _ in cell.named_parameters()]
        close(ours, theirs)


class TestRecurrentDropout:
    @pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])
    def test_asks_for_a_mask_while_training(self, name: str) -> None:
        cell = getattr(peephole, name)(3, 5, recurrent_dropout=0.4)
        with pytest.raises(ValueError, match="one mask for all steps of a sequence") as error:
            cell(torch.zeros(B, 3))
        assert f"{name} has recurrent_dropout=0.4" in str(error.value)
        assert "cell.draw_recurrent_mask(batch_size)" in str(error.value)
        cell(torch.zeros(B, 3), recurrent_mask=cell.draw_recurrent_mask(B))
        cell.eval()(torch.zeros(B, 3))

    def test_draws_one_of_two_values(self) -> None:
        cell = peephole.GRUCell(3, 5, recurrent_dropout=0.2, dtype=torch.float64)
        mask = cell.draw_recurrent_mask(2000)
        assert list(mask.shape) == [2000, 5]
        assert mask.dtype == torch.float64
        close(mask.unique(), torch.tensor([0, 1.25], dtype=torch.float64))
        assert abs((mask == 0).double().mean() - 0.2) < 0.02
        assert bool((cell.eval().draw_recurrent_mask(7) == 1).all())


class TestInitialState:
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    @pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
    def test_is_zeros_or_learned(self, name: str, dropout: float) -> None:
        make = getattr(peephole, f"{name}Cell")
        for learned in (False, True):
            cell = make(3, 5, recurrent_dropout=dropout, learn_initial_state=learned)
            randomized(cell)
            state = cell.initial_state(B)
            k = 2 if name == "LSTM" else 1
            assert len(state) == k + bool(dropout)
            for part, key in zip(state[:k], ("h_0", "c_0"), strict=False):
                wanted = getattr(cell, key) if learned else torch.zeros(5, dtype=torch.float64)
                torch.testing.assert_close(part, wanted.expand(B, 5), rtol=0, atol=0)
            if dropout:
                assert set(state[k].unique().tolist()) <= {0.0, 2.0}

    def test_step_keeps_the_mask(self) -> None:
        cell = randomized(peephole.LSTMCell(3, 5, recurrent_dropout=0.5))
        x, state = torch.randn(B, 3, dtype=torch.float64), cell.initial_state(B)
        y, new = cell.step(x, state)
        assert new[2] is state[2]
        assert y is new[0]
        close(new[:2], cell(x, state[:2], state[2]))


@pytest.mark.usefixtures("unhooked")
class TestWrongInput:
    @EVERY
    def test_what_torch_says(
        self, ours: type[nn.Module], theirs: type[nn.Module], options: dict[str, Any]
    ) -> None:
        cell, reference = ours(3, 5, **options), theirs(3, 5, **options)
        for x in (torch.zeros(2, 2, 3), torch.zeros(())):
            with pytest.raises(ValueError, match="Expected input to be 1D or 2D, got") as by_torch:
                reference(x)
            with pytest.raises(ValueError, match="Expected input to be 1D or 2D, got") as by_us:
                cell(x)
            assert str(by_us.value) == str(by_torch.value)
        # torch raises RuntimeError here, in the same words.
        for x in (torch.zeros(B, 4), torch.zeros(2)):
            with pytest.raises(RuntimeError, match="input has inconsistent input_size") as of_torch:
                reference(x)
            with pytest.raises(ValueError, match="input has inconsistent input_size") as of_us:
                cell(x)
            assert str(of_us.value) == str(of_torch.value)

    @EVERY
    @pytest.mark.parametrize("shape", [(B, 6), (B + 1, 5), (5,), (1, B, 5)])
    def test_states_that_do_not_fit(
        self,
        ours: type[nn.Module],
        theirs: type[nn.Module],
        options: dict[str, Any],
        shape: tuple[int, ...],
    ) -> None:
        cell, h = ours(3, 5, **options), torch.zeros(shape)
        hx = (h, h) if ours is peephole.LSTMCell else h
        with pytest.raises((ValueError, RuntimeError)):
            theirs(3, 5, **options)(torch.zeros(B, 3), hx)
        with pytest.raises(ValueError, match=r"the state must be \[4, 5\] to go with the input"):
            cell(torch.zeros(B, 3), hx)

    @pytest.mark.parametrize("hx", [torch.zeros(B, 5), (torch.zeros(B, 5),)])
    def test_not_two_states(self, hx: Any) -> None:
        with pytest.raises(ValueError, match=r"the initial state of LSTMCell must be \(h, c\)"):
            peephole.LSTMCell(3, 5)(torch.zeros(B, 3), hx)

    @pytest.mark.parametrize("option", ["skip", "backend", "bidirectional", "proj_size"])
    def test_options_of_layers(self, option: str) -> None:
        with pytest.raises(TypeError, match=option):
            peephole.LSTMCell(3, 5, **{option: 1})
