"""The layers' parameters: names, order, shapes and first values; and how a layer shows itself."""

from typing import Any

import pytest
import torch
from torch import nn

import peephole
from peephole.nn import Layer
from tests.helpers.layers import (
    BOTH,
    BY_NAME,
    EVERY,
    KINDS,
    STACKS,
    Kind,
    as_tuple,
    assert_close,
    random_sequences,
    run_torch,
)
from tests.helpers.layers import ragged as ragged_of

BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
SEED = 63
# What adds parameters, with what it adds to each direction of an LSTM, a GRU and an RNN of 5 units.
EXTRAS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "diagonal": ("LSTM", {"peephole": "diagonal"}, {"weight_ch": (3, 5)}),
    "full": ("LSTM", {"peephole": "full"}, {"weight_ch": (15, 5), "bias_ch": (15,)}),
    "full, no bias": ("LSTM", {"peephole": "full", "bias": False}, {"weight_ch": (15, 5)}),
    "full, single bias": (
        "LSTM",
        {"peephole": "full", "single_bias": True},
        {"weight_ch": (15, 5)},
    ),
    "coupled, diagonal": ("LSTM", {"coupled": True, "peephole": "diagonal"}, {"weight_ch": (2, 5)}),
    "coupled, full": (
        "LSTM",
        {"coupled": True, "peephole": "full"},
        {"weight_ch": (10, 5), "bias_ch": (10,)},
    ),
    "LSTM normalized": (
        "LSTM",
        {"layer_norm": True},
        {
            "weight_ln_ih": (20,),
            "weight_ln_hh": (20,),
            "weight_ln_c": (5,),
            "bias_ln_c": (5,),
        },
    ),
    "coupled, normalized": (
        "LSTM",
        {"coupled": True, "layer_norm": True},
        {
            "weight_ln_ih": (15,),
            "weight_ln_hh": (15,),
            "weight_ln_c": (5,),
            "bias_ln_c": (5,),
        },
    ),
    "GRU normalized": (
        "GRU",
        {"layer_norm": True},
        {"weight_ln_ih": (15,), "weight_ln_hh": (15,)},
    ),
    "RNN normalized": ("RNN", {"layer_norm": True}, {"weight_ln_ih": (5,), "weight_ln_hh": (5,)}),
    "LSTM learned": ("LSTM", {"learn_initial_state": True}, {"h_0": (5,), "c_0": (5,)}),
    "LSTM projected learned": (
        "LSTM",
        {"learn_initial_state": True, "proj_size": 2},
        {"h_0": (2,), "c_0": (5,)},
    ),
    "GRU learned": ("GRU", {"learn_initial_state": True}, {"h_0": (5,)}),
    "all": (
        "LSTM",
        {
            "peephole": "full",
            "layer_norm": True,
            "learn_initial_state": True,
            "zoneout": 0.1,
            "recurrent_dropout": 0.1,
            "cell_clip": 3.0,
        },
        {
            "weight_ch": (15, 5),
            "bias_ch": (15,),
            "weight_ln_ih": (20,),
            "weight_ln_hh": (20,),
            "h_0": (5,),
            "c_0": (5,),
            "weight_ln_c": (5,),
            "bias_ln_c": (5,),
        },
    ),
}
EXTRA = pytest.mark.parametrize(("name", "options", "added"), EXTRAS.values(), ids=EXTRAS)
# Those whose other parameters are torch.nn's.
OF_TORCH = {k: v for k, v in EXTRAS.items() if not v[1].keys() & {"coupled", "single_bias"}}


def shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(p.shape)) for name, p in module.named_parameters()]


def suffixes(layer: Layer) -> list[str]:
    return [
        f"_l{k}{direction}"
        for k in range(layer.num_layers)
        for direction in ("", "_reverse")[: 1 + layer.bidirectional]
    ]


