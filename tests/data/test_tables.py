"""Files to tables."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from peephole.data import blocks, tables
from peephole.errors import UserError

ROWS = {"id": ["a", "a", "b"], "x": [1.5, None, -2.0], "n": [1, 2, 3]}


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    table = pa.table(ROWS)
    tables.write(table, tmp_path / f"t{suffix}")
    assert tables.read(tmp_path / f"t{suffix}").table.to_pydict() == ROWS


def test_a_column_that_turns_to_fractions_or_text_late(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    numbers = [*range(100), 0.5]
    words = [*range(100), "late"]
    lines = [f"{n},{w}" for n, w in zip(numbers, words, strict=True)]
    (tmp_path / "t.csv").write_text("n,w\n" + "\n".join(lines))
    table = tables.read(tmp_path / "t.csv").table
    assert table["n"].to_pylist() == numbers
    assert table["w"].to_pylist() == [str(word) for word in words]
    objects = [json.dumps({"n": n}) for n in numbers]
    (tmp_path / "t.jsonl").write_text("\n".join(objects))
    assert tables.read(tmp_path / "t.jsonl").table["n"].to_pylist() == numbers


def test_na_is_missing_among_numbers_and_a_word_among_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "x,country,y\n1,NA,2020-01-01\nNA,DE,\n,,2020-01-03\nnan,FR,NA\n"
    )
    table = tables.read(tmp_path / "t.csv").table
    assert table["x"].to_pylist() == [1, None, None, None]
    assert table["country"].to_pylist() == ["NA", "DE", None, "FR"]
    assert table["y"].null_count == 2


def test_a_column_read_as_text_on_demand(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("code\n007\n8\n")
    assert tables.read(tmp_path / "t.csv").table["code"].to_pylist() == [7, 8]
    table = tables.read(tmp_path / "t.csv", text=["code", "not there"]).table
    assert table["code"].to_pylist() == ["007", "8"]


def test_a_folder_holds_one_sequence_a_file_in_natural_order(tmp_path: Path) -> None:
    for name, x in (("b10", "1"), ("b2", "0.5"), ("a", "2\n3")):
        (tmp_path / f"{name}.csv").write_text(f"x\n{x}\n")
    source = tables.read(tmp_path)
    assert source.table.to_pydict() == {"sequence": ["a", "a", "b2", "b10"], "x": [2, 3, 0.5, 1]}
    assert source.row(1) == "row 2 of a.csv"
    assert source.row(3) == "row 1 of b10.csv"
    assert tables.read(tmp_path, sequence="who").table.column_names == ["who", "x"]


def test_a_column_of_a_folder_that_is_text_in_one_file_is_text_in_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("code\n007\n")
    (tmp_path / "b.csv").write_text("code\nx1\n")
    assert tables.read(tmp_path).table["code"].to_pylist() == ["007", "x1"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"x", "ends in '.xlsx'.*\\.csv, .*\\.parquet"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,b\n", "has no rows"),
        ("t.csv", b"a,b,a\n1,2,3\n", "several columns called 'a'"),
        ("t.csv", b"a,b\n1,2\n3\n", "cannot read .*t.csv: .*Expected 2 columns, got 1"),
        ("t.parquet", b"not a table at all", "cannot read .*t.parquet"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "cannot read .*t.jsonl"),
        ("t.json", b'[{"a": 1}]', "cannot read .*t.json"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        tables.read(tmp_path / name, option="valid")
    assert caught.value.option == "valid"
    assert "\n" not in str(caught.value)


def test_a_missing_file_with_its_nearest_match(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"no file .*trian.csv; did you mean '.*/train.csv'\?"):
        tables.read(tmp_path / "trian.csv")


def test_a_missing_column_with_its_nearest_match(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,x\n1,2\n")
    source = tables.read(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"no column 'labl' in .*did you mean 'label'\? It has"):
        source.need("labl", "target")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no files"),
        ({"a.csv": "x\n1\n", "notes.txt": "hello"}, "holds 'notes.txt'"),
        ({"a.csv": "x\n1\n", "b.csv": "y\n1\n"}, "same columns, but .*b.csv has 'y'"),
        ({"a.csv": "x\n1\n", "b.csv": "x\n"}, "b.csv has no rows"),
        ({"a.csv": "x\n1\n", "a.tsv": "x\n1\n"}, "two files for the sequence 'a'"),
        ({"a.csv": "sequence\n1\n"}, "have a column 'sequence'"),
    ],
)
def test_a_folder_that_is_no_table(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        tables.read(tmp_path)


def test_nowhere_to_write(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "t.txt", "ends in '.txt'"),
        (tmp_path / "no" / "t.csv", "no folder"),
    ):
        with pytest.raises(UserError, match=message):
            tables.check_writable(path)
