"""``peephole.Ragged``: what is read from one, indexing, and batches made out of batches."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from peephole import Ragged
from tests.helpers.batches import (
    LENGTHS,
    NONEMPTY,
    STEP_IDS,
    STEPS,
    assert_equal,
    assert_same_batch,
    batch_of,
    sequences,
)
from tests.helpers.errors import raises


class TestReading:
    def test_sizes(self) -> None:
        ragged = batch_of(LENGTHS, dtype=torch.float32)
        assert len(ragged) == 6
        assert_equal(ragged.lengths, torch.tensor(LENGTHS))
        assert ragged.max_length == 7
        assert (ragged.dtype, ragged.device) == (torch.float32, torch.device("cpu"))
        assert repr(ragged) == "Ragged(6 sequences, values [23, 2], torch.float32, cpu)"

    @pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
    def test_sizes_without_steps(self, lengths: list[int]) -> None:
        ragged = batch_of(lengths)
        assert len(ragged) == len(lengths)
        assert_equal(ragged.lengths, torch.tensor(lengths, dtype=torch.int64))
        assert ragged.max_length == 0

    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_first_and_last(self, step: tuple[int, ...]) -> None:
        ragged, apart = batch_of(NONEMPTY, step), sequences(NONEMPTY, step)
        assert_equal(ragged.first(), torch.stack([s[0] for s in apart]))
        assert_equal(ragged.last(), torch.stack([s[-1] for s in apart]))

    @pytest.mark.parametrize("end", [Ragged.first, Ragged.last])
    def test_empty_sequences_have_no_first_or_last_step(
        self, end: Callable[[Ragged], Tensor]
    ) -> None:
        with raises("sequences [1, 3] are empty: they have no first or last step"):
            end(batch_of([2, 0, 1, 0]))


class TestIndexing:
    def test_by_a_number(self) -> None:
        ragged, wanted = batch_of(LENGTHS), sequences(LENGTHS)
        for b in range(-6, 6):
            assert_equal(ragged[b], wanted[b])

    @pytest.mark.parametrize("b", [6, -7])
    def test_by_a_number_out_of_range(self, b: int) -> None:
        with raises(f"sequence {b} of a batch of 6", IndexError):
            batch_of(LENGTHS)[b]

    @pytest.mark.parametrize("start", [None, 0, 2, 6, 9, -3])
    @pytest.mark.parametrize("stop", [None, 0, 1, 4, 6, 9, -1])
    @pytest.mark.parametrize("step", [None, 1, 2, 4])
    def test_by_a_slice(self, start: int | None, stop: int | None, step: int | None) -> None:
        which = slice(start, stop, step)
        given = batch_of(LENGTHS)[which]
        wanted = sequences(LENGTHS)[which]
        assert given.lengths.tolist() == LENGTHS[which]
        assert_equal(given.values, torch.cat([torch.zeros(0, 2, dtype=torch.float64), *wanted]))
        Ragged(given.values, given.offsets)

    @pytest.mark.parametrize(
        ("index", "wanted"),
        [
            ([4, 0, 0, -2], [4, 0, 0, 4]),
            ((3, 1), [3, 1]),
            ([], []),
            (torch.tensor([5, 3]), [5, 3]),
            (torch.tensor([], dtype=torch.int64), []),
            (torch.tensor([True, False, False, True, True, False]), [0, 3, 4]),
            ([True, False, False, True, True, False], [0, 3, 4]),
        ],
        ids=["list", "tuple", "empty list", "tensor", "empty tensor", "mask", "list mask"],
    )
    def test_by_several(self, index: list[int] | Tensor, wanted: list[int]) -> None:
        given = batch_of(LENGTHS)[index]
        apart = sequences(LENGTHS)
        assert given.lengths.tolist() == [LENGTHS[b] for b in wanted]
        whole = torch.cat([torch.zeros(0, 2, dtype=torch.float64), *(apart[b] for b in wanted)])
        assert_equal(given.values, whole)
        rows = batch_of(LENGTHS).rows(index)
        assert_equal(batch_of(LENGTHS).values[rows.values], whole)
        assert rows.lengths.tolist() == given.lengths.tolist()

    @pytest.mark.parametrize("index", [[0, 6], torch.tensor([-7]), torch.ones(5).bool()])
    def test_by_several_out_of_range(self, index: list[int] | Tensor) -> None:
        with pytest.raises(IndexError):
            batch_of(LENGTHS)[index]

    @pytest.mark.parametrize("index", [torch.tensor(1), torch.tensor([[0, 1]])])
    def test_by_a_tensor_that_is_no_list(self, index: Tensor) -> None:
        with pytest.raises(IndexError, match=r"^sequences are chosen by a number,"):
            batch_of(LENGTHS)[index]


class TestChanging:
    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_reverse(self, step: tuple[int, ...]) -> None:
        wanted = Ragged.from_list([s.flip(0) for s in sequences(LENGTHS, step)])
        assert_same_batch(batch_of(LENGTHS, step).reverse(), wanted)

    def test_with_values(self) -> None:
        ragged = batch_of(LENGTHS)
        other = torch.randn(23, 4, 5)
        assert_same_batch(ragged.with_values(other), Ragged(other, ragged.offsets))

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (torch.zeros(22, 2), "values of shape [22, 2] for 23 steps"),
            (torch.tensor(1.0), "values of shape [] for 23 steps"),
            (torch.zeros(23, device="meta"), "values are on meta, offsets on cpu"),
        ],
    )
    @pytest.mark.usefixtures("unhooked")
    def test_with_values_errors(self, values: Tensor, message: str) -> None:
        with raises(message):
            batch_of(LENGTHS).with_values(values)

    def test_cat(self) -> None:
        apart = sequences(LENGTHS)
        parts = [Ragged.from_list(apart[:2]), Ragged.from_list(apart[2:])]
        nothing = batch_of([])
        assert_same_batch(Ragged.cat([parts[0], nothing, parts[1]]), batch_of(LENGTHS))

    @pytest.mark.parametrize(
        ("others", "message"),
        [
            ([], "cat needs at least one batch"),
            (
                [batch_of([1]), batch_of([1], dtype=torch.float32)],
                "tensors[1] has dtype torch.float32, but tensors[0] has torch.float64; "
                "all sequences of a batch must agree",
            ),
            (
                [batch_of([1], (2,)), batch_of([1], (3,))],
                "tensors[1] has step shape (3,), but tensors[0] has (2,); "
                "all sequences of a batch must agree",
            ),
        ],
        ids=["none", "dtype", "step shape"],
    )
    def test_cat_errors(self, others: list[Ragged], message: str) -> None:
        with raises(message):
            Ragged.cat(others)

    @pytest.mark.parametrize("size", [1, 2, 4, 6, 7])
    def test_split(self, size: int) -> None:
        apart = sequences(LENGTHS)
        parts = batch_of(LENGTHS).split(size)
        assert isinstance(parts, Iterator)
        wanted = [Ragged.from_list(apart[b : b + size]) for b in range(0, 6, size)]
        for given, part in zip(parts, wanted, strict=True):
            assert_same_batch(given, part)

    def test_split_copies_nothing(self) -> None:
        ragged = batch_of([2, 3])
        _, last = ragged.split(1)
        assert last.values.data_ptr() == ragged.values[2:].data_ptr()

    def test_parts_of_the_same_lengths_share_what_is_worked_out(self) -> None:
        first, second, rest = batch_of([2, 3, 2, 3, 2]).split(2)
        assert first.layout is second.layout
        assert rest.offsets.tolist() == [0, 2]
        other, turned = batch_of([2, 3, 3, 2]).split(2)
        assert (other.offsets.tolist(), turned.offsets.tolist()) == ([0, 2, 5], [0, 3, 5])

    def test_split_of_no_sequences(self) -> None:
        assert list(batch_of([]).split(2)) == []

    @pytest.mark.parametrize("size", [0, -1])
    def test_split_errors(self, size: int) -> None:
        with raises(f"split(size={size}): a batch has at least one sequence"):
            batch_of(LENGTHS).split(size)

    def test_to(self) -> None:
        ragged = batch_of(LENGTHS)
        wanted = batch_of(LENGTHS, dtype=torch.float32)
        for moved in (
            ragged.to(torch.float32),
            ragged.to(dtype=torch.float32),
            ragged.to("cpu", torch.float32),
            ragged.to(torch.device("cpu"), dtype=torch.float32, non_blocking=True),
        ):
            assert_same_batch(moved, wanted)
        on_meta = ragged.to("meta")
        assert (on_meta.values.device.type, on_meta.offsets.device.type) == ("meta", "meta")
        assert on_meta.dtype == torch.float64

    @pytest.mark.skipif(
        not torch.accelerator.is_available(), reason="memory is pinned for an accelerator: none"
    )
    def test_pin_memory(self) -> None:
        ragged = batch_of(LENGTHS)
        pinned = ragged.pin_memory()
        assert pinned.values.is_pinned()
        assert pinned.offsets.is_pinned()
        assert_same_batch(pinned, ragged)
