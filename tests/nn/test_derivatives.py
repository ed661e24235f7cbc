"""Derivatives of layers and cells: second ones, forward mode, ``torch.func``, ensembles.

All but the first and second ones only on the reference backend, whose equations are plain PyTorch;
"auto" must find that out.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jvp, stack_module_state, vmap

import peephole
from peephole import Ragged
from tests.helpers.layerwise import random_batch, randomized
from tests.helpers.marks import forward_mode

# One ends early, one is empty.
LENGTHS = [1, 0, 2]
COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "single_bias": {"single_bias": True},
    "zoneout": {"zoneout": 0.4},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "layer_norm": {"layer_norm": True},
    "learn_initial_state": {"learn_initial_state": True},
}
LSTM: dict[str, dict[str, Any]] = {
    **COMMON,
    "diagonal": {"peephole": "diagonal"},
    "full": {"peephole": "full"},
    "coupled": {"coupled": True},
    "cell_clip": {"cell_clip": 0.3},
    "zoneout of two": {"zoneout": (0.3, 0.6)},
    "together": {
        "peephole": "full",
        "coupled": True,
        "cell_clip": 0.3,
        "layer_norm": True,
        "zoneout": 0.3,
        "recurrent_dropout": 0.3,
    },
}
RNN = {**COMMON, "relu": {"nonlinearity": "relu"}}
CELLS = {
    f"{kind}-{name}": (kind, options)
    for kind, table in {"LSTM": LSTM, "GRU": COMMON, "RNN": RNN}.items()
    for name, options in table.items()
}
OF_LAYERS: dict[str, dict[str, Any]] = {
    "projected": {"proj_size": 1, "bidirectional": True},
    "both ways": {"bidirectional": True},
    "skip": {"num_layers": 2, "skip": True},
}
LAYERS = CELLS | {
    f"{kind}-{name}": (kind, options)
    for kind in ("LSTM", "GRU", "RNN")
    for name, options in OF_LAYERS.items()
    if kind == "LSTM" or "proj_size" not in options
}
KERNELS = {
    name: case for name, case in LAYERS.items() if not case[1].keys() & {"layer_norm", "proj_size"}
}
SERVED = {f"{name}-reference": (*case, "reference") for name, case in LAYERS.items()} | {
    f"{kind}-{name}-auto": (kind, {**COMMON, **OF_LAYERS}[name], "auto")
    for kind in ("LSTM", "GRU", "RNN")
    for name in ("plain", "zoneout", "learn_initial_state", "both ways", "skip")
}
EACH_SERVED = pytest.mark.parametrize(("kind", "options", "backend"), SERVED.values(), ids=SERVED)
EACH_CELL = pytest.mark.parametrize(("kind", "options"), CELLS.values(), ids=CELLS)
DIFFERENTIATED = {f"{name}-reference": (*case, "reference") for name, case in LAYERS.items()} | {
    f"{name}-cpu": (*case, "cpu") for name, case in KERNELS.items()
}
EACH_LAYER = pytest.mark.parametrize(
    ("kind", "options", "backend"), DIFFERENTIATED.values(), ids=DIFFERENTIATED
)
KINDS = pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
SERVING = pytest.mark.parametrize("backend", ["reference", "auto"])
DROPPED = {name: case for name, case in DIFFERENTIATED.items() if "zoneout" in case[1]}

Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, Ragged):
        return [result.values]
    return [result] if isinstance(result, Tensor) else [t for part in result for t in flat(part)]


def as_given(states: Tensors) -> Any:
    return states if len(states) == 2 else states[0]


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def of_layer(kind: str, options: dict[str, Any], backend: str = "reference") -> tuple[Any, Any]:
    """A function of a layer's input, initial states and parameters, and where to take it."""
    torch.manual_seed(6)
    layer = randomized(getattr(peephole, kind)(2, 2, backend=backend, **options))
    x = random_batch(LENGTHS, 2)
    names = [name for name, _ in layer.named_parameters()]
    rows = layer.num_layers * (1 + layer.bidirectional)
    learned = options.get("learn_initial_state", False)
    sizes = () if learned else layer.state_sizes(2)

    def run(values: Tensor, *rest: Tensor) -> Tensors:
        # The same masks at every call.
        torch.manual_seed(1)
        states, weights = rest[: len(sizes)], rest[len(sizes) :]
        hx = as_given(states) if states else None
        named = dict(zip(names, weights, strict=True))
        return tuple(flat(functional_call(layer, named, (x.with_values(values), hx))))

    run.layer = layer  # type: ignore[attr-defined]
    states = [leaf(rows, len(LENGTHS), size) for size in sizes]
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    return run, (leaf(sum(LENGTHS), 2), *states, *weights)


