"""Arrays that are worked out piece by piece, and kept in memory or elsewhere."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from peephole.data.sequences import Array


class Part(NamedTuple):
    """An array to be made.

    Attributes:
        dtype: as numpy calls it.
        shape: all sizes.
        pieces: gives its rows, some at a time.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Array]]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


# Makes arrays, one after the other, or finds those that were made under the same key before.
Keep = Callable[[str, Mapping[str, Part]], dict[str, Array]]


def in_memory(key: str, parts: Mapping[str, Part]) -> dict[str, Array]:
    """Make arrays in memory; the key does not matter."""
    del key
    arrays = {}
    for name, part in parts.items():
        array, row = np.empty(part.shape, part.dtype), 0
        for piece in part.pieces():
            array[row : row + len(piece)] = piece
            row += len(piece)
        arrays[name] = array
    return arrays
