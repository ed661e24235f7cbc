"""``torch.compile(fullgraph=True)`` of models with our layers: how many graphs, and what they give.

The forms of a batch are in ``test_compile_forms.py``; autocast, checkpoints, cells and torch's
default backend in ``test_compile_with_torch.py``. All but that one compile with ``aot_eager``,
which needs no C++ compiler.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import peephole
from peephole import Ragged
from peephole.ops import cpu
from peephole.ops import torch as torch_backend
from tests.helpers.errors import raises
from tests.helpers.graphs import (
    EVERY,
    F64,
    LAYERS,
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

# No two with the same B and N; N below, at and above B + 1; empty sequences; B = N once.
BATCHES = [
    [3, 2],
    [2, 3, 4],
    [1, 2, 3, 0],
    [2, 2, 1, 1],
    [0, 0, 2],
    [1, 1, 1, 1, 1],
    [5, 0, 3, 2, 2],
    [17, 1],
    [2, 0],
    [1, 0, 1, 0, 1, 0, 1],
    [4, 4, 4],
    [63, 2, 3],
    [1, 1, 2, 3, 5, 8],
]


class TestGraphs:
    @EVERY
    def test_sizes_make_at_most_three(self, kind: type[nn.Module], options: dict[str, Any]) -> None:
        model, graphs = Model(kind, **options), Graphs()
        run = compiled(model, graphs)
        for k, lengths in enumerate(BATCHES):
            x = random_batch(lengths)
            assert_same_outcome(run, model, [x.values], x)
            if k == 2:
                early = graphs.count
        assert graphs.count == early <= 3

    @torch._dynamo.config.patch(recompile_limit=32)
    def test_each_size_of_0_or_1_makes_one_more(self) -> None:
        model, graphs = Model(peephole.LSTM), Graphs()
        run = compiled(model, graphs)
        for lengths in BATCHES[:4]:
            run(random_batch(lengths))
        for small in ([1], [3], [0], [1, 0], [0, 0], []):
            before = graphs.count
            # Another batch with the same small sizes takes the same graph.
            for lengths in (small, small, [2, *small[1:]] if small == [3] else small):
                x = random_batch(lengths)
                assert_same_outcome(run, model, [x.values], x)
            assert graphs.count == before + 1
        x = random_batch([6, 1, 2])
        before = graphs.count
        assert_same_outcome(run, model, [x.values], x)
        assert graphs.count == before

    @pytest.mark.parametrize(
        ("name", "mode"), [("gru-widths", torch.no_grad), ("lstm-dropped", torch.inference_mode)]
    )
    def test_inference(self, name: str, mode: Callable[[], Any]) -> None:
        kind, options = LAYERS[name]
        model, graphs = Model(kind, **options).eval(), Graphs()
        run = compiled(model, graphs)
        with mode():
            for lengths in BATCHES[:5]:
                x = random_batch(lengths)
                y, final = run(x)
                wanted, wanted_final = model(x)
                assert_close([y.values], [wanted.values])
                assert_close(
                    pytree.tree_leaves(final),
                    pytree.tree_leaves(wanted_final),
                )
                assert not y.values.requires_grad
        assert graphs.count <= 3
        # What inference made and kept, training may use.
        model.train()
        x = random_batch(BATCHES[0])
        assert_same_outcome(run, model, [x.values], x)

    def test_a_batch_whose_layout_was_read_takes_the_same(self) -> None:
        model, graphs = Model(peephole.GRU), Graphs()
        run = compiled(model, graphs)
        for lengths in BATCHES[:4]:
            x = random_batch(lengths)
            run(x)
            before = graphs.count
            x.layout.order()
            assert x.max_length == max(lengths)
            run(x)
            assert graphs.count == before

    def test_several_layers_of_different_sizes(self) -> None:
        class Tower(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = peephole.LSTM(3, 5, bidirectional=True, dtype=F64)
                self.gru = peephole.GRU(10, [2, 6], skip=True, dtype=F64)
                self.rnn = peephole.RNN(self.gru.output_size, 3, layer_norm=True, dtype=F64)

            def forward(self, x: Ragged) -> Any:
                a, of_lstm = self.lstm(x)
                b, of_gru = self.gru(a)
                c, of_rnn = self.rnn(b)
                return c, of_lstm, of_gru, of_rnn

        model, graphs = Tower(), Graphs()
        run = compiled(model, graphs)
        for lengths in BATCHES[:5]:
            x = random_batch(lengths)
            assert_same_outcome(run, model, [x.values], x)
        assert graphs.count <= 3

    def test_floats_may_differ_between_modules_and_change(self) -> None:
        def run_layer(layer: nn.Module, x: Ragged) -> Any:
            return layer(x)

        run, x = compiled(run_layer), random_batch([3, 2, 1])
        for zoneout, cell_clip in ((0.1, 1.0), ((0.2, 0.3), 0.5), (0.4, None), (1, 2), (0.5, 0.25)):
            layer = peephole.LSTM(3, 4, zoneout=zoneout, cell_clip=cell_clip, dtype=F64).eval()
            leaves = [x.values, *layer.parameters()]
            assert_close(outcome(run, leaves, layer, x), outcome(run_layer, leaves, layer, x))
        for zoneout in (0.6, 0.7, 0.8):
            layer.zoneout = zoneout
            layer.cell_clip = zoneout / 2
            assert_close(outcome(run, leaves, layer, x), outcome(run_layer, leaves, layer, x))


class TestCalls:
    def test_initial_states(self) -> None:
        model, graphs = Model(peephole.LSTM, proj_size=2), Graphs()
        run = compiled(model, graphs)
        for lengths in BATCHES[:5]:
            x = random_batch(lengths)
            h0, c0 = (
                torch.randn(4, len(x), width, dtype=F64, requires_grad=True) for width in (2, 4)
            )
            assert_same_outcome(run, model, [x.values, h0, c0], x, (h0, c0))
        assert graphs.count <= 3

    def test_initial_states_with_a_width_for_each_layer(self) -> None:
        model = Model(peephole.GRU, hidden_size=[4, 5])
        run = compiled(model)
        for lengths in BATCHES[:2]:
            x = random_batch(lengths)
            hx = tuple(
                torch.randn(2, len(x), width, dtype=F64, requires_grad=True) for width in (4, 5)
            )
            assert_same_outcome(run, model, [x.values, *hx], x, hx)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (peephole.LSTM, {"peephole": "full", "coupled": True, "proj_size": 2}),
            (peephole.GRU, {}),
            (peephole.RNN, {}),
        ],
    )
    def test_return_states(self, kind: type[nn.Module], options: dict[str, Any]) -> None:
        layer, graphs = kind(3, 4, bidirectional=True, dtype=F64, **options), Graphs()
        run = compiled(layer, graphs)
        for lengths in BATCHES[:3]:
            x = random_batch(lengths)
            assert_same_outcome(run, layer, [x.values], x, return_states=True)
        assert graphs.count <= 3

    def test_dropout_is_drawn_anew_in_each_call(self) -> None:
        layer = peephole.GRU(3, 40, 2, dropout=0.5, dtype=F64)
        run, x = compiled(layer), random_batch([5, 2, 0, 3])
        first, second = run(x)[0].values, run(x)[0].values
        assert (first != second).any(1).all()
        layer.eval()
        assert_close([run(x)[0].values], [layer(x)[0].values])

    @pytest.mark.parametrize("backend", ["auto", "torch", "cpu", "reference"])
    def test_backend(self, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
        ran = []

        def spy(module: Any, name: str, backend: str) -> None:
            wrapped = getattr(module, name)

            def noting(*args: Any, **options: Any) -> Any:
                ran.append(backend)
                return wrapped(*args, **options)

            monkeypatch.setattr(module, name, noting)

        spy(torch_backend, "direction", "torch")
        spy(cpu, "run", "cpu")
        layer = peephole.LSTM(3, 4, 2, backend=backend, dtype=F64)
        x = random_batch([3, 2, 2])
        layer(x)
        # A compiled graph takes what an eager call takes, whichever that is.
        eagerly = layer.backend_used
        if backend != "auto":
            assert eagerly == backend
        ran.clear()
        y, _ = compiled(layer)(x)
        assert ran == [eagerly] * (0 if eagerly == "reference" else 2)
        y.values.sum().backward()
        assert ran == [eagerly] * (0 if eagerly == "reference" else 4)

    def test_a_batch_without_steps(self) -> None:
        run = compiled(peephole.LSTM(3, 4, backend="torch", dtype=F64))
        output, (h_n, c_n) = run(random_batch([0, 0]))
        assert output.values.shape == (0, 4)
        assert not h_n.any()
        assert not c_n.any()

    def test_offsets_that_do_not_fit_raise_when_the_graph_runs(self) -> None:
        layer = peephole.LSTM(3, 4, dtype=F64)

        def on_parts(values: Tensor, offsets: Tensor) -> Tensor:
            return layer(Ragged._trusted(values, offsets))[0].values

        run, values = compiled(on_parts), torch.randn(6, 3, dtype=F64)
        run(values, torch.tensor([0, 2, 6]))
        for offsets, message in (
            ([1, 2, 6], "offsets[0] = 1; it must be 0"),
            ([0, 2, 7], "offsets end at 7, but values have 6 steps; they must agree"),
            ([0, 2, 5], "offsets end at 5, but values have 6 steps; they must agree"),
            ([0, 8, 6], "offsets fall: offsets[1] = 8, offsets[2] = 6"),
        ):
            with raises(message):
                run(values, torch.tensor(offsets))

    def test_a_state_that_does_not_fit(self) -> None:
        layer, x = peephole.GRU(3, 4, dtype=F64), random_batch([3, 2])
        # Shapes are known while it compiles, so that is when the error comes, with our words.
        with pytest.raises(torch._dynamo.exc.Unsupported, match="the initial state must be"):
            compiled(layer)(x, torch.zeros(1, 3, 4, dtype=F64))
