"""Tables of data in files: CSV, Parquet, JSON lines, or a folder with a sequence a file.

Missing values: an empty field is missing in any column. In a CSV column whose other fields are
numbers, dates or booleans, so are ``NA``, ``N/A``, ``#N/A``, ``NaN``, ``nan``, ``null`` and
``NULL`` (pyarrow's list); in a column of text they are text (Namibia's code is ``NA``).
"""

import difflib
import json
import mmap
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from peephole.data.blocks import DELIMITERS, SUFFIXES
from peephole.data.reading import gather, in_memory
from peephole.errors import UserError, listed


@dataclass(frozen=True)
class Source:
    """A table and where it came from.

    Attributes:
        table: a row a step.
        name: the file or folder as the person named it.
        starts: for a folder, each file's name and its first row.
        rows: ``[N]``, which row of the file or folder each row of the table is; None where they
            are in the same order.
        pages: the file that the table is mapped from, if it is.
        fingerprint: follows from what the files hold and how they were read; None if unknown.
    """

    table: pa.Table
    name: str
    starts: tuple[tuple[str, int], ...] = ()
    rows: np.ndarray[Any, np.dtype[Any]] | None = None
    pages: mmap.mmap | None = None
    fingerprint: str | None = None

    def row(self, index: int) -> str:
        """Where row ``index`` of the table (from 0) is found: row 1 is the first with data."""
        if self.rows is not None:
            index = int(self.rows[index])
        for file, start in reversed(self.starts):
            if index >= start:
                return f"row {index - start + 1} of {file}"
        return f"row {index + 1}"

    def first(self, among: np.ndarray[Any, np.dtype[Any]]) -> int:
        """The row of the table, among some of its rows, that comes first in the files."""
        return int(among[0] if self.rows is None else among[self.rows[among].argmin()])

    def release(self) -> None:
        """Let go of the memory that pages of a mapped table take, which are read again if needed.

        The system would do so too, but later, and until then they count as the process's.
        """
        if self.pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.pages.madvise(mmap.MADV_DONTNEED)

    def need(self, column: str, option: str | None) -> None:
        """Raise UserError, with the nearest match, unless there is such a column."""
        names = self.table.column_names
        if column in names:
            return
        near = difflib.get_close_matches(column, names, n=1)
        hint = f"; did you mean {near[0]!r}? It has" if near else "; it has"
        raise UserError(
            f"there is no column {column!r} in {self.name}{hint}: {listed(names)}", option
        )


def read(
    path: str | Path,
    *,
    sequence: str | None = None,
    text: Collection[str] = (),
    option: str | None = None,
) -> Source:
    """Read a file, or a folder with one sequence a file.

    Args:
        path: a file with one of ``SUFFIXES``, or a folder of such files.
        sequence: for a folder, what to call the column that holds each file's name without its
            suffix; "sequence" if None.
        text: columns to read as text from CSV, whatever their fields look like.
        option: the option that named the file, for errors.

    Raises:
        UserError: no such file, a suffix that is not known, a file that cannot be parsed, has no
            rows or has two columns of one name; files of a folder that do not fit together.
    """
    path = Path(path)
    gathered = gather(path, keep=in_memory, sequence=sequence, text=text, option=option)
    table = pa.concat_tables(gathered.blocks())
    if gathered.starts:
        table = table.set_column(0, table.schema.names[0], table.column(0).cast(pa.string()))
    return Source(table, str(path), gathered.starts)


def write(table: pa.Table, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a table in the format of the path's suffix, whole or not at all.

    Raises:
        UserError: as ``check_writable``, or the file cannot be written.
    """
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    making = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        _write(table, making)
        making.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", "out") from error
    finally:
        making.unlink(missing_ok=True)


def _write(table: pa.Table, path: Path) -> None:
    if path.suffix.lower() == ".parquet":
        pa.parquet.write_table(table, path)
    elif (delimiter := DELIMITERS.get(path.suffix.lower())) is not None:
        pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter=delimiter))
    else:
        with path.open("w", encoding="utf-8") as file:
            for batch in table.to_batches(max_chunksize=10_000):
                lines = (
                    json.dumps(row, default=str, ensure_ascii=False) + "\n"
                    for row in batch.to_pylist()
                )
                file.writelines(lines)


def check_writable(
    path: str | Path, option: str | None = "out", *, overwrite: bool = False
) -> None:
    """Raise UserError unless ``write`` could write there, over what is there only if asked."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path} ends in {path.suffix!r}; it must be one of {', '.join(SUFFIXES)}", option
        )
    if path.is_dir():
        raise UserError(f"{path} is a folder", option)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; choose another, or overwrite it (--overwrite)", option)
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}", option)
