"""Ragged batches to test with."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from peephole import Ragged

# Longest not first, two of the same length, a single step, an empty one.
LENGTHS = [5, 1, 3, 0, 7, 7]
NONEMPTY = [5, 1, 3, 7, 7]
STEPS = [(), (3,), (2, 3)]
STEP_IDS = ["1-D", "2-D", "3-D"]


def offsets_of(lengths: Sequence[int]) -> Tensor:
    return torch.tensor(list(accumulate(lengths, initial=0)))


def batch_of(
    lengths: Sequence[int], step: Sequence[int] = (2,), dtype: torch.dtype = torch.float64
) -> Ragged:
    """A batch in which no two numbers are the same, so that a misplaced one shows."""
    shape = (sum(lengths), *step)
    values = torch.arange(1, 1 + torch.Size(shape).numel(), dtype=dtype).reshape(shape)
    return Ragged(values, offsets_of(lengths))


def sequences(lengths: list[int], step: tuple[int, ...] = (2,)) -> list[Tensor]:
    """The sequences of ``batch_of``, cut by plain indexing."""
    values = batch_of(lengths, step).values
    bounds = pairwise(accumulate(lengths, initial=0))
    return [values[begin:end] for begin, end in bounds]


@st.composite
def batches(draw: st.DrawFn, min_sequences: int = 0, min_length: int = 0) -> Ragged:
    """Any small batch: empty sequences, one sequence, none at all; steps of 0 to 2 dimensions."""
    lengths = st.lists(st.integers(min_length, 5), min_size=min_sequences, max_size=6)
    steps = st.sampled_from([(), (1,), (3,), (2, 3)])
    dtypes = st.sampled_from([torch.float64, torch.float32, torch.int64])
    return batch_of(draw(lengths), draw(steps), draw(dtypes))


def assert_equal(given: Tensor, wanted: Tensor) -> None:
    """Assert that two tensors agree in every number, and in dtype and device."""
    torch.testing.assert_close(given, wanted, rtol=0, atol=0)


def assert_same_batch(given: Ragged, wanted: Ragged) -> None:
    assert_equal(given.offsets, wanted.offsets)
    assert_equal(given.values, wanted.values)
