"""The first values of parameters, for each ``initialization``, in layers and cells."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peephole

H, I = 64, 24  # noqa: E741  the field's name
KINDS = ["LSTM", "GRU", "RNN"]
EVERY = pytest.mark.parametrize("name", KINDS)
EVERY_CELL = pytest.mark.parametrize("name", [f"{name}Cell" for name in KINDS])
# Options whose layers have torch.nn's parameters besides their own.
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "layer_norm": {"layer_norm": True},
    "learned": {"learn_initial_state": True},
    "dropped": {"zoneout": 0.5, "recurrent_dropout": 0.5},
    "layer_norm learned": {"layer_norm": True, "learn_initial_state": True},
}
LSTM_OPTIONS: dict[str, dict[str, Any]] = {
    "diagonal": {"peephole": "diagonal"},
    "full": {"peephole": "full", "layer_norm": True},
    "clip": {"cell_clip": 1.0},
}


def seeded(make: Any, *args: Any, **options: Any) -> Any:
    torch.manual_seed(5)
    return make(*args, **options)


def gate(parameter: Tensor, layer: Any, name: str) -> Tensor:
    return parameter.chunk(len(layer.gates))[layer.gates.index(name)]


def whole_bias(layer: Any, name: str, suffix: str = "_l0") -> Tensor:
    """All biases of a gate together."""
    parts = [
        gate(getattr(layer, f"bias_{part}{suffix}"), layer, name)
        for part in ("ih", "hh")
        if hasattr(layer, f"bias_{part}{suffix}")
    ]
    if hasattr(layer, f"bias_ch{suffix}") and name != "g":
        looking = [each for each in layer.gates if each != "g"]
        parts.append(getattr(layer, f"bias_ch{suffix}").chunk(len(looking))[looking.index(name)])
    return torch.stack(parts).sum(0).detach()


SUFFIXES = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")


class TestTorch:
    """The same seed draws what ``torch.nn`` draws; what is ours comes after all of that."""

    @EVERY
    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    @pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
    def test_draws_torch_s(self, name: str, options: dict[str, Any], bias: bool) -> None:
        common = {"num_layers": 3, "bidirectional": True, "bias": bias}
        self.check(name, common, options)

    @pytest.mark.parametrize("options", LSTM_OPTIONS.values(), ids=LSTM_OPTIONS)
    @pytest.mark.parametrize("proj_size", [0, 5])
    def test_draws_torch_s_lstm(self, options: dict[str, Any], proj_size: int) -> None:
        self.check(
            "LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": proj_size}, options
        )

    def check(self, name: str, common: dict[str, Any], options: dict[str, Any]) -> None:
        theirs = seeded(getattr(nn, name), I, H, **common)
        after_theirs = torch.get_rng_state()
        ours = seeded(getattr(peephole, name), I, H, **common, **options)
        given = dict(ours.named_parameters())
        for key, parameter in theirs.named_parameters():
            torch.testing.assert_close(given[key], parameter, rtol=0, atol=0)
        extra = given.keys() - dict(theirs.named_parameters()).keys()
        assert bool(extra) == any(n in options for n in OURS)
        drawn = [key for key in extra if key.startswith(("weight_ch", "bias_ch"))]
        assert torch.equal(torch.get_rng_state(), after_theirs) == (not drawn)
        for key in extra:
            self.check_extra(key, given[key].detach())

    @staticmethod
    def check_extra(key: str, parameter: Tensor) -> None:
        if key.startswith("weight_ln"):
            assert bool((parameter == 1).all())
        elif key.startswith("bias_ln") or "_0_l" in key:
            assert bool((parameter == 0).all())
        else:
            bound = 1 / math.sqrt(H)
            assert 0.9 * bound < parameter.abs().max() <= bound
            assert parameter.unique().numel() > 0.9 * parameter.numel()

    @EVERY_CELL
    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
    @pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
    def test_cells_draw_torch_s(self, name: str, options: dict[str, Any], bias: bool) -> None:
        theirs = seeded(getattr(nn, name), I, H, bias=bias)
        ours = seeded(getattr(peephole, name), I, H, bias=bias, **options)
        given = dict(ours.named_parameters())
        for key, parameter in theirs.named_parameters():
            torch.testing.assert_close(given[key], parameter, rtol=0, atol=0)

    @EVERY
    def test_reset_parameters_draws_again(self, name: str) -> None:
        layer = seeded(getattr(peephole, name), I, H, 2, layer_norm=True, learn_initial_state=True)
        first = {key: p.clone() for key, p in layer.named_parameters()}
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.fill_(7.0)
        layer.reset_parameters()
        for key, p in layer.named_parameters():
            constant = "_ln_" in key or "_0_l" in key
            assert torch.equal(p, first[key]) == constant, key
        torch.manual_seed(5)
        layer.reset_parameters()
        for key, p in layer.named_parameters():
            torch.testing.assert_close(p, first[key], rtol=0, atol=0)

    def test_widths_have_each_its_bound(self) -> None:
        layer = peephole.RNN(I, [100, 25])
        for name, p in layer.named_parameters():
            bound = 0.1 if name.endswith("_l0") else 0.2
            assert 0.8 * bound < p.abs().max() <= bound


OURS = ("layer_norm", "learn_initial_state", "peephole")


class TestOrthogonal:
    @EVERY
    def test_matrices(self, name: str) -> None:
        layer = getattr(peephole, name)(
            I, H, 2, bidirectional=True, initialization="orthogonal", dtype=torch.float64
        )
        for suffix in SUFFIXES:
            weight_hh = layer.get_parameter("weight_hh" + suffix).detach()
            blocks = weight_hh.split(H)
            for W in blocks:
                torch.testing.assert_close(W.T @ W, torch.eye(H, dtype=W.dtype))
            # Each gate has its own.
            assert len(torch.stack(blocks).flatten(1).unique(dim=0)) == len(layer.gates)
            weight_ih = layer.get_parameter("weight_ih" + suffix).detach()
            for W in weight_ih.split(H):
                # Glorot & Bengio 2010, equation 16, for one gate's matrix.
                bound = math.sqrt(6 / (W.shape[1] + H))
                assert 0.95 * bound < W.abs().max() <= bound
                assert abs(W.mean()) < 0.1 * bound

    @EVERY
    def test_biases_are_zero_but_the_forget_gate_s(self, name: str) -> None:
        layer = getattr(peephole, name)(
            I, H, 2, bidirectional=True, initialization="orthogonal", layer_norm=True
        )
        for suffix in SUFFIXES:
            for each in layer.gates:
                assert bool((whole_bias(layer, each, suffix) == float(each == "f")).all())

    @pytest.mark.parametrize(
        "options",
        [{}, {"peephole": "full"}, {"single_bias": True}, {"proj_size": 8}],
        ids=["two biases", "three biases", "one bias", "projected"],
    )
    def test_forget_bias_is_1_in_all(self, options: dict[str, Any]) -> None:
        layer = peephole.LSTM(I, H, initialization="orthogonal", **options)
        for each in "ifgo":
            assert bool((whole_bias(layer, each) == float(each == "f")).all())

    @pytest.mark.parametrize("peepholes", [None, "diagonal", "full"])
    def test_coupled_forgets_by_i(self, peepholes: str | None) -> None:
        layer = peephole.LSTM(I, H, coupled=True, peephole=peepholes, initialization="orthogonal")
        # f = 1 - sigmoid(b_i) = sigmoid(-b_i).
        for each in "igo":
            assert bool((whole_bias(layer, each) == -float(each == "i")).all())

    def test_without_bias(self) -> None:
        layer = peephole.LSTM(I, H, bias=False, initialization="orthogonal")
        assert [name for name, _ in layer.named_parameters()] == ["weight_ih_l0", "weight_hh_l0"]

    def test_projection(self) -> None:
        layer = peephole.LSTM(I, H, proj_size=8, initialization="orthogonal", dtype=torch.float64)
        W = layer.weight_hr_l0.detach()
        torch.testing.assert_close(W @ W.T, torch.eye(8, dtype=W.dtype))
        for W in layer.weight_hh_l0.detach().split(H):
            torch.testing.assert_close(W.T @ W, torch.eye(8, dtype=W.dtype))

    def test_forget_bias_goes_before(self) -> None:
        layer = peephole.LSTM(I, H, initialization="orthogonal", forget_bias=-2.5)
        assert bool((whole_bias(layer, "f") == -2.5).all())

    @EVERY_CELL
    def test_cells(self, name: str) -> None:
        cell = getattr(peephole, name)(I, H, initialization="orthogonal", dtype=torch.float64)
        for W in cell.weight_hh.detach().split(H):
            torch.testing.assert_close(W.T @ W, torch.eye(H, dtype=W.dtype))
        for each in cell.gates:
            assert bool((whole_bias(cell, each, "") == float(each == "f")).all())


class TestForgetBias:
    @pytest.mark.parametrize("value", [0.0, 1.5, -3.0, 2])
    @pytest.mark.parametrize(
        "options",
        [{}, {"peephole": "full"}, {"single_bias": True}, {"peephole": "diagonal"}],
        ids=["two biases", "three biases", "one bias", "diagonal"],
    )
    def test_is_the_sum_of_all(self, value: float, options: dict[str, Any]) -> None:
        layer = peephole.LSTM(I, H, 2, bidirectional=True, forget_bias=value, **options)
        plain = seeded(peephole.LSTM, I, H, 2, bidirectional=True, **options)
        drawn = seeded(peephole.LSTM, I, H, 2, bidirectional=True, forget_bias=value, **options)
        for suffix in SUFFIXES:
            assert bool((whole_bias(layer, "f", suffix) == value).all())
            # The other gates' are what they were.
            for each in "igo":
                ours, theirs = (whole_bias(one, each, suffix) for one in (drawn, plain))
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    def test_coupled(self) -> None:
        layer = peephole.LSTM(I, H, coupled=True, peephole="full", forget_bias=1.5)
        assert bool((whole_bias(layer, "i") == -1.5).all())

    def test_of_a_cell(self) -> None:
        cell = peephole.LSTMCell(I, H, peephole="full", forget_bias=1.5)
        assert bool((whole_bias(cell, "f", "") == 1.5).all())


class TestChrono:
    T_MAX = 200.0

    def check(self, bias: Tensor) -> None:
        """exp(b) is uniform between 1 and T_max - 1."""
        times = bias.double().exp() - 1
        uniform = times / (self.T_MAX - 2)
        assert bool((uniform > -1e-6).all())
        assert bool((uniform < 1 + 1e-6).all())
        n = uniform.numel()
        # Kolmogorov's distance, far beyond its 1e-6 quantile.
        ranks = torch.arange(1, n + 1, dtype=torch.float64) / n
        assert (uniform.sort().values - ranks).abs().max() < 2.7 / math.sqrt(n)

    @pytest.mark.parametrize(
        "options",
        [{}, {"peephole": "full"}, {"single_bias": True}],
        ids=["two biases", "three biases", "one bias"],
    )
    def test_lstm(self, options: dict[str, Any]) -> None:
        layer = peephole.LSTM(
            4, 500, 2, bidirectional=True, initialization=("chrono", self.T_MAX), **options
        )
        drawn = []
        for suffix in SUFFIXES:
            b_f, b_i = (whole_bias(layer, each, suffix) for each in "fi")
            self.check(b_f)
            torch.testing.assert_close(b_i, -b_f, rtol=0, atol=0)
            drawn.append(b_f)
        assert len(torch.stack(drawn).unique(dim=0)) == 4

    def test_the_rest_is_torch_s(self) -> None:
        chrono = seeded(peephole.LSTM, I, H, 2, initialization=("chrono", 50))
        theirs = seeded(nn.LSTM, I, H, 2)
        for name, parameter in theirs.named_parameters():
            ours = chrono.get_parameter(name)
            if name.startswith("bias"):
                for each in "go":
                    assert torch.equal(gate(ours, chrono, each), gate(parameter, chrono, each))
            else:
                assert torch.equal(ours, parameter)

    def test_coupled(self) -> None:
        layer = peephole.LSTM(4, 500, coupled=True, initialization=("chrono", self.T_MAX))
        self.check(-whole_bias(layer, "i"))

    @pytest.mark.parametrize("single_bias", [False, True])
    def test_gru_keeps_by_z(self, single_bias: bool) -> None:
        chrono = {"initialization": ("chrono", self.T_MAX), "single_bias": single_bias}
        layer = seeded(peephole.GRU, 4, 500, **chrono)
        plain = seeded(peephole.GRU, 4, 500, single_bias=single_bias)
        self.check(whole_bias(layer, "z"))
        for each in "rn":
            assert torch.equal(whole_bias(layer, each), whole_bias(plain, each))

    @pytest.mark.parametrize(("cell", "each"), [("LSTMCell", "f"), ("GRUCell", "z")])
    def test_cells(self, cell: str, each: str) -> None:
        made = getattr(peephole, cell)(4, 500, initialization=("chrono", self.T_MAX))
        self.check(whole_bias(made, each, ""))

    @pytest.mark.usefixtures("unhooked")
    def test_a_list_will_do(self) -> None:
        assert peephole.LSTM(3, 4, initialization=["chrono", 9]).initialization == ("chrono", 9)


class TestFunction:
    @EVERY
    def test_is_called_with_each_parameter(self, name: str) -> None:
        called = []

        def fill(key: str, parameter: nn.Parameter) -> None:
            called.append(key)
            nn.init.constant_(parameter, float(len(called)))

        layer = getattr(peephole, name)(
            I, H, 2, bidirectional=True, layer_norm=True, initialization=fill
        )
        names = [key for key, _ in layer.named_parameters()]
        stripped = [key.removesuffix("_reverse")[:-3] for key in names]
        assert sorted(called) == sorted(stripped)
        values = {p.flatten()[0].item() for p in layer.parameters()}
        assert values == set(range(1, len(names) + 1))
        assert all(p.unique().numel() == 1 for p in layer.parameters())

    def test_comes_after_torch_s_draws(self) -> None:
        layer = seeded(peephole.GRU, I, H, initialization=lambda key, p: p.mul_(2))
        theirs = seeded(nn.GRU, I, H)
        for key, parameter in theirs.named_parameters():
            torch.testing.assert_close(layer.get_parameter(key), 2 * parameter, rtol=0, atol=0)

    def test_forget_bias_comes_after_it(self) -> None:
        layer = peephole.LSTM(
            I, H, initialization=lambda key, p: nn.init.zeros_(p), forget_bias=2.0
        )
        assert bool((whole_bias(layer, "f") == 2).all())
        assert bool((whole_bias(layer, "i") == 0).all())

    def test_of_a_cell(self) -> None:
        cell = peephole.RNNCell(I, H, initialization=lambda key, p: nn.init.constant_(p, 3.0))
        assert all(bool((p == 3).all()) for p in cell.parameters())


class TestRefused:
    @pytest.mark.usefixtures("unhooked")
    @pytest.mark.parametrize("how", ["xavier", None, ("chrono",), ("chrono", 3, 4), 1.0])
    def test_unknown(self, how: Any) -> None:
        with pytest.raises(ValueError, match="it is 'torch', 'orthogonal'"):
            peephole.LSTM(3, 4, initialization=how)

    @pytest.mark.parametrize("longest", [2, 0.5, -1, math.inf, math.nan])
    def test_times_that_are_none(self, longest: float) -> None:
        with pytest.raises(
            ValueError, match=r"T_max=.*; it must be a finite number of more than 2"
        ):
            peephole.LSTM(3, 4, initialization=("chrono", longest))
