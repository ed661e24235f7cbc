"""A file of a table in blocks of one schema, so that a file of any size takes little memory.

A block of CSV or JSON lines is some 16 MiB of whole lines. A column has the type that it would have
if the file were read at once, where pyarrow takes the first of a chain of types that every value
has: a block is read with the types found so far, and where one does not do, the next one does that
fits this block and, when the file is read again, all others.
"""

import contextlib
import difflib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from peephole.errors import UserError, listed

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*DELIMITERS, ".parquet", *JSON_LINES)

# A line must fit into a block.
BLOCK_BYTES = 1 << 24
PARQUET_ROWS = 1 << 17
PARQUET_BUFFER = 1 << 20

# From "Column type inference" in pyarrow's documentation of CSV.
CHAIN = (
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    pa.timestamp("s"),
    pa.timestamp("s", "UTC"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
    pa.string(),
    pa.binary(),
)

T = TypeVar("T")
Parse = Callable[[Path], Iterator[pa.Table]]


def read_file(
    path: Path,
    text: Collection[str],
    option: str | None,
    keep: Callable[[Iterator[pa.Table]], T],
) -> T:
    """Read a file block by block.

    Args:
        path: a file with one of ``SUFFIXES``.
        text: columns to read as text from CSV, whatever their fields look like.
        option: the option that named the file, for errors.
        keep: is called with the blocks, at least one, all of one schema, and keeps them somewhere.
            Where a late value makes a column's type another one the blocks end in an exception
            that is to be let through, and it is called again.

    Returns:
        What ``keep`` gave.

    Raises:
        UserError: no such file, a suffix that is not known, a file that cannot be parsed, has no
            rows or has two columns of one name.
    """
    check_file(path, option)
    parse = _parser(path, text)
    while True:
        with contextlib.suppress(_Changed):
            return keep(_checked(parse, path, option))


def columns_of(path: Path, option: str | None) -> list[str] | None:
    """The names of a file's columns, from its beginning; None for JSON, where more may come later.

    Raises:
        UserError: as ``read_file``, as far as its beginning tells.
    """
    check_file(path, option)
    if path.suffix.lower() in JSON_LINES:
        return None
    names: list[str] = next(_parsed(_parser(path, ()), path, option)).column_names
    _check_names(names, path, option)
    return names


class _Changed(Exception):
    """A column's type is not what it seemed to be."""


def _checked(parse: Parse, path: Path, option: str | None) -> Iterator[pa.Table]:
    """Blocks of one schema, with what can be wrong with a file as errors for a person."""
    schema, changed = None, False
    for k, table in enumerate(_parsed(parse, path, option)):
        if k == 0:
            _check_names(table.column_names, path, option)
        if not table.num_rows:
            continue
        schema = schema or table.schema.remove_metadata()
        # To the end of the file all the same: it may change more than once.
        changed |= not table.schema.equals(schema)
        if not changed:
            yield table.replace_schema_metadata()
    if schema is None:
        raise UserError(f"{path} has no rows", option)
    if changed:
        raise _Changed


def _parsed(parse: Parse, path: Path, option: str | None) -> Iterator[pa.Table]:
    try:
        for table in parse(path):
            for column in table.columns:
                # A list of nulls alone is not valid as pyarrow reads it from JSON.
                if not pa.types.is_nested(column.type):
                    column.validate(full=True)
            yield table
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}", option) from error
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {message}", option) from error


def _check_names(names: list[str], path: Path, option: str | None) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path} has several columns called {listed(twice)}", option)


def check_file(path: Path, option: str | None) -> None:
    """Raise UserError unless there is such a file, not empty, with one of ``SUFFIXES``."""
    if not path.exists():
        near = difflib.get_close_matches(path.name, _neighbours(path), n=1)
        hint = f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""
        raise UserError(f"there is no file {path}{hint}", option)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path} ends in {path.suffix!r}; a table is a file that ends in one of "
            f"{', '.join(SUFFIXES)}, or a folder of such files",
            option,
        )
    if not path.stat().st_size:
        raise UserError(f"{path} is empty", option)


