"""Which rows of a table make up which sequence, and in what order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peephole.data.tables import Source
from peephole.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]

# What is worked out from all steps is worked out from so many at a time. Sums over more than one
# piece are rounded in other places than sums over all steps at once.
PIECE = 1 << 20


class Piece(NamedTuple):
    """Some consecutive steps.

    Attributes:
        begin: the first.
        end: the one after the last.
        columns: at these steps and, where they were asked for, at some after them.
    """

    begin: int
    end: int
    columns: dict[str, pa.Array]


@dataclass(frozen=True)
class Grouping:
    """B sequences, with N steps in all, of a table whose rows are in their order.

    Attributes:
        offsets: ``[B + 1]``, where each sequence begins among the steps; none is empty.
        starts: ``[B]``, the row of the table where each begins, rising.
        ids: the sequences' ids ``[B]``; None for a table that is one series.
        order: the column that its steps were ordered by; None for none.
    """

    offsets: Array
    starts: Array
    ids: pa.Array | None
    order: str | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def steps(self) -> int:
        """N."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Array:
        return np.diff(self.offsets)

    def sequence(self, begin: int = 0, end: int | None = None) -> Array:
        """The sequence, from 0, that each step from ``begin`` to before ``end`` belongs to."""
        end = self.steps if end is None else end
        if begin >= end:
            return np.zeros(0, dtype=np.int64)
        first, last = (int(b) - 1 for b in self.offsets.searchsorted([begin, end - 1], "right"))
        bounds = self.offsets[first : last + 2].clip(begin, end)
        return np.arange(first, last + 1).repeat(np.diff(bounds))

    def rows(self, begin: int = 0, end: int | None = None) -> Array:
        """The row of the table of each step from ``begin`` to before ``end``."""
        end = self.steps if end is None else end
        shift = self.starts - self.offsets[:-1]
        rows: Array = np.arange(begin, end) + shift[self.sequence(begin, end)]
        return rows

    def begins(self, begin: int, end: int) -> Array:
        """Whether a sequence begins at each of these steps."""
        low, high = self.offsets[:-1].searchsorted([begin, end])
        flags = np.zeros(end - begin, dtype=bool)
        flags[self.offsets[low:high] - begin] = True
        return flags

    def take(self, chosen: Array) -> "Grouping":
        """The sequences that are True in ``chosen [B]``."""
        offsets = np.concatenate([[0], self.lengths[chosen].cumsum()])
        ids = None if self.ids is None else self.ids.filter(pa.array(chosen))
        return replace(self, offsets=offsets, starts=self.starts[chosen], ids=ids)

    def pieces(self, source: Source, names: Sequence[str], beyond: int = 0) -> Iterator[Piece]:
        """Columns in the order of the steps, a piece at a time.

        Args:
            source: the table.
            names: of the columns.
            beyond: how many steps after each piece the columns hold as well, as far as there are
                any.
        """
        table = source.table.select(list(names))
        for begin in range(0, self.steps, PIECE):
            end = min(begin + PIECE, self.steps)
            rows = self.rows(begin, min(end + beyond, self.steps))
            first = int(rows[0])
            part = table.slice(first, int(rows[-1]) + 1 - first)
            if part.num_rows > len(rows):
                kept = np.zeros(part.num_rows, dtype=bool)
                kept[rows - first] = True
                part = part.filter(pa.array(kept))
            yield Piece(begin, end, {name: plain(part.column(name)) for name in names})
            source.release()

    def place(self, source: Source, step: int) -> str:
        """Where a step stands, in words: sequence, step, row."""
        parts = []
        if self.ids is not None:
            b = int(self.sequence(step, step + 1)[0])
            parts.append(f"sequence {shown(self.ids[b].as_py())}")
        row = int(self.rows(step, step + 1)[0])
        if self.order is not None:
            parts.append(f"step {shown(source.table.column(self.order)[row].as_py())}")
        return ", ".join([*parts, source.row(row)])


class Order(NamedTuple):
    """How to put a table's rows into the order of sequences.

    Attributes:
        rows: ``[N]``, the row that each step is; None where they are in order.
        lengths: ``[B]``, the steps of each sequence.
        ids: the sequences' ids ``[B]``; None for a table that is one series.
    """

    rows: Array | None
    lengths: Array
    ids: pa.Array | None

    def grouping(self, order: str | None) -> Grouping:
        """The sequences of the table in this order."""
        offsets = np.concatenate([[0], self.lengths.cumsum()])
        return Grouping(offsets, offsets[:-1], self.ids, order)


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


