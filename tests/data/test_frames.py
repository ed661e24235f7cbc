"""Tables from Python: Arrow, pandas, polars, Hugging Face datasets, lists of tensors."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from peephole.data import convert, opening
from peephole.data.cache import Cache
from peephole.data.frames import frame, from_tensors, name_of
from peephole.data.opening import open_table
from peephole.data.reading import Form
from peephole.data.sequences import Grouping
from peephole.data.tables import Source
from peephole.errors import UserError

N = 60
generator = np.random.default_rng(0)
COLUMNS: dict[str, list[Any]] = {
    "id": generator.integers(0, 7, N).tolist(),
    "t": generator.permutation(N).tolist(),
    "x": [None if k % 9 == 0 else k / 4 for k in range(N)],
    "word": [None if k % 7 == 0 else f"w{k % 3}" for k in range(N)],
    "kind": [f"größe{k % 2}" for k in range(N)],
    "flag": [k % 3 == 0 for k in range(N)],
}
SORTED = sorted(range(N), key=lambda k: (COLUMNS["id"].index(COLUMNS["id"][k]), COLUMNS["t"][k]))


def arrow() -> Any:
    table = pa.table(COLUMNS)
    return table.set_column(4, "kind", table["kind"].dictionary_encode())


def pandas() -> Any:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS, index=range(5, N + 5))
    return frame.assign(kind=frame["kind"].astype("category"))


def polars() -> Any:
    polars = pytest.importorskip("polars")
    return polars.DataFrame(COLUMNS).with_columns(polars.col("kind").cast(polars.Categorical))


def dataset() -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(COLUMNS)


def shuffled_dataset() -> Any:
    """With indices: the first rows are others, some come twice, and those are left out here."""
    made = dataset()
    backwards = made.select(list(range(N))[::-1])
    assert backwards._indices is not None
    return backwards.select([*range(N - 1, -1, -1)])


EVERY = [arrow, pandas, polars, dataset, shuffled_dataset]


def open_(given: Any, cache: Cache | None = None, **form: Any) -> tuple[Source, Grouping]:
    shape = Form(**{"sequence": "id", "order": "t"} | form)
    return open_table(given, shape, check=lambda columns: None, cache=cache)


def assert_right(source: Source, grouping: Grouping) -> None:
    for name, values in COLUMNS.items():
        column = source.table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        assert column.to_pylist() == [values[k] for k in SORTED]
    assert grouping.ids.to_pylist() == list(dict.fromkeys(COLUMNS["id"]))
    assert source.row(7) == f"row {SORTED[7] + 1}"


@pytest.mark.parametrize("make", EVERY)
def test_every_kind_of_table(make: Callable[[], Any], tmp_path: Path) -> None:
    assert_right(*open_(make()))
    source, grouping = open_(make(), Cache(tmp_path / "unused", pytest.fail))
    assert_right(source, grouping)
    assert not (tmp_path / "unused").exists()
    said: list[str] = []
    kept = Cache(tmp_path / "cache", said.append, always=True)
    for _ in range(2):
        cached, grouping = open_(make(), kept)
        assert_right(cached, grouping)
        assert cached.pages is not None
        assert cached.fingerprint == source.fingerprint
    (entry,) = kept.path.glob("rows-*")
    assert said == [f"{name_of(make())} is put in order once, into {entry}"]


@pytest.mark.parametrize("make", EVERY)
def test_a_large_table_goes_to_the_cache_to_be_put_in_order(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "IN_MEMORY", 100)
    monkeypatch.setattr(convert, "BUCKET_BYTES", 500)
    monkeypatch.setattr("peephole.data.frames.PIECE", 13)
    said: list[str] = []
    source, grouping = open_(make(), Cache(tmp_path / "cache", said.append))
    assert_right(source, grouping)
    assert source.pages is not None
    assert len(said) == 1


def test_a_table_in_order_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "IN_MEMORY", 100)
    table = pa.table(COLUMNS)
    source, _ = open_(table, Cache(tmp_path / "cache", pytest.fail), sequence=None, order=None)
    whole = source.table.column("t").chunk(0).buffers()[1]
    assert whole.address == table.column("t").chunk(0).buffers()[1].address


def test_a_dataset_on_the_disk_stays_there(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset().save_to_disk(tmp_path / "kept")
    loaded = datasets.load_from_disk(tmp_path / "kept")
    before = pa.total_allocated_bytes()
    made = frame(loaded, None)
    assert made.table.column_names == list(COLUMNS)
    assert pa.total_allocated_bytes() == before
    assert_right(*open_(loaded))
    part = loaded.select([3, 3, 1])
    table = frame(part, None).whole()
    assert table.column("t").to_pylist() == [COLUMNS["t"][k] for k in (3, 3, 1)]


@pytest.mark.parametrize("make", [arrow, polars, dataset])
def test_a_fingerprint_follows_from_the_contents(make: Callable[[], Any]) -> None:
    table = pa.table(COLUMNS)
    chunks = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    print_ = frame(table, None).fingerprint()
    assert frame(chunks, None).fingerprint() == print_
    if make is dataset:
        assert frame(make(), None).fingerprint() == print_
    changed = table.set_column(2, "x", pa.array([1.0, *COLUMNS["x"][1:]]))
    assert frame(changed, None).fingerprint() != print_
    assert frame(table.rename_columns([*"abcdef"]), None).fingerprint() != print_
    words = pa.table({"w": pa.array(["a", "b"]).dictionary_encode()})
    others = pa.table({"w": pa.array(["a", "c"]).dictionary_encode()})
    assert frame(words, None).fingerprint() != frame(others, None).fingerprint()


def test_a_named_index_of_pandas_is_a_column() -> None:
    pandas = pytest.importorskip("pandas")
    made = pandas.DataFrame({"x": [1.5, 2]}, index=pandas.Index([7, 3], name="minute"))
    source, _ = open_(made, sequence=None, order="minute")
    assert source.table.to_pydict() == {"x": [2, 1.5], "minute": [3, 7]}
    unnamed = pandas.DataFrame({"x": [1.5, 2]}, index=[7, 3])
    assert frame(unnamed, None).gathered.schema.names == ["x"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "the int is no table; give a path, an Arrow table, a pandas or polars frame"),
        (COLUMNS, "the dict is no table"),
        (pa.table({"a": []}), "the Table has no rows"),
        (pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"]), "the Table has several .* 'a'"),
        (pa.table({"id": [1], "s": [2]}), "no column 't' in the Table; it has: 'id', 's'"),
        (pa.table({"id": [None, 1], "t": [2, 3]}), "'id' in the Table has 1 missing .* row 1"),
    ],
)
def test_what_is_no_table(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_(given)


def test_a_frame_that_arrow_cannot_hold() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(UserError, match="cannot read the DataFrame: "):
        frame(pandas.DataFrame({"x": [object(), 1]}), "valid")


LENGTHS = [3, 1, 2]


def test_tensors_with_a_target_each() -> None:
    tensors = [torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in LENGTHS]
    for targets in (["a", "b", "a"], [1, 0, 1], torch.tensor([0.5, 1, 2]), np.array([True] * 3)):
        table = from_tensors(tensors, targets)
        assert table.column_names == ["sequence", "x1", "x2", "target"]
        assert table["sequence"].to_pylist() == [0, 0, 0, 1, 2, 2]
        values = torch.cat(tensors).detach().numpy()
        assert np.array_equal(np.stack([table["x1"], table["x2"]], 1), values)
        wanted = [targets[b] for b, n in enumerate(LENGTHS) for _ in range(n)]
        assert table["target"].to_pylist() == wanted


def test_tensors_with_a_target_a_step() -> None:
    tensors = [torch.randn(n) for n in LENGTHS]
    targets = [torch.arange(n) for n in LENGTHS]
    table = from_tensors(tensors, targets, features=["x"], target="y", sequence="id")
    assert table.column_names == ["id", "x", "y"]
    assert table["y"].to_pylist() == [0, 1, 2, 0, 0, 1]
    assert table["x"].type == pa.float32()
    same = from_tensors(torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64))
    assert same.num_rows == 6
    halves = from_tensors([torch.ones(2, 1, dtype=torch.bfloat16)], [1])
    assert halves["x1"].type == pa.float32()


@pytest.mark.parametrize(
    ("sequences", "targets", "more", "message"),
    [
        ([], [], {}, "there are no sequences"),
        ([torch.ones(2, 3), torch.ones(2, 4)], [1, 2], {}, r"sequences\[1\] is \[2, 4\]; it must"),
        ([torch.ones(2, 3), torch.ones(0, 3)], [1, 2], {}, r"sequences\[1\] is \[0, 3\]; it must"),
        ([torch.ones(2, 3, 1)], [1], {}, r"sequences\[0\] is float32 \[2, 3, 1\]; it must be"),
        ([np.array(["a"])], [1], {}, r"sequences\[0\] is <U1 \[1\]; it must be numbers"),
        ([torch.ones(2, 3)], [1, 2], {}, "2 targets for 1 sequences"),
        ([torch.ones(2, 3)], [[1, 2, 3]], {}, r"targets\[0\] is \[3\]; it must be \[2\]"),
        ([torch.ones(2, 3)], [1], {"features": ["a"]}, "1 names for 3 features"),
        ([torch.ones(2, 2)], [1], {"features": ["a", "a"]}, "two columns are called 'a'"),
        ([torch.ones(2, 1)], [1], {"target": "x1"}, "two columns are called 'x1'"),
    ],
)
def test_tensors_that_do_not_fit(
    sequences: Any, targets: Any, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        from_tensors(sequences, targets, **more)


def test_none_of_the_libraries_is_imported() -> None:
    code = (
        "import sys, peephole.data.opening\n"
        "print({'pandas', 'polars', 'datasets', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
