"""Folders and files that are made whole or not at all."""

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from peephole.errors import UserError

Part = bytes | memoryview
PAGE = ("figures", "report.html")


def check_free(
    path: Path, files: Sequence[str], *, more: Sequence[str] = PAGE, overwrite: bool
) -> None:
    """Raise UserError unless a folder can be put there.

    Args:
        path: where.
        files: what a folder of this kind holds. Only such a folder, with nothing else in it, or an
            empty one is ever overwritten.
        more: what it may hold besides.
        overwrite: whether it may be.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"{path} is not a folder", "out")
    if path.resolve() == Path.cwd() or path.is_mount():
        raise UserError(f"{path} cannot be replaced as a whole; name a folder within it", "out")
    if not path.exists() or not any(path.iterdir()):
        return
    if missing := lacking(path, files):
        raise UserError(
            f"{path} exists and is left alone, since it is nothing that this command made "
            f"(it has no {missing[0]}); choose another",
            "out",
        )
    ours = {Path(name).parts[0] for name in (*files, *more)}
    if others := sorted(entry.name for entry in path.iterdir() if entry.name not in ours):
        raise UserError(
            f"{path} exists and is left alone, since it also holds {others[0]}, which this "
            "command did not make; choose another",
            "out",
        )
    if not overwrite:
        raise UserError(f"{path} exists; choose another, or overwrite it (--overwrite)", "out")


def lacking(path: Path, files: Sequence[str]) -> list[str]:
    """Those of ``files`` that a folder does not have."""
    return [name for name in files if not (path / name).is_file()]


@contextlib.contextmanager
def made_whole(
    path: Path, files: Sequence[str], *, more: Sequence[str] = PAGE, overwrite: bool
) -> Iterator[Path]:
    """Make a folder beside its place, under a hidden name, and put it there when the block ends.

    If the block raises it is removed, and what was to be overwritten is still there.

    Args:
        path: its place.
        files: as ``more`` and ``overwrite``: see ``check_free``.

    Yields:
        The hidden folder, to fill.

    Raises:
        UserError: the place is taken.
    """
    check_free(path, files, more=more, overwrite=overwrite)
    hidden = path.parent / f".{path.name}.{os.getpid()}.making"
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _clear(path)
            held.callback(os.close, _held(hidden))
            held.callback(shutil.rmtree, hidden, ignore_errors=True)
        except OSError as error:
            raise UserError(f"cannot make {path}: {error.strerror}", "out") from error
        yield hidden
        check_free(path, files, more=more, overwrite=overwrite)
        put(hidden, path, overwrite=overwrite)


def _held(hidden: Path) -> int:
    """Make a folder; while the handle is open, no other process takes it for left behind."""
    while True:
        hidden.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            handle = _locked(hidden, fcntl.LOCK_EX)
            if hidden.exists() and os.path.samestat(os.fstat(handle), hidden.stat()):
                return handle
            # Between these lines another process has removed it.
            os.close(handle)


def _clear(path: Path) -> None:
    """Remove what processes left beside a folder that were killed while they made it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not re.fullmatch(r"\d+\.(making|old)", left.name[len(path.name) + 2 :]):
            continue
        # What a process makes goes to its place after what was there has gone from it.
        making, old = left.with_suffix(".making"), left.with_suffix(".old")
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            if making.exists():
                held.callback(os.close, _locked(making, fcntl.LOCK_EX | fcntl.LOCK_NB))
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(making, ignore_errors=True)


def _locked(folder: Path, how: int) -> int:
    """An open folder, locked until it is closed.

    Raises:
        OSError: there is none, it is no folder, or another process has it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, how)
    except BaseException:
        os.close(handle)
        raise
    return handle


def put(made: Path, path: Path, *, overwrite: bool = True) -> None:
    """Move a folder to its place; the one that is there goes when that is done."""
    old = path.parent / f".{path.name}.{os.getpid()}.old"
    if overwrite and path.exists():
        path.rename(old)
    try:
        # An empty folder gives way; what came meanwhile does not.
        made.rename(path)
    except OSError as error:
        if old.exists():
            old.rename(path)
        raise UserError(f"cannot make {path}: {error.strerror}", "out") from error
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(path.parent)


def write_atomically(path: Path, parts: bytes | Iterable[Part]) -> None:
    """Write a file so that at any instant it is whole, old or new; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_synced(temporary, [parts] if isinstance(parts, bytes) else parts)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_synced(path: Path, parts: Iterable[Part]) -> str:
    """Write a file, and have it on the disk.

    Returns:
        The SHA-256 of what was to be written, in hexadecimal.
    """
    digest = hashlib.sha256()
    path.unlink(missing_ok=True)
    # Exclusively, so that no link that a stranger put there is followed.
    with path.open("xb") as file:
        for part in parts:
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def append(handle: int, data: bytes) -> None:
    """Append to an open file, all of it or nothing.

    When this returns a kill of this process cannot lose it.

    Raises:
        OSError: it could not be written. Then the file is as before.
    """
    begin = os.fstat(handle).st_size
    try:
        while data:
            data = data[os.write(handle, data) :]
    except OSError:
        os.ftruncate(handle, begin)
        raise


def sync_folder(path: Path) -> None:
    """Have on the disk which entries a folder has."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
