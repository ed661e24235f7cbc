"""Whether files still hold what they held: by their contents, and in short by their times.

A file's contents are hashed as a whole (SHA-256, which takes 0.6 s a gigabyte): a sample would miss
a changed field. They are hashed again only where the file's size or one of its two times is another
one. A program can set the time of the last modification, but not that of the last change. A file
that was written in the last two seconds before it was hashed may be written again within a tick of
the clock, and so with the same times: its times tell nothing, nor do times that lie in the future.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from peephole.data.blocks import check_file
from peephole.data.reading import files_of
from peephole.errors import UserError
from peephole.untrusted import printable

SETTLED_NS = 2_000_000_000
READ_BYTES = 1 << 20
# Of a name that a stranger may have kept.
SHOWN = 300


@dataclass(frozen=True)
class Mark:
    """What a file was like.

    Attributes:
        name: within its folder.
        bytes: its size.
        modified: time of the last modification, in ns since 1970.
        changed: time of the last change, likewise.
        settled: whether both were long ago.
        digest: SHA-256 of its contents, in hexadecimal.
    """

    name: str
    bytes: int
    modified: int
    changed: int
    settled: bool
    digest: str


Marks = tuple[Mark, ...]


def marks(path: Path, option: str | None = None) -> Marks:
    """What a file, or each file of a folder, is like.

    Raises:
        UserError: there is none, or it cannot be read or be a table.
    """
    return tuple(mark(file, option) for file in _files(path, option))


def difference(path: Path, known: Marks, option: str | None = None) -> str | None:
    """What became of the files since then, in words; None if they are the same.

    Raises:
        UserError: as ``marks``.
    """
    files = {file.name: file for file in _files(path, option)}
    for one in known:
        if one.name not in files:
            return f"{path}: {one.name} is gone"
        if differs(files[one.name], one, option):
            return f"{files[one.name]} has changed"
    if more := sorted(files.keys() - {one.name for one in known}):
        return f"{path}: {more[0]} is new"
    return None


def content(known: Marks) -> str:
    """A digest of names and contents, whatever the times."""
    names = [(one.name, one.digest) for one in known]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def of_sources(paths: Iterable[Path], option: str | None = None) -> dict[str, str]:
    """What files are like, as text for a run to keep.

    Args:
        paths: files, and folders of files.
        option: the option that named them, for errors.

    Returns:
        For each file its digest and size and, where they tell something, its times. They are of
        these files alone: ``check_sources`` opens no other, whatever is kept.

    Raises:
        UserError: as ``marks``.
    """
    return {str(file): _text(mark(file, option)) for path in paths for file in _files(path, option)}


def check_sources(
    paths: Iterable[Path], known: Mapping[str, str], option: str | None = None
) -> None:
    """Raise UserError unless files are those that ``of_sources`` saw.

    A file whose times are the same is not read.

    Args:
        paths: the same as then.
        known: what it gave.
        option: the option that named them, for errors.
    """
    files = {str(file): file for path in paths for file in _files(path, option)}
    for name in dict.fromkeys([*known, *files]):
        why = None
        if name not in files:
            why = "is gone"
        elif name not in known:
            why = "is new"
        elif not _is(files[name], known[name], option):
            why = "has changed"
        if why is not None:
            raise UserError(
                f"{printable(name)[:SHOWN]} {why} since the run began; put back what it was "
                "trained on, or begin another run",
                option,
            )


def digest_of(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _files(path: Path, option: str | None) -> list[Path]:
    files = files_of(path, option) if path.is_dir() else [path]
    for file in files:
        check_file(file, option)
    return files


def mark(file: Path, option: str | None = None) -> Mark:
    """What one file is like.

    Raises:
        UserError: it cannot be read.
    """
    now = time.time_ns()
    try:
        status = file.stat()
        digest = digest_of(file)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", option) from error
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    return Mark(
        file.name,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        now - latest > SETTLED_NS,
        digest,
    )


def _text(one: Mark) -> str:
    times = f" {one.modified} {one.changed}" if one.settled else ""
    return f"{one.digest} {one.bytes}{times}"


def _is(file: Path, known: str, option: str | None) -> bool:
    digest, size, times = [*known.split(" ", 2), "", ""][:3]
    status = file.stat()
    if size != str(status.st_size):
        return False
    same = times == f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return same or mark(file, option).digest == digest


def differs(file: Path, known: Mark, option: str | None = None) -> bool:
    """Whether a file holds other contents than it held.

    Raises:
        UserError: it cannot be read.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", option) from error
    if status.st_size != known.bytes:
        return True
    times = (status.st_mtime_ns, status.st_ctime_ns) == (known.modified, known.changed)
    return not (times and known.settled) and mark(file, option).digest != known.digest
