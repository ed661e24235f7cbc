"""Layers and cells with the rest of PyTorch: copies, pickles, containers, DDP, functional calls,
TorchScript, parametrizations, optimizers.
"""

import copy
import io
import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import (
    clip_grad_norm_,
    parameters_to_vector,
    parametrizations,
    parametrize,
    prune,
    vector_to_parameters,
)
from torch.utils import _pytree as pytree

import peephole
from peephole import Ragged
from tests.helpers.batches import LENGTHS
from tests.helpers.errors import raises
from tests.helpers.layers import assert_close, ragged, random_sequences

# All options that go together, beside plain ones.
RICH: dict[str, Any] = {
    "zoneout": 0.3,
    "recurrent_dropout": 0.4,
    "layer_norm": True,
    "learn_initial_state": True,
}


class Unit(nn.Module):
    """A minimal gated unit (Zhou et al. 2016)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gate = nn.Linear(input_size + hidden_size, hidden_size)
        self.new = nn.Linear(input_size + hidden_size, hidden_size)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.gate.weight.new_zeros(batch_size, self.hidden_size)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        f = self.gate(torch.cat([x, h], 1)).sigmoid()
        h = (1 - f) * h + f * self.new(torch.cat([x, f * h], 1)).tanh()
        return h, h


class Output(nn.Module):
    """A layer's output without its states, as ``nn.Sequential`` needs it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: peephole.LSTM(3, 5, 2, bidirectional=True, dropout=0.3),
    "LSTM, options": lambda: peephole.LSTM(3, [5, 4], peephole="full", skip=True, **RICH),
    "GRU": lambda: peephole.GRU(3, 5),
    "GRU, options": lambda: peephole.GRU(3, 5, 2, **RICH),
    "RNN": lambda: peephole.RNN(3, 5, 2),
    "RNN, options": lambda: peephole.RNN(3, 5, **RICH),
    "Recurrent": lambda: peephole.Recurrent(Unit(3, 5), reverse=peephole.GRUCell(3, 5, **RICH)),
}
CELLS: dict[str, Callable[[], nn.Module]] = {
    "LSTMCell": lambda: peephole.LSTMCell(3, 5),
    "LSTMCell, options": lambda: peephole.LSTMCell(3, 5, peephole="full", layer_norm=True),
    "GRUCell": lambda: peephole.GRUCell(3, 5),
    "RNNCell, options": lambda: peephole.RNNCell(3, 5, zoneout=0.4, learn_initial_state=True),
}
EVERY_LAYER = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
EVERY_MODULE = pytest.mark.parametrize("make", (LAYERS | CELLS).values(), ids=LAYERS | CELLS)
KINDS = ("LSTM", "GRU", "RNN")


def batch() -> Ragged:
    return ragged([s.detach() for s in random_sequences(LENGTHS)])


def input_of(module: nn.Module) -> Any:
    """A ragged batch in float64, for a cell a step."""
    cell = isinstance(module, (peephole.LSTMCell, peephole.GRUCell, peephole.RNNCell))
    return torch.randn(4, 3, dtype=torch.float64) if cell else batch()


def run(module: nn.Module, x: Any) -> list[Tensor]:
    """All that it gives, with the same masks each time."""
    torch.manual_seed(5)
    return [t for t in pytree.tree_leaves(module(x)) if isinstance(t, Tensor)]


def gradients(module: nn.Module, x: Any) -> list[Tensor]:
    module.zero_grad()
    sum((t**2).sum() for t in run(module, x) if t.is_floating_point()).backward()
    return [p.grad.clone() for p in module.parameters()]


def assert_all_equal(given: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(given, wanted, strict=True):
        assert torch.equal(a, b)


def through_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def through_torch(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class TestCopies:
    @EVERY_MODULE
    @pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_torch])
    @pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
    def test_of_modules(
        self,
        make: Callable[[], nn.Module],
        through: Callable[[Any], Any],
        used: bool,
    ) -> None:
        module = make().double()
        x = input_of(module)
        if used:
            gradients(module, x)
        copied = through(module)
        for training in (True, False):
            wanted = run(module.train(training), x)
            assert_all_equal(run(copied.train(training), x), wanted)
        assert repr(copied) == repr(module)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        assert_all_equal(run(module, x), wanted)

    @pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, through_pickle, through_torch])
    def test_of_batches(self, through: Callable[[Any], Any]) -> None:
        given = batch()
        layer = peephole.LSTM(3, 5, dtype=torch.float64)
        # It has worked out its layout, which copies need not have.
        wanted = layer(given)[0]
        copied = through(given)
        assert isinstance(copied, Ragged)
        assert torch.equal(copied.values, given.values)
        assert torch.equal(copied.offsets, given.offsets)
        assert torch.equal(layer(copied)[0].values, wanted.values)
        if through is not copy.copy:
            copied.values.zero_()
            assert given.values.any()


