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
from dataclasses import dataclass
from pathlib import Path

from peephole.data.blocks import check_file
from peephole.data.reading import files_of
from peephole.errors import UserError

SETTLED_NS = 2_000_000_000
READ_BYTES = 1 << 20


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


def differs(file: Path, known: Mark, option: str | None = None) -> bool:
    """Whether a file holds other contents than it held.

    Raises:
        UserError: it cannot be read.
    """
    status = file.stat()
    if status.st_size != known.bytes:
        return True
    times = (status.st_mtime_ns, status.st_ctime_ns) == (known.modified, known.changed)
    return not (times and known.settled) and mark(file, option).digest != known.digest
