"""``peephole.Ragged``: its constructor and every conversion, against torch's own."""

from collections.abc import Callable

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
)

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

# torch says so on the first strided nested tensor of a process.
prototype = pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning"
)


def narrowed() -> tuple[Tensor, list[Tensor]]:
    """A nested tensor with holes between its sequences, and those sequences."""
    x = torch.arange(24.0).reshape(3, 4, 2)
    starts, lengths = [0, 1, 0], [2, 3, 0]
    nested = torch.nested.narrow(
        x, 1, torch.tensor(starts), torch.tensor(lengths), layout=torch.jagged
    )
    return nested, [
        x[b, begin : begin + length]
        for b, (begin, length) in enumerate(zip(starts, lengths, strict=True))
    ]


class TestHook:
    def test_checks_shapes_while_tests_run(self) -> None:
        with pytest.raises(jaxtyping.TypeCheckError, match="offsets"):
            Ragged(torch.zeros(2, 1), torch.tensor([[0, 2]]))


class TestList:
    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_from_list(self, step: tuple[int, ...]) -> None:
        assert_same_batch(Ragged.from_list(sequences(LENGTHS, step)), batch_of(LENGTHS, step))

    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_to_list(self, step: tuple[int, ...]) -> None:
        taken_apart = batch_of(LENGTHS, step).to_list()
        assert len(taken_apart) == len(LENGTHS)
        for given, wanted in zip(taken_apart, sequences(LENGTHS, step), strict=True):
            assert_equal(given, wanted)

    def test_to_list_shares_the_values(self) -> None:
        ragged = batch_of([2, 1])
        ragged.to_list()[1].zero_()
        assert_equal(ragged.values[2], torch.zeros(2, dtype=torch.float64))

    def test_iterates_over_sequences(self) -> None:
        for given, wanted in zip(batch_of(LENGTHS), sequences(LENGTHS), strict=True):
            assert_equal(given, wanted)

    def test_of_no_sequences(self) -> None:
        assert batch_of([]).to_list() == []

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ([], "from_list needs at least one tensor: it tells the shape of a step"),
            (
                [torch.zeros(2), torch.tensor(1.0)],
                "tensors[1] is a number; a sequence is [steps, ...]",
            ),
            (
                [torch.zeros(2), torch.zeros(2, dtype=torch.float64)],
                "tensors[1] has dtype torch.float64, but tensors[0] has torch.float32; "
                "all sequences of a batch must agree",
            ),
            (
                [torch.zeros(2), torch.zeros(2), torch.zeros(2, device="meta")],
                "tensors[2] has device meta, but tensors[0] has cpu; "
                "all sequences of a batch must agree",
            ),
            (
                [torch.zeros(2, 3), torch.zeros(0, 4)],
                "tensors[1] has step shape (4,), but tensors[0] has (3,); "
                "all sequences of a batch must agree",
            ),
        ],
        ids=["none", "number", "dtype", "device", "step shape"],
    )
    def test_errors(self, tensors: list[Tensor], message: str) -> None:
        with raises(message):
            Ragged.from_list(tensors)


