"""Compiled graphs beside what else torch does: autocast, checkpoints, ``torch.func``, loops, C++.

What a compiled layer gives, and in how many graphs, is in ``test_compile.py``.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import peephole
from peephole import Ragged
from tests.helpers.graphs import (
    EVERY,
    F64,
    Graphs,
    Model,
    assert_close,
    assert_same_outcome,
    compiled,
    outcome,
    random_batch,
    traceable,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("traceable")


class TestWithTorch:
    @pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
    def test_autocast(self, inside: bool) -> None:
        model = Model(peephole.LSTM, peephole="full").float()
        x = random_batch([3, 0, 2, 4])
        x = x.with_values(x.values.detach().float().requires_grad_())

        def under_autocast(x: Ragged) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return model(x)

        whole = compiled(under_autocast)
        inner = compiled(model)

        def run(x: Ragged) -> Any:
            if inside:
                return whole(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return inner(x)

        leaves = [x.values, *model.parameters()]
        ours, theirs = outcome(run, leaves, x), outcome(under_autocast, leaves, x)
        assert ours[0].dtype == torch.bfloat16
        assert all(gradient.dtype == torch.float32 for gradient in ours[-len(leaves) :])
        for given, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(given, wanted, rtol=0, atol=0)

    def test_functional_call(self) -> None:
        model, x = Model(peephole.LSTM, peephole="diagonal"), random_batch([3, 0, 2])
        weights = {
            name: torch.randn_like(p).requires_grad_() for name, p in model.named_parameters()
        }

        def run(weights: dict[str, Tensor], x: Ragged) -> Any:
            return torch.func.functional_call(model, weights, (x,))

        leaves = [x.values, *weights.values()]
        ours = outcome(compiled(run), leaves, weights, x)
        assert_close(ours, outcome(run, leaves, weights, x))
        assert (ours[0] - model(x)[0].values).abs().min() > 0

    @EVERY
    def test_checkpoint(self, kind: type[nn.Module], options: dict[str, Any]) -> None:
        model, x = Model(kind, **options), random_batch([3, 0, 2])

        def run(x: Ragged) -> Any:
            return checkpoint(model, x, use_reentrant=False)

        assert_same_outcome(run, model, [x.values], x)

    def test_checkpoint_in_a_graph(self) -> None:
        model = Model(peephole.LSTM, peephole="full")
        x = random_batch([3, 0, 2])
        run = compiled(lambda x: checkpoint(model, x, use_reentrant=False))
        assert_same_outcome(run, model, [x.values], x)


class TestCells:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (
                peephole.LSTMCell,
                {"peephole": "full", "layer_norm": True, "cell_clip": 0.5, "coupled": True},
            ),
            (peephole.LSTMCell, {"peephole": "diagonal", "zoneout": (0.3, 0.4)}),
            (peephole.LSTMCell, {}),
            (peephole.GRUCell, {"zoneout": 0.3, "learn_initial_state": True}),
            (peephole.RNNCell, {"nonlinearity": "relu", "layer_norm": True}),
        ],
    )
    def test_a_loop_over_steps(self, kind: type[nn.Module], options: dict[str, Any]) -> None:
        cell, graphs = kind(3, 4, dtype=F64, **options), Graphs()

        def loop(x: Tensor) -> Any:
            state = None
            for step in x:
                state = cell(step, state)
            return state

        run = compiled(loop, graphs)
        for B in (2, 3, 5, 7):
            x = torch.randn(3, B, 3, dtype=F64, requires_grad=True)
            leaves = [x, *cell.parameters()]
            assert_close(outcome(run, leaves, x), outcome(loop, leaves, x))
        assert graphs.count <= 3

    def test_recurrent_dropout(self) -> None:
        cell = peephole.LSTMCell(3, 4, recurrent_dropout=0.5, dtype=F64)

        def loop(x: Tensor, mask: Tensor) -> Any:
            state = None
            for step in x:
                state = cell(step, state, mask)
            return state

        x = torch.randn(3, 5, 3, dtype=F64, requires_grad=True)
        mask = cell.draw_recurrent_mask(5)
        leaves = [x, *cell.parameters()]
        assert_close(outcome(compiled(loop), leaves, x, mask), outcome(loop, leaves, x, mask))


@pytest.mark.slow
# torch's own, when it first loads what compiles.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_default_backend() -> None:
    """torch.compile as people call it; it writes C++."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3))
    except (torch._inductor.exc.InductorError, torch._dynamo.exc.BackendCompilerFailed) as error:
        pytest.skip(f"torch.compile finds no C++ compiler that works: {error}")
    model = Model(peephole.LSTM, peephole="diagonal", layer_norm=True, zoneout=0.2).eval()
    run = torch.compile(model, fullgraph=True)
    for lengths in ([3, 2], [2, 0, 3, 4], [1, 1, 5]):
        x = random_batch(lengths)
        assert_same_outcome(run, model, [x.values], x)
