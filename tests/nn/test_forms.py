"""Every form in which a layer takes a batch: the same numbers, and the output in the same form."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

import peephole
from peephole import Ragged
from peephole.nn import Layer
from tests.helpers.layers import (
    BATCH_FIRST,
    BOTH,
    BY_NAME,
    EVERY,
    EVERY_SERVED,
    HIDDEN,
    INPUT,
    KINDS,
    Kind,
    apart,
    as_tuple,
    assert_agree,
    assert_close,
    float32_projection,
    padded,
    parameters,
    ragged,
    random_sequences,
    run_torch,
    shared,
)

# Longest not first, ties, a single step, an empty one in the middle and one at the end.
LENGTHS = [5, 1, 0, 3, 7, 7, 0]
# torch packs no empty sequence.
NONEMPTY = [5, 1, 3, 7, 7]
DESCENDING = [7, 7, 5, 3, 1]

SIGNED = [torch.int8, torch.int16, torch.int32, torch.int64]
INTEGERS = [*SIGNED, torch.uint8, torch.uint16, torch.uint32, torch.uint64]


def nested(sequences: Sequence[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(list(sequences), layout=torch.jagged)


def with_holes(sequences: Sequence[Tensor]) -> Tensor:
    """Nested, narrowed from longer ones: what stands between the sequences is not of them."""
    longest = max(map(len, sequences))
    between = float("nan")
    base = torch.stack(
        [
            torch.cat(
                [s.new_full((1, INPUT), between), s, s.new_full((longest - len(s), INPUT), 9)]
            )
            for s in sequences
        ]
    )
    lengths = torch.tensor([len(s) for s in sequences])
    starts = torch.ones_like(lengths)
    return torch.nested.narrow(base, 1, starts, lengths, layout=torch.jagged)


# For each form the lengths that it can have, and how it is made of sequences.
FORMS: dict[str, tuple[list[int], Callable[[Sequence[Tensor]], tuple[Any, ...]]]] = {
    "ragged": (LENGTHS, lambda s: (ragged(s),)),
    "[T, B]": (LENGTHS, lambda s: (padded(s, False), None, torch.tensor([len(x) for x in s]))),
    "[B, T]": (LENGTHS, lambda s: (padded(s, True), None, torch.tensor([len(x) for x in s]))),
    "[B, T], more steps": (
        LENGTHS,
        lambda s: (padded(s, True, 10), None, torch.tensor([len(x) for x in s])),
    ),
    "[T, B], more steps": (
        LENGTHS,
        lambda s: (padded(s, False, 10), None, torch.tensor([len(x) for x in s])),
    ),
    "without lengths": ([4, 4, 4], lambda s: (padded(s, False),)),
    "[B, T] without lengths": ([4, 4, 4], lambda s: (padded(s, True),)),
    "unbatched": ([6], lambda s: (s[0],)),
    "packed": (NONEMPTY, lambda s: (pack_sequence(s, enforce_sorted=False),)),
    "packed in order": (DESCENDING, lambda s: (pack_sequence(s),)),
    "nested": (LENGTHS, lambda s: (nested(s),)),
    "nested with holes": (LENGTHS, lambda s: (with_holes(s),)),
}


@EVERY_SERVED
@BOTH
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same_numbers(
    kind: Kind, bidirectional: bool, backend: str, form: str
) -> None:
    lengths, make = FORMS[form]
    batch_first = form.startswith("[B, T]")
    layer, truth = kind.pair(
        backend, num_layers=2, bidirectional=bidirectional, batch_first=batch_first
    )
    sequences = random_sequences(lengths)
    unbatched = form == "unbatched"
    hx = kind.initial(layer, None if unbatched else len(lengths))
    input, *rest = make(sequences)
    output, states = layer(input, hx, *rest[1:])
    wanted, wanted_states = run_torch(
        truth,
        sequences,
        tuple(s.unsqueeze(1) for s in as_tuple(hx)) if unbatched else hx,
    )
    if unbatched:
        wanted_states = tuple(s.squeeze(1) for s in wanted_states)
    assert type(output) is type(input)
    assert_agree(
        [*apart(output, lengths, batch_first), *as_tuple(states)],
        [*wanted, *wanted_states],
        parameters(layer, truth) | shared(x=sequences, hx=hx),
    )


class TestPadded:
    @EVERY_SERVED
    @BATCH_FIRST
    @pytest.mark.parametrize(
        ("garbage", "steps", "dtype"),
        [
            (float("nan"), 7, torch.float64),
            (float("inf"), 9, torch.float64),
            (float("nan"), 9, torch.float32),
        ],
        ids=str,
    )
    @float32_projection
    def test_padding_changes_nothing(
        self,
        kind: Kind,
        backend: str,
        batch_first: bool,
        garbage: float,
        steps: int,
        dtype: torch.dtype,
    ) -> None:
        layer = kind.layer(
            num_layers=2,
            bidirectional=True,
            batch_first=batch_first,
            backend=backend,
            dtype=dtype,
        )
        sequences = random_sequences(LENGTHS, dtype=dtype)
        results = []
        for fill in (0.0, garbage):
            x = padded([s.detach() for s in sequences], batch_first, steps, fill).requires_grad_()
            output, states = layer(x, lengths=torch.tensor(LENGTHS))
            outputs = [output, *as_tuple(states)]
            torch.manual_seed(1)
            upstream = [torch.randn_like(each) for each in outputs]
            gradients = torch.autograd.grad(outputs, [x, *layer.parameters()], upstream)
            results.append((outputs, gradients))
            exists = torch.arange(steps) < torch.tensor(LENGTHS).unsqueeze(1)
            exists = exists if batch_first else exists.t()
            assert not output[~exists].any()
            assert not gradients[0][~exists].any()
            assert output[exists].any()
        (plain, d_plain), (filled, d_filled) = results
        for given, wanted in zip([*filled, *d_filled], [*plain, *d_plain], strict=True):
            assert torch.equal(given, wanted)
            assert given.isfinite().all()

    @pytest.mark.parametrize("dtype", INTEGERS, ids=str)
    @BY_NAME
    def test_lengths_of_any_integer_dtype(self, name: str, dtype: torch.dtype) -> None:
        # Their sum does not fit into 8 bits.
        lengths = [100, 0, 127, 90, 31]
        sequences = random_sequences(lengths)
        layer = getattr(peephole, name)(INPUT, HIDDEN, dtype=torch.float64)
        wanted, wanted_states = layer(ragged(sequences))
        x = padded(sequences, False)
        output, states = layer(x, None, torch.tensor(lengths, dtype=dtype))
        assert_close(torch.cat(apart(output, lengths)), wanted.values)
        for given, state in zip(as_tuple(states), as_tuple(wanted_states), strict=True):
            assert_close(given, state)

    @pytest.mark.parametrize("make", [list, tuple], ids=["list", "tuple"])
    def test_lengths_as_numbers(self, make: Callable[[list[int]], Any]) -> None:
        layer = peephole.GRU(INPUT, HIDDEN, dtype=torch.float64)
        x = padded(random_sequences(LENGTHS), False)
        wanted, wanted_state = layer(x, None, torch.tensor(LENGTHS))
        output, state = layer(x, None, make(LENGTHS))
        assert torch.equal(output, wanted)
        assert torch.equal(state, wanted_state)

    @EVERY_SERVED
    def test_lengths_of_every_step_are_as_none(self, kind: Kind, backend: str) -> None:
        layer = kind.layer(num_layers=2, bidirectional=True, backend=backend)
        x = torch.randn(6, 4, INPUT, dtype=torch.float64)
        hx = kind.initial(layer, 4)
        wanted, wanted_states = layer(x, hx)
        output, states = layer(x, hx, [6] * 4)
        pairs = zip([output, *as_tuple(states)], [wanted, *as_tuple(wanted_states)], strict=True)
        for given, theirs in pairs:
            assert_close(given, theirs)

    @EVERY
    @BATCH_FIRST
    def test_all_empty(self, kind: Kind, batch_first: bool) -> None:
        layer = kind.layer(num_layers=2, bidirectional=True, batch_first=batch_first)
        shape = (3, 4, INPUT) if batch_first else (4, 3, INPUT)
        x = torch.full(shape, float("nan"), dtype=torch.float64)
        hx = kind.initial(layer, 3)
        output, states = layer(x, hx, [0, 0, 0])
        assert output.shape == (*shape[:2], layer.output_size)
        assert not output.any()
        for given, initial in zip(as_tuple(states), as_tuple(hx), strict=True):
            assert torch.equal(given, initial)

    @BY_NAME
    @BATCH_FIRST
    def test_no_steps_at_all(self, name: str, batch_first: bool) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, batch_first=batch_first)
        for lengths in (None, [0, 0]):
            x = torch.zeros((2, 0, INPUT) if batch_first else (0, 2, INPUT))
            output, states = layer(x, None, lengths)
            assert output.shape == ((2, 0, HIDDEN) if batch_first else (0, 2, HIDDEN))
            assert all(torch.equal(s, torch.zeros(1, 2, HIDDEN)) for s in as_tuple(states))
        output, states = layer(torch.zeros(0, INPUT))
        assert output.shape == (0, HIDDEN)
        assert all(torch.equal(s, torch.zeros(1, HIDDEN)) for s in as_tuple(states))


class TestPacked:
    @pytest.mark.parametrize("form", ["packed", "packed in order"])
    @EVERY_SERVED
    def test_output_is_packed_as_the_input(self, kind: Kind, backend: str, form: str) -> None:
        lengths, make = FORMS[form]
        layer, truth = kind.pair(backend, num_layers=2, bidirectional=True)
        (packed,) = make(random_sequences(lengths))
        output, _ = layer(packed)
        wanted, _ = truth(packed)
        assert_close(output.data, wanted.data)
        assert_same_order(output, packed)
        y, found = pad_packed_sequence(output, batch_first=True)
        assert found.tolist() == lengths
        assert y.shape == (len(lengths), 7, layer.output_size)

    def test_moved_to_a_dtype(self) -> None:
        # As a person casts a batch: torch keeps the order.
        layer, truth = KINDS["LSTM"].pair(dtype=torch.float32)
        packed = pack_sequence(random_sequences(NONEMPTY), enforce_sorted=False).float()
        assert_close(layer(packed)[0].data, truth(packed)[0].data, 1e-6)


def assert_same_order(given: PackedSequence, wanted: PackedSequence) -> None:
    for ours, theirs in zip(given[1:], wanted[1:], strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


class TestNested:
    @EVERY
    def test_output_has_the_input_s_offsets(self, kind: Kind) -> None:
        layer = kind.layer(num_layers=2)
        x = nested(random_sequences(LENGTHS))
        output, _ = layer(x)
        assert output.is_nested
        assert output.layout == torch.jagged
        assert output.offsets() is x.offsets()

    @BY_NAME
    def test_residual_connection(self, name: str) -> None:
        # torch adds nested tensors only where it knows that their shapes are the same.
        layer = getattr(peephole, name)(INPUT, INPUT, dtype=torch.float64)
        sequences = random_sequences(LENGTHS)
        x = nested(sequences)
        total = layer(x)[0] + x
        wanted = layer(ragged(sequences))[0].values + torch.cat(sequences)
        assert_close(total.values(), wanted)

    @BY_NAME
    def test_holes_may_hold_anything(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, dtype=torch.float64)
        sequences = random_sequences(LENGTHS)
        output, states = layer(with_holes(sequences))
        wanted, wanted_states = layer(nested(sequences))
        for given, theirs in zip(output.unbind(), wanted.unbind(), strict=True):
            assert torch.equal(given, theirs)
        for given, theirs in zip(as_tuple(states), as_tuple(wanted_states), strict=True):
            assert torch.equal(given, theirs)


class TestRagged:
    @BY_NAME
    def test_output_shares_what_is_known_of_the_sequences(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, dtype=torch.float64)
        x = ragged(random_sequences(LENGTHS))
        output, _ = layer(x)
        assert isinstance(output, Ragged)
        assert output.layout is x.layout


class TestStates:
    @EVERY_SERVED
    @pytest.mark.parametrize("form", FORMS)
    def test_are_those_at_each_sequence_s_end(self, kind: Kind, backend: str, form: str) -> None:
        lengths, make = FORMS[form]
        batch_first = form.startswith("[B, T]")
        layer = kind.layer(bidirectional=True, batch_first=batch_first, backend=backend)
        input, *rest = make(random_sequences(lengths))
        output, states = layer(input, None, *rest[1:])
        h_n = as_tuple(states)[0]
        width = layer.output_size // 2
        batch = () if form == "unbatched" else (len(lengths),)
        sizes = layer.state_sizes(HIDDEN)
        assert [s.shape for s in as_tuple(states)] == [(2, *batch, size) for size in sizes]
        for b, y in enumerate(apart(output, lengths, batch_first)):
            ends = h_n if form == "unbatched" else h_n[:, b]
            wanted = torch.stack([y[-1, :width], y[0, width:]]) if len(y) else torch.zeros(2, width)
            assert torch.equal(ends, wanted.to(ends.dtype))

    @BY_NAME
    @BOTH
    @pytest.mark.parametrize("form", FORMS)
    def test_with_a_width_for_each_layer(self, name: str, bidirectional: bool, form: str) -> None:
        lengths, make = FORMS[form]
        widths, D = (7, 2, 5), 1 + bidirectional
        layer = getattr(peephole, name)(
            INPUT,
            widths,
            bidirectional=bidirectional,
            batch_first=form.startswith("[B, T]"),
            dtype=torch.float64,
        )
        sequences = random_sequences(lengths)
        unbatched = form == "unbatched"
        batch = () if unbatched else (len(lengths),)
        count = 2 if name == "LSTM" else 1
        initial = tuple(
            tuple(torch.randn(D, *batch, width, dtype=torch.float64) for width in widths)
            for _ in range(count)
        )
        input, *rest = make(sequences)
        output, states = layer(input, initial if count == 2 else initial[0], *rest[1:])
        states = states if count == 2 else (states,)
        below = sequences
        for k, width in enumerate(widths):
            truth = one_of(layer, k, name, below[0].shape[1], width)
            hx = tuple(each[k].unsqueeze(1) if unbatched else each[k] for each in initial)
            below, wanted = run_torch(truth, below, hx if count == 2 else hx[0])
            for given, state in zip(states, wanted, strict=True):
                assert isinstance(given, tuple)
                assert_close(given[k], state.squeeze(1) if unbatched else state)
        given = apart(output, lengths, form.startswith("[B, T]"))
        for ours, theirs in zip(given, below, strict=True):
            assert_close(ours, theirs)


def one_of(layer: Layer, k: int, name: str, input_size: int, width: int) -> nn.RNNBase:
    """A module of ``torch.nn`` with the weights of layer k."""
    truth: nn.RNNBase = getattr(nn, name)(
        input_size, width, bidirectional=layer.bidirectional, dtype=torch.float64
    )
    truth.load_state_dict(
        {
            n.replace(f"_l{k}", "_l0"): weight
            for n, weight in layer.state_dict().items()
            if f"_l{k}" in n
        }
    )
    return truth
