"""``from_torch`` and ``to_torch``, and ``torch.nn``'s checkpoints in our layers."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import peephole
from tests.helpers.errors import raises
from tests.helpers.layers import HIDDEN, INPUT, as_tuple, assert_close

# What both are made with, torch.nn's classes by name.
MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "LSTM, all arguments": (
        "LSTM",
        {
            "num_layers": 3,
            "batch_first": True,
            "dropout": 0.4,
            "bidirectional": True,
            "proj_size": 2,
        },
    ),
    "GRU": ("GRU", {"num_layers": 2, "dropout": 0.25, "batch_first": True}),
    "GRU without biases": ("GRU", {"bias": False, "bidirectional": True}),
    "RNN": ("RNN", {}),
    "RNN of relu": ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    "LSTMCell": ("LSTMCell", {}),
    "GRUCell": ("GRUCell", {}),
    "GRUCell without biases": ("GRUCell", {"bias": False}),
    "RNNCell": ("RNNCell", {}),
    "RNNCell of relu": ("RNNCell", {"nonlinearity": "relu"}),
}
EVERY_MODULE = pytest.mark.parametrize(("name", "arguments"), MODULES.values(), ids=MODULES)
CLASSES = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")


def torch_module(name: str, **arguments: Any) -> nn.Module:
    return getattr(nn, name)(INPUT, HIDDEN, **{"dtype": torch.float64, **arguments})


def outputs(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Everything that a layer gives for ``[5, 4, I]``, or a cell for the first of these."""
    # Dropout's masks are the same for both.
    torch.manual_seed(7)
    if isinstance(module, (nn.RNNCellBase, peephole.LSTMCell, peephole.GRUCell, peephole.RNNCell)):
        return list(as_tuple(module(x[0])))
    y, states = module(x)
    return [y, *as_tuple(states)]


def batch() -> Tensor:
    return torch.randn(5, 4, INPUT, dtype=torch.float64)


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    """Parameters in every respect, mode, and what is computed."""
    given, wanted = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(given) == list(wanted)
    for name, parameter in wanted.items():
        torch.testing.assert_close(given[name], parameter, rtol=0, atol=0)
        assert given[name].requires_grad == parameter.requires_grad
        assert given[name].data_ptr() != parameter.data_ptr()
        assert given[name].is_leaf
    assert ours.training == theirs.training
    x = batch()
    for a, b in zip(outputs(ours, x), outputs(theirs, x), strict=True):
        assert_close(a, b)


class TestFromTorch:
    @EVERY_MODULE
    @pytest.mark.parametrize("training", [True, False])
    def test_computes_the_same(self, name: str, arguments: dict[str, Any], training: bool) -> None:
        theirs = torch_module(name, **arguments).train(training)
        next(iter(theirs.parameters())).requires_grad_(False)
        ours = peephole.from_torch(theirs)
        assert type(ours) is getattr(peephole, name)
        assert_same(ours, theirs)
        assert ours.to_torch().extra_repr() == theirs.extra_repr()

    @EVERY_MODULE
    def test_draws_no_random_numbers(self, name: str, arguments: dict[str, Any]) -> None:
        theirs = torch_module(name, **arguments)
        state = torch.get_rng_state()
        peephole.from_torch(theirs).to_torch()
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("name", CLASSES)
    def test_is_independent(self, name: str) -> None:
        theirs = torch_module(name)
        before = copy.deepcopy(theirs.state_dict())
        ours = peephole.from_torch(theirs)
        with torch.no_grad():
            for parameter in ours.parameters():
                parameter.zero_()
        for key, value in theirs.state_dict().items():
            assert torch.equal(value, before[key])

    def test_keeps_dtype_and_device_of_each_parameter(self) -> None:
        theirs = torch_module("GRU", device="meta", dtype=torch.bfloat16)
        theirs.bias_hh_l0 = nn.Parameter(theirs.bias_hh_l0.float())
        for made in (ours := peephole.from_torch(theirs), ours.to_torch()):
            assert {p.device.type for p in made.parameters()} == {"meta"}
            assert made.weight_ih_l0.dtype == torch.bfloat16
            assert made.bias_hh_l0.dtype == torch.float32

    def test_keeps_shared_weights_shared(self) -> None:
        theirs = torch_module("LSTM", num_layers=3, proj_size=2)
        theirs.weight_hh_l2 = theirs.weight_hh_l0
        for made in (ours := peephole.from_torch(theirs), ours.to_torch()):
            assert made.weight_hh_l2 is made.weight_hh_l0
            assert made.weight_hh_l1 is not made.weight_hh_l0
            assert_same(made, theirs)

    def test_all_weights_are_torch_s(self) -> None:
        theirs = torch_module("LSTM", num_layers=2, bidirectional=True, proj_size=2)
        ours = peephole.from_torch(theirs)
        for given, wanted in zip(ours.all_weights, theirs.all_weights, strict=True):
            for a, b in zip(given, wanted, strict=True):
                assert torch.equal(a, b)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda *_: None)
    return module


