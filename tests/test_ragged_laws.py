"""``peephole.Ragged``: what holds for every batch, and gradients through every conversion."""

from collections.abc import Callable

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from peephole import Ragged
from tests.helpers.batches import (
    STEP_IDS,
    STEPS,
    assert_equal,
    assert_same_batch,
    batches,
    offsets_of,
)
from tests.helpers.marks import forward_mode


def through_packed_sorted(ragged: Ragged) -> Ragged:
    order = ragged.lengths.argsort(descending=True, stable=True)
    packed = pack_sequence(ragged[order].to_list(), enforce_sorted=True)
    return Ragged.from_packed(packed)[order.argsort()]


ROUND_TRIPS: dict[str, Callable[[Ragged], Ragged]] = {
    "list": lambda r: Ragged.from_list(r.to_list()),
    "padded": lambda r: Ragged.from_padded(r.to_padded(), r.lengths),
    "padded time first": lambda r: Ragged.from_padded(
        r.to_padded(batch_first=False), r.lengths, batch_first=False
    ),
    "packed": lambda r: Ragged.from_packed(r.to_packed()),
    "packed sorted": through_packed_sorted,
    "nested": lambda r: Ragged.from_nested(r.to_nested()),
    "reverse twice": lambda r: r.reverse().reverse(),
    "cat of split": lambda r: Ragged.cat(list(r.split(2))),
    "each sequence": lambda r: Ragged.from_list([r[b] for b in range(len(r))]),
    "permuted and back": lambda r: r[list(range(len(r)))[::-1]][list(range(len(r)))[::-1]],
    "cut in two": lambda r: Ragged.cat([r[:1], r[1:]]),
}
NEED_SEQUENCES = {"list", "cat of split", "each sequence"}
NEED_STEPS = {"packed", "packed sorted"}
# Where torch itself takes part: nested tensors and pack_sequence.
NO_FORWARD_MODE = {"nested", "packed sorted"}


class TestLaws:
    @pytest.mark.parametrize("name", ROUND_TRIPS)
    @hypothesis.given(data=st.data())
    def test_there_and_back_is_the_identity(self, name: str, data: st.DataObject) -> None:
        needs_sequences = name in NEED_SEQUENCES | NEED_STEPS
        ragged = data.draw(batches(int(needs_sequences), int(name in NEED_STEPS)))
        assert_same_batch(ROUND_TRIPS[name](ragged), ragged)

    @hypothesis.given(ragged=batches(min_sequences=1), size=st.integers(1, 7))
    def test_cat_of_split_is_the_identity(self, ragged: Ragged, size: int) -> None:
        assert_same_batch(Ragged.cat(list(ragged.split(size))), ragged)

    @hypothesis.given(ragged=batches())
    def test_padding_holds_what_it_is_given(self, ragged: Ragged) -> None:
        padded = ragged.to_padded(padding_value=-1)
        assert padded.shape[:2] == (len(ragged), ragged.max_length)
        assert int((padded != -1).sum()) == ragged.values.numel()

    @hypothesis.given(ragged=batches())
    def test_what_is_made_without_checks_passes_them(self, ragged: Ragged) -> None:
        for made in (ragged.reverse(), ragged[1:], ragged[::2], ragged[list(range(len(ragged)))]):
            assert_same_batch(Ragged(made.values, made.offsets), made)


class TestGradients:
    @pytest.mark.parametrize("name", ROUND_TRIPS)
    @pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
    def test_flow_through_every_round_trip(self, name: str, step: tuple[int, ...]) -> None:
        lengths = [2, 1, 3, 2] if name in NEED_STEPS else [2, 0, 3, 1]
        offsets = offsets_of(lengths)

        def there_and_back(values: Tensor) -> Tensor:
            return ROUND_TRIPS[name](Ragged(values, offsets)).values

        values = torch.randn(sum(lengths), *step, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(there_and_back, values)
        upstream = torch.randn_like(values)
        (gradient,) = torch.autograd.grad(there_and_back(values), values, upstream)
        assert_equal(gradient, upstream)

    @pytest.mark.parametrize(
        "read",
        [
            Ragged.first,
            Ragged.last,
            lambda r: r.reverse().values,
            lambda r: r[1],
            lambda r: r[1:].values,
            lambda r: r[[2, 0, 2]].values,
            lambda r: r.to_padded(),
            lambda r: r.to_packed().data,
            lambda r: r.to_nested().values(),
        ],
        ids=["first", "last", "reverse", "one", "slice", "list", "padded", "packed", "nested"],
    )
    def test_flow_through_what_is_read(self, read: Callable[[Ragged], Tensor]) -> None:
        values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda v: read(Ragged(v, offsets_of([2, 3, 1]))), values)

    @forward_mode
    @pytest.mark.parametrize("name", [name for name in ROUND_TRIPS if name not in NO_FORWARD_MODE])
    def test_flow_under_torch_func(self, name: str) -> None:
        lengths = [2, 1, 3, 2] if name in NEED_STEPS else [2, 0, 3, 1]

        def there_and_back(values: Tensor) -> Tensor:
            return ROUND_TRIPS[name](Ragged(values, offsets_of(lengths))).values

        values, tangent = torch.randn(2, sum(lengths), 2)
        moved, d_moved = torch.func.jvp(there_and_back, (values,), (tangent,))
        assert_equal(moved, values)
        assert_equal(d_moved, tangent)

    def test_flow_around_the_holes_of_a_narrowed_tensor(self) -> None:
        values = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)

        def read(values: Tensor) -> Tensor:
            nested = torch.nested.nested_tensor_from_jagged(
                values, torch.tensor([0, 3, 7]), lengths=torch.tensor([2, 1])
            )
            return Ragged.from_nested(nested).values

        assert_equal(read(values), values[[0, 1, 3]])
        assert torch.autograd.gradcheck(read, values)