def flagged(
    source: Source, name: str, flag: Callable[[pa.Array], pa.Array]
) -> tuple[int, int | None]:
    """Look for values of one kind.

    Args:
        source: the table.
        name: of the column.
        flag: booleans for part of the column; a null does not count.

    Returns:
        How many there are, and the row of the table with the one that comes first in the files.
    """
    count, found = 0, []
    for begin in range(0, source.table.num_rows, PIECE):
        flags = flag(plain(source.table.column(name).slice(begin, PIECE))).fill_null(False)
        rows = begin + np.flatnonzero(flags.to_numpy(zero_copy_only=False))
        if len(rows):
            count += len(rows)
            found.append(source.first(rows))
        source.release()
    return count, source.first(np.array(found)) if found else None


def arrange(source: Source, sequence: str | None, order: str | None) -> tuple[Source, Grouping]:
    """Group a table's rows by sequence and put them into that order; see ``find_order``."""
    return put_in_order(source, find_order(source, sequence, order), order)


def put_in_order(source: Source, found: Order, order: str | None) -> tuple[Source, Grouping]:
    """Put a table's rows into the order that was found, by a column ``order``."""
    if found.rows is not None:
        table = without_nested(source.table).take(pa.array(found.rows))
        source = replace(source, table=table, rows=found.rows)
    return source, found.grouping(order)


def without_nested(table: pa.Table) -> pa.Table:
    """The table with nulls in nested columns, which nothing reads and which may not be valid."""
    for k, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            table = table.set_column(k, field.name, pa.nulls(table.num_rows, field.type))
    return table


def find_order(source: Source, sequence: str | None, order: str | None) -> Order:
    """Find out how to group a table's rows by sequence and put each sequence in order.

    Sequences come in the order of their first rows. Without ``order`` a sequence's rows stay in
    the table's order; with it they are sorted (numbers and times by value, text by code point),
    and rows of equal value stay in the table's order.

    Args:
        source: the table; no other columns than these are looked at.
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
        ids, codes = _coded(_complete(source, sequence, "sequence"))
    keys = None
    if order is not None:
        source.need(order, "order")
        keys = _sortable(source, _complete(source, order, "order"), order)
    return Order(_sorted_rows(codes, keys), _counts(codes, 1 if ids is None else len(ids)), ids)


def _counts(codes: Array, below: int) -> Array:
    """How often each number below that comes, without a copy of all codes in 64 bits."""
    counts, step = np.zeros(below, dtype=np.int64), max(PIECE, below)
    for begin in range(0, len(codes), step):
        counts += np.bincount(codes[begin : begin + step], minlength=below)
    return counts


def _sorted_rows(codes: Array, keys: Array | None) -> Array | None:
    """The rows in order; None where they are."""
    same = codes[1:] == codes[:-1]
    if keys is not None:
        same &= keys[1:] >= keys[:-1]
    if bool((same | (codes[1:] > codes[:-1])).all()):
        return None
    return codes.argsort(kind="stable") if keys is None else np.lexsort((keys, codes))


def _complete(source: Source, name: str, option: str) -> pa.ChunkedArray:
    """The column, without missing values and without a dictionary, or UserError."""
    column = source.table.column(name)
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks])
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


def _coded(column: pa.ChunkedArray) -> tuple[pa.Array, Array]:
    """The values in the order in which they come first, and each row's number among them."""
    encoded = column.dictionary_encode()
    return encoded.chunk(0).dictionary, _joined([chunk.indices for chunk in encoded.chunks])


def _joined(chunks: Sequence[pa.Array]) -> Array:
    return np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in chunks])


def _sortable(source: Source, values: pa.ChunkedArray, name: str) -> Array:
    """Numbers that sort as the values do."""
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _joined(values.chunks)
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        return _joined([chunk.view(width) for chunk in values.chunks])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts, codes = _coded(values)
        rank: Array = pc.rank(texts, "ascending").to_numpy()
        return rank[codes]
    if pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
        return _joined(values.cast(pa.float64()).chunks)
    raise UserError(
        f"column {name!r} in {source.name} holds {kind}, which has no order; "
        "it must be numbers, times or text",
        "order",
    )