class TestPadded:
    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_from_padded(self, step: tuple[int, ...], batch_first: bool) -> None:
        padded = pad_sequence(sequences(LENGTHS, step), batch_first, padding_value=-1)
        for lengths in (LENGTHS, torch.tensor(LENGTHS), torch.tensor(LENGTHS, dtype=torch.int32)):
            given = Ragged.from_padded(padded, lengths, batch_first=batch_first)
            assert_same_batch(given, batch_of(LENGTHS, step))

    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_to_padded(self, step: tuple[int, ...], batch_first: bool) -> None:
        wanted = pad_sequence(sequences(LENGTHS, step), batch_first, padding_value=-1)
        given = batch_of(LENGTHS, step).to_padded(padding_value=-1, batch_first=batch_first)
        assert_equal(given, wanted)

    def test_pads_integers_with_zeros(self) -> None:
        padded = batch_of([1, 2], (), torch.int64).to_padded()
        assert_equal(padded, torch.tensor([[1, 0], [2, 3]]))

    def test_takes_an_input_longer_than_its_longest_sequence(self) -> None:
        x = torch.arange(10.0).reshape(2, 5)
        given = Ragged.from_padded(x, [1, 3])
        assert_same_batch(given, Ragged(torch.tensor([0.0, 5, 6, 7]), torch.tensor([0, 1, 4])))

    def test_takes_an_input_that_is_not_contiguous(self) -> None:
        x = pad_sequence(sequences(LENGTHS), batch_first=True)
        strided = x.transpose(0, 2).contiguous().transpose(0, 2)
        assert not strided.is_contiguous()
        assert_same_batch(Ragged.from_padded(strided, LENGTHS), batch_of(LENGTHS))

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_nan_in_padding_is_never_read(self, batch_first: bool) -> None:
        x = pad_sequence(sequences(LENGTHS), batch_first, padding_value=float("nan"))
        ragged = Ragged.from_padded(x.requires_grad_(), LENGTHS, batch_first=batch_first)
        assert_same_batch(ragged, batch_of(LENGTHS))
        ragged.values.square().sum().backward()
        wanted = pad_sequence([2 * s for s in sequences(LENGTHS)], batch_first)
        assert x.grad is not None
        assert_equal(x.grad, wanted)

    @pytest.mark.parametrize("batch_first", [True, False])
    def test_nan_in_the_gradient_of_padding_is_dropped(self, batch_first: bool) -> None:
        ragged = batch_of(LENGTHS)
        ragged.values.requires_grad_()
        upstream = pad_sequence(sequences(LENGTHS), batch_first, padding_value=float("nan"))
        padded = ragged.to_padded(float("nan"), batch_first=batch_first)
        (gradient,) = torch.autograd.grad(padded, ragged.values, upstream)
        assert_equal(gradient, ragged.values.detach())

    @pytest.mark.usefixtures("unhooked")
    @pytest.mark.parametrize(
        ("lengths", "message"),
        [
            ([2, 4, 12], "lengths[2] = 12 is longer than the padded input (4 steps)"),
            ([2, -1, 4], "lengths[1] = -1 is negative"),
            ([2.0, 1.0, 4.0], "lengths must be whole numbers, got torch.float32"),
            (torch.ones(3), "lengths must be whole numbers, got torch.float32"),
            ([True, False, True], "lengths must be whole numbers, got torch.bool"),
            ([2, 4], "lengths must be one for each of the 3 sequences, got shape (2,)"),
            ([], "lengths must be one for each of the 3 sequences, got shape (0,)"),
            ([[2, 4, 1]], "lengths must be one for each of the 3 sequences, got shape (1, 3)"),
        ],
    )
    def test_errors_in_lengths(self, lengths: list[int], message: str) -> None:
        for x, batch_first in ((torch.zeros(3, 4, 2), True), (torch.zeros(4, 3, 2), False)):
            with raises(message):
                Ragged.from_padded(x, lengths, batch_first=batch_first)

    def test_errors_in_the_input(self) -> None:
        with raises("a padded batch is [B, T, ...], got shape (3,)"):
            Ragged.from_padded(torch.zeros(3), [1, 1, 1])


class TestPacked:
    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_from_packed_unsorted(self, step: tuple[int, ...]) -> None:
        packed = pack_sequence(sequences(NONEMPTY, step), enforce_sorted=False)
        assert_same_batch(Ragged.from_packed(packed), batch_of(NONEMPTY, step))

    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_from_packed_sorted(self, step: tuple[int, ...]) -> None:
        descending = sorted(NONEMPTY, reverse=True)
        packed = pack_sequence(sequences(descending, step), enforce_sorted=True)
        assert packed.unsorted_indices is None
        assert_same_batch(Ragged.from_packed(packed), batch_of(descending, step))

    def test_from_packed_keeps_the_order_of_ties(self) -> None:
        # The order of equal lengths within a PackedSequence is free: here the later ones come
        # first, which is not how we sort.
        lengths, order = torch.tensor([3, 5, 3, 5, 3]), torch.tensor([3, 1, 4, 2, 0])
        x = pad_sequence(sequences(lengths.tolist()))
        data, batch_sizes, *_ = pack_padded_sequence(x[:, order], lengths[order])
        packed = PackedSequence(data, batch_sizes, order, order.argsort())
        assert_same_batch(Ragged.from_packed(packed), batch_of(lengths.tolist()))

    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_to_packed(self, step: tuple[int, ...]) -> None:
        packed = batch_of(NONEMPTY, step).to_packed()
        padded, lengths = pad_packed_sequence(packed, batch_first=True)
        assert lengths.tolist() == NONEMPTY
        assert_equal(padded, pad_sequence(sequences(NONEMPTY, step), batch_first=True))

    def test_to_packed_is_torch_s_where_no_lengths_tie(self) -> None:
        lengths = [4, 1, 6, 2]
        given = batch_of(lengths).to_packed()
        wanted = pack_sequence(sequences(lengths), enforce_sorted=False)
        for field in PackedSequence._fields:
            assert_equal(getattr(given, field), getattr(wanted, field))

    @pytest.mark.parametrize(
        ("lengths", "message"),
        [
            (LENGTHS, "torch cannot pack empty sequences, and these are: [3]"),
            ([0, 0], "torch cannot pack empty sequences, and these are: [0, 1]"),
            ([], "torch cannot pack a batch without sequences"),
        ],
    )
    def test_errors(self, lengths: list[int], message: str) -> None:
        with raises(message):
            batch_of(lengths).to_packed()


