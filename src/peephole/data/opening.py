"""A person's table, opened: in memory where it is small, else by way of the cache."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from peephole.data import blocks, convert, fingerprint, frames, tables
from peephole.data.blocks import check_file
from peephole.data.cache import Cache
from peephole.data.convert import Check, Converted
from peephole.data.fingerprint import Marks
from peephole.data.frames import Frame
from peephole.data.reading import FOLDER_COLUMN, Form, files_of
from peephole.data.schema import to_json
from peephole.data.sequences import Grouping, Order, arrange, put_in_order
from peephole.data.tables import Source
from peephole.errors import UserError

VERSION = 1
# Smaller files are read in less time than they are looked up in the cache, and take a few times as
# much memory at most.
IN_MEMORY = 1 << 25


def open_table(
    given: Any,
    form: Form,
    *,
    option: str | None = None,
    check: Check,
    cache: Cache | None = None,
) -> tuple[Source, Grouping]:
    """Open a table in the order of its sequences.

    Args:
        given: the path of a file, or of a folder with one sequence a file, as in
            ``tables.read``; or a table from Python, as in ``frames.frame``.
        form: how it is read and put in order.
        option: the option that named the table, for errors.
        check: raises UserError where the columns do not do. It may be called more than once, and
            with a table that has them and no rows.
        cache: where a large table goes; None to take it into memory whatever its size.

    Raises:
        UserError: it cannot be read, grouped or ordered, or changes meanwhile; the cache cannot be
            written to.
    """
    if not frames.is_path(given):
        return _open_frame(frames.frame(given, option), form, check, cache)
    path = Path(given)
    if cache is None:
        return _in_memory(path, form, option, check)
    if not cache.always and _size(path, option) < IN_MEMORY:
        known = fingerprint.marks(path, option)
        source, grouping = _in_memory(path, form, option, check)
        _check_same(path, known, option)
    else:
        known, source, grouping = _cached(path, form, option, check, cache)
    return _marked(source, fingerprint.content(known), form), grouping


def columns_of(given: Any, sequence: str | None, option: str | None) -> Source | None:
    """The columns of a file or folder, without its rows; None where only all of it tells them.

    Args:
        given: as in ``open_table``.
        sequence: for a folder, what the column of the files' names is called.
        option: the option that named the table, for errors.

    Raises:
        UserError: it cannot be read, as far as its beginning tells.
    """
    if not frames.is_path(given):
        return None
    path = Path(given)
    names = blocks.columns_of(files_of(path, option)[0] if path.is_dir() else path, option)
    if names is None:
        return None
    names = [sequence or FOLDER_COLUMN, *names] if path.is_dir() else names
    return Source(pa.table({name: pa.nulls(0) for name in names}), str(path))


def _open_frame(
    frame: Frame, form: Form, check: Check, cache: Cache | None
) -> tuple[Source, Grouping]:
    check(Source(frame.gathered.schema.empty_table(), frame.name))
    if cache is None:
        return arrange(Source(frame.whole(), frame.name), form.sequence, form.order)
    content = frame.fingerprint()
    found = convert.order_of(frame.gathered, frame.name, form)
    if frame.table is not None and found.rows is None and not cache.always:
        source, grouping = Source(frame.table, frame.name), found.grouping(form.order)
    elif frame.bytes < IN_MEMORY and not cache.always:
        source, grouping = put_in_order(Source(frame.whole(), frame.name), found, form.order)
    else:
        source, grouping = _cached_frame(frame, content, found, form, cache)
    return _marked(source, content, form), grouping


def _cached_frame(
    frame: Frame, content: str, found: Order, form: Form, cache: Cache
) -> tuple[Source, Grouping]:
    def make(folder: Path) -> Converted:
        cache.say(f"{frame.name} is put in order once, into {cache.path / name}")
        convert.put_in_order(frame.gathered, found, folder, frame.bytes)
        return Converted(content, form, frame.gathered.rows, (), ())

    def load(folder: Path, converted: Converted) -> tuple[Source, Grouping]:
        return convert.load(folder, converted, frame.name)

    def stale(converted: Converted) -> str | None:
        if (converted.origin, converted.form) == (content, form):
            return None
        return f"{cache.path / name} was made from other data"

    name = "rows-" + _digest([VERSION, content, to_json(form)])[:24]
    return cache.entry(name, Converted, make=make, load=load, stale=stale)


def _marked(source: Source, content: str, form: Form) -> Source:
    """With a fingerprint of what was read, and how."""
    return replace(source, fingerprint=_digest([VERSION, content, to_json(form)]))


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
        if (converted.origin, converted.form) != (str(path.resolve()), form):
            return f"{folder} was made from {converted.origin}, not from {path}"
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
