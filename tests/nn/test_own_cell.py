"""``peephole.Recurrent``: a cell that ``torch.nn`` does not have, against a plain loop."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import peephole
from peephole import Ragged
from tests.helpers.batches import LENGTHS, NONEMPTY
from tests.helpers.errors import raises
from tests.helpers.layerwise import random_batch, randomized


class MGU(nn.Module):
    """Minimal gated unit, Zhou et al. 2016, equations 6 to 8."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.W_f = nn.Linear(hidden_size + input_size, hidden_size)
        self.W_h = nn.Linear(hidden_size + input_size, hidden_size)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        f = torch.sigmoid(self.W_f(torch.cat([h, x], 1)))
        h_new = torch.tanh(self.W_h(torch.cat([f * h, x], 1)))
        h = (1 - f) * h + f * h_new
        return h, h

    def initial_state(self, batch_size: int) -> Tensor:
        return self.W_f.weight.new_zeros(batch_size, self.W_f.out_features)


class Nested(nn.Module):
    """A cell whose state is a dict of a list and a tuple, and whose output is no part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 4)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        (a, count), (table,) = state["pair"], state["table"]
        a = torch.tanh(self.mix(x) + 0.5 * a + table.sum(2))
        return a[:, :3] * count, {"pair": (a, count + 1), "table": [table + x.unsqueeze(1)]}

    def initial_state(self, batch_size: int) -> Any:
        zeros = self.mix.weight.new_zeros
        pair = (zeros(batch_size, 4), zeros(batch_size, 1) + 1)
        return {"pair": pair, "table": [zeros(batch_size, 4, 3)]}


def close(given: Any, wanted: Any) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


def loop(cell: nn.Module, x: Tensor, state: Any, reverse: bool = False) -> tuple[Tensor, Any]:
    """One sequence ``[T, I]``, a step at a time, as anybody would write it."""
    outputs = []
    for row in x.flip(0) if reverse else x:
        y, state = cell(row.unsqueeze(0), state)
        outputs.append(y)
    # What an empty sequence gives has no step to tell its width by.
    y = torch.cat(outputs) if outputs else cell(x.new_zeros(1, x.shape[1]), state)[0][:0]
    return y.flip(0) if reverse else y, state


def by_loop(
    cell: nn.Module, x: Ragged, state: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """The whole batch, one sequence after the other; the state is one tensor."""
    state = cell.initial_state(len(x)) if state is None else state
    runs = [loop(cell, s, state[b : b + 1], reverse) for b, s in enumerate(x)]
    return torch.cat([y for y, _ in runs]), torch.cat([end for _, end in runs])


def gradients(total: Tensor, *inputs: Any) -> Any:
    return torch.autograd.grad(total, [*inputs], retain_graph=True, materialize_grads=True)


@pytest.fixture
def cell() -> MGU:
    return randomized(MGU(3, 5))


class TestOneCell:
    @pytest.mark.parametrize("given", [True, False], ids=["hx", "no hx"])
    def test_equals_a_loop(self, cell: MGU, given: bool) -> None:
        x = random_batch(LENGTHS, 3)
        x.values.requires_grad_()
        hx = torch.randn(len(LENGTHS), 5, dtype=torch.float64, requires_grad=True)
        y, final = peephole.Recurrent(cell)(x, hx if given else None)
        wanted, end = by_loop(cell, x, hx if given else None)
        assert isinstance(y, Ragged)
        close(y.values, wanted)
        close(final, end)
        weights, ends = torch.randn_like(wanted), torch.randn_like(end)
        inputs = [x.values, hx, *cell.parameters()]
        for ours, theirs in ((y.values * weights, wanted * weights), (final * ends, end * ends)):
            if not given:
                inputs = [x.values, *cell.parameters()]
            close(gradients(ours.sum(), *inputs), gradients(theirs.sum(), *inputs))

    def test_halves_with_the_state_handed_over(self, cell: MGU) -> None:
        layer, x = peephole.Recurrent(cell), random_batch(LENGTHS, 3)
        cuts = [2, 1, 0, 0, 7, 3]
        parts = list(zip(x.to_list(), cuts, strict=True))
        first, middle = layer(Ragged.from_list([s[:k] for s, k in parts]))
        second, end = layer(Ragged.from_list([s[k:] for s, k in parts]), middle)
        y, final = layer(x)
        close(end, final)
        for whole, one, two in zip(y, first, second, strict=True):
            close(whole, torch.cat([one, two]))

    def test_all_sequences_empty(self, cell: MGU) -> None:
        hx = torch.randn(3, 5, dtype=torch.float64)
        y, final = peephole.Recurrent(cell)(random_batch([0, 0, 0], 3), hx)
        assert list(y.values.shape) == [0, 5]
        close(final, hx)

    @pytest.mark.parametrize("lengths", [LENGTHS, [0, 2], [1]])
    def test_nested_state(self, lengths: list[int]) -> None:
        cell: Any = Nested().double()
        x = random_batch(lengths, 3)
        y, final = peephole.Recurrent(cell)(x)
        assert isinstance(final["pair"], tuple)
        assert isinstance(final["table"], list)
        for b, sequence in enumerate(x):
            one, end = loop(cell, sequence, cell.initial_state(1))
            close(y[b], one)
            close(final["pair"][0][b], end["pair"][0][0])
            close(final["pair"][1][b].item(), lengths[b] + 1.0)
            close(final["table"][0][b], end["table"][0][0])
        # The same form goes in again.
        again, _ = peephole.Recurrent(cell)(x, final)
        if sum(lengths):
            assert not torch.equal(again.values, y.values)

    def test_a_dict_that_comes_back_in_another_order_is_not_mixed_up(self) -> None:
        class Turned(Nested):
            def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
                y, new = super().forward(x, state)
                return y, {key: new[key] for key in ("table", "pair")}

        with pytest.raises(ValueError, match=r"(?s)^Turned was given a state of .*agree$"):
            peephole.Recurrent(Turned().double())(random_batch(LENGTHS, 3))


class TestForms:
    def test_every_form_goes_back_as_it_came(self, cell: MGU) -> None:
        layer, x = peephole.Recurrent(cell), random_batch(NONEMPTY, 3)
        wanted, end = by_loop(cell, x)
        packed, final = layer(x.to_packed())
        assert isinstance(packed, PackedSequence)
        close(Ragged.from_packed(packed).values, wanted)
        close(final, end)
        nested, final = layer(x.to_nested())
        assert nested.is_nested
        close(nested.values(), wanted)
        close(final, end)

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_padded_with_lengths(self, cell: MGU, batch_first: bool) -> None:
        layer = peephole.Recurrent(cell, batch_first=batch_first)
        x = random_batch(LENGTHS, 3)
        # What stands in the padding is read by nobody, and comes back as zeros.
        y, final = layer(x.to_padded(float("nan"), batch_first), lengths=LENGTHS)
        wanted, end = by_loop(cell, x)
        close(y, x.with_values(wanted).to_padded(0.0, batch_first))
        close(final, end)

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_padded_without(self, cell: MGU, batch_first: bool) -> None:
        layer = peephole.Recurrent(cell, batch_first=batch_first)
        x = random_batch([4, 4, 4], 3)
        wanted, end = by_loop(cell, x)
        y, final = layer(x.to_padded(batch_first=batch_first))
        close(y, x.with_values(wanted).to_padded(batch_first=batch_first))
        close(final, end)

    @pytest.mark.parametrize("given", [True, False], ids=["hx", "no hx"])
    def test_one_sequence(self, cell: MGU, given: bool) -> None:
        x = torch.randn(6, 3, dtype=torch.float64)
        hx = torch.randn(5, dtype=torch.float64) if given else None
        y, final = peephole.Recurrent(cell)(x, hx)
        wanted, end = loop(cell, x, cell.initial_state(1) if hx is None else hx[None])
        close(y, wanted)
        close(final, end[0])


class TestStacked:
    def test_layers_both_directions(self) -> None:
        forwards = [randomized(MGU(3, 5)), randomized(MGU(8, 4))]
        reverse = [randomized(MGU(3, 3)), randomized(MGU(8, 2))]
        x = random_batch(LENGTHS, 3)
        x.values.requires_grad_()
        y, final = peephole.Recurrent(forwards, reverse=reverse)(x)
        below, ends = x.values, []
        for pair in zip(forwards, reverse, strict=True):
            runs = [by_loop(c, x.with_values(below), reverse=d == 1) for d, c in enumerate(pair)]
            below = torch.cat([out for out, _ in runs], 1)
            ends += [end for _, end in runs]
        close(y.values, below)
        # Directions within layers.
        close(list(final), ends)
        inputs = [x.values, *(p for c in forwards + reverse for p in c.parameters())]
        weights = torch.randn_like(below)
        ours, theirs = (gradients((out * weights).sum(), *inputs) for out in (y.values, below))
        close(ours, theirs)

    def test_states_of_layers_go_in(self) -> None:
        cells = [randomized(MGU(3, 5)), randomized(MGU(5, 4))]
        layer, x = peephole.Recurrent(cells), random_batch(LENGTHS, 3)
        hx = [torch.randn(len(LENGTHS), n, dtype=torch.float64) for n in (5, 4)]
        y, final = layer(x, hx)
        middle, first = by_loop(cells[0], x, hx[0])
        wanted, second = by_loop(cells[1], x.with_values(middle), hx[1])
        close(y.values, wanted)
        close(list(final), [first, second])
        one = random_batch([4], 3)
        y, final = layer(one.values, [h[0] for h in hx])
        whole, ends = layer(one, [h[:1] for h in hx])
        close(y, whole.values)
        close(list(final), [end[0] for end in ends])

    def test_skip(self) -> None:
        cells = [randomized(MGU(3, 5)), randomized(MGU(8, 4)), randomized(MGU(7, 2))]
        x = random_batch(LENGTHS, 3)
        y, _ = peephole.Recurrent(cells, skip=True)(x)
        outputs: list[Tensor] = []
        for c in cells:
            below = torch.cat([x.values, *outputs[-1:]], 1)
            outputs.append(by_loop(c, x.with_values(below))[0])
        close(y.values, torch.cat(outputs, 1))

    def test_dropout_between_layers(self) -> None:
        cells = [randomized(MGU(3, 5)), randomized(MGU(5, 4))]
        layer = peephole.Recurrent(cells, dropout=0.5)
        x = random_batch(LENGTHS, 3)
        torch.manual_seed(2)
        y, _ = layer(x)
        torch.manual_seed(2)
        below = nn.functional.dropout(by_loop(cells[0], x)[0], 0.5)
        close(y.values, by_loop(cells[1], x.with_values(below))[0])
        y, _ = layer.eval()(x)
        close(y.values, by_loop(cells[1], x.with_values(by_loop(cells[0], x)[0]))[0])

    def test_has_each_cell_s_parameters(self) -> None:
        layer = peephole.Recurrent([MGU(3, 5), MGU(5, 4)], skip=False, dropout=0.25)
        assert len(list(layer.parameters())) == 8
        assert "dropout=0.25" in repr(layer)


class TestPeepholeCells:
    """Its own cells are cells too: ``Recurrent(LSTMCell)`` is ``LSTM``."""

    @pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
    @pytest.mark.parametrize(
        "options",
        [{}, {"layer_norm": True, "zoneout": 0.3, "learn_initial_state": True}],
        ids=["plain", "options"],
    )
    @pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
    def test_equal_the_layer(self, name: str, options: Any, training: bool) -> None:
        if training:
            # The cell draws zoneout step by step, the layer at once: not the same masks.
            options = {key: value for key, value in options.items() if key != "zoneout"}
        layer = randomized(getattr(peephole, name)(3, 5, bidirectional=True, **options))
        cells = [getattr(peephole, f"{name}Cell")(3, 5, **options).double() for _ in range(2)]
        for each, suffix in zip(cells, ("_l0", "_l0_reverse"), strict=True):
            state = layer.state_dict().items()
            each.load_state_dict(
                {k.removesuffix(suffix): p for k, p in state if k.endswith(suffix)}
            )
        both = peephole.Recurrent(cells[0], reverse=cells[1]).train(training)
        x = random_batch(LENGTHS, 3)
        y, final = layer.train(training)(x)
        given, ends = both(x)
        close(given.values, y.values)
        states = final if isinstance(final, tuple) else (final,)
        for d in range(2):
            close(tuple(ends[d]), tuple(s[d] for s in states))

    @pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
    def test_recurrent_dropout_s_mask_is_in_the_state(self, name: str) -> None:
        cell = getattr(peephole, f"{name}Cell")(3, 5, recurrent_dropout=0.5)
        randomized(cell)
        x = random_batch(LENGTHS, 3)
        torch.manual_seed(4)
        y, final = peephole.Recurrent(cell)(x)
        torch.manual_seed(4)
        mask = cell.draw_recurrent_mask(len(LENGTHS))
        assert len(mask.unique(dim=0)) > 1
        torch.testing.assert_close(final[-1], mask, rtol=0, atol=0)
        for b, sequence in enumerate(x):
            state = None
            for row, given in zip(sequence, y[b], strict=True):
                state = cell(row[None], state, mask[b : b + 1])
                close(given, (state[0] if name == "LSTM" else state)[0])

    @pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
    def test_recurrent_dropout_wants_its_mask_in_a_state_that_is_given(self, name: str) -> None:
        # Without it every step would draw one of its own: no dropout of Gal & Ghahramani's.
        cell = getattr(peephole, f"{name}Cell")(3, 5, recurrent_dropout=0.5)
        states = cell.initial_state(2)[:-1]
        with pytest.raises(ValueError, match="recurrent_dropout"):
            peephole.Recurrent(cell)(torch.randn(4, 2, 3), states)


class TestErrors:
    def test_no_cells(self) -> None:
        message = (
            "Linear is no cell: that is a module with forward(x, state) -> (y, state) and "
            "initial_state(batch_size) -> state"
        )
        with raises(message, TypeError):
            peephole.Recurrent(nn.Linear(3, 5))
        with raises(message, TypeError):
            peephole.Recurrent([MGU(3, 5), nn.Linear(5, 5)])

    @pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell"])
    def test_cells_of_torch_nn(self, name: str) -> None:
        with raises(
            f"torch.nn.{name} gives a state and no output; use peephole.{name}, which "
            "peephole.from_torch makes of it",
            TypeError,
        ):
            peephole.Recurrent(getattr(nn, name)(3, 5))

    def test_too_few_in_reverse(self) -> None:
        with raises("there are 2 cells and 1 in reverse; each layer takes one of both"):
            peephole.Recurrent([MGU(3, 5), MGU(5, 5)], reverse=MGU(3, 5))

    def test_state_with_wrong_rows(self, cell: MGU) -> None:
        layer, x = peephole.Recurrent(cell), random_batch(LENGTHS, 3)
        must = "a state of MGU must be tensors with a row for each of the 6 sequences, got "
        with raises(must + "[5, 5]"):
            layer(x, torch.zeros(5, 5, dtype=torch.float64))
        with raises(must + "float"):
            layer(x, (torch.zeros(6, 5, dtype=torch.float64), 0.0))

    def test_state_that_changes_its_form(self) -> None:
        class Growing(MGU):
            def forward(self, x: Tensor, h: Any) -> tuple[Tensor, Any]:
                y, h = super().forward(x, h)
                return y, (h, h)

        with pytest.raises(ValueError, match=r"(?s)^Growing was given a state of .*agree$"):
            peephole.Recurrent(Growing(3, 5))(torch.zeros(4, 2, 3))

    def test_wrong_number_of_states(self) -> None:
        layer = peephole.Recurrent(MGU(3, 5), reverse=MGU(3, 5))
        with raises(
            "the initial state must be a list of 2 states, one for each layer and direction, got 3"
        ):
            layer(torch.zeros(4, 2, 3), [torch.zeros(2, 5)] * 3)

    def test_lengths_with_an_input_that_has_its_own(self, cell: MGU) -> None:
        with pytest.raises(ValueError, match="has lengths of its own"):
            peephole.Recurrent(cell)(random_batch([2], 3), lengths=[2])


class TestCompile:
    # Dynamo looks at it, and hides the warning in a way that an error gets through.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_runs_with_a_break(self, cell: MGU) -> None:
        torch._dynamo.reset()
        model = nn.Sequential(nn.Linear(3, 3).double())
        layer = peephole.Recurrent(cell)

        def run(x: Tensor) -> Tensor:
            return torch.tanh(layer(model(x))[0])

        compiled = torch.compile(run, backend="aot_eager")
        x = torch.randn(4, 2, 3, dtype=torch.float64)
        close(compiled(x), run(x))
        ours, theirs = (gradients(f(x).sum(), *cell.parameters()) for f in (compiled, run))
        close(ours, theirs)

    def test_fullgraph_says_why_not(self, cell: MGU) -> None:
        torch._dynamo.reset()
        compiled = torch.compile(peephole.Recurrent(cell), backend="aot_eager", fullgraph=True)
        with pytest.raises(torch._dynamo.exc.Unsupported, match="a cell's loop over the steps"):
            compiled(torch.randn(4, 2, 3, dtype=torch.float64))
