"""Which rows of a table make up which sequence, and in what order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peephole.data.tables import Source
from peephole.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Grouping:
    """B sequences out of N rows.

    Attributes:
        rows: ``[N]``, the row of the table at each step, the sequences one after the other.
        offsets: ``[B + 1]``, where each sequence begins in ``rows``; none is empty.
        ids: the sequences' ids ``[B]``; None for a table that is one series.
        order: the order column's values, ``[N]`` in the order of the table; None without one.
    """

    rows: Array
    offsets: Array
    ids: pa.Array | None
    order: pa.Array | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Array:
        return np.diff(self.offsets)

    def sequence(self) -> Array:
        """The sequence ``[N]`` that each step belongs to, from 0."""
        return np.arange(len(self)).repeat(self.lengths)

    def take(self, sequences: Array) -> "Grouping":
        """Some of the sequences, by number, in that order."""
        lengths = self.lengths[sequences]
        offsets = np.concatenate([[0], lengths.cumsum()])
        shift = (self.offsets[:-1][sequences] - offsets[:-1]).repeat(lengths)
        rows = self.rows[np.arange(offsets[-1]) + shift]
        ids = None if self.ids is None else self.ids.take(pa.array(sequences))
        return Grouping(rows, offsets, ids, self.order)

    def place(self, source: Source, step: int) -> str:
        """Where a step (its place in ``rows``) stands, in words: sequence, step, row."""
        parts = []
        if self.ids is not None:
            b = int(np.searchsorted(self.offsets, step, side="right")) - 1
            parts.append(f"sequence {shown(self.ids[b].as_py())}")
        row = int(self.rows[step])
        if self.order is not None:
            parts.append(f"step {shown(self.order[row].as_py())}")
        return ", ".join([*parts, source.row(row)])


def shown(value: object) -> str:
    """A value as it is put into a sentence."""
    return repr(value) if isinstance(value, str) else str(value)


def plain(column: pa.ChunkedArray) -> pa.Array:
    """One array without chunks or dictionary."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array


def group(source: Source, sequence: str | None, order: str | None) -> Grouping:
    """Group a table's rows by sequence and put each sequence in order.

    Sequences come in the order of their first rows. Without ``order`` a sequence's rows stay in
    the table's order; with it they are sorted (numbers and times by value, text by code point),
    and rows of equal value stay in the table's order.

    Args:
        source: the table.
        sequence: the column with the sequence's id; None where the table is one series.
        order: the column to sort by.

    Raises:
        UserError: a column that is not there, holds something that cannot be compared, or has
            missing values.
    """
    N = source.table.num_rows
    ids, codes = None, np.zeros(N, dtype=np.int32)
    if sequence is not None:
        source.need(sequence, "sequence")
        column = _complete(source, sequence, "sequence")
        encoded = column.dictionary_encode()
        ids, codes = encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False)
    values, keys = None, None
    if order is not None:
        source.need(order, "order")
        values = _complete(source, order, "order")
        keys = _sortable(source, values, order)
    B = 1 if ids is None else len(ids)
    rows = _sorted_rows(codes, keys)
    offsets = np.concatenate([[0], np.bincount(codes, minlength=B).cumsum()])
    return Grouping(rows, offsets, ids, values)


def _sorted_rows(codes: Array, keys: Array | None) -> Array:
    if keys is None:
        return codes.argsort(kind="stable")
    if _is_sorted(codes, keys):
        return np.arange(len(codes))
    return np.lexsort((keys, codes))


def _is_sorted(codes: Array, keys: Array) -> bool:
    later = codes[1:] > codes[:-1]
    same = codes[1:] == codes[:-1]
    return bool((later | (same & (keys[1:] >= keys[:-1]))).all())


def _complete(source: Source, name: str, option: str) -> pa.Array:
    """The column without missing values, or UserError."""
    column = plain(source.table.column(name))
    if pa.types.is_nested(column.type):
        raise UserError(f"column {name!r} in {source.name} holds {column.type}", option)
    missing = column.is_null(nan_is_null=pa.types.is_floating(column.type))
    count = pc.sum(missing).as_py() or 0
    if count:
        first = pc.index(missing, True).as_py()
        raise UserError(
            f"column {name!r} in {source.name} has {count:,} missing "
            f"value{'s' * (count > 1)}, the first in {source.row(first)}",
            option,
        )
    return column


def _sortable(source: Source, values: pa.Array, name: str) -> Array:
    """Numbers that sort as the values do."""
    kind, keys = values.type, None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        keys = values
    elif pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        keys = values.view(width)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        encoded = values.dictionary_encode()
        keys = pc.rank(encoded.dictionary, "ascending").take(encoded.indices)
    elif pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
        keys = values.cast(pa.float64())
    else:
        raise UserError(
            f"column {name!r} in {source.name} holds {kind}, which has no order; "
            "it must be numbers, times or text",
            "order",
        )
    numbers: Array = keys.to_numpy(zero_copy_only=False)
    return numbers