class TestContainers:
    @EVERY_LAYER
    def test_sequential(self, make: Callable[[], nn.Module]) -> None:
        layer = make().double()
        x = batch()
        y = run(layer, x)[0]
        model = nn.Sequential(Output(layer), nn.Identity())
        torch.manual_seed(5)
        assert torch.equal(model(x).values, y)

    @EVERY_MODULE
    def test_functional_call(self, make: Callable[[], nn.Module]) -> None:
        truth, module = make().double(), make().double()
        x = input_of(module)
        wanted, d_wanted = run(truth, x), gradients(truth, x)
        weights = {n: p.detach().clone().requires_grad_() for n, p in truth.named_parameters()}
        before = {n: p.detach().clone() for n, p in module.named_parameters()}
        torch.manual_seed(5)
        found = torch.func.functional_call(module, weights, (x,))
        found = [t for t in pytree.tree_leaves(found) if isinstance(t, Tensor)]
        for a, b in zip(found, wanted, strict=True):
            assert_close(a, b)
        loss = sum((t**2).sum() for t in found if t.is_floating_point())
        for a, b in zip(torch.autograd.grad(loss, list(weights.values())), d_wanted, strict=True):
            assert_close(a, b)
        # The module's own weights took no part.
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, before[name])
            assert parameter.grad is None

    @pytest.mark.parametrize("name", KINDS)
    def test_func_grad_over_weights(self, name: str) -> None:
        layer = getattr(peephole, name)(3, 5, dtype=torch.float64)
        x = batch()

        def loss(weights: dict[str, Tensor]) -> Tensor:
            return (torch.func.functional_call(layer, weights, (x,))[0].values ** 2).sum()

        found = torch.func.grad(loss)(dict(layer.named_parameters()))
        (layer(x)[0].values ** 2).sum().backward()
        for parameter_name, parameter in layer.named_parameters():
            assert_close(found[parameter_name], parameter.grad)


