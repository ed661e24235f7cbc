"""A file, or a folder with one sequence a file, as blocks of one schema."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from peephole.data.blocks import DELIMITERS, SUFFIXES, read_file
from peephole.errors import UserError, listed

FOLDER_COLUMN = "sequence"


@dataclass(frozen=True)
class Form:
    """How rows are read and put in order.

    Attributes:
        sequence: the column that tells sequences apart; None where the table is one series.
        order: the column that orders a sequence's rows; None for the order they have.
        text: columns to read as text from CSV, whatever their fields look like.
    """

    sequence: str | None
    order: str | None
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """The blocks of one file, wherever they are kept; ``blocks`` gives them any number of times."""

    schema: pa.Schema
    rows: int
    blocks: Callable[[], Iterator[pa.Table]]


Keep = Callable[[Iterator[pa.Table]], Kept]


@dataclass(frozen=True)
class Gathered(Kept):
    """All blocks, one after the other.

    Attributes:
        starts: for a folder, each file's name and its first row.
    """

    starts: tuple[tuple[str, int], ...] = ()


def in_memory(blocks: Iterator[pa.Table]) -> Kept:
    tables = list(blocks)
    return Kept(tables[0].schema, sum(table.num_rows for table in tables), lambda: iter(tables))


def gather(
    path: Path,
    *,
    keep: Keep,
    sequence: str | None = None,
    text: Collection[str] = (),
    option: str | None = None,
) -> Gathered:
    """Read a file, or a folder with one sequence a file.

    Args:
        path: a file with one of ``SUFFIXES``, or a folder of such files.
        keep: where the blocks of each file are put.
        sequence: for a folder, what to call the column that holds each file's name without its
            suffix; "sequence" if None.
        text: columns to read as text from CSV, whatever their fields look like.
        option: the option that named the file, for errors.

    Raises:
        UserError: as ``read_file``; files of a folder that do not fit together.
    """
    if path.is_dir():
        return _gather_folder(path, keep, sequence or FOLDER_COLUMN, text, option)
    kept = read_file(path, text, option, keep)
    return Gathered(kept.schema, kept.rows, kept.blocks)


def files_of(folder: Path, option: str | None) -> list[Path]:
    """The files of a folder, ``b2`` before ``b10``.

    Raises:
        UserError: there are none, others than tables, or two for one sequence.
    """
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
    if len(set(stems)) < len(stems):
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        raise UserError(f"{folder} has two files for the sequence {twice[0]!r}", option)
    return files


def _gather_folder(
    folder: Path, keep: Keep, sequence: str, text: Collection[str], option: str | None
) -> Gathered:
    files = files_of(folder, option)
    kept = [read_file(path, text, option, keep) for path in files]
    for path, one in zip(files, kept, strict=True):
        _check_columns(path, one.schema.names, files[0], kept[0].schema.names, option)
    names = kept[0].schema.names
    if sequence in names:
        raise UserError(
            f"the files in {folder} have a column {sequence!r}; in a folder each file is one "
            f"sequence, and {sequence!r} is what the column of the files' names is called",
            option or "sequence",
        )
    if mixed := [name for name in names if _is_mixed([k.schema.field(name).type for k in kept])]:
        wanted = {*text, *mixed}
        kept = [
            read_file(path, wanted, option, keep) if path.suffix.lower() in DELIMITERS else one
            for path, one in zip(files, kept, strict=True)
        ]
    schemas = [pa.schema([one.schema.field(name) for name in names]) for one in kept]
    try:
        joint = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise _misfit(folder, error, option) from error

    def blocks() -> Iterator[pa.Table]:
        for path, one in zip(files, kept, strict=True):
            for table in one.blocks():
                try:
                    parts = [joint.empty_table(), table.select(names)]
                    whole = pa.concat_tables(parts, promote_options="permissive")
                except pa.ArrowException as error:
                    raise _misfit(folder, error, option) from error
                yield whole.add_column(0, sequence, _repeated(path.stem, table.num_rows))

    counts = [one.rows for one in kept]
    firsts = (np.cumsum(counts) - counts).tolist()
    return Gathered(
        joint.insert(0, pa.field(sequence, _repeated("", 0).type)),
        sum(counts),
        blocks,
        tuple((path.name, first) for path, first in zip(files, firsts, strict=True)),
    )


def _repeated(word: str, times: int) -> pa.DictionaryArray:
    """The same text in each row: as a dictionary, whose size does not depend on the text."""
    return pa.DictionaryArray.from_arrays(np.zeros(times, dtype=np.int32), pa.array([word]))


def _misfit(folder: Path, error: Exception, option: str | None) -> UserError:
    message = " ".join(str(error).split())
    return UserError(f"the files in {folder} do not fit together: {message}", option)


def _is_mixed(kinds: Sequence[pa.DataType]) -> bool:
    """Text in some files, something else in others."""
    kinds = [kind for kind in kinds if not pa.types.is_null(kind)]
    texts = [pa.types.is_string(kind) for kind in kinds]
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds]
    return len(set(kinds)) > 1 and not all(numbers) and not all(texts)


def _check_columns(
    path: Path, given: Sequence[str], first: Path, wanted: Sequence[str], option: str | None
) -> None:
    for names, has, lacks in (
        (set(given) - set(wanted), path, first),
        (set(wanted) - set(given), first, path),
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
