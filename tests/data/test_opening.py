"""Tables by way of the cache are the tables in memory, whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from peephole.data import blocks, convert, fingerprint, opening, tables
from peephole.data.cache import Cache
from peephole.data.opening import open_table
from peephole.data.reading import Form
from peephole.data.sequences import Grouping
from peephole.data.tables import Source
from peephole.errors import UserError

Opened = tuple[Source, Grouping]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, batches and buckets, as large files have."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 500)
    monkeypatch.setattr(blocks, "PARQUET_ROWS", 11)
    monkeypatch.setattr(convert, "BATCH_ROWS", 7)
    monkeypatch.setattr(convert, "BUCKET_BYTES", 2000)


def columns(rows: int = 200, shuffled: bool = True) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    ids = np.sort(generator.integers(0, 30, rows))
    order = np.concatenate([np.arange((ids == k).sum()) for k in np.unique(ids)])
    rank = generator.permutation(rows) if shuffled else np.arange(rows)
    x = np.where(np.arange(rows) == rows - 1, 0.5, np.arange(rows))
    words = generator.choice(["p", "", "größer", "x y"], rows)
    return {
        "id": [f"s{k}" for k in ids[rank]],
        "t": order[rank].tolist(),
        "x": x[rank].tolist(),
        "n": [None if k % 7 == 0 else k for k in range(rows)],
        "word": [word or None for word in words],
        "nothing": pa.nulls(rows, pa.string()),
    }


def open_both(path: Path, cache: Path, form: Form) -> tuple[Opened, Opened, list[str]]:
    said: list[str] = []
    kept = Cache(cache, said.append, always=True)
    opened = open_table(path, form, check=lambda columns: None, cache=kept)
    return opened, open_table(path, form, check=lambda columns: None), said


def assert_same(opened: Opened, wanted: Opened) -> None:
    (source, grouping), (other, groups) = opened, wanted
    assert source.name == other.name
    assert source.table.schema.names == other.table.schema.names
    for name in source.table.schema.names:
        if not pa.types.is_nested(other.table.schema.field(name).type):
            assert source.table.column(name).to_pylist() == other.table.column(name).to_pylist()
    assert grouping.offsets.tolist() == groups.offsets.tolist()
    assert grouping.starts.tolist() == groups.starts.tolist()
    assert (grouping.ids is None) == (groups.ids is None)
    if grouping.ids is not None:
        assert grouping.ids.to_pylist() == groups.ids.to_pylist()
    for step in range(0, grouping.steps, 17):
        assert grouping.place(source, step) == groups.place(other, step)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    "form", [Form("id", "t"), Form("id", None), Form(None, "t"), Form(None, None), Form("n", "id")]
)
def test_a_file(tmp_path: Path, suffix: str, shuffled: bool, form: Form) -> None:
    path = tmp_path / f"t{suffix}"
    table = columns(shuffled=shuffled)
    if form.sequence == "n":
        table["n"] = [k % 13 for k in range(200)]
    tables.write(pa.table(table), path)
    opened, wanted, said = open_both(path, tmp_path / "cache", form)
    assert_same(opened, wanted)
    assert opened[0].table.column("x").num_chunks > 3
    (entry,) = (tmp_path / "cache").glob("rows-*")
    assert said == [f"{path} is converted once, into {entry}"]
    files = {file.name for file in entry.iterdir()}
    assert files - {"ids.arrow", "origins.npy"} == {"index.json", "offsets.npy", "rows.arrow"}
    assert ("origins.npy" in files) == (wanted[0].rows is not None)
    # It is an Arrow file for anybody.
    with pa.memory_map(str(entry / "rows.arrow")) as file:
        assert pa.ipc.open_file(file).read_all().num_rows == 200
    again, _, said = open_both(path, tmp_path / "cache", form)
    assert_same(again, wanted)
    assert said == []
    assert again[0].fingerprint == opened[0].fingerprint


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("form", [Form("sequence", None), Form("sequence", "t"), Form(None, None)])
def test_a_folder(tmp_path: Path, form: Form) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    table = pa.table(columns())
    for k in range(12):
        part = table.slice(k * 10, 10).select(
            ["t", "x", "word", "n"] if k % 2 else ["n", "word", "x", "t"]
        )
        if k == 3:
            part = part.set_column(3, "n", pa.array([f"w{j}" for j in range(10)]))
        tables.write(part, folder / f"m{k}.csv")
    opened, wanted, _ = open_both(folder, tmp_path / "cache", form)
    assert_same(opened, wanted)
    assert opened[0].row(115).endswith(".csv")
    assert opened[0].table.column("n").type == pa.string()


@pytest.mark.usefixtures("small")
def test_columns_of_every_kind(tmp_path: Path) -> None:
    """Nested ones are empty: nothing reads them, and pyarrow's own may not be valid."""
    table = pa.table(
        {
            "id": pa.array(["b", "a"] * 20).dictionary_encode(),
            "list": [[k] for k in range(40)],
            "struct": [{"a": k} for k in range(40)],
            "when": pa.array(range(40), pa.timestamp("us", "UTC")),
            "word": pa.array(["x", None] * 20, pa.large_string()),
            "bytes": [b"x"] * 40,
            "flag": [True, None] * 20,
        }
    )
    pa.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=9)
    (opened, _), (wanted, _), _ = open_both(
        tmp_path / "t.parquet", tmp_path / "c", Form("id", None)
    )
    assert opened.table.column("list").null_count == 40
    for name in set(table.column_names) - {"list", "struct"}:
        assert opened.table.column(name).to_pylist() == wanted.table.column(name).to_pylist()
    for name in set(table.column_names) - {"id"}:
        assert opened.table.schema.field(name).type == wanted.table.schema.field(name).type