def ddp_worker(rank: int, world: int, folder: str) -> None:
    """One process of DDP: its share of the sequences, and the gradients into a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=timedelta(minutes=1),
    )
    parts, layer = torch.load(Path(folder) / "given.pt", weights_only=False)
    model = nn.parallel.DistributedDataParallel(layer)
    y, h_n = model(parts[rank])
    ((y.values**2).sum() + h_n.sum()).backward()
    torch.save([p.grad for p in layer.parameters()], Path(folder) / f"found{rank}.pt")
    # At once: gloo's thread and the destructor that waits for it may both want the interpreter's
    # lock, and then neither ends.
    os._exit(0)


@pytest.mark.slow
def test_distributed_data_parallel(tmp_path: Path) -> None:
    """Two processes have the mean of the gradients that one finds for each share."""
    layer = peephole.GRU(3, 5, 2, dtype=torch.float64)
    parts = list(batch().split(len(LENGTHS) // 2))
    torch.save((parts, layer), tmp_path / "given.pt")
    for part in parts:
        y, h_n = layer(part)
        (((y.values**2).sum() + h_n.sum()) / 2).backward()
    torch.multiprocessing.spawn(ddp_worker, (2, str(tmp_path)), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"found{rank}.pt")
        for given, parameter in zip(found, layer.parameters(), strict=True):
            assert_close(given, parameter.grad)


# torch.jit says of itself that it is deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
class TestTorchScript:
    @EVERY_MODULE
    @pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside"])
    def test_is_refused(self, make: Callable[[], nn.Module], inside: bool) -> None:
        module = make().double()
        name = type(module).__name__
        refusal = (
            f"TorchScript (torch.jit) cannot take peephole.{name}; use torch.export, or "
            "torch.compile"
        )
        x = torch.randn(4, 3, dtype=torch.float64)
        given = nn.Sequential(Output(module)) if inside else module
        with raises(refusal, TypeError):
            torch.jit.trace(given, x)
        with raises(refusal, TypeError):
            torch.jit.script(given)

    def test_of_a_persons_cell(self) -> None:
        with pytest.raises(TypeError, match=r"cannot take peephole\.Recurrent"):
            torch.jit.script(peephole.Recurrent(Unit(3, 5)))


def weight(module: nn.Module) -> str:
    return "weight_hh_l0" if hasattr(module, "weight_hh_l0") else "weight_hh"


PLAIN: dict[str, Callable[[], nn.Module]] = {
    name: (lambda name=name: getattr(peephole, name)(3, 5, dtype=torch.float64))
    for name in (*KINDS, "LSTMCell", "GRUCell", "RNNCell")
}
PLAIN["LSTMCell, options"] = lambda: peephole.LSTMCell(
    3, 5, peephole="full", layer_norm=True, dtype=torch.float64
)
EVERY_PLAIN = pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)


class TestWeightsThatAreMoreThanParameters:
    """Utilities of torch that move a parameter, or put something else in its place."""

    @EVERY_PLAIN
    def test_weight_norm(self, make: Callable[[], nn.Module]) -> None:
        module, truth = make(), make()
        x = input_of(module)
        name = weight(module)
        parametrizations.weight_norm(module, name)
        both = getattr(module.parametrizations, name)
        g, v = both.original0, both.original1
        with torch.no_grad():
            # Else it is the weight that it was.
            g.mul_(1.5)
        truth.load_state_dict(
            {
                key: module.state_dict()[key]
                if key != name
                else g.detach() * v.detach() / v.detach().norm(dim=1, keepdim=True)
                for key in truth.state_dict()
            }
        )
        for a, b in zip(run(module, x), run(truth, x), strict=True):
            assert_close(a, b)
        run(module, x)[0].sum().backward()
        assert g.grad is not None
        assert v.grad is not None
        parametrize.remove_parametrizations(module, name)
        assert_all_equal(run(module, x), run(copy.deepcopy(module), x))

    @EVERY_PLAIN
    def test_pruning(self, make: Callable[[], nn.Module]) -> None:
        module, truth = make(), make()
        x = input_of(module)
        name = weight(module)
        prune.random_unstructured(module, name, 0.5)
        weights = {key: getattr(module, key).detach() for key in truth.state_dict()}
        assert (weights[name] == 0).any()
        truth.load_state_dict(weights)
        for a, b in zip(run(module, x), run(truth, x), strict=True):
            assert_close(a, b)

    @EVERY_PLAIN
    def test_sharing(self, make: Callable[[], nn.Module]) -> None:
        """Two names for one parameter."""
        module, truth = make(), make()
        x = input_of(module)
        suffix = weight(module).removeprefix("weight_hh")
        setattr(module, "bias_hh" + suffix, getattr(module, "bias_ih" + suffix))
        truth.load_state_dict(module.state_dict())
        for a, b in zip(run(module, x), run(truth, x), strict=True):
            assert_close(a, b)

    @pytest.mark.parametrize("name", ["LSTM", "LSTMCell", "GRU", "GRUCell"])
    def test_a_subclass_with_parameters_of_its_own(self, name: str) -> None:
        base = getattr(peephole, name)

        class Scaled(base):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(3, 5, dtype=torch.float64)
                self.scale = nn.Linear(3, 3)

        module, truth = Scaled(), base(3, 5, dtype=torch.float64)
        truth.load_state_dict(module.state_dict(), strict=False)
        x = input_of(module)
        assert_all_equal(run(module, x), run(truth, x))


class TestTraining:
    @pytest.mark.parametrize("name", KINDS)
    def test_steps_as_torch_s(self, name: str) -> None:
        theirs = getattr(nn, name)(3, 5, 2, dtype=torch.float64)
        ours = peephole.from_torch(theirs)
        x = torch.randn(7, 4, 3, dtype=torch.float64)
        for module in (ours, theirs):
            optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                (module(x)[0] ** 2).sum().backward()
                assert clip_grad_norm_(module.parameters(), 0.5) > 0.5
                optimizer.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_close(a, b)

    @EVERY_MODULE
    def test_parameters_as_one_vector(self, make: Callable[[], nn.Module]) -> None:
        module, other = make().double(), make().double()
        vector_to_parameters(parameters_to_vector(module.parameters()), other.parameters())
        x = input_of(module)
        for a, b in zip(run(other, x), run(module, x), strict=True):
            assert_close(a, b)

    @pytest.mark.parametrize("name", KINDS)
    @pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
    def test_a_frozen_parameter(self, name: str, backend: str) -> None:
        layer = getattr(peephole, name)(3, 5, 2, backend=backend, dtype=torch.float64)
        x = batch()
        whole = gradients(layer, x)
        layer.weight_hh_l0.requires_grad_(False)
        layer.zero_grad()
        sum((t**2).sum() for t in run(layer, x) if t.is_floating_point()).backward()
        for (key, parameter), wanted in zip(layer.named_parameters(), whole, strict=True):
            if key == "weight_hh_l0":
                assert parameter.grad is None
            else:
                assert_close(parameter.grad, wanted)
