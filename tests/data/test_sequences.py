"""Rows to sequences."""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from peephole.data.sequences import group
from peephole.data.tables import Source
from peephole.errors import UserError


def source(**columns: Any) -> Source:
    return Source(pa.table(columns), "t.csv")


def test_rows_need_not_be_adjacent() -> None:
    grouping = group(source(id=["b", "a", "b", "c", "a"]), "id", None)
    assert grouping.ids.to_pylist() == ["b", "a", "c"]
    assert grouping.rows.tolist() == [0, 2, 1, 4, 3]
    assert grouping.offsets.tolist() == [0, 2, 4, 5]


def test_without_a_sequence_column_the_table_is_one_series() -> None:
    grouping = group(source(t=[3, 1, 2]), None, "t")
    assert grouping.ids is None
    assert grouping.rows.tolist() == [1, 2, 0]
    assert grouping.offsets.tolist() == [0, 3]


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
    grouping = group(source(id=[0, 0, 0, 0], order=values), "id", "order")
    assert grouping.rows.tolist() == [1, 3, 2, 0]


def test_against_python_on_a_random_table() -> None:
    generator = np.random.default_rng(0)
    ids, order = generator.integers(0, 40, 1000), generator.integers(0, 20, 1000)
    grouping = group(source(id=ids, order=order), "id", "order")
    first = list(dict.fromkeys(ids.tolist()))
    wanted = sorted(range(1000), key=lambda row: (first.index(ids[row]), order[row], row))
    assert grouping.rows.tolist() == wanted
    part = grouping.take(np.array([5, 2]))
    assert part.ids.to_pylist() == [first[5], first[2]]
    wanted = [first[k] for k in (5, 2) for _ in range((ids == first[k]).sum())]
    assert ids[part.rows].tolist() == wanted


def test_dictionaries_and_chunks() -> None:
    column = pa.chunked_array([["b", "a"], ["b"]]).dictionary_encode()
    assert group(source(id=column), "id", "id").rows.tolist() == [0, 2, 1]


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
        group(source(**columns), "id", "t")


def test_a_place_in_words() -> None:
    table = source(id=["a", "b", "b"], t=[0, 8, 7])
    assert group(table, "id", "t").place(table, 1) == "sequence 'b', step 7, row 3"
    assert group(table, None, None).place(table, 1) == "row 2"