def _parser(path: Path, text: Collection[str]) -> Parse:
    """What gives a file's blocks; it remembers what it learns of the columns."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet
    form = _JsonLines() if suffix in JSON_LINES else _Csv(DELIMITERS[suffix], text)
    return form.blocks


def _neighbours(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


def _parquet(path: Path) -> Iterator[pa.Table]:
    # Without pre_buffer it is read page by page, not a row group at once.
    with pa.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
        yield file.schema_arrow.empty_table()
        for batch in file.iter_batches(PARQUET_ROWS):
            yield pa.Table.from_batches([batch])


class _Csv:
    """CSV. ``types`` holds those of columns that had a value so far."""

    def __init__(self, delimiter: str, text: Collection[str]) -> None:
        self.parsing = pa.csv.ParseOptions(delimiter=delimiter)
        self.fixed = dict.fromkeys(text, pa.string())
        self.types: dict[str, pa.DataType] = {}

    def blocks(self, path: Path) -> Iterator[pa.Table]:
        names = None
        for lines in _blocks_of_lines(path):
            if names is None or lines.strip():
                table = self._block(lines, names)
                names = table.column_names
                yield table

    def _block(self, lines: bytes, names: list[str] | None) -> pa.Table:
        try:
            table = self._read(lines, names, self.types | self.fixed)
        except pa.ArrowInvalid:
            self._widen(lines, names)
            table = self._read(lines, names, self.types | self.fixed)
        for k, field in enumerate(table.schema):
            if not pa.types.is_null(field.type):
                self.types[field.name] = field.type
            if pa.types.is_string(field.type):
                column = table.column(k)
                filled = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
                table = table.set_column(k, field.name, filled)
        return table

    def _read(
        self,
        lines: bytes,
        names: list[str] | None,
        types: dict[str, pa.DataType],
        only: list[str] | None = None,
    ) -> pa.Table:
        return pa.csv.read_csv(
            pa.BufferReader(lines),
            pa.csv.ReadOptions(column_names=names, block_size=len(lines)),
            self.parsing,
            pa.csv.ConvertOptions(column_types=types, include_columns=only),
        )

    def _widen(self, lines: bytes, names: list[str] | None) -> None:
        """Loosen the types that do not fit these lines.

        Raises:
            pa.ArrowInvalid: it is not the types.
        """
        own = self._read(lines, names, self.fixed).schema
        for name in self.types.keys() - self.fixed.keys():
            while own.field(name).type != self.types[name] and not self._fits(lines, names, name):
                self.types[name] = CHAIN[CHAIN.index(self.types[name]) + 1]

    def _fits(self, lines: bytes, names: list[str] | None, name: str) -> bool:
        try:
            self._read(lines, names, {name: self.types[name]}, only=[name])
        except pa.ArrowInvalid:
            return False
        return True


class _JsonLines:
    """JSON lines. ``types`` holds those of all columns so far, in the order in which they came."""

    def __init__(self) -> None:
        self.types: dict[str, pa.DataType] = {}

    def blocks(self, path: Path) -> Iterator[pa.Table]:
        for lines in _blocks_of_lines(path):
            if lines.strip():
                yield self._block(lines)

    def _block(self, lines: bytes) -> pa.Table:
        try:
            table = self._read(lines, self.types)
        except pa.ArrowInvalid:
            own = self._read(lines, {}).schema
            for name in self.types.keys() & set(own.names):
                self.types[name] = _joint(self.types[name], own.field(name).type)
            table = self._read(lines, self.types)
        self.types = dict(zip(table.schema.names, table.schema.types, strict=True))
        return table

    def _read(self, lines: bytes, types: dict[str, pa.DataType]) -> pa.Table:
        return pa.json.read_json(
            pa.BufferReader(lines),
            pa.json.ReadOptions(block_size=len(lines)),
            pa.json.ParseOptions(explicit_schema=pa.schema(types.items())),
        )


def _joint(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type of values in JSON that have one type here and another there; ``a`` if none."""
    if pa.types.is_string(a) and pa.types.is_timestamp(b):
        return a
    if pa.types.is_timestamp(a) and pa.types.is_string(b):
        return b
    if pa.types.is_list(a) and pa.types.is_list(b):
        return pa.list_(_joint(a.value_type, b.value_type))
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            fields[field.name] = _joint(fields.get(field.name, field.type), field.type)
        return pa.struct(fields.items())
    schemas = [pa.schema([("", type)]) for type in (a, b)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowTypeError:
        return a


def _blocks_of_lines(path: Path) -> Iterator[bytes]:
    """The file's bytes in parts of about ``BLOCK_BYTES`` that end where a line does.

    Raises:
        pa.ArrowInvalid: a line is longer than that.
    """
    with path.open("rb") as file:
        rest = b""
        while block := file.read(BLOCK_BYTES):
            end = block.rfind(b"\n") + 1 or block.rfind(b"\r") + 1
            if not end and len(block) == BLOCK_BYTES:
                raise pa.ArrowInvalid(f"a line is longer than {BLOCK_BYTES:,} bytes")
            if end:
                yield rest + block[:end]
                rest = b""
            rest += block[end:]
        if rest:
            yield rest