def of_cell(kind: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """The same of a step of a cell."""
    torch.manual_seed(6)
    cell = randomized(getattr(peephole, f"{kind}Cell")(2, 2, **options))
    names = [name for name, _ in cell.named_parameters()]
    learned = options.get("learn_initial_state", False)
    sizes = () if learned else cell.state_sizes(2)

    def run(x: Tensor, *rest: Tensor) -> Tensors:
        torch.manual_seed(1)
        states, weights = rest[: len(sizes)], rest[len(sizes) :]
        named = dict(zip(names, weights, strict=True))
        mask = cell.draw_recurrent_mask(3) if cell.recurrent_dropout else None
        hx = as_given(states) if states else None
        return tuple(flat(functional_call(cell, named, (x, hx, mask))))

    run.layer = cell  # type: ignore[attr-defined]
    weights = [p.detach().clone().requires_grad_() for p in cell.parameters()]
    return run, (leaf(3, 2), *[leaf(3, size) for size in sizes], *weights)


class TestFiniteDifferences:
    """Of every output with respect to every input, initial state and parameter.

    Along random directions (``fast_mode``): all of them one by one take minutes.
    """

    @EACH_LAYER
    def test_first_of_layers(self, kind: str, options: dict[str, Any], backend: str) -> None:
        run, inputs = of_layer(kind, options, backend)
        assert gradcheck(run, inputs, fast_mode=True)

    @pytest.mark.parametrize(
        ("kind", "options", "backend"), DROPPED.values(), ids=[f"{n}-evaluation" for n in DROPPED]
    )
    def test_of_expectations(self, kind: str, options: dict[str, Any], backend: str) -> None:
        """In evaluation, where zoneout is a number."""
        run, inputs = of_layer(kind, options, backend)
        run.layer.eval()
        assert gradcheck(run, inputs, fast_mode=True)
        assert gradgradcheck(run, inputs, fast_mode=True)

    @EACH_LAYER
    def test_second_of_layers(self, kind: str, options: dict[str, Any], backend: str) -> None:
        run, inputs = of_layer(kind, options, backend)
        assert gradgradcheck(run, inputs, fast_mode=True)

    @EACH_CELL
    def test_first_of_cells(self, kind: str, options: dict[str, Any]) -> None:
        run, inputs = of_cell(kind, options)
        # torch's own step where torch.nn has the cell, our equations where not.
        assert gradcheck(run, inputs, fast_mode=True)

    @EACH_CELL
    def test_second_of_cells(self, kind: str, options: dict[str, Any]) -> None:
        run, inputs = of_cell(kind, options)
        assert gradgradcheck(run, inputs, fast_mode=True)

    @pytest.mark.parametrize("kind", ["LSTM", "GRU"])
    @SERVING
    def test_second_of_gates_and_cells(self, kind: str, backend: str) -> None:
        layer = randomized(getattr(peephole, kind)(2, 2, backend=backend))
        x = random_batch(LENGTHS, 2)

        def run(values: Tensor) -> Tensors:
            (steps,) = layer(x.with_values(values), return_states=True)[2]
            cells = [] if steps.cells is None else [steps.cells]
            return tuple(part.values for part in (*steps.gates.values(), *cells))

        assert gradgradcheck(run, (leaf(3, 2),), fast_mode=True)


@forward_mode
class TestTorchFunc:
    @EACH_SERVED
    def test_jvp(self, kind: str, options: dict[str, Any], backend: str) -> None:
        run, inputs = of_layer(kind, options, backend)
        inputs = tuple(t.detach() for t in inputs)
        tangents = tuple(torch.randn_like(t) for t in inputs)
        values, derivatives = jvp(run, inputs, tangents)
        assert run.layer.backend_used == "reference"
        step = 1e-6
        ahead, behind = (
            run(*(t + sign * step * v for t, v in zip(inputs, tangents, strict=True)))
            for sign in (1, -1)
        )
        torch.testing.assert_close(values, run(*inputs))
        for a, b, derivative in zip(ahead, behind, derivatives, strict=True):
            torch.testing.assert_close((a - b) / (2 * step), derivative, rtol=1e-6, atol=1e-7)

    @EACH_SERVED
    def test_grad(self, kind: str, options: dict[str, Any], backend: str) -> None:
        run, inputs = of_layer(kind, options, backend)
        weights = [torch.randn_like(part) for part in run(*inputs)]

        def loss(*inputs: Tensor) -> Tensor:
            return sum((w * y).sum() for w, y in zip(weights, run(*inputs), strict=True))

        wanted = torch.autograd.grad(loss(*inputs), inputs, materialize_grads=True)
        given = grad(loss, argnums=tuple(range(len(inputs))))(*inputs)
        assert run.layer.backend_used == "reference"
        torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)

    @KINDS
    @SERVING
    def test_hessian_vector_product(self, kind: str, backend: str) -> None:
        run, inputs = of_layer(kind, {}, backend)
        inputs = tuple(t.detach() for t in inputs)
        tangents = tuple(torch.randn_like(t) for t in inputs)

        def loss(*inputs: Tensor) -> Tensor:
            return sum(y.square().sum() for y in run(*inputs))

        gradients = grad(loss, argnums=tuple(range(len(inputs))))
        _, given = jvp(gradients, inputs, tangents)
        leaves = [t.requires_grad_() for t in inputs]
        first = torch.autograd.grad(
            sum(y.square().sum() for y in of_layer(kind, {})[0](*leaves)), leaves, create_graph=True
        )
        product = sum((d * v).sum() for d, v in zip(first, tangents, strict=True))
        wanted = torch.autograd.grad(product, leaves)
        torch.testing.assert_close(list(given), list(wanted), rtol=1e-9, atol=1e-9)

    @KINDS
    @SERVING
    @pytest.mark.parametrize("form", ["ragged", "padded", "lengths"])
    def test_ensemble(self, kind: str, backend: str, form: str) -> None:
        """Several layers at once: vmap over their stacked weights."""
        make = getattr(peephole, kind)
        options: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "backend": backend}
        layers = [randomized(make(3, 4, **options)) for _ in range(4)]
        base = make(3, 4, **options).double().to("meta")
        parameters, buffers = stack_module_state(layers)
        x = random_batch([3, 3, 3] if form == "padded" else [2, 0, 5, 1], 3)

        def output(parameters: Any, buffers: Any) -> Tensors:
            arguments = {
                "ragged": lambda: (x,),
                "padded": lambda: (x.to_padded(batch_first=False),),
                "lengths": lambda: (x.to_padded(batch_first=False), None, x.lengths),
            }[form]()
            return tuple(flat(functional_call(base, (parameters, buffers), arguments)))

        given = vmap(output)(parameters, buffers)
        wanted = zip(*(alone(layer, x, form) for layer in layers), strict=True)
        for ours, theirs in zip(given, wanted, strict=True):
            torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("LSTM", {"peephole": "full", "layer_norm": True, "coupled": True, "cell_clip": 0.3}),
            ("GRU", {"layer_norm": True, "zoneout": 0.3, "learn_initial_state": True}),
            ("RNN", {"layer_norm": True, "zoneout": 0.3, "skip": True}),
        ],
        ids=["LSTM", "GRU", "RNN"],
    )
    def test_ensemble_with_options_and_its_gradients(
        self, kind: str, options: dict[str, Any]
    ) -> None:
        make = getattr(peephole, kind)
        layers = [randomized(make(3, 4, **options)).eval() for _ in range(3)]
        base = make(3, 4, **options).double().eval()
        parameters, buffers = stack_module_state(layers)
        x = random_batch([2, 0, 5], 3)

        def loss(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
            batch = Ragged(x, torch.tensor([0, 2, 2, 7]))
            y, _ = functional_call(base, (parameters, buffers), (batch,))
            return y.values.square().sum()

        # Over weights and inputs both: an input of its own for each.
        xs = torch.stack([x.values + k for k in range(3)])
        given = vmap(grad(loss))(parameters, buffers, xs)
        for k, layer in enumerate(layers):
            y, _ = layer(x.with_values(xs[k]))
            named = dict(layer.named_parameters())
            wanted = torch.autograd.grad(y.values.square().sum(), list(named.values()))
            for name, theirs in zip(named, wanted, strict=True):
                torch.testing.assert_close(given[name][k], theirs, rtol=1e-10, atol=1e-10)

    @KINDS
    def test_ensemble_of_cells(self, kind: str) -> None:
        make = getattr(peephole, f"{kind}Cell")
        cells = [randomized(make(3, 4)) for _ in range(3)]
        parameters, buffers = stack_module_state(cells)
        x = torch.randn(5, 3, dtype=torch.float64)

        def output(parameters: Any, buffers: Any) -> Tensors:
            return tuple(flat(functional_call(cells[0], (parameters, buffers), (x,))))

        for ours, theirs in zip(
            vmap(output)(parameters, buffers),
            zip(*(flat(c(x)) for c in cells), strict=True),
            strict=True,
        ):
            torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-10, atol=1e-10)


