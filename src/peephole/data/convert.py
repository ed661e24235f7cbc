"""From files to an Arrow file with the rows in the order of their sequences, whatever their size.

The files are read once, block by block, into a spool: an Arrow file in their own order and types.
Where the rows are in order they are copied from there. Where not, they are first dealt out to
buckets, each of which fits in memory: what is sorted as a whole is only where each row goes.
"""

import contextlib
import itertools
import math
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from peephole.data.blocks import JSON_LINES
from peephole.data.fingerprint import Marks
from peephole.data.reading import FOLDER_COLUMN, Form, Gathered, Kept, files_of, gather
from peephole.data.sequences import Array, Grouping, Order, find_order, without_nested
from peephole.data.tables import Source

ROWS, OFFSETS, IDS, ORIGINS, SPOOL = (
    "rows.arrow",
    "offsets.npy",
    "ids.arrow",
    "origins.npy",
    "spool",
)
BATCH_ROWS = 1 << 17
# Sorting takes about three times as much memory. Each bucket is an open file.
BUCKET_BYTES = 1 << 26
MOST_BUCKETS = 512

Check = Callable[[Source], None]


@dataclass(frozen=True)
class Start:
    """Where a file of a folder begins."""

    file: str
    row: int


@dataclass(frozen=True)
class Converted:
    """What an entry with rows is.

    Attributes:
        origin: the file or folder, or the fingerprint of a table from Python.
        form: how it was read.
        rows: how many.
        starts: for a folder, where each file begins.
        sources: what the files were like; none for a table from Python.
    """

    origin: str
    form: Form
    rows: int
    starts: tuple[Start, ...]
    sources: Marks


def convert(
    path: Path,
    folder: Path,
    sources: Marks,
    form: Form,
    *,
    option: str | None = None,
    check: Check,
) -> Converted:
    """Write a file's or folder's rows in order, and where each sequence begins.

    Args:
        path: the file or folder.
        folder: gets the files.
        sources: what the files are like.
        form: how they are read and put in order.
        option: the option that named the file, for errors.
        check: raises UserError where the columns do not do. It is called with a table without
            rows, as early as the columns are known.

    Raises:
        UserError: as ``reading.gather`` and ``sequences.find_order``.
        OSError: the files cannot be written.
    """
    with Spool(folder / SPOOL, _early(path, form, check)) as spool:
        gathered = gather(
            path, keep=spool.keep, sequence=form.sequence, text=form.text, option=option
        )
        check(Source(gathered.schema.empty_table(), str(path)))
        pa.default_memory_pool().release_unused()
        found = order_of(gathered, str(path), form)
        spool.release()
        put_in_order(gathered, found, folder, spool.bytes)
    (folder / SPOOL).unlink()
    starts = tuple(Start(file, row) for file, row in gathered.starts)
    return Converted(str(path.resolve()), form, gathered.rows, starts, sources)


def order_of(gathered: Gathered, name: str, form: Form) -> Order:
    """See ``find_order``; ``name`` is what to call the table in errors."""
    whole, names = Source(gathered.schema.empty_table(), name), []
    for column, role in ((form.sequence, "sequence"), (form.order, "order")):
        if column is not None:
            whole.need(column, role)
            names.append(column)
    if not names:
        return Order(None, np.array([gathered.rows]), None)
    columns = pa.concat_tables(table.select(names) for table in gathered.blocks())
    return find_order(Source(columns, name, gathered.starts), form.sequence, form.order)


def put_in_order(gathered: Gathered, found: Order, folder: Path, size: int) -> None:
    """Write rows in an order, and where each sequence begins.

    Args:
        gathered: the rows.
        found: their order.
        folder: gets the files.
        size: about how many bytes the rows take in memory.

    Raises:
        OSError: the files cannot be written.
    """
    with Writer(folder / ROWS, storable(gathered.schema.empty_table()).schema) as writer:
        for table in _in_order(gathered, found, folder, size):
            writer.write(table)
    np.save(folder / OFFSETS, np.concatenate([[0], found.lengths.cumsum()]))
    if found.rows is not None:
        np.save(folder / ORIGINS, found.rows)
    if found.ids is not None:
        with pa.OSFile(str(folder / IDS), "wb") as file:
            table = pa.table({"id": found.ids})
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)


def load(folder: Path, converted: Converted, name: str) -> tuple[Source, Grouping]:
    """The table, mapped from the file, and its sequences.

    Raises:
        ValueError: the files do not fit together.
    """
    try:
        pages, table = _mapped(folder / ROWS)
        table.validate(full=True)
        ids = None
        if (folder / IDS).exists():
            with pa.OSFile(str(folder / IDS)) as file:
                ids = pa.ipc.open_file(file).read_all().column(0).combine_chunks()
                ids.validate(full=True)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    offsets = _array(folder / OFFSETS)
    origins = _array(folder / ORIGINS) if (folder / ORIGINS).exists() else None
    N, B = converted.rows, len(offsets) - 1
    if (
        table.num_rows != N
        or B < 1
        or offsets[0] != 0
        or offsets[-1] != N
        or not (np.diff(offsets) > 0).all()
        or (ids is not None and len(ids) != B)
        or (origins is not None and len(origins) != N)
    ):
        raise ValueError("its files do not fit together")
    starts = tuple((start.file, start.row) for start in converted.starts)
    source = Source(table, name, starts, origins, pages)
    source.release()
    return source, Grouping(np.array(offsets), np.array(offsets[:-1]), ids, converted.form.order)


