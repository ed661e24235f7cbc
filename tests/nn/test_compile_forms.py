"""Every form of a batch in a compiled graph: padded, with lengths, unbatched, nested, packed.

What else a compiled layer does is in ``test_compile.py``.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import peephole
from peephole import Ragged
from tests.helpers.batches import offsets_of
from tests.helpers.errors import raises
from tests.helpers.graphs import (
    F64,
    Graphs,
    assert_close,
    assert_same_outcome,
    compiled,
    outcome,
    random_batch,
    traceable,  # noqa: F401
)

pytestmark = pytest.mark.usefixtures("traceable")

FIRST = pytest.mark.parametrize("batch_first", [False, True], ids=["steps first", "batch first"])


def two_layers(kind: type[nn.Module] = peephole.LSTM, **options: Any) -> nn.Module:
    return kind(3, 4, 2, bidirectional=True, dtype=F64, **options)


def random_padded(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, dtype=F64, requires_grad=True)


class TestPadded:
    @FIRST
    def test_sizes(self, batch_first: bool) -> None:
        layer, graphs = two_layers(batch_first=batch_first), Graphs()
        run = compiled(layer, graphs)
        for shape in ((3, 2), (4, 5), (5, 5), (2, 7), (7, 2)):
            x = random_padded(*shape)
            assert_same_outcome(run, layer, [x], x)
        assert graphs.count <= 3

    def test_sizes_of_0_and_1(self) -> None:
        layer, graphs = peephole.GRU(3, 4, dtype=F64), Graphs()
        run = compiled(layer, graphs)
        for shape in ((3, 2), (4, 5)):
            run(random_padded(*shape))
        for shape in ((1, 2), (3, 1), (1, 1), (0, 2), (2, 0)):
            before = graphs.count
            for _ in range(2):
                x = random_padded(*shape)
                assert_same_outcome(run, layer, [x], x)
            assert graphs.count == before + 1

    def test_equals_torch_s(self) -> None:
        truth = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, dtype=F64)
        layer = two_layers(proj_size=2)
        layer.load_state_dict(truth.state_dict())
        x = random_padded(5, 3)
        hx = (torch.randn(4, 3, 2, dtype=F64), torch.randn(4, 3, 4, dtype=F64))
        ours = outcome(compiled(layer), [x, *layer.parameters()], x, hx)
        assert_close(ours, outcome(truth, [x, *truth.parameters()], x, hx))

    def test_one_sequence_without_a_batch(self) -> None:
        layer, graphs = two_layers(), Graphs()
        run = compiled(layer, graphs)
        for steps in (3, 4, 6):
            x = random_padded(steps)
            h0, c0 = (torch.randn(4, 4, dtype=F64, requires_grad=True) for _ in range(2))
            assert_same_outcome(run, layer, [x, h0, c0], x, (h0, c0))
        assert graphs.count <= 3


class TestLengths:
    @FIRST
    def test_padding_changes_nothing(self, batch_first: bool) -> None:
        options = {"peephole": "diagonal", "zoneout": 0.3, "recurrent_dropout": 0.2}
        layer, graphs = two_layers(batch_first=batch_first, **options).eval(), Graphs()
        run = compiled(layer, graphs)
        for T, lengths in ((3, [2, 1]), (4, [4, 0, 1, 3]), (5, [5] * 3), (2, [0, 0]), (7, [6, 5])):
            x, exists = padded(T, lengths, batch_first)
            results = outcome(
                run, [x, *layer.parameters()], x, lengths=torch.tensor(lengths, dtype=torch.int32)
            )
            y, d_x = results[0], results[3]
            assert not y[~exists].any()
            assert not d_x[~exists].any()
            # The same steps as Ragged: an eager call that has no padding.
            wanted = Ragged.from_padded(x.detach(), torch.tensor(lengths), batch_first)
            ragged, final = layer(wanted)
            assert_close([y], [as_padded(ragged, y, batch_first)])
            assert_close(results[1:3], final)
        assert graphs.count <= 3

    @pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
    def test_gradients(self, kind: type[nn.Module]) -> None:
        layer = two_layers(kind)
        run = compiled(layer)
        for T, lengths in ((4, [4, 0, 1, 3]), (6, [2, 3, 2])):
            x, _ = padded(T, lengths, False)
            given = torch.tensor(lengths)
            assert_same_outcome(run, layer, [x], x, lengths=given)

    def test_masks_with_a_row_for_each_step(self) -> None:
        """What zoneout keeps is drawn for padded steps too, and lost with them."""
        layer = two_layers(zoneout=(0.5, 0.5))
        run = compiled(layer)
        x, exists = padded(6, [2, 6, 0, 3], True)
        layer.batch_first = True
        results = outcome(run, [x, *layer.parameters()], x, lengths=torch.tensor([2, 6, 0, 3]))
        assert all(result.isfinite().all() for result in results)
        assert not results[0][~exists].any()
        assert not results[3][~exists].any()

    def test_lengths_that_do_not_fit_raise_when_the_graph_runs(self) -> None:
        run = compiled(two_layers(batch_first=True))
        x = torch.randn(2, 4, 3, dtype=F64)
        run(x, lengths=torch.tensor([4, 1]))
        for lengths, message in (
            ([5, 1], "lengths[0] = 5 is longer than the padded input (4 steps)"),
            ([1, -1], "lengths[1] = -1 is negative"),
            ([1.0, 2.0], "lengths must be whole numbers, got torch.float32"),
            (
                [1, 2, 3],
                "lengths must be one for each of the 2 sequences, got shape (3,)",
            ),
        ):
            with raises(message):
                run(x, lengths=torch.tensor(lengths))

    def test_lengths_as_a_list(self) -> None:
        layer = two_layers(batch_first=True)
        x = torch.randn(2, 4, 3, dtype=F64, requires_grad=True)
        assert_same_outcome(compiled(layer), layer, [x], x, lengths=[3, 1])

    def test_return_states_is_refused(self) -> None:
        run = compiled(two_layers(batch_first=True))
        with pytest.raises(torch._dynamo.exc.Unsupported, match="return_states with padded input"):
            run(torch.randn(2, 4, 3, dtype=F64), lengths=torch.tensor([3, 1]), return_states=True)


def padded(steps: int, lengths: list[int], batch_first: bool) -> tuple[Tensor, Tensor]:
    """Random values where there are steps and NaN elsewhere; and where there are steps."""
    exists = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    x = torch.randn(*exists.shape, 3, dtype=F64)
    x[~exists] = torch.nan
    if not batch_first:
        x, exists = x.transpose(0, 1).contiguous(), exists.t()
    return x.requires_grad_(), exists


def as_padded(ragged: Ragged, like: Tensor, batch_first: bool) -> Tensor:
    """As long as another padded tensor, with zeros where there are no steps."""
    whole = torch.zeros_like(like)
    by_sequence = whole if batch_first else whole.transpose(0, 1)
    for b, sequence in enumerate(ragged.to_list()):
        by_sequence[b, : len(sequence)] = sequence.detach()
    return whole


class TestRagged:
    def test_made_and_taken_apart_inside(self) -> None:
        layer, graphs = two_layers(), Graphs()

        def on_parts(values: Tensor, offsets: Tensor) -> Any:
            y, final = layer(Ragged(values, offsets))
            return y.values, y.lengths, len(y), final

        run = compiled(on_parts, graphs)
        for lengths in ([3, 2], [2, 0, 4], [1, 1, 5, 2]):
            values, offsets = random_batch(lengths).values, offsets_of(lengths)
            leaves = [values, *layer.parameters()]
            ours = outcome(run, leaves, values, offsets)
            assert_close(ours, outcome(on_parts, leaves, values, offsets))
        assert graphs.count <= 3
        with raises("offsets end at 8, but values have 9 steps; they must agree"):
            run(values, offsets - (offsets == 9).long())

    def test_offsets_of_another_integer_dtype(self) -> None:
        layer, x = two_layers(), random_batch([3, 2])

        def on_parts(values: Tensor, offsets: Tensor) -> Any:
            return layer(Ragged(values, offsets))

        leaves = [x.values, *layer.parameters()]
        ours = outcome(compiled(on_parts), leaves, x.values, x.offsets.to(torch.int32))
        assert_close(ours, outcome(layer, leaves, x))


class TestNested:
    def test_sizes(self) -> None:
        layer, graphs = two_layers(), Graphs()
        run = compiled(layer, graphs)
        for lengths in ([3, 2], [2, 3, 4], [1, 2, 2, 5], [2, 2]):
            values = [torch.randn(n, 3, dtype=F64) for n in lengths]
            x = torch.nested.nested_tensor(values, layout=torch.jagged, requires_grad=True)
            assert_close(self.parts(run, layer, x), self.parts(layer, layer, x))
        assert graphs.count <= 3

    def parts(self, run: Any, layer: nn.Module, x: Any) -> list[Tensor]:
        y, final = run(x)
        # torch takes the two for batches of one shape, as it does without compiling.
        assert y.shape[:2] == x.shape[:2]
        loss = y.values().square().sum() + sum(state.sin().sum() for state in final)
        d_x, *d_weights = torch.autograd.grad(loss, [x, *layer.parameters()])
        return [y.values(), *final, d_x.values(), *d_weights]


class TestPacked:
    def test_sizes(self) -> None:
        layer, graphs = two_layers(), Graphs()
        run = compiled(layer, graphs)
        for lengths in ([3, 2], [2, 3, 4], [1, 5, 2, 2], [1, 4]):
            x = packed(lengths)
            assert_same_outcome(run, layer, [x.data], x)
        assert graphs.count <= 3

    def test_initial_states_are_in_the_caller_s_order(self) -> None:
        truth = nn.GRU(3, 4, 2, bidirectional=True, dtype=F64)
        layer = two_layers(peephole.GRU)
        layer.load_state_dict(truth.state_dict())
        x, h0 = packed([2, 3, 1]), torch.randn(4, 3, 4, dtype=F64, requires_grad=True)
        ours = outcome(compiled(layer), [x.data, h0, *layer.parameters()], x, h0)
        assert_close(ours, outcome(truth, [x.data, h0, *truth.parameters()], x, h0))

    def test_a_sorted_one_is_refused(self) -> None:
        x = pack_sequence([torch.randn(n, 3, dtype=F64) for n in (3, 2)])
        with pytest.raises(torch._dynamo.exc.Unsupported, match="pack with enforce_sorted=False"):
            compiled(two_layers())(x)


def packed(lengths: list[int]) -> PackedSequence:
    """Sequences in any order, whose data are a leaf of autograd."""
    sequences = [torch.randn(n, 3, dtype=F64) for n in lengths]
    x = pack_sequence(sequences, enforce_sorted=False)
    return x._replace(data=x.data.requires_grad_())
