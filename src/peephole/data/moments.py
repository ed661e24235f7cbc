"""Mean and variance of numbers that come in pieces."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from peephole.data.sequences import Array


class Moments(NamedTuple):
    """What n numbers are like.

    Attributes:
        n: how many.
        mean: 0 where there are none; not finite where their sum is not.
        variance: their mean squared distance from it.
        constant: whether they are all equal, or none.
    """

    n: int
    mean: float
    variance: float
    constant: bool

    @property
    def sd(self) -> float:
        """The standard deviation, and 1 where the numbers are all equal."""
        return 1.0 if self.constant else float(np.sqrt(self.variance))


def moments(pieces: Callable[[], Iterable[Array]]) -> Moments:
    """Two passes over numbers: for the mean, and for the distances from it.

    Args:
        pieces: gives them, float64 and finite, any number of times.
    """
    count, total, low, high = 0, 0.0, np.inf, -np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        for x in pieces():
            if len(x):
                count += len(x)
                total += float(x.sum())
                low, high = min(low, float(x.min())), max(high, float(x.max()))
        if not count:
            return Moments(0, 0.0, 0.0, True)
        mean = total / count
        squares = sum(float(np.square(x - mean).sum()) for x in pieces())
    return Moments(count, mean, squares / count, low == high)