class TestTorchs:
    @EVERY
    @STACKS
    @BIAS
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    def test_the_same_seed_draws_the_same_weights(
        self, kind: Kind, num_layers: int, bidirectional: bool, bias: bool, dtype: torch.dtype
    ) -> None:
        options = {**kind.options, "num_layers": num_layers, "bidirectional": bidirectional}
        options |= {"bias": bias, "dtype": dtype}
        torch.manual_seed(SEED)
        wanted = kind.theirs(3, 17, **options).state_dict()
        state = torch.get_rng_state()
        torch.manual_seed(SEED)
        layer = kind.ours(3, 17, **options)
        given = layer.state_dict()
        # Names, their order and all numbers; and what is made after it is drawn as before.
        assert list(given) == list(wanted)
        assert all(torch.equal(given[name], wanted[name]) for name in wanted)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(SEED)
        layer.reset_parameters()
        assert all(torch.equal(weight, wanted[name]) for name, weight in layer.state_dict().items())

    @EVERY
    @BIAS
    def test_all_weights(self, kind: Kind, bias: bool) -> None:
        layer, truth = kind.pair(num_layers=2, bidirectional=True, bias=bias)
        names = {id(p): n for module in (layer, truth) for n, p in module.named_parameters()}
        given, wanted = (
            [[names[id(weight)] for weight in weights] for weights in module.all_weights]
            for module in (layer, truth)
        )
        assert given == wanted

    @EVERY
    def test_flatten_parameters_changes_nothing(self, kind: Kind) -> None:
        layer = kind.layer(num_layers=2)
        before = {name: (id(p), p.clone()) for name, p in layer.named_parameters()}
        layer.flatten_parameters()
        for name, parameter in layer.named_parameters():
            assert before[name][0] == id(parameter)
            assert torch.equal(before[name][1], parameter)


class TestExtras:
    @EXTRA
    @STACKS
    def test_come_after_all_of_torch_s(
        self,
        name: str,
        options: dict[str, Any],
        added: dict[str, tuple[int, ...]],
        num_layers: int,
        bidirectional: bool,
    ) -> None:
        kind = getattr(peephole, name)
        options = options | {"num_layers": num_layers, "bidirectional": bidirectional}
        layer = kind(3, 5, **options)
        common = {"bias", "single_bias", "coupled", "proj_size", "num_layers", "bidirectional"}
        plain = kind(3, 5, **{n: value for n, value in options.items() if n in common})
        extras = [(n + suffix, shape) for suffix in suffixes(layer) for n, shape in added.items()]
        assert shapes(layer) == shapes(plain) + extras

    @pytest.mark.parametrize(("name", "options", "added"), OF_TORCH.values(), ids=OF_TORCH)
    @BOTH
    def test_are_drawn_after_all_of_torch_s(
        self,
        name: str,
        options: dict[str, Any],
        added: dict[str, tuple[int, ...]],
        bidirectional: bool,
    ) -> None:
        options = options | {"num_layers": 3, "bidirectional": bidirectional}
        torchs = {"bias", "proj_size", "num_layers", "bidirectional"}
        torch.manual_seed(SEED)
        wanted = getattr(nn, name)(3, 5, **{n: v for n, v in options.items() if n in torchs})
        torch.manual_seed(SEED)
        given = getattr(peephole, name)(3, 5, **options).state_dict()
        assert len(given) > len(wanted.state_dict())
        for n, weight in wanted.state_dict().items():
            assert torch.equal(given[n], weight), n

    @BIAS
    def test_a_coupled_lstm_has_three_gates(self, bias: bool) -> None:
        layer = peephole.LSTM(3, 5, coupled=True, bias=bias)
        biases = [("bias_ih_l0", (15,)), ("bias_hh_l0", (15,))] if bias else []
        assert shapes(layer) == [("weight_ih_l0", (15, 3)), ("weight_hh_l0", (15, 5)), *biases]

    @EVERY
    def test_single_bias_has_no_bias_hh(self, kind: Kind) -> None:
        layer = kind.layer(single_bias=True, bidirectional=True)
        wanted = [
            each for each in shapes(kind.layer(bidirectional=True)) if "bias_hh" not in each[0]
        ]
        assert shapes(layer) == wanted

    @pytest.mark.parametrize(
        ("layer", "width", "total"),
        [
            (peephole.RNN(1, 26, single_bias=True), 26, 755),
            (peephole.LSTM(1, 16, peephole="full"), 16, 2049),
            (peephole.GRU(1, 16), 16, 929),
            (peephole.LSTM(1, 16, peephole="full", bidirectional=True), 32, 4097),
        ],
        ids=["RNN", "LSTM", "GRU", "LSTM both ways"],
    )
    def test_counts(self, layer: Layer, width: int, total: int) -> None:
        assert layer.output_size == width
        model = nn.ModuleList([layer, nn.Linear(width, 1)])
        assert sum(parameter.numel() for parameter in model.parameters()) == total

    @BY_NAME
    def test_skip_widens_the_inputs_of_all_but_the_first(self, name: str) -> None:
        layer = getattr(peephole, name)(3, 5, 3, bidirectional=True, skip=True)
        widths = [layer.get_parameter(f"weight_ih{s}").shape[1] for s in suffixes(layer)]
        assert widths == [3, 3, 13, 13, 13, 13]
        assert layer.output_size == 30


