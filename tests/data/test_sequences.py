"""Rows to sequences."""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peephole.data import sequences
from peephole.data.sequences import Grouping, arrange
from peephole.data.tables import Source
from peephole.errors import UserError


def source(**columns: Any) -> Source:
    return Source(pa.table(columns), "t.csv")


def order_of(table: Source, sequence: str | None, order: str | None) -> list[int]:
    """The rows of a table in the order into which they are put."""
    arranged, grouping = arrange(table, sequence, order)
    rows = range(grouping.steps) if arranged.rows is None else arranged.rows.tolist()
    assert arranged.table.equals(table.table.take(list(rows)))
    return list(rows)


def test_rows_need_not_be_adjacent() -> None:
    table = source(id=["b", "a", "b", "c", "a"])
    assert order_of(table, "id", None) == [0, 2, 1, 4, 3]
    _, grouping = arrange(table, "id", None)
    assert grouping.ids.to_pylist() == ["b", "a", "c"]
    assert grouping.offsets.tolist() == [0, 2, 4, 5]


def test_without_a_sequence_column_the_table_is_one_series() -> None:
    assert order_of(source(t=[3, 1, 2]), None, "t") == [1, 2, 0]
    _, grouping = arrange(source(t=[3, 1, 2]), None, "t")
    assert grouping.ids is None
    assert grouping.offsets.tolist() == [0, 3]


def test_rows_that_are_in_order_are_left_where_they_are() -> None:
    table = source(id=["b", "b", "a"], t=[1, 1, 0])
    assert arrange(table, "id", "t")[0] is table
    assert arrange(source(id=["b", "b", "a"], t=[1, 0, 0]), "id", "t")[0].rows.tolist() == [1, 0, 2]


DAY = dt.date(2020, 1, 1)


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2, 1],
        [0.3, -1.0, 0.2, -1.0],
        ["c", "a", "b", "a"],
        [DAY + dt.timedelta(k) for k in (3, 1, 2, 1)],
        [dt.datetime(2020, 1, k, tzinfo=dt.UTC) for k in (3, 1, 2, 1)],
        [dt.time(k) for k in (3, 1, 2, 1)],
        [dt.timedelta(k) for k in (3, 1, 2, 1)],
    ],
    ids=lambda values: type(values[0]).__name__,
)
def test_an_order_sorts_and_ties_keep_the_files_order(values: list[Any]) -> None:
    assert order_of(source(id=[0, 0, 0, 0], order=values), "id", "order") == [1, 3, 2, 0]


def test_against_python_on_a_random_table() -> None:
    generator = np.random.default_rng(0)
    ids, order = generator.integers(0, 40, 1000), generator.integers(0, 20, 1000)
    table = source(id=ids, order=order)
    first = list(dict.fromkeys(ids.tolist()))
    wanted = sorted(range(1000), key=lambda row: (first.index(ids[row]), order[row], row))
    assert order_of(table, "id", "order") == wanted
    arranged, grouping = arrange(table, "id", "order")
    assert arranged.row(5) == f"row {wanted[5] + 1}"
    assert arranged.first(np.array([3, 9, 700])) == min([3, 9, 700], key=lambda k: wanted[k])
    chosen = np.isin(np.arange(len(first)), [5, 2])
    part = grouping.take(chosen)
    assert part.ids.to_pylist() == [first[2], first[5]]
    wanted = [first[k] for k in (2, 5) for _ in range((ids == first[k]).sum())]
    assert arranged.table["id"].take(pa.array(part.rows())).to_pylist() == wanted


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=9), st.data(), st.integers(1, 9), st.booleans()
)
def test_pieces_are_the_whole(lengths: list[int], data: Any, size: int, beyond: bool) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    x = np.arange(offsets[-1])
    table = source(x=x)
    chosen = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    )
    grouping = Grouping(offsets, offsets[:-1], None, None).take(chosen)
    sequence = np.arange(chosen.sum()).repeat(np.array(lengths)[chosen])
    rows = x[chosen.repeat(lengths)]
    assert grouping.sequence().tolist() == sequence.tolist()
    assert grouping.rows().tolist() == rows.tolist()
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "PIECE", size)
        for begin, end, columns in grouping.pieces(table, ["x"], beyond=2 * beyond):
            parts += columns["x"][: end - begin].to_pylist()
            assert columns["x"].to_pylist() == rows[begin : end + 2 * beyond].tolist()
            assert grouping.sequence(begin, end).tolist() == sequence[begin:end].tolist()
            begins = grouping.begins(begin, end)
            assert np.flatnonzero(begins).tolist() == [
                k - begin for k in grouping.offsets[:-1] if begin <= k < end
            ]
    assert parts == rows.tolist()


def test_dictionaries_and_chunks() -> None:
    column = pa.chunked_array([["b", "a"], ["b"]]).dictionary_encode()
    assert order_of(source(id=column), "id", "id") == [0, 2, 1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1, None], "t": [1, 2]}, "'id' in t.csv has 1 missing value, the first in row 2"),
        ({"id": [1, 1], "t": [1.0, np.nan]}, "'t' in t.csv has 1 missing value, .* row 2"),
        ({"id": [1, 1], "t": [[1], [2]]}, "'t' in t.csv holds list"),
        ({"id": [1, 1], "t": [b"x", b"y"]}, "'t' in t.csv holds binary, which has no order"),
        ({"ids": [1], "t": [1]}, "no column 'id' in t.csv; did you mean 'ids'"),
    ],
)
def test_columns_that_cannot_group(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        arrange(source(**columns), "id", "t")


def test_a_place_in_words() -> None:
    table, grouping = arrange(source(id=["a", "b", "b"], t=[0, 8, 7]), "id", "t")
    assert grouping.place(table, 1) == "sequence 'b', step 7, row 3"
    assert grouping.take(np.array([False, True])).place(table, 1) == "sequence 'b', step 8, row 2"
    table, grouping = arrange(source(t=[1, 2, 3]), None, None)
    assert grouping.place(table, 1) == "row 2"