def test_small_files_need_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.write(pa.table(columns()), tmp_path / "t.csv")
    said: list[str] = []
    cache = Cache(tmp_path / "cache", said.append)
    source, _ = open_table(tmp_path / "t.csv", Form("id", "t"), check=lambda c: None, cache=cache)
    assert source.pages is None
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(opening, "IN_MEMORY", 100)
    large, _ = open_table(tmp_path / "t.csv", Form("id", "t"), check=lambda c: None, cache=cache)
    assert large.pages is not None
    assert large.fingerprint == source.fingerprint
    assert len(said) == 1


def test_parquet_is_as_large_as_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": [1] * 10_000, "x": [0.5] * 10_000})
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 5000
    monkeypatch.setattr(opening, "IN_MEMORY", 100_000)
    cache = Cache(tmp_path / "cache", lambda line: None)
    source, _ = open_table(
        tmp_path / "t.parquet", Form("id", None), check=lambda c: None, cache=cache
    )
    assert source.pages is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.write_text(p.read_text().replace("p", "q")), "t.csv has changed since"),
        (lambda p: p.write_text(p.read_text() + "s0,0,1,1,p,\n"), "t.csv has changed since"),
        (lambda p: os.utime(p, (1, 1)), None),
        (
            lambda p: shutil.copy(p, p.with_suffix(".new")) and p.with_suffix(".new").replace(p),
            None,
        ),
    ],
)
def test_a_cache_of_a_file_that_changed_is_made_anew(
    tmp_path: Path, change: Callable[[Path], object], message: str | None
) -> None:
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns()), path)
    form = Form("id", "t")
    (before, _), _, _ = open_both(path, tmp_path / "cache", form)
    change(path)
    opened, wanted, said = open_both(path, tmp_path / "cache", form)
    assert_same(opened, wanted)
    if message is None:
        assert said == []
        assert opened[0].fingerprint == before.fingerprint
    else:
        assert message in said[0]
        assert said[0].endswith("; it is made anew")
        assert len(said) == 2
        assert opened[0].fingerprint != before.fingerprint
    # Who had it open still has it.
    assert before.table.column("word").null_count > 0
    assert len(list((tmp_path / "cache").glob("rows-*"))) == 1


def test_other_ways_to_read_a_file_are_other_entries(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns()), path)
    forms = [Form("id", "t"), Form("id", None), Form("id", "t", ("x",)), Form(None, "t")]
    prints = set()
    for form in forms:
        opened, wanted, _ = open_both(path, tmp_path / "cache", form)
        assert_same(opened, wanted)
        prints.add(opened[0].fingerprint)
    assert len(prints) == len(list((tmp_path / "cache").glob("rows-*"))) == len(forms)


