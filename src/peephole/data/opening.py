"""A person's table, opened: in memory where it is small, else by way of the cache."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from peephole.data import convert, fingerprint, tables
from peephole.data.blocks import check_file
from peephole.data.cache import Cache
from peephole.data.convert import Check, Converted
from peephole.data.fingerprint import Marks
from peephole.data.reading import Form, files_of
from peephole.data.schema import to_json
from peephole.data.sequences import Grouping, arrange
from peephole.data.tables import Source
from peephole.errors import UserError

VERSION = 1
# Smaller files are read in less time than they are looked up in the cache, and take a few times as
# much memory at most.
IN_MEMORY = 1 << 25


def open_table(
    path: str | Path,
    form: Form,
    *,
    option: str | None = None,
    check: Check,
    cache: Cache | None = None,
) -> tuple[Source, Grouping]:
    """Open a file, or a folder with one sequence a file, in the order of its sequences.

    Args:
        path: as in ``tables.read``.
        form: how it is read and put in order.
        option: the option that named the file, for errors.
        check: raises UserError where the columns do not do. It may be called more than once, and
            with a table that has them and no rows.
        cache: where a large table goes; None to take it into memory whatever its size.

    Raises:
        UserError: it cannot be read, grouped or ordered, or changes meanwhile; the cache cannot be
            written to.
    """
    path = Path(path)
    if cache is None:
        return _in_memory(path, form, option, check)
    if not cache.always and _size(path, option) < IN_MEMORY:
        known = fingerprint.marks(path, option)
        source, grouping = _in_memory(path, form, option, check)
        _check_same(path, known, option)
    else:
        known, source, grouping = _cached(path, form, option, check, cache)
    shaped = [VERSION, fingerprint.content(known), to_json(form)]
    return replace(source, fingerprint=_digest(shaped)), grouping


def _in_memory(path: Path, form: Form, option: str | None, check: Check) -> tuple[Source, Grouping]:
    source = tables.read(path, sequence=form.sequence, text=form.text, option=option)
    check(source)
    return arrange(source, form.sequence, form.order)


def _cached(
    path: Path, form: Form, option: str | None, check: Check, cache: Cache
) -> tuple[Marks, Source, Grouping]:
    _size(path, option)
    name = "rows-" + _digest([VERSION, str(path.resolve()), to_json(form)])[:24]

    def make(folder: Path) -> Converted:
        cache.say(f"{path} is converted once, into {cache.path / name}")
        known = fingerprint.marks(path, option)
        made = convert.convert(path, folder, known, form, option=option, check=check)
        _check_same(path, known, option)
        return made

    def load(folder: Path, converted: Converted) -> tuple[Marks, Source, Grouping]:
        source, grouping = convert.load(folder, converted, str(path))
        check(source)
        return converted.sources, source, grouping

    def stale(converted: Converted) -> str | None:
        folder = cache.path / name
        if (converted.path, converted.form) != (str(path.resolve()), form):
            return f"{folder} was made from {converted.path}, not from {path}"
        why = fingerprint.difference(path, converted.sources, option)
        return None if why is None else f"{why} since {folder} was made"

    return cache.entry(name, Converted, make=make, load=load, stale=stale)


def _check_same(path: Path, known: Marks, option: str | None) -> None:
    if why := fingerprint.difference(path, known, option):
        raise UserError(f"{why} while it was read; start again when it is complete", option)


def _size(path: Path, option: str | None) -> int:
    """About how many bytes a file, or a folder's files, have in memory."""
    files = files_of(path, option) if path.is_dir() else [path]
    return sum(_file_size(file, option) for file in files)


def _file_size(path: Path, option: str | None) -> int:
    check_file(path, option)
    size = path.stat().st_size
    if path.suffix.lower() == ".parquet":
        try:
            form = pa.parquet.read_metadata(path)
        except (pa.ArrowException, OSError):
            return size
        size = max(size, form.num_rows * form.num_columns * 8)
    return size


def _digest(shaped: object) -> str:
    return hashlib.sha256(json.dumps(shaped).encode()).hexdigest()