class TestFirstValues:
    def test_within_one_over_the_root_of_h(self) -> None:
        layer = peephole.LSTM(2, (25, 100), peephole="full")
        for name, parameter in layer.named_parameters():
            bound = 0.2 if "_l0" in name else 0.1
            assert 0.75 * bound < parameter.abs().max() <= bound, name

    def test_norms_begin_as_the_identity_and_states_as_zeros(self) -> None:
        layer = peephole.LSTM(2, 5, 2, layer_norm=True, learn_initial_state=True)
        for suffix in suffixes(layer):
            for name in ("weight_ln_ih", "weight_ln_hh", "weight_ln_c"):
                assert (layer.get_parameter(name + suffix) == 1).all()
            for name in ("bias_ln_c", "h_0", "c_0"):
                assert not layer.get_parameter(name + suffix).any()

    @BY_NAME
    def test_dtype_and_device(self, name: str) -> None:
        options: dict[str, Any] = {"layer_norm": True, "learn_initial_state": True}
        layer = getattr(peephole, name)(2, 3, device="meta", dtype=torch.bfloat16, **options)
        for parameter in layer.parameters():
            assert (parameter.device.type, parameter.dtype) == ("meta", torch.bfloat16)

    @pytest.mark.parametrize("single_bias", [False, True])
    @pytest.mark.parametrize("form", [None, "diagonal", "full"])
    def test_forget_bias_is_the_sum_of_all(self, form: str | None, single_bias: bool) -> None:
        torch.manual_seed(SEED)
        layer = peephole.LSTM(
            2, 5, 2, bidirectional=True, peephole=form, single_bias=single_bias, forget_bias=1.5
        )
        torch.manual_seed(SEED)
        plain = peephole.LSTM(2, 5, 2, bidirectional=True, peephole=form, single_bias=single_bias)
        # The rows of f: the second of i, f, g, o; and of i, f, o.
        for suffix in suffixes(layer):
            biases = [n for n, _ in layer.named_parameters() if n in _biases(suffix)]
            total = sum(layer.get_parameter(n)[5:10] for n in biases)
            assert torch.equal(total, torch.full((5,), 1.5))
        for name, parameter in layer.named_parameters():
            drawn = plain.get_parameter(name)
            if name.startswith("bias"):
                others = [*range(5), *range(10, len(drawn))]
                drawn, parameter = drawn[others], parameter[others]
            assert torch.equal(parameter, drawn), name

    def test_forget_bias_of_a_coupled_lstm_shuts_the_input_gate(self) -> None:
        # f = 1 - sigmoid(a_i) = sigmoid(-a_i).
        layer = peephole.LSTM(2, 5, coupled=True, peephole="full", forget_bias=1.5)
        total = sum(layer.get_parameter(n)[:5] for n in _biases("_l0"))
        assert torch.equal(total, torch.full((5,), -1.5))


def _biases(suffix: str) -> list[str]:
    return [name + suffix for name in ("bias_ih", "bias_hh", "bias_ch")]


class TestWidths:
    @BY_NAME
    @pytest.mark.parametrize("widths", [(7, 2, 5), [7, 2, 5]], ids=["tuple", "list"])
    def test_shapes(self, name: str, widths: Any) -> None:
        layer = getattr(peephole, name)(3, widths, bidirectional=True)
        assert (layer.num_layers, layer.hidden_size) == (3, (7, 2, 5))
        assert layer.output_size == 10
        # Each layer is one of torch.nn's.
        wanted = []
        for k, (below, width) in enumerate([(3, 7), (14, 2), (4, 5)]):
            truth = getattr(nn, name)(below, width, bidirectional=True)
            wanted += [(n.replace("_l0", f"_l{k}"), shape) for n, shape in shapes(truth)]
        assert shapes(layer) == wanted

    @BY_NAME
    def test_draws_as_torch_s_modules_one_after_the_other(self, name: str) -> None:
        torch.manual_seed(SEED)
        modules = [getattr(nn, name)(3, 7), getattr(nn, name)(7, 2)]
        torch.manual_seed(SEED)
        layer = getattr(peephole, name)(3, (7, 2))
        for k, module in enumerate(modules):
            for n, weight in module.named_parameters():
                assert torch.equal(layer.get_parameter(n.replace("_l0", f"_l{k}")), weight)

    @BY_NAME
    def test_of_one_layer(self, name: str) -> None:
        layer = getattr(peephole, name)(3, [5])
        assert (layer.num_layers, layer.hidden_size) == (1, (5,))
        assert shapes(layer) == shapes(getattr(nn, name)(3, 5))

    @BY_NAME
    def test_num_layers_may_say_the_same(self, name: str) -> None:
        kind = getattr(peephole, name)
        assert shapes(kind(3, [5, 7], 2)) == shapes(kind(3, [5, 7]))


