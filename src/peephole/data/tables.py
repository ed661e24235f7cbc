"""Tables of data in files: CSV, Parquet, JSON lines, or a folder with a sequence a file.

Missing values: an empty field is missing in any column. In a CSV column whose other fields are
numbers, dates or booleans, so are ``NA``, ``N/A``, ``#N/A``, ``NaN``, ``nan``, ``null`` and
``NULL`` (pyarrow's list); in a column of text they are text (Namibia's code is ``NA``).
"""

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from peephole.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*DELIMITERS, ".parquet", *JSON_LINES)
FOLDER_COLUMN = "sequence"

# A line must fit into a block, and the parser works on several blocks at a time.
BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Source:
    """A table and where it came from.

    Attributes:
        table: a row a step, in the file's order.
        name: the file or folder as the person named it.
        starts: for a folder, each file's name and its first row in the table.
    """

    table: pa.Table
    name: str
    starts: tuple[tuple[str, int], ...] = ()

    def row(self, index: int) -> str:
        """Where row ``index`` of the table (from 0) is found: row 1 is the first with data."""
        for file, start in reversed(self.starts):
            if index >= start:
                return f"row {index - start + 1} of {file}"
        return f"row {index + 1}"

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


def listed(items: Iterable[object], most: int = 20) -> str:
    """``'a', 'b', 'c'``, and how many more there are."""
    shown = [repr(item) if isinstance(item, str) else str(item) for item in items]
    more = [f"and {len(shown) - most:,} more"] if len(shown) > most else []
    return ", ".join(shown[:most] + more)


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
    if path.is_dir():
        return _read_folder(path, sequence or FOLDER_COLUMN, text, option)
    return Source(_read_file(path, str(path), text, option), str(path))


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


def _read_file(path: Path, name: str, text: Collection[str], option: str | None) -> pa.Table:
    if not path.exists():
        near = difflib.get_close_matches(path.name, _neighbours(path), n=1)
        hint = f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""
        raise UserError(f"there is no file {name}{hint}", option)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{name} ends in {path.suffix!r}; a table is a file that ends in one of "
            f"{', '.join(SUFFIXES)}, or a folder of such files",
            option,
        )
    if not path.stat().st_size:
        raise UserError(f"{name} is empty", option)
    try:
        table = _parse(path, suffix, text)
        names = table.column_names
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text: {error}", option) from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {name}: {' '.join(str(error).split())}", option) from error
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise UserError(f"{name} has several columns called {listed(twice)}", option)
    if not table.num_rows:
        raise UserError(f"{name} has no rows", option)
    return table


def _neighbours(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


def _parse(path: Path, suffix: str, text: Collection[str]) -> pa.Table:
    if suffix == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            return file.read()
    if suffix in JSON_LINES:
        return pa.json.read_json(path, pa.json.ReadOptions(block_size=BLOCK_BYTES))
    table = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES),
        parse_options=pa.csv.ParseOptions(delimiter=DELIMITERS[suffix]),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(text, pa.string())),
    )
    for k, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(k)
            filled = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
            table = table.set_column(k, field.name, filled)
    return table


def _read_folder(folder: Path, sequence: str, text: Collection[str], option: str | None) -> Source:
    files = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")),
        key=lambda path: _natural(path.name),
    )
    if not files:
        raise UserError(f"the folder {folder} holds no files", option)
    if strangers := [path.name for path in files if path.suffix.lower() not in SUFFIXES]:
        raise UserError(
            f"the folder {folder} must hold nothing but one sequence a file "
            f"({', '.join(SUFFIXES)}), and holds {listed(strangers, 5)}",
            option,
        )
    stems = [path.stem for path in files]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise UserError(f"{folder} has two files for the sequence {twice[0]!r}", option)
    tables = [_read_file(path, str(path), text, option) for path in files]
    for path, table in zip(files, tables, strict=True):
        _check_columns(path, table, files[0], tables[0], option)
    if sequence in tables[0].column_names:
        raise UserError(
            f"the files in {folder} have a column {sequence!r}; in a folder each file is one "
            f"sequence, and {sequence!r} is what the column of the files' names is called",
            option or "sequence",
        )
    names = tables[0].column_names
    tables = [table.select(names) for table in tables]
    if mixed := [name for name in names if _is_mixed([t.schema.field(name).type for t in tables])]:
        wanted = {*text, *mixed}
        tables = [
            _read_file(path, str(path), wanted, option).select(names)
            if path.suffix.lower() in DELIMITERS
            else table
            for path, table in zip(files, tables, strict=True)
        ]
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        message = " ".join(str(error).split())
        raise UserError(f"the files in {folder} do not fit together: {message}", option) from error
    counts = [table.num_rows for table in tables]
    ids = pa.array([stem for stem, n in zip(stems, counts, strict=True) for _ in range(n)])
    starts = [sum(counts[:k]) for k in range(len(counts))]
    return Source(
        whole.add_column(0, sequence, ids),
        str(folder),
        tuple((path.name, start) for path, start in zip(files, starts, strict=True)),
    )


def _is_mixed(kinds: Sequence[pa.DataType]) -> bool:
    """Text in some files, something else in others."""
    kinds = [kind for kind in kinds if not pa.types.is_null(kind)]
    texts = [pa.types.is_string(kind) for kind in kinds]
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds]
    return len(set(kinds)) > 1 and not all(numbers) and not all(texts)


def _check_columns(
    path: Path, table: pa.Table, first: Path, wanted: pa.Table, option: str | None
) -> None:
    given, expected = set(table.column_names), set(wanted.column_names)
    for names, has, lacks in (
        (given - expected, path, first),
        (expected - given, first, path),
    ):
        if names:
            raise UserError(
                f"all files of a folder must have the same columns, but {has} has "
                f"{listed(sorted(names))} and {lacks} has not",
                option,
            )


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key by which ``b2`` comes before ``b10``."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