class TestNested:
    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_from_nested(self, step: tuple[int, ...]) -> None:
        nested = torch.nested.nested_tensor(sequences(LENGTHS, step), layout=torch.jagged)
        assert_same_batch(Ragged.from_nested(nested), batch_of(LENGTHS, step))

    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_to_nested(self, step: tuple[int, ...]) -> None:
        nested = batch_of(LENGTHS, step).to_nested()
        assert nested.layout == torch.jagged
        assert nested.size(0) == len(LENGTHS)
        for given, wanted in zip(nested.unbind(), sequences(LENGTHS, step), strict=True):
            assert_equal(given, wanted)

    def test_copies_no_values(self) -> None:
        ragged = batch_of(LENGTHS)
        nested = ragged.to_nested()
        again = Ragged.from_nested(nested)
        assert nested.values().data_ptr() == again.values.data_ptr() == ragged.values.data_ptr()

    def test_from_narrowed_leaves_the_holes_out(self) -> None:
        nested, wanted = narrowed()
        assert_same_batch(Ragged.from_nested(nested), Ragged.from_list(wanted))

    @prototype
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: torch.zeros(2, 3),
                "from_nested takes a nested tensor with layout=torch.jagged, got a plain tensor",
            ),
            (
                lambda: torch.nested.nested_tensor([torch.zeros(2, 3)], layout=torch.strided),
                "from_nested takes a nested tensor with layout=torch.jagged, "
                "got layout torch.strided",
            ),
            (
                lambda: batch_of([2, 1]).to_nested().transpose(1, 2),
                "the nested tensor is ragged in dimension 2; "
                "transpose it so that dimension 1 is the ragged one",
            ),
        ],
        ids=["plain", "strided", "ragged dimension"],
    )
    def test_errors(self, make: Callable[[], Tensor], message: str) -> None:
        with raises(message):
            Ragged.from_nested(make())


class TestConstructor:
    def test_offsets_become_int64(self) -> None:
        ragged = Ragged(torch.zeros(3), torch.tensor([0, 1, 3], dtype=torch.int32))
        assert_equal(ragged.offsets, torch.tensor([0, 1, 3]))

    @pytest.mark.usefixtures("unhooked")
    @pytest.mark.parametrize(
        ("offsets", "message"),
        [
            ([0, 2, 1, 3], "offsets fall: offsets[1] = 2, offsets[2] = 1"),
            ([1, 2, 3], "offsets[0] = 1; it must be 0"),
            ([0, 2], "offsets end at 2, but values have 3 steps; they must agree"),
            ([0, 4], "offsets end at 4, but values have 3 steps; they must agree"),
            ([0.0, 3.0], "offsets must be whole numbers, got torch.float32"),
            ([0j, 3 + 0j], "offsets must be whole numbers, got torch.complex64"),
            ([False, True], "offsets must be whole numbers, got torch.bool"),
            ([[0, 3]], "offsets must be [B + 1], got shape [1, 2]"),
            (0, "offsets must be [B + 1], got shape []"),
            ([], "offsets must be [B + 1], got shape [0]"),
        ],
    )
    def test_errors_in_offsets(self, offsets: list[int], message: str) -> None:
        with raises(message):
            Ragged(torch.zeros(3, 2), torch.tensor(offsets))

    @pytest.mark.usefixtures("unhooked")
    def test_errors_in_values(self) -> None:
        with raises("values is a number; it must be [N, ...], one row a step"):
            Ragged(torch.tensor(1.0), torch.tensor([0, 1]))
        with raises("offsets are on cpu, values on meta"):
            Ragged(torch.zeros(3, device="meta"), torch.tensor([0, 3]))
