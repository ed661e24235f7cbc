"""Arrays in memory and in a cache are the same."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from peephole.data import arrays
from peephole.data.arrays import Part, in_memory, kept
from peephole.data.cache import Cache
from peephole.data.sequences import Array
from peephole.data.tables import Source

SOURCE = Source(pa.table({"x": [1]}), "t.csv", fingerprint="f" * 64)


class Parts:
    """Arrays to be made, and how often that was."""

    def __init__(self) -> None:
        self.made = 0

    def numbers(self) -> Iterator[Array]:
        self.made += 1
        for k in range(5):
            yield np.arange(6.0).reshape(3, 2) + k

    def parts(self) -> dict[str, Part]:
        return {
            "numbers": Part("float32", (15, 2), self.numbers),
            "flags": Part("bool", (3,), lambda: [np.array([True, False]), np.array([True])]),
            "codes": Part("int64", (15, 0), lambda: [np.empty((15, 0))]),
            "none": Part("float64", (0,), lambda: []),
        }


def test_in_memory_and_in_a_cache(tmp_path: Path) -> None:
    made = Parts()
    cache = Cache(tmp_path / "cache", lambda line: pytest.fail(line), always=True)
    keep = kept(SOURCE, cache)
    found = [in_memory("key", made.parts()), *(keep("key", made.parts()) for _ in range(2))]
    assert made.made == 2
    for each in found:
        assert list(each) == ["numbers", "flags", "codes", "none"]
        for name, array in each.items():
            assert array.dtype == found[0][name].dtype
            np.testing.assert_array_equal(array, found[0][name])
    assert isinstance(found[1]["numbers"], np.memmap)


def test_what_is_changed_in_memory_is_not_changed_in_the_cache(tmp_path: Path) -> None:
    keep = kept(SOURCE, Cache(tmp_path / "cache", lambda line: pytest.fail(line), always=True))
    first = keep("key", Parts().parts())["numbers"]
    first[:] = 7
    assert keep("key", Parts().parts())["numbers"][0, 1] == 1


def test_small_ones_are_made_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache", lambda line: None)
    for keep in (kept(SOURCE, cache), kept(SOURCE, None)):
        keep("key", Parts().parts())
    assert not cache.path.exists()
    monkeypatch.setattr(arrays, "IN_MEMORY", 10)
    kept(SOURCE, cache)("key", Parts().parts())
    assert len(list(cache.path.glob("examples-*"))) == 1


def test_another_table_or_key_is_another_entry_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MOST_SETS", 3)
    cache = Cache(tmp_path / "cache", lambda line: pytest.fail(line), always=True)
    other = Source(SOURCE.table, "t.csv", fingerprint="e" * 64)
    kept(other, cache)("0", Parts().parts())
    for key in range(6):
        kept(SOURCE, cache)(str(key), Parts().parts())
    assert len(list(cache.path.glob("examples-eeee*"))) == 1
    assert len(list(cache.path.glob("examples-ffff*"))) == 3


def test_a_clock_that_goes_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there was used in the future, so that what is new looks as if it were the oldest."""
    monkeypatch.setattr(arrays, "MOST_SETS", 2)
    cache = Cache(tmp_path / "cache", lambda line: pytest.fail(line), always=True)
    keep, wanted = kept(SOURCE, cache), in_memory("", Parts().parts())["numbers"]
    for key in "ab":
        keep(key, Parts().parts())
    for path in tmp_path.rglob("*"):
        os.utime(path, (4e9, 4e9))
    for key in "cbca":
        np.testing.assert_array_equal(keep(key, Parts().parts())["numbers"], wanted)


def test_a_small_file_of_4_gb(tmp_path: Path) -> None:
    part = Part("float32", (1 << 30,), lambda: [])
    header = {"descr": "<f4", "fortran_order": False, "shape": part.shape}
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        file.write(bytes(80))
    with pytest.raises(ValueError, match="mmap length is greater than file size"):
        part.read(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "array", [np.zeros((15, 2)), np.zeros((3, 2), np.float32), np.array([{}] * 15, dtype=object)]
)
def test_a_file_that_is_another_array_is_made_anew(tmp_path: Path, array: Array) -> None:
    """Whatever its digest says: a small file may tell of a large array, or of objects."""
    from peephole.data import cache as caches

    said: list[str] = []
    keep = kept(SOURCE, Cache(tmp_path / "cache", said.append, always=True))
    wanted = keep("key", Parts().parts())["numbers"].copy()
    (entry,) = (tmp_path / "cache").glob("examples-*")
    key = entry.joinpath("index.json").read_text().split('"key": "')[1][:64]
    np.save(entry / "numbers.npy", array, allow_pickle=True)
    (entry / "index.json").unlink()
    caches._write_index(entry, arrays.Encoded(key))
    np.testing.assert_array_equal(keep("key", Parts().parts())["numbers"], wanted)
    assert said[0].startswith(f"{entry} is damaged: ")
