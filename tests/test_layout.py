"""What ``peephole.offsets.Layout`` works out from offsets, and that it does so once."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

from peephole import Ragged
from peephole.offsets import Layout
from tests.helpers.batches import LENGTHS, batch_of, offsets_of

lengths = st.lists(st.integers(0, 5), max_size=6)


@given(lengths)
def test_numbers(lengths: list[int]) -> None:
    layout = Layout(offsets_of(lengths))
    assert layout.sequences == len(lengths)
    assert layout.steps == sum(lengths)
    assert layout.lengths.tolist() == lengths
    assert layout.longest == max(lengths, default=0)
    assert layout.some_empty == (0 in lengths)
    if layout.steps:
        assert layout.waste == len(lengths) * max(lengths) / sum(lengths)
    else:
        assert layout.waste == 1


@given(lengths, st.booleans(), st.booleans(), st.integers(0, 2))
def test_padded_rows(lengths: list[int], reverse: bool, batch_first: bool, more: int) -> None:
    layout, T = Layout(offsets_of(lengths)), max(lengths, default=0) + more
    rows = layout.padded_rows(reverse, batch_first, T)
    wanted = [
        b * T + t if batch_first else t * len(lengths) + b
        for b, n in enumerate(lengths)
        for t in (reversed(range(n)) if reverse else range(n))
    ]
    assert rows.tolist() == wanted


@given(lengths, st.booleans())
def test_padded_sources(lengths: list[int], reverse: bool) -> None:
    layout, T = Layout(offsets_of(lengths)), max(lengths, default=0)
    wanted = torch.full((T * len(lengths),), sum(lengths))
    wanted[layout.padded_rows(reverse)] = torch.arange(sum(lengths))
    assert torch.equal(layout.padded_sources(reverse), wanted)


@given(lengths, st.booleans())
def test_final_rows(lengths: list[int], reverse: bool) -> None:
    bounds = offsets_of(lengths).tolist()
    rows = Layout(offsets_of(lengths)).final_rows(reverse).tolist()
    for b, n in enumerate(lengths):
        if n:
            assert rows[b] == (bounds[b] if reverse else bounds[b + 1] - 1)
        else:
            assert 0 <= rows[b] <= max(sum(lengths) - 1, 0)


def test_the_order_is_that_of_a_packed_sequence() -> None:
    batch = batch_of([n for n in LENGTHS if n])
    packed = pack_padded_sequence(
        batch.to_padded(), batch.lengths, batch_first=True, enforce_sorted=False
    )
    order = batch.layout.order()
    assert torch.equal(batch.values[order.rows], packed.data)
    assert torch.equal(order.batch_sizes, packed.batch_sizes)
    assert order.counts == packed.batch_sizes.tolist()


def test_is_worked_out_once_and_shared_by_batches_of_the_same_sequences() -> None:
    batch = batch_of(LENGTHS)
    order = batch.layout.order()
    other = batch.with_values(torch.zeros(len(batch.values)))
    assert batch.layout.order() is order
    assert other.layout.order() is order
    assert batch.layout.order(reverse=True) is not order
    assert batch.reverse().layout is batch.layout


def test_what_inference_mode_worked_out_serves_training() -> None:
    batch = batch_of(LENGTHS)
    with torch.inference_mode():
        order = batch.layout.order()
        rows = batch.layout.padded_rows()
    values = batch.values.clone().requires_grad_()
    values.index_select(0, order.rows).sum().backward()
    values.index_select(0, rows.clamp(max=3)).sum().backward()
    assert values.grad is not None


def test_of_numbers_asks_no_device() -> None:
    layout = Layout.of_numbers(np.array([0, 2, 2, 5]), torch.device("meta"))
    assert layout.offsets.device.type == "meta"
    assert layout.longest == 3


def test_offsets_cannot_be_replaced() -> None:
    batch = batch_of(LENGTHS)
    with pytest.raises(AttributeError):
        batch.offsets = torch.zeros(1)  # type: ignore[misc]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_a_batch_leave_it_behind(again: object) -> None:
    batch = batch_of(LENGTHS)
    batch.layout.order()
    other = again(batch)  # type: ignore[operator]
    assert isinstance(other, Ragged)
    assert other.layout is not batch.layout
    assert torch.equal(other.values, batch.values)
    assert torch.equal(other.offsets, batch.offsets)
    assert other.values.data_ptr() != batch.values.data_ptr()