class TestSingleBias:
    @pytest.mark.parametrize("kind", ["LSTM", "LSTM-projected", "RNN-tanh", "RNN-relu"])
    def test_is_the_sum_of_torch_s_two(self, kind: str) -> None:
        self.check(KINDS[kind], lambda weights: weights.pop("bias_hh_l0"))

    def test_leaves_the_gru_s_new_gate_without_an_inner_bias(self) -> None:
        def outer(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            bias_hh = weights.pop("bias_hh_l0")
            return torch.cat([bias_hh[:10], torch.zeros(5, dtype=torch.float64)])

        self.check(KINDS["GRU"], outer)

    def check(self, kind: Kind, moved: Any) -> None:
        layer, truth = kind.layer(single_bias=True), kind.pair()[1]
        weights = truth.state_dict()
        if kind.theirs is nn.GRU:
            nn.init.zeros_(truth.bias_hh_l0[10:].data)
        weights["bias_ih_l0"] = weights["bias_ih_l0"] + moved(weights)
        layer.load_state_dict(weights)
        sequences = random_sequences([5, 1, 3, 7])
        hx = kind.initial(layer, 4)
        output, states = layer(ragged_of(sequences), hx)
        wanted, wanted_states = run_torch(truth, sequences, hx)
        assert_close(output.values, torch.cat(wanted))
        for given, state in zip(as_tuple(states), wanted_states, strict=True):
            assert_close(given, state)


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (peephole.LSTM(2, 3), "LSTM(2, 3)"),
        (
            peephole.LSTM(2, 3, 2, False, True, 0.5, True, 1, peephole="full"),
            "LSTM(2, 3, num_layers=2, bias=False, batch_first=True, dropout=0.5, "
            "bidirectional=True, proj_size=1, peephole='full')",
        ),
        (
            peephole.LSTM(2, [3, 4], zoneout=(0.1, 0.2), coupled=True, cell_clip=2),
            "LSTM(2, (3, 4), coupled=True, cell_clip=2.0, zoneout=(0.1, 0.2))",
        ),
        (peephole.GRU(2, 3, single_bias=True), "GRU(2, 3, single_bias=True)"),
        (peephole.GRU(2, 3, initialization=("chrono", 9)), None),
        (peephole.GRU(2, 3, 2, skip=True, layer_norm=True, recurrent_dropout=0.3), None),
        (peephole.LSTM(2, 3, forget_bias=1.0, learn_initial_state=True), None),
        (peephole.LSTM(2, 3, initialization="orthogonal", backend="reference"), None),
        (peephole.RNN(2, 3, 1, "relu"), "RNN(2, 3, nonlinearity='relu')"),
    ],
    ids=str,
)
def test_repr(layer: Layer, wanted: str | None) -> None:
    assert wanted is None or repr(layer) == wanted
    # What it shows makes it again.
    again = eval(repr(layer), {n: getattr(peephole, n) for n in ("LSTM", "GRU", "RNN")})
    assert (repr(again), shapes(again)) == (repr(layer), shapes(layer))
    assert again.options() == layer.options()


@EVERY
def test_repr_shows_what_torch_s_shows(kind: Kind) -> None:
    options: dict[str, Any] = {**kind.options, "num_layers": 2, "bidirectional": True}
    options |= {"dropout": 0.5, "batch_first": True, "bias": False}
    shown = repr(kind.ours(3, 5, **options))
    theirs = kind.theirs(3, 5, **options).extra_repr()
    parts = theirs.split(", ")
    assert parts[:2] == ["3", "5"]
    assert all(part in shown for part in parts)