@forward_mode
class TestTorchBackend:
    """torch's operators have no such derivatives: the error says what has."""

    MESSAGE = r"^backend='torch' cannot serve: torch.func and .*; backend='reference' can$"

    @KINDS
    def test_vmap(self, kind: str) -> None:
        layers = [getattr(peephole, kind)(3, 4, backend="torch") for _ in range(2)]
        parameters, buffers = stack_module_state(layers)
        x = torch.randn(5, 2, 3)

        def output(parameters: Any, buffers: Any) -> Tensor:
            return functional_call(layers[0], (parameters, buffers), (x,))[0]

        with pytest.raises(ValueError, match=self.MESSAGE):
            vmap(output)(parameters, buffers)

    @KINDS
    @pytest.mark.parametrize("form", ["ragged", "padded"])
    def test_jvp(self, kind: str, form: str) -> None:
        layer = getattr(peephole, kind)(3, 4, backend="torch")
        x = random_batch([2, 3], 3).to(torch.float32)

        def output(values: Tensor) -> Tensor:
            given = x.with_values(values) if form == "ragged" else values.view(5, 1, 3)
            return flat(layer(given))[0]

        with pytest.raises(ValueError, match=self.MESSAGE):
            jvp(output, (x.values,), (torch.randn_like(x.values),))
        with (
            torch.autograd.forward_ad.dual_level(),
            pytest.raises(ValueError, match=self.MESSAGE),
        ):
            output(torch.autograd.forward_ad.make_dual(x.values, torch.randn_like(x.values)))
        # And after that, as ever.
        output(x.values).sum().backward()
        assert layer.backend_used == "torch"


def alone(layer: Any, x: Ragged, form: str) -> list[Tensor]:
    """What one of an ensemble gives by itself."""
    y, *rest = layer(x)
    if form != "ragged":
        y = y.to_padded(batch_first=False)
    return [*flat(y), *flat(rest)]