def forwarded(module: nn.Module) -> nn.Module:
    module.forward = lambda x: x  # type: ignore[method-assign]
    return module


def widened(module: nn.Module) -> nn.Module:
    module.weight_ih_l0 = nn.Parameter(torch.zeros(4 * HIDDEN, 7))
    return module


def with_buffer(module: nn.Module) -> nn.Module:
    module.register_buffer("scale", torch.ones(2))
    return module


class MyLSTM(nn.LSTM):
    pass


class OurLSTM(peephole.LSTM):
    pass


CHANGED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "pruned": (
        lambda m: prune.random_unstructured(m, "weight_hh_l0", 0.5),
        "'weight_hh_l0_orig' is [20, 5], in such a layer nothing; if a weight is pruned or "
        "normalized, make that permanent first",
    ),
    "hooked": (hooked, "it has hooks, which would be lost; take them off first"),
    "another forward": (forwarded, "it has hooks, which would be lost; take them off first"),
    "another shape": (widened, "'weight_ih_l0' is [20, 7], in such a layer [20, 3]"),
    "a buffer": (with_buffer, "'scale' is [2], in such a layer nothing"),
    "parametrized": (
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        "ParametrizedLSTM, whose parametrizations would be lost: take them off first, with "
        "torch.nn.utils.parametrize.remove_parametrizations",
    ),
}


@pytest.mark.usefixtures("unhooked")
class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "what"),
        [
            (nn.Linear(2, 3), "torch.nn.modules.linear.Linear"),
            (nn.Transformer, "builtins.type"),
            (peephole.LSTM(2, 3), "peephole.nn.lstm.LSTM"),
            (nn.Sequential(nn.LSTM(2, 3)), "torch.nn.modules.container.Sequential"),
            (
                MyLSTM(2, 3),
                "tests.nn.test_exchange.MyLSTM, a subclass, which may compute something else",
            ),
        ],
    )
    def test_from_torch_takes_six_classes(self, given: Any, what: str) -> None:
        allowed = ", ".join(f"torch.nn.{name}" for name in peephole.nn.__all__ if name in CLASSES)
        with raises(f"from_torch takes {allowed}; got {what}", TypeError):
            peephole.from_torch(given)

    @pytest.mark.parametrize(("change", "reason"), CHANGED.values(), ids=CHANGED)
    def test_a_module_that_is_more_than_its_class(
        self, change: Callable[[nn.Module], nn.Module], reason: str
    ) -> None:
        with pytest.raises(TypeError) as theirs:
            peephole.from_torch(change(nn.LSTM(INPUT, HIDDEN)))
        assert reason in str(theirs.value)
        layer = change(peephole.LSTM(INPUT, HIDDEN))
        with pytest.raises(ValueError) as ours:  # noqa: PT011  the message is what follows
            layer.to_torch()
        assert reason in str(ours.value)

    @pytest.mark.parametrize(
        ("layer", "reason"),
        [
            (peephole.LSTM(3, 5, peephole="full"), "peephole='full'"),
            (peephole.LSTM(3, 5, coupled=True, cell_clip=2), "coupled=True, cell_clip=2.0"),
            (peephole.LSTM(3, 5, zoneout=(0.0, 0.5)), "zoneout=(0.0, 0.5)"),
            (peephole.GRU(3, 5, recurrent_dropout=0.5), "recurrent_dropout=0.5"),
            (peephole.RNN(3, 5, layer_norm=True), "layer_norm=True"),
            (peephole.GRU(3, 5, 2, skip=True), "skip=True"),
            (
                peephole.GRU(3, 5, learn_initial_state=True, single_bias=True),
                "learn_initial_state=True, single_bias=True",
            ),
            (
                peephole.LSTM(3, [5, 4], layer_norm=True, skip=True),
                "layer_norm=True, skip=True, hidden_size=(5, 4)",
            ),
            (peephole.LSTMCell(3, 5, peephole="diagonal"), "peephole='diagonal'"),
            (peephole.GRUCell(3, 5, single_bias=True), "single_bias=True"),
            (peephole.RNNCell(3, 5, learn_initial_state=True), "learn_initial_state=True"),
        ],
    )
    def test_to_torch_says_what_torch_lacks(self, layer: nn.Module, reason: str) -> None:
        with raises(f"torch.nn has no {reason}"):
            layer.to_torch()

    def test_a_subclass_of_ours(self) -> None:
        with raises(
            "to_torch knows peephole's own classes; this is tests.nn.test_exchange.OurLSTM, a "
            "subclass, which may compute something else"
        ):
            OurLSTM(3, 5).to_torch()


