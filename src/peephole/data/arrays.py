"""Arrays that are worked out piece by piece, and kept in memory or elsewhere."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from peephole.data.cache import Cache
from peephole.data.sequences import Array
from peephole.data.tables import Source

# What takes less is worked out anew in less time than it is looked up in the cache.
IN_MEMORY = 1 << 26
# How many sets of arrays of one table a cache has: a run with another seed needs its own.
MOST_SETS = 8


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

    def write(self, path: Path) -> None:
        """Make the array as numpy's file."""
        header = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": self.shape}
        rows = 0
        with path.open("wb") as file:
            np.lib.format.write_array_header_2_0(file, header)
            for piece in self.pieces():
                file.write(np.ascontiguousarray(piece, dtype=self.dtype).data)
                rows += len(piece)
        assert rows == self.shape[0], (path.name, rows, self.shape)

    def read(self, path: Path) -> Array:
        """Map the array from that file: what is changed in memory is not changed there.

        Raises:
            ValueError: it is another one.
        """
        if not self.bytes:
            return np.empty(self.shape, self.dtype)
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != (
            np.dtype(self.dtype),
            self.shape,
        ):
            raise ValueError(f"{path.name} is not {self.dtype} {list(self.shape)}")
        return array


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


@dataclass(frozen=True)
class Encoded:
    """What an entry with arrays is: the digest of all that they follow from."""

    key: str


def kept(source: Source, cache: Cache | None) -> Keep:
    """Where the arrays of a table are kept: large ones in the cache, in files that are mapped."""

    def keep(key: str, parts: Mapping[str, Part]) -> dict[str, Array]:
        small = sum(part.bytes for part in parts.values()) < IN_MEMORY
        if cache is None or source.fingerprint is None or (small and not cache.always):
            return in_memory(key, parts)
        whole = Encoded(hashlib.sha256((source.fingerprint + key).encode()).hexdigest())

        def make(folder: Path) -> Encoded:
            for name, part in parts.items():
                part.write(folder / f"{name}.npy")
            return whole

        def load(folder: Path, encoded: Encoded) -> dict[str, Array]:
            del encoded
            return {name: part.read(folder / f"{name}.npy") for name, part in parts.items()}

        def stale(encoded: Encoded) -> str | None:
            return None if encoded == whole else f"{cache.path / name} was made from other data"

        table = f"examples-{source.fingerprint[:12]}-"
        name = f"{table}{whole.key[:24]}"
        arrays = cache.entry(name, Encoded, make=make, load=load, stale=stale)
        cache.prune(table, MOST_SETS)
        return arrays

    return keep