def test_an_entry_made_from_another_file_is_not_used(tmp_path: Path) -> None:
    for name in "ab":
        tables.write(pa.table(columns() | {"x": [ord(name)] * 200}), tmp_path / f"{name}.csv")
        open_both(tmp_path / f"{name}.csv", tmp_path / name, Form("id", "t"))
    (own,), (other,) = (list((tmp_path / name).glob("rows-*")) for name in "ab")
    shutil.rmtree(own)
    shutil.copytree(other, own)
    opened, wanted, said = open_both(tmp_path / "a.csv", tmp_path / "a", Form("id", "t"))
    assert_same(opened, wanted)
    assert f"{own} was made from {tmp_path / 'b.csv'}, not from {tmp_path / 'a.csv'}" in said[0]


@pytest.mark.parametrize("name", ["rows.arrow", "offsets.npy", "ids.arrow", "origins.npy"])
@pytest.mark.parametrize("how", ["flip", "cut", "lose", "swap"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, name: str, how: str) -> None:
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns()), path)
    open_both(path, tmp_path / "cache", Form("id", "t"))
    (entry,) = (tmp_path / "cache").glob("rows-*")
    file, data = entry / name, bytearray((entry / name).read_bytes())
    data[len(data) // 2] ^= 16
    match how:
        case "flip":
            file.write_bytes(data)
        case "cut":
            os.truncate(file, len(data) // 2)
        case "lose":
            file.unlink()
        case "swap":
            shutil.copy(entry / "index.json", file)
    opened, wanted, said = open_both(path, tmp_path / "cache", Form("id", "t"))
    assert_same(opened, wanted)
    assert said[0].startswith(f"{entry} is damaged: ")
    assert "\n" not in said[0]


def reseal(entry: Path) -> None:
    """Make the digests right again, as who means harm would."""
    from peephole.data import cache

    about = json.loads((entry / "index.json").read_text())["about"]
    (entry / "index.json").unlink()
    cache._write_index(entry, about)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("offsets.npy", np.array([0, 300, 200])),
        ("offsets.npy", np.array([0, 10**12])),
        ("offsets.npy", np.zeros(0, dtype=np.int64)),
        ("offsets.npy", np.array([0.0, 200.0])),
        ("origins.npy", np.arange(3)),
        ("origins.npy", np.array([{"a": 1}], dtype=object)),
    ],
    ids=str,
)
def test_a_strangers_entry_is_checked(tmp_path: Path, name: str, array: Any) -> None:
    """Its digests may be right."""
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns()), path)
    open_both(path, tmp_path / "cache", Form("id", "t"))
    (entry,) = (tmp_path / "cache").glob("rows-*")
    np.save(entry / name, array, allow_pickle=True)
    reseal(entry)
    opened, wanted, said = open_both(path, tmp_path / "cache", Form("id", "t"))
    assert_same(opened, wanted)
    assert said[0].startswith(f"{entry} is damaged: ")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ["a"] * 199 + [None]}, "'id' in .* has 1 missing value, the first in row 200"),
        ({"t": [*range(198), None, None]}, "'t' in .* has 2 missing values, .* row 199"),
        ({"id": None}, "no column 'id' in .*t.csv; it has: 't', 'x', 'n', 'word', 'nothing'"),
        ({"t": None}, "no column 't' in .*t.csv; it has: 'id', 'x'"),
    ],
)
def test_a_file_that_cannot_be_grouped_leaves_nothing(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    table = {k: v for k, v in (columns() | change).items() if v is not None}
    tables.write(pa.table(table), tmp_path / "t.csv")
    for always in (False, True):
        cache = Cache(tmp_path / "cache", lambda line: None, always=always)
        with pytest.raises(UserError, match=message):
            open_table(tmp_path / "t.csv", Form("id", "t"), check=lambda c: None, cache=cache)
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_columns_are_checked_before_all_of_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20)
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 20 + "no csv\n")

    def check(columns: Source) -> None:
        columns.need("target", "target")

    cache = Cache(tmp_path / "cache", lambda line: None, always=True)
    with pytest.raises(UserError, match=r"no column 'target' in .*t.csv; it has: 'a', 'b'"):
        open_table(tmp_path / "t.csv", Form(None, None), check=check, cache=cache)
    folder = tmp_path / "files"
    folder.mkdir()
    shutil.copy(tmp_path / "t.csv", folder / "t.csv")
    with pytest.raises(UserError, match=r"no column 'target' in .*; it has: .*'sequence'"):
        open_table(folder, Form("sequence", None), check=check, cache=cache)
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n' * 20 + '{"target": 1}\n')
    open_table(tmp_path / "t.jsonl", Form(None, None), check=check, cache=cache)


