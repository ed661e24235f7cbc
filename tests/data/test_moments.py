"""Mean and variance in pieces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peephole.data.moments import moments

finite = st.floats(-1e100, 1e100)


@given(st.lists(finite, min_size=1, max_size=400))
def test_of_one_piece_are_numpys_to_the_bit(numbers: list[float]) -> None:
    x = np.array(numbers)
    found = moments(lambda: [x])
    assert found.n == len(x)
    assert found.mean == x.mean()
    assert found.variance == x.var()
    assert found.sd == (1 if x.min() == x.max() else x.std())


@given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=20), max_size=6))
def test_of_many_pieces_are_those_of_the_whole(parts: list[list[float]]) -> None:
    x = np.concatenate([np.zeros(0), *map(np.array, parts)])
    found = moments(lambda: map(np.array, parts))
    assert found.n == len(x)
    if len(x):
        np.testing.assert_allclose(found.mean, x.mean(), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(found.variance, x.var(), rtol=1e-9, atol=1e-9)
        assert found.constant == (x.min() == x.max())
    else:
        assert found == (0, 0, 0, True)


def test_numbers_too_large_to_average_are_not_finite() -> None:
    found = moments(lambda: [np.array([1e308, 1e308, -1e308])])
    assert not np.isfinite([found.mean, found.sd]).all()
    assert moments(lambda: [np.full(3, 2.5)]).sd == pytest.approx(1)
