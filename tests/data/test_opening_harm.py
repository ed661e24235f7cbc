"""What becomes of a table that is mapped from the cache while somebody meddles with files."""

import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from peephole.data import tables
from peephole.data.reading import Form
from tests.data.test_opening import assert_same, columns, open_both, posix, reseal


def large_array(entry: Path) -> None:
    header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 29,)}
    with (entry / "offsets.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(80))


def large_table(entry: Path) -> None:
    file = entry / "rows.arrow"
    data = file.read_bytes()
    assert data.count(struct.pack("<q", 4801)) > 5
    file.write_bytes(data.replace(struct.pack("<q", 4801), struct.pack("<q", 1 << 29)))


@pytest.mark.parametrize("harm", [large_array, large_table])
def test_a_small_file_of_4_gb(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns(4801)), path)
    open_both(path, tmp_path / "cache", Form("id", "t"))
    (entry,) = (tmp_path / "cache").glob("rows-*")
    harm(entry)
    reseal(entry)
    before = pa.total_allocated_bytes()
    opened, wanted, said = open_both(path, tmp_path / "cache", Form("id", "t"))
    assert_same(opened, wanted)
    assert said[0].startswith(f"{entry} is damaged: ")
    assert "\n" not in said[0]
    assert pa.total_allocated_bytes() - before < 1 << 24


def test_who_has_a_table_open_keeps_it_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    """The file is shorter than what is mapped, and the cache has another entry in its place."""
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns(3000)), path)
    opened, wanted, _ = open_both(path, tmp_path / "cache", Form("id", "t"))
    path.write_text("id,t,x\na,1,1\n")
    assert opened[0].table.num_rows == 3000
    open_both(path, tmp_path / "cache", Form("id", "t"))
    assert_same(opened, wanted)
    shutil.rmtree(tmp_path / "cache")
    path.unlink()
    opened[0].release()
    assert_same(opened, wanted)


@posix
def test_an_entry_cut_in_its_place_ends_who_reads_it_and_is_made_anew(tmp_path: Path) -> None:
    """Nothing here does that. The system ends a process that reads where a file was cut."""
    path, cache = tmp_path / "t.csv", tmp_path / "cache"
    tables.write(pa.table(columns(3000)), path)
    code = """
import os, sys
from pathlib import Path
from peephole.data.cache import Cache
from peephole.data.opening import open_table
from peephole.data.reading import Form
cache = Cache(Path(sys.argv[2]), print, always=True)
source, _ = open_table(Path(sys.argv[1]), Form("id", "t"), check=lambda columns: None, cache=cache)
(file,) = cache.path.glob("*/rows.arrow")
os.truncate(file, 10)
print(source.table.column("x").to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", code, str(path), str(cache)], capture_output=True)
    assert done.returncode == -signal.SIGBUS
    opened, wanted, said = open_both(path, cache, Form("id", "t"))
    assert_same(opened, wanted)
    assert "is damaged: rows.arrow has 10 bytes, not " in said[0]
    assert said[0].endswith("; it is made anew")
