"""Blocks of a file together are the file, with the types that pyarrow finds in the whole of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peephole.data import blocks
from peephole.data.blocks import read_file
from peephole.errors import UserError

WORDS = [
    *("", "NA", "nan", "0", "1", "-7", "007", "0x1F", "9223372036854775808", "1.5", "1e3", "inf"),
    *("true", "False", "2020-01-01", "2020-01-01 10:00", "2020-01-01T10:00:00Z", "10:00:00"),
    *(
        "2020-01-01 10:00:00.5",
        "2020-01-01T10:00:00.5Z",
        "abc",
        '"a,b"',
        '"1"',
        '""',
        " 1",
        "größe",
    ),
]
# A few of the words for a while, then a few others: as in a file whose first part is no sample.
fields = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).flatmap(
    lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=12)
)
columns = st.lists(fields, min_size=1, max_size=4).map(
    lambda parts: [word for part in parts for word in part]
)

numbers = st.sampled_from([None, 0, 1, 2.5, -(2**63), 2**63, 1e300])
words = st.sampled_from([None, "", "a", "2020-01-01", "2020-01-01 10:00:00", "10:00"])
nested = st.recursive(
    numbers,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("pq"), inner),
    max_leaves=4,
)
values = st.sampled_from(
    [numbers, words, st.booleans() | st.none(), nested, st.lists(words, max_size=2)]
)


def keep(read: Iterator[pa.Table]) -> tuple[pa.Table, int]:
    parts = list(read)
    return pa.concat_tables(parts), len(parts)


def read(path: Path, size: int, text: tuple[str, ...] = ()) -> tuple[pa.Table, int]:
    """The file, and in how many blocks it came."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", size)
        return read_file(path, text, None, keep)


@given(st.lists(columns, min_size=1, max_size=3), st.sampled_from([90, 200, 1 << 20]))
def test_csv_as_it_is_read_at_once(
    tmp_path_factory: Any, columns: list[list[str]], size: int
) -> None:
    height = min(map(len, columns))
    rows = [",".join(column[k] for column in columns) + "\n" for k in range(height)]
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(",".join(f"c{k}" for k in range(len(columns))) + "\n" + "".join(rows))
    whole = pa.csv.read_csv(path)
    assume(whole.num_rows)
    for k, field in enumerate(whole.schema):
        if pa.types.is_string(field.type):
            present = pc.if_else(pc.equal(whole[k], ""), pa.scalar(None, pa.string()), whole[k])
            whole = whole.set_column(k, field.name, present)
    table, parts = read(path, size)
    assert table.schema == whole.schema
    assert str(table.to_pydict()) == str(whole.to_pydict())
    assert parts == 1 or size < 1 << 20


@given(st.data(), st.sampled_from([300, 700, 1 << 20]))
def test_json_lines_as_they_are_read_at_once(tmp_path_factory: Any, data: Any, size: int) -> None:
    kinds = data.draw(st.lists(values, min_size=1, max_size=3))
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries({}, optional={f"c{k}": kind for k, kind in enumerate(kinds)}),
            min_size=1,
            max_size=30,
        )
    )
    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        whole = pa.json.read_json(path)
    except pa.ArrowInvalid:
        with pytest.raises(UserError, match="cannot read"):
            read(path, size)
        return
    assume(whole.num_rows and whole.num_columns)
    table, _ = read(path, size)
    assert table.column_names == whole.column_names
    assert fields_of(table.schema) == fields_of(whole.schema)
    flat = [field.name for field in whole.schema if not pa.types.is_nested(field.type)]
    assert table.select(flat).to_pylist() == whole.select(flat).to_pylist()


def fields_of(schema: pa.Schema) -> dict[str, str]:
    """Names and types; the fields of nested ones come in any order from pyarrow itself."""
    return {field.name: "".join(sorted(str(field.type))) for field in schema}


def test_bytes_that_are_no_text_make_a_column_binary(tmp_path: Path) -> None:
    lines = [b"a,b\n", *[b"x,1\n"] * 50, b"\xff,2\n"]
    (tmp_path / "t.csv").write_bytes(b"".join(lines))
    table, parts = read(tmp_path / "t.csv", 60)
    assert parts > 1
    assert table.schema == pa.csv.read_csv(tmp_path / "t.csv").schema
    assert table.schema.types == [pa.binary(), pa.int64()]
    with pytest.raises(UserError, match="invalid UTF8"):
        read(tmp_path / "t.csv", 60, text=("a",))


def test_a_block_ends_where_a_line_does_whatever_ends_lines(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "t.csv").write_text("a\n" + end.join(map(str, range(100))), newline="")
        table, parts = read(tmp_path / "t.csv", 37)
        assert table["a"].to_pylist() == list(range(100))
        assert parts > 5


def test_parquet_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "PARQUET_ROWS", 30)
    table = pa.table({"a": range(100), "b": pa.array(list("xy") * 50).dictionary_encode()})
    pa.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=40)
    again, parts = read(tmp_path / "t.parquet", 1)
    assert again.to_pydict() == table.to_pydict()
    assert again.schema == table.schema
    assert parts > 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"a\n" + b"1\n" * 40 + b"x" * 200, "a line is longer than 50 bytes"),
        ("t.csv", b"a,b\n" + b"1,2\n" * 40 + b"3\n", "Expected 2 columns, got 1: 3"),
        ("t.jsonl", b'{"a": 1}\n' * 20 + b'{"a": "x"}\n', r"Column\(/a\) changed from number"),
        ("t.jsonl", b'{"a": true}\n' * 20 + b'{"a": 1}\n', r"Column\(/a\) changed from boolean"),
        ("t.jsonl", b'{"a": [1]}\n' * 20 + b'{"a": {"b": 1}}\n', r"Column\(/a\) changed from"),
        ("t.jsonl", b'{"a": 1}\n' * 20 + b'{"a": \n', "cannot read .*t.jsonl: JSON parse error"),
        ("t.jsonl", b'{"a": "\xff"}\n', "cannot read .*t.jsonl: .*UTF8"),
        ("t.jsonl", b"\n\n", "has no rows"),
    ],
)
def test_what_is_wrong_late_in_a_file(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name, 50)
    assert "\n" not in caught.value.message
