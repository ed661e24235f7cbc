"""``peephole.LSTM``, ``GRU`` and ``RNN`` against torch.nn's modules and the paper."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import peephole
from peephole import Ragged
from tests.helpers import graves
from tests.helpers.batches import LENGTHS, NONEMPTY, batch_of, offsets_of
from tests.helpers.errors import raises

KINDS: dict[str, tuple[type[nn.Module], type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (peephole.LSTM, nn.LSTM, {}),
    "GRU": (peephole.GRU, nn.GRU, {}),
    "RNN-tanh": (peephole.RNN, nn.RNN, {}),
    "RNN-relu": (peephole.RNN, nn.RNN, {"nonlinearity": "relu"}),
}
EVERY = pytest.mark.parametrize(("ours", "theirs", "options"), KINDS.values(), ids=KINDS)
LAYERS = pytest.mark.parametrize("num_layers", [1, 2])
BOTH = pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


def random_batch(lengths: list[int], features: int) -> Ragged:
    return Ragged(torch.randn(sum(lengths), features, dtype=torch.float64), offsets_of(lengths))


def as_tuple(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def as_given(states: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """What a module takes: the LSTM both its states, the others their one."""
    return states if len(states) == 2 else states[0]


def assert_close(given: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


class TestAgainstTorch:
    @EVERY
    @LAYERS
    @BOTH
    @BIAS
    @pytest.mark.parametrize("initial", [False, True], ids=["from zero", "initial state"])
    def test_equals_torch_s(
        self,
        ours: type[nn.Module],
        theirs: type[nn.RNNBase],
        options: dict[str, Any],
        num_layers: int,
        bidirectional: bool,
        bias: bool,
        initial: bool,
    ) -> None:
        options = options | {
            "num_layers": num_layers,
            "bidirectional": bidirectional,
            "bias": bias,
            "dtype": torch.float64,
        }
        truth = theirs(2, 3, **options)
        layer = ours(2, 3, **options)
        layer.load_state_dict(truth.state_dict())
        x = random_batch(NONEMPTY, 2)
        packed = x.to_packed()
        hx = None
        if initial:
            shape = (num_layers * (1 + bidirectional), len(x), 3)
            count = 2 if theirs is nn.LSTM else 1
            hx = as_given(tuple(torch.randn(shape, dtype=torch.float64) for _ in range(count)))
        wanted, wanted_states = truth(packed, hx)
        output, states = layer(x, hx)
        assert_close(output.values, Ragged.from_packed(wanted).values)
        for given, state in zip(as_tuple(states), as_tuple(wanted_states), strict=True):
            assert_close(given, state)
        upstream = torch.randn_like(output.values)
        (output.values * upstream).sum().backward()
        (Ragged.from_packed(wanted).values * upstream).sum().backward()
        for (name, given), (wanted_name, parameter) in zip(
            layer.named_parameters(), truth.named_parameters(), strict=True
        ):
            assert name == wanted_name
            assert_close(given.grad, parameter.grad)

    @EVERY
    @LAYERS
    @BOTH
    @BIAS
    def test_draws_torch_s_weights_from_the_same_seed(
        self,
        ours: type[nn.Module],
        theirs: type[nn.RNNBase],
        options: dict[str, Any],
        num_layers: int,
        bidirectional: bool,
        bias: bool,
    ) -> None:
        options = options | {
            "num_layers": num_layers,
            "bidirectional": bidirectional,
            "bias": bias,
        }
        torch.manual_seed(63)
        wanted = theirs(2, 17, **options).state_dict()
        torch.manual_seed(63)
        given = ours(2, 17, **options).state_dict()
        assert list(given) == list(wanted)
        assert all(torch.equal(given[name], wanted[name]) for name in wanted)

    @EVERY
    def test_drops_what_torch_drops(
        self, ours: type[nn.Module], theirs: type[nn.RNNBase], options: dict[str, Any]
    ) -> None:
        # A single sequence, so that both draw the same masks from the same seed.
        options = options | {"num_layers": 3, "dropout": 0.4, "dtype": torch.float64}
        truth, layer = theirs(2, 17, **options), ours(2, 17, **options)
        layer.load_state_dict(truth.state_dict())
        x = random_batch([9], 2)
        for training in (True, False):
            truth.train(training)
            layer.train(training)
            torch.manual_seed(63)
            wanted, _ = truth(x.values)
            torch.manual_seed(63)
            given, _ = layer(x)
            assert_close(given.values, wanted)

    @EVERY
    def test_an_empty_sequence_keeps_its_initial_state(
        self, ours: type[nn.Module], theirs: type[nn.RNNBase], options: dict[str, Any]
    ) -> None:
        layer = ours(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64, **options)
        count = 2 if theirs is nn.LSTM else 1
        initial = torch.randn(count, 4, len(LENGTHS), 3, dtype=torch.float64).unbind()
        x = random_batch(LENGTHS, 2)
        output, states = layer(x, as_given(initial))
        full = [b for b, length in enumerate(LENGTHS) if length]
        alone, alone_states = layer(x[full], as_given(tuple(s[:, full] for s in initial)))
        assert torch.equal(output.offsets, x.offsets)
        assert_close(output.values, alone.values)
        for given, first, rest in zip(
            as_tuple(states), initial, as_tuple(alone_states), strict=True
        ):
            assert_close(given[:, 3], first[:, 3])
            assert_close(given[:, full], rest)


class TestAgainstThePaper:
    @pytest.mark.parametrize("peephole_form", ["diagonal", "full"])
    @pytest.mark.parametrize("single_bias", [False, True], ids=["all biases", "single bias"])
    @BOTH
    def test_equals_graves_2013(
        self, peephole_form: str, single_bias: bool, bidirectional: bool
    ) -> None:
        layer = peephole.LSTM(
            2,
            3,
            peephole=peephole_form,
            single_bias=single_bias,
            bidirectional=bidirectional,
            dtype=torch.float64,
        )
        x = random_batch(LENGTHS, 2)
        h0, c0 = torch.randn(2, 1 + bidirectional, len(LENGTHS), 3, dtype=torch.float64)
        with torch.no_grad():
            output, (h_n, c_n) = layer(x, (h0, c0))
        for d, suffix in enumerate(("_l0", "_l0_reverse")[: 1 + bidirectional]):
            weights = {
                name.removesuffix(suffix): parameter.detach().numpy()
                for name, parameter in layer.named_parameters()
                if name.endswith(suffix)
            }
            biases = [weight for name, weight in weights.items() if name.startswith("bias")]
            assert len(biases) == (1 if single_bias else 3 if peephole_form == "full" else 2)
            W, b = graves.by_gate(
                weights["weight_ih"], weights["weight_hh"], weights["weight_ch"], *biases
            )
            for k, sequence in enumerate(x):
                steps = sequence.numpy()[::-1] if d else sequence.numpy()
                y, h, c = graves.run(W, b, steps, h0[d, k].numpy(), c0[d, k].numpy())
                wanted = torch.from_numpy((y[::-1] if d else y).copy())
                assert_close(output[k][:, 3 * d : 3 * d + 3], wanted)
                assert_close(h_n[d, k], torch.from_numpy(np.asarray(h)))
                assert_close(c_n[d, k], torch.from_numpy(np.asarray(c)))

    def test_the_second_layer_has_peepholes_of_its_own(self) -> None:
        options = {"peephole": "full", "dtype": torch.float64}
        both = peephole.LSTM(2, 3, 2, **options)
        first, second = peephole.LSTM(2, 3, **options), peephole.LSTM(3, 3, **options)
        for k, alone in enumerate((first, second)):
            alone.load_state_dict(
                {
                    name.replace(f"_l{k}", "_l0"): parameter
                    for name, parameter in both.state_dict().items()
                    if name.endswith(f"_l{k}")
                }
            )
        x = random_batch(LENGTHS, 2)
        middle, states = first(x)
        wanted, more = second(middle)
        output, given = both(x)
        assert_close(output.values, wanted.values)
        for state, parts in zip(given, zip(states, more, strict=True), strict=True):
            assert_close(state, torch.cat(parts))


class TestSingleBias:
    @pytest.mark.parametrize("kind", ["LSTM", "RNN-tanh", "RNN-relu"])
    def test_is_the_sum_of_torch_s_two(self, kind: str) -> None:
        ours, theirs, options = KINDS[kind]
        truth = theirs(2, 3, dtype=torch.float64, **options)
        layer = ours(2, 3, single_bias=True, dtype=torch.float64, **options)
        weights = truth.state_dict()
        weights["bias_ih_l0"] = weights["bias_ih_l0"] + weights.pop("bias_hh_l0")
        layer.load_state_dict(weights)
        x = random_batch(NONEMPTY, 2)
        wanted = Ragged.from_packed(truth(x.to_packed())[0])
        assert_close(layer(x)[0].values, wanted.values)

    def test_leaves_the_gru_s_new_gate_without_an_inner_bias(self) -> None:
        truth = nn.GRU(2, 3, dtype=torch.float64)
        layer = peephole.GRU(2, 3, single_bias=True, dtype=torch.float64)
        weights = truth.state_dict()
        nn.init.zeros_(weights["bias_hh_l0"])
        layer.load_state_dict({n: w for n, w in weights.items() if n != "bias_hh_l0"})
        x = random_batch(NONEMPTY, 2)
        wanted = Ragged.from_packed(truth(x.to_packed())[0])
        assert_close(layer(x)[0].values, wanted.values)


class TestParameters:
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
    def test_counts(self, layer: nn.Module, width: int, total: int) -> None:
        model = nn.ModuleList([layer, nn.Linear(width, 1)])
        assert sum(parameter.numel() for parameter in model.parameters()) == total

    @pytest.mark.parametrize(
        ("options", "wanted"),
        [
            ({"peephole": "diagonal"}, {"weight_ch_l0": (3, 5)}),
            ({"peephole": "full"}, {"weight_ch_l0": (15, 5), "bias_ch_l0": (15,)}),
            ({"peephole": "full", "bias": False}, {"weight_ch_l0": (15, 5)}),
            ({"peephole": "full", "single_bias": True}, {"weight_ch_l0": (15, 5)}),
            (
                {"peephole": "diagonal", "bidirectional": True},
                {"weight_ch_l0": (3, 5), "weight_ch_l0_reverse": (3, 5)},
            ),
            (
                {"peephole": "diagonal", "num_layers": 2},
                {"weight_ch_l0": (3, 5), "weight_ch_l1": (3, 5)},
            ),
        ],
    )
    def test_peepholes_come_after_torch_s(
        self, options: dict[str, Any], wanted: dict[str, tuple[int, ...]]
    ) -> None:
        layer = peephole.LSTM(2, 5, **options)
        plain = peephole.LSTM(2, 5, **{k: v for k, v in options.items() if k != "peephole"})
        shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
        common = {name: tuple(p.shape) for name, p in plain.named_parameters()}
        assert list(shapes.items()) == [*common.items(), *wanted.items()]

    @EVERY
    def test_single_bias_has_no_bias_hh(
        self, ours: type[nn.Module], theirs: type[nn.RNNBase], options: dict[str, Any]
    ) -> None:
        names = [name for name, _ in ours(2, 3, single_bias=True, **options).named_parameters()]
        assert names == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"]

    def test_are_drawn_within_one_over_the_root_of_h(self) -> None:
        for parameter in peephole.LSTM(2, 25, peephole="full").parameters():
            assert 0.15 < parameter.abs().max() <= 0.2

    def test_are_made_in_the_dtype_and_on_the_device_asked_for(self) -> None:
        layer = peephole.LSTM(2, 3, peephole="full", device="meta", dtype=torch.bfloat16)
        for parameter in layer.parameters():
            assert (parameter.device.type, parameter.dtype) == ("meta", torch.bfloat16)


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (peephole.LSTM(2, 3), "LSTM(2, 3)"),
        (
            peephole.LSTM(2, 3, 2, False, 0.5, True, peephole="full"),
            "LSTM(2, 3, num_layers=2, bias=False, dropout=0.5, bidirectional=True, "
            "peephole='full')",
        ),
        (peephole.GRU(2, 3, single_bias=True), "GRU(2, 3, single_bias=True)"),
        (peephole.RNN(2, 3, 1, "relu"), "RNN(2, 3, nonlinearity='relu')"),
    ],
)
def test_repr(layer: nn.Module, wanted: str) -> None:
    assert repr(layer) == wanted


class TestErrors:
    @EVERY
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"input_size": 0}, "input_size=0; it must be at least 1"),
            ({"hidden_size": -1}, "hidden_size=-1; it must be at least 1"),
            ({"num_layers": 0}, "num_layers=0; it must be at least 1"),
            (
                {"dropout": 1.0, "num_layers": 2},
                "dropout=1.0; it must be from 0 up to, not including, 1",
            ),
            (
                {"dropout": -0.1, "num_layers": 2},
                "dropout=-0.1; it must be from 0 up to, not including, 1",
            ),
            (
                {"dropout": 0.5},
                "dropout acts between layers, and num_layers=1 has no such place",
            ),
            (
                {"single_bias": True, "bias": False},
                "single_bias=True asks for a bias and bias=False for none",
            ),
        ],
    )
    def test_options(
        self,
        ours: type[nn.Module],
        theirs: type[nn.RNNBase],
        options: dict[str, Any],
        given: dict[str, Any],
        message: str,
    ) -> None:
        with raises(message):
            ours(**{"input_size": 2, "hidden_size": 3} | options | given)

    def test_options_of_one_kind(self) -> None:
        with raises("peephole='some'; it is one of None, 'diagonal' and 'full'"):
            peephole.LSTM(2, 3, peephole="some")
        with raises("nonlinearity='selu'; it is one of 'tanh' and 'relu'"):
            peephole.RNN(2, 3, nonlinearity="selu")

    @EVERY
    def test_backend(
        self, ours: type[nn.Module], theirs: type[nn.RNNBase], options: dict[str, Any]
    ) -> None:
        layer = ours(2, 3, backend="cuda", **options)
        with raises("backend='cuda'; there are auto, reference"):
            layer(batch_of(LENGTHS, dtype=torch.float32))

    @pytest.mark.usefixtures("unhooked")
    @EVERY
    def test_input(
        self, ours: type[nn.Module], theirs: type[nn.RNNBase], options: dict[str, Any]
    ) -> None:
        layer = ours(2, 3, **options)
        message = (
            f"{ours.__name__} takes a peephole.Ragged, got Tensor; "
            "make one with Ragged.from_padded, from_packed, from_nested or from_list"
        )
        with raises(message, TypeError):
            layer(torch.zeros(3, 4, 2))
        for step in ((3,), (), (2, 1)):
            x = batch_of(LENGTHS, step, torch.float32)
            with raises(
                f"the input's values must be [N, 2] for input_size=2, got {[sum(LENGTHS), *step]}"
            ):
                layer(x)
        with raises("the input has dtype torch.float64, but the layer has torch.float32"):
            layer(batch_of(LENGTHS))
        with raises("the input has device meta, but the layer has cpu"):
            layer(batch_of(LENGTHS, dtype=torch.float32).to("meta"))

    @pytest.mark.usefixtures("unhooked")
    @EVERY
    @pytest.mark.parametrize("shape", [(6, 3), (1, 6, 3), (2, 5, 3), (2, 6, 4)])
    def test_initial_state(
        self,
        ours: type[nn.Module],
        theirs: type[nn.RNNBase],
        options: dict[str, Any],
        shape: tuple[int, ...],
    ) -> None:
        layer = ours(2, 3, bidirectional=True, **options)
        states = (torch.zeros(shape),) * (2 if theirs is nn.LSTM else 1)
        with raises(
            "the initial state must be [2, 6, 3] (layers * directions, sequences, "
            f"hidden units), got {list(shape)}"
        ):
            layer(batch_of(LENGTHS, dtype=torch.float32), as_given(states))

    @pytest.mark.usefixtures("unhooked")
    @pytest.mark.parametrize("count", [1, 3])
    def test_number_of_initial_states(self, count: int) -> None:
        states = tuple(torch.zeros(1, 6, 3) for _ in range(count))
        with raises(f"the initial state must be (h, c), two tensors, got {count}"):
            peephole.LSTM(2, 3)(batch_of(LENGTHS, dtype=torch.float32), states)