@pytest.mark.parametrize("always", [False, True])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns()), path)
    parse = blocks._Csv.blocks

    def meddle(form: Any, file: Path) -> Iterator[pa.Table]:
        yield from parse(form, file)
        path.write_text(path.read_text().replace("p", "q"))

    monkeypatch.setattr(blocks._Csv, "blocks", meddle)
    cache = Cache(tmp_path / "cache", lambda line: None, always=always)
    with pytest.raises(UserError, match=r"t.csv has changed while it was read; start again") as e:
        open_table(path, Form("id", "t"), option="valid", check=lambda c: None, cache=cache)
    assert e.value.option == "valid"
    if always:
        assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


# What a process does here that a person might interrupt. It has no torch and no checks of shapes.
PROCESS = """
import os, resource, signal, sys
from pathlib import Path
from peephole.data import convert
from peephole.data.cache import Cache
from peephole.data.opening import open_table
from peephole.data.reading import Form
from peephole.errors import UserError

path, cache, instant, size = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
convert.BATCH_ROWS, convert.BUCKET_BYTES = 7, 2000
events = 0

def count(event, arguments):
    global events
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "mmap.__new__"):
        events += 1
        if events == instant:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
if size:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    cache = Cache(cache, print, always=True)
    open_table(path, Form("id", "t"), check=lambda columns: None, cache=cache)
except UserError as error:
    print("error", error.option, error.message)
print("events", events)
"""
posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")


def run(path: Path, cache: Path, *, instant: int = 0, size: int = 0) -> tuple[int, list[str]]:
    """The exit status and the lines of a process that opens a table.

    Args:
        path: the table.
        cache: the folder.
        instant: how many things it does to files before it is killed; 0 not to kill it.
        size: of the largest file that it may write, as on a disk that is full; 0 for any.
    """
    words = [sys.executable, "-c", PROCESS, str(path), str(cache), str(instant), str(size)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


@posix
@pytest.mark.slow
def test_killed_at_any_instant_it_leaves_no_half_entry(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    tables.write(pa.table(columns()), path)
    # The first may compile modules too.
    lines = [run(path, tmp_path / name)[1] for name in ("first", "second")]
    events = int(lines[1][-1].split()[1])
    assert events > 50
    left = 0
    for instant in np.linspace(1, events - 3, 10).astype(int).tolist():
        cache = tmp_path / f"cache{instant}"
        status, _ = run(path, cache, instant=instant)
        assert status == -signal.SIGKILL
        left += len(unfinished(cache))
        opened, wanted, said = open_both(path, cache, Form("id", "t"))
        assert_same(opened, wanted)
        assert not [line for line in said if "damaged" in line]
        assert not unfinished(cache)
    assert left


def unfinished(cache: Path) -> list[Path]:
    return [path for path in cache.glob(".*") if path.is_dir()]


@posix
@pytest.mark.parametrize("size", [1, 2000, 12_000])
def test_a_full_disk_is_one_line_and_leaves_what_there_was(tmp_path: Path, size: int) -> None:
    path, cache = tmp_path / "t.csv", tmp_path / "cache"
    tables.write(pa.table(columns(500)), path)
    status, lines = run(path, cache, size=size)
    assert status == 0
    errors = [line for line in lines if line.startswith("error")]
    assert errors == [
        f"error cache cannot write to the cache {cache}: File too large; name another folder"
    ]
    assert not [p for p in cache.iterdir() if p.is_dir()]
    opened, wanted, _ = open_both(path, cache, Form("id", "t"))
    assert_same(opened, wanted)


def test_fingerprints_are_checked_against_changes_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for k in range(3):
        (folder / f"m{k}.csv").write_text("t,x\n1,2\n2,3\n")
    form = Form("sequence", "t")
    open_both(folder, tmp_path / "cache", form)
    (folder / "m7.csv").write_text("t,x\n1,2\n")
    opened, wanted, said = open_both(folder, tmp_path / "cache", form)
    assert_same(opened, wanted)
    assert "m7.csv is new since" in said[0]
    assert len(fingerprint.marks(folder)) == 4