class TestToTorch:
    @pytest.mark.parametrize(
        ("ours", "wanted"),
        [
            (
                peephole.LSTM(INPUT, HIDDEN, 2, forget_bias=1.5, batch_first=True),
                nn.LSTM(INPUT, HIDDEN, 2, batch_first=True),
            ),
            (
                peephole.GRU(INPUT, [HIDDEN, HIDDEN], bidirectional=True, backend="reference"),
                nn.GRU(INPUT, HIDDEN, 2, bidirectional=True),
            ),
            (
                peephole.RNN(INPUT, HIDDEN, 1, "relu", False, initialization="orthogonal"),
                nn.RNN(INPUT, HIDDEN, 1, "relu", False),
            ),
            (peephole.GRU(INPUT, HIDDEN, initialization=("chrono", 9)), nn.GRU(INPUT, HIDDEN)),
            (
                peephole.LSTMCell(INPUT, HIDDEN, initialization=lambda name, p: nn.init.ones_(p)),
                nn.LSTMCell(INPUT, HIDDEN),
            ),
        ],
    )
    @pytest.mark.parametrize("training", [True, False])
    def test_options_that_choose_only_first_values(
        self, ours: nn.Module, wanted: nn.Module, training: bool
    ) -> None:
        ours = ours.double().train(training)
        theirs = ours.to_torch()
        assert type(theirs) is type(wanted)
        assert theirs.extra_repr() == wanted.extra_repr()
        x = batch()
        # Of the output alone: with a width for each layer, the states have another form.
        for given, truth in zip(outputs(ours, x)[:1], outputs(theirs, x)[:1], strict=True):
            assert_close(given, truth)
        for (name, a), (key, b) in zip(
            theirs.named_parameters(), ours.named_parameters(), strict=True
        ):
            assert name == key
            assert torch.equal(a, b)
            assert a.data_ptr() != b.data_ptr()
        assert theirs.training == training

    def test_arguments(self) -> None:
        ours = peephole.LSTM(3, 5, 2, False, True, 0.5, True, 2)
        theirs = ours.to_torch()
        assert (theirs.num_layers, theirs.bias, theirs.batch_first) == (2, False, True)
        assert (theirs.dropout, theirs.bidirectional, theirs.proj_size) == (0.5, True, 2)

    def test_trains_like_any_module(self) -> None:
        """torch.nn keeps its weights in a second list, which must be of these parameters."""
        theirs = peephole.LSTM(INPUT, HIDDEN, dtype=torch.float64).to_torch()
        optimizer = torch.optim.SGD(theirs.parameters(), lr=1.0)
        x = batch()
        before = theirs(x)[0]
        before.sum().backward()
        optimizer.step()
        assert not torch.allclose(theirs(x)[0], before)


class TestCheckpoints:
    @EVERY_MODULE
    def test_torch_s_load_into_ours_and_back(
        self, tmp_path: Path, name: str, arguments: dict[str, Any]
    ) -> None:
        theirs = torch_module(name, **arguments)
        torch.save({"rnn": theirs.state_dict()}, tmp_path / "checkpoint.pt")
        ours = getattr(peephole, name)(INPUT, HIDDEN, **arguments, dtype=torch.float64)
        found = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["rnn"]
        assert str(ours.load_state_dict(found)) == "<All keys matched successfully>"
        assert_same(ours, theirs)
        again = torch_module(name, **arguments)
        again.load_state_dict(ours.state_dict())
        assert_same(again, theirs)

    def test_a_whole_model_s(self) -> None:
        theirs = nn.ModuleDict({"embed": nn.Linear(2, 3), "rnn": nn.GRU(3, 5, 2)})
        ours = nn.ModuleDict({"embed": nn.Linear(2, 3), "rnn": peephole.GRU(3, 5, 2)})
        ours.load_state_dict(theirs.state_dict())
        assert torch.equal(ours["rnn"].weight_hh_l1, theirs["rnn"].weight_hh_l1)

    def test_keys_are_checked(self) -> None:
        layer = peephole.LSTM(3, 5, peephole="diagonal")
        with pytest.raises(RuntimeError, match=r'Missing key.*"weight_ch_l0"'):
            layer.load_state_dict(nn.LSTM(3, 5).state_dict())
        with pytest.raises(RuntimeError, match=r'Unexpected key.*"weight_ih_l1"'):
            peephole.LSTM(3, 5).load_state_dict(nn.LSTM(3, 5, 2).state_dict())
        with pytest.raises(RuntimeError, match=r"size mismatch for weight_hh_l0"):
            peephole.GRU(3, 5).load_state_dict(nn.LSTM(3, 5).state_dict())
        found = layer.load_state_dict(nn.LSTM(3, 5).state_dict(), strict=False)
        assert found.missing_keys == ["weight_ch_l0"]