class Spool:
    """Blocks of files in one file on the disk, as Arrow's stream format, one after the other."""

    def __init__(self, path: Path, first: Callable[[pa.Table], None]) -> None:
        self.path, self.first = path, first
        self.file = path.open("xb")
        self.pages: mmap.mmap | None = None

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def keep(self, blocks: Iterator[pa.Table]) -> Kept:
        """Write one file's blocks."""
        begin, rows = self.file.tell(), 0
        try:
            first = next(blocks)
            if not begin:
                self.first(first)
            with pa.ipc.new_stream(self.file, first.schema) as writer:
                for table in itertools.chain([first], blocks):
                    rows += table.num_rows
                    writer.write_table(table)
        except BaseException:
            self.file.seek(begin)
            self.file.truncate()
            raise
        return Kept(first.schema, rows, lambda: self._read(begin))

    def _read(self, begin: int) -> Iterator[pa.Table]:
        if self.pages is None:
            self.file.close()
            with self.path.open("rb") as file:
                self.pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with pa.ipc.open_stream(pa.py_buffer(self.pages).slice(begin)) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
                self.release()

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    def release(self) -> None:
        """See ``Source.release``."""
        if self.pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.pages.madvise(mmap.MADV_DONTNEED)


class Writer:
    """An Arrow file whose batches, but for the last one, have some 100,000 rows."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = pa.OSFile(str(path), "wb")
        self.writer = pa.ipc.new_file(self.file, schema)
        self.waiting: list[pa.Table] = []
        self.rows = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._flush()
                self.writer.close()
        finally:
            self.file.close()

    def write(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.rows += table.num_rows
        if self.rows >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            table = pa.concat_tables(self.waiting).combine_chunks()
            self.writer.write_table(table, max_chunksize=BATCH_ROWS)
        self.waiting, self.rows = [], 0


def _early(path: Path, form: Form, check: Check) -> Callable[[pa.Table], None]:
    """Checks the columns by the first block, where that has them all: JSON's may come later."""
    files = files_of(path, None) if path.is_dir() else [path]

    def first(table: pa.Table) -> None:
        if files[0].suffix.lower() in JSON_LINES:
            return
        columns = table.schema.empty_table()
        if path.is_dir():
            columns = columns.append_column(
                form.sequence or FOLDER_COLUMN, pa.array([], pa.string())
            )
        check(Source(columns, str(path)))

    return first


def _in_order(gathered: Gathered, found: Order, folder: Path, size: int) -> Iterator[pa.Table]:
    """The rows in order, a block at a time; ``size`` is about what they take in memory."""
    if found.rows is None:
        yield from map(storable, gathered.blocks())
        return
    rows = found.rows
    buckets = min(MOST_BUCKETS, math.ceil(size / BUCKET_BYTES))
    height = math.ceil(len(rows) / buckets)
    files = [folder / f"bucket{k}" for k in range(math.ceil(len(rows) / height))]
    _deal_out(gathered, rows, height, files)
    for k, path in enumerate(files):
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            table = reader.read_all().combine_chunks()
        path.unlink()
        # A bucket has its rows in the order of the files.
        own = rows[k * height : (k + 1) * height]
        place = np.empty_like(own)
        place[own.argsort()] = np.arange(len(own))
        yield table.take(pa.array(place))


def _deal_out(gathered: Gathered, rows: Array, height: int, files: list[Path]) -> None:
    """Put each row into the file where it belongs: the first ``height`` rows into the first."""
    bucket = np.empty(len(rows), dtype=np.uint16)
    for k in range(len(files)):
        bucket[rows[k * height : (k + 1) * height]] = k
    schema, first = storable(gathered.schema.empty_table()).schema, 0
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(pa.OSFile(str(path), "wb")) for path in files]
        writers = [stack.enter_context(pa.ipc.new_stream(file, schema)) for file in opened]
        for table in gathered.blocks():
            own = bucket[first : first + table.num_rows]
            first += table.num_rows
            sorted_ = storable(table).take(pa.array(own.argsort(kind="stable")))
            bounds = np.bincount(own, minlength=len(files)).cumsum().tolist()
            for writer, begin, end in zip(writers, [0, *bounds], bounds, strict=False):
                writer.write_table(sorted_.slice(begin, end - begin))


def storable(table: pa.Table) -> pa.Table:
    """A table without nested columns' values, which nothing reads, and without dictionaries, of
    which an Arrow file can hold only one for a column.
    """
    table = without_nested(table)
    for k, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(k, field.name, table.column(k).cast(field.type.value_type))
    return table


def _mapped(path: Path) -> tuple[mmap.mmap, pa.Table]:
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pages, pa.ipc.open_file(pa.py_buffer(pages)).read_all()


def _array(path: Path) -> Array:
    """Whole numbers ``[n]``, mapped from a file."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != np.int64:
        raise ValueError(f"{path.name} does not hold numbers")
    return array
