"""What the tests of compiled and exported graphs share."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.utils import _pytree as pytree

import peephole
from peephole import Ragged
from tests.helpers.batches import offsets_of

F64 = torch.float64

# Every option at least once, and those that change what a graph holds: masks, floats, states.
LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "lstm": (peephole.LSTM, {}),
    "gru": (peephole.GRU, {}),
    "rnn": (peephole.RNN, {"nonlinearity": "relu"}),
    "lstm-dropped": (
        peephole.LSTM,
        {
            "peephole": "diagonal",
            "layer_norm": True,
            "zoneout": (0.1, 0.2),
            "recurrent_dropout": 0.3,
            "cell_clip": 0.6,
            "proj_size": 2,
            "dropout": 0.4,
        },
    ),
    "lstm-coupled-full": (
        peephole.LSTM,
        {"peephole": "full", "coupled": True, "learn_initial_state": True, "skip": True},
    ),
    "gru-widths": (
        peephole.GRU,
        {"hidden_size": [4, 5], "skip": True, "layer_norm": True, "zoneout": 0.3},
    ),
    "rnn-single_bias": (
        peephole.RNN,
        {"single_bias": True, "recurrent_dropout": 0.5, "learn_initial_state": True},
    ),
}
EVERY = pytest.mark.parametrize(("kind", "options"), LAYERS.values(), ids=LAYERS)


class Model(nn.Module):
    """A linear map of each step, two layers in both directions, and a linear map again."""

    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        both = {"hidden_size": 4, "num_layers": 2, "bidirectional": True} | options
        self.inner = nn.Linear(3, 3, dtype=F64)
        self.rnn = kind(3, dtype=F64, **both)
        self.outer = nn.Linear(self.rnn.output_size, 2, dtype=F64)

    def forward(self, x: Ragged, hx: Any = None) -> tuple[Ragged, Any]:
        y, final = self.rnn(x.with_values(self.inner(x.values).tanh()), hx)
        return y.with_values(self.outer(y.values)), final


class Graphs:
    """A backend of ``torch.compile`` that counts its graphs and needs no C++ compiler."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.count += 1
        ready: Callable[..., Any] = aot_eager(graph, inputs)
        return ready


def compiled(model: Callable[..., Any], graphs: Any = "aot_eager") -> Callable[..., Any]:
    """The model as one graph; where it would break, an error."""
    return torch.compile(model, fullgraph=True, backend=graphs)


def random_batch(lengths: Sequence[int], features: int = 3) -> Ragged:
    """Random values that are a leaf of autograd."""
    values = torch.randn(sum(lengths), features, dtype=F64, requires_grad=True)
    return Ragged(values, offsets_of(lengths))


def outcome(
    run: Callable[..., Any], leaves: Sequence[Tensor], *args: Any, **options: Any
) -> list[Tensor]:
    """Every tensor of the result, then the gradients of ``leaves`` from all of them.

    Calls with the same shapes draw the same masks and the same upstream gradients.
    """
    torch.manual_seed(1)
    found = pytree.tree_leaves(run(*args, **options))
    results = [leaf for leaf in found if isinstance(leaf, Tensor)]
    torch.manual_seed(2)
    recorded = [result for result in results if result.requires_grad]
    # Not randn_like, whose order is that of the memory.
    upstream = [torch.randn(result.shape, dtype=result.dtype) for result in recorded]
    gradients = torch.autograd.grad(recorded, leaves, upstream, materialize_grads=True)
    return [*(result.detach() for result in results), *gradients]


def assert_close(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for ours, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def assert_same_outcome(
    given: Callable[..., Any],
    model: nn.Module,
    leaves: Sequence[Tensor],
    *args: Any,
    **options: Any,
) -> None:
    """Assert that a compiled model gives what the model itself gives, values and gradients."""
    leaves = [*leaves, *model.parameters()]
    ours = outcome(given, leaves, *args, **options)
    assert_close(ours, outcome(model, leaves, *args, **options))


@pytest.fixture
def traceable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the type hook off every function of ``peephole``: dynamo cannot trace through it.

    Turning its checks off is not enough: dynamo would still meet what it wrapped around them.
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    # Functions within functions are wrapped when they are made.
    monkeypatch.setattr(jaxtyping, "jaxtyped", lambda *, typechecker: lambda function: function)
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] == "peephole"]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__.partition(".")[0] == "peephole"
    }
    for owner in (*modules, *classes):
        for name, value in list(vars(owner).items()):
            if (plain := _without_hook(value)) is not value:
                monkeypatch.setattr(owner, name, plain)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _without_hook(value: Any) -> Any:
    if isinstance(value, classmethod | staticmethod):
        plain = _without_hook(value.__func__)
        return value if plain is value.__func__ else type(value)(plain)
    if isinstance(value, property):
        plain = _without_hook(value.fget)
        return value if plain is value.fget else property(plain)
    if not isinstance(value, FunctionType):
        return value
    if value.__globals__["__name__"] == "jaxtyping._decorator":
        return inspect.unwrap(value)
    if value.__globals__["__name__"] == "contextlib":
        return contextlib.contextmanager(inspect.unwrap(value))
    return value
