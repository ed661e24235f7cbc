"""Which process trains in a run folder.

The process holds a lock on a file in it, which the kernel takes back when the process dies.
"""

import fcntl
import os
import re
import socket
import stat
import time
from pathlib import Path
from typing import Self

from peephole import untrusted
from peephole.errors import UserError
from peephole.run.names import LOCK

# Who only looks whether a folder is locked holds it for an instant.
PATIENCE_SECONDS = 1.0
MAX_BYTES = 400

_handles: set[int] = set()


class Lock:
    """A folder's lock, held by this process; see ``take``."""

    def __init__(self, folder: Path, handle: int) -> None:
        self.folder = folder
        self._handle = handle
        _handles.add(handle)

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Lock a folder.

        The lock stays with the folder when that is renamed; ``folder`` must then be set anew.

        Raises:
            UserError: another process has it, which is named; or it cannot be locked.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            handle = _opened(folder, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(handle)
                if not isinstance(error, BlockingIOError):
                    raise UserError(f"cannot lock {folder}: {error.strerror}", "out") from error
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{folder} is in use: {_named(folder)} trains in it", "out"
                    ) from None
                time.sleep(0.02)
                continue
            if _is_there(folder, handle):
                break
            # Whoever had it removed the file meanwhile.
            os.close(handle)
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        except OSError as error:
            os.close(handle)
            raise UserError(f"cannot lock {folder}: {error.strerror}", "out") from error
        return cls(folder, handle)

    def release(self) -> None:
        """Let others have it; the file goes."""
        if self._handle in _handles:
            if _is_there(self.folder, self._handle):
                (self.folder / LOCK).unlink()
            _handles.remove(self._handle)
            os.close(self._handle)


def holder(folder: Path) -> str | None:
    """The process that has a folder locked, as it is to be called; None if none has."""
    try:
        handle = _opened(folder, os.O_RDONLY)
    except UserError:
        # There is none, or it is no file that could be locked; who wants to lock it is told.
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(folder)
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def _opened(folder: Path, flags: int) -> int:
    file = folder / LOCK
    try:
        handle = os.open(file, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"cannot lock {folder}: {file.name}: {error.strerror}", "out") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"cannot lock {folder}: {file.name} is no plain file", "out")
    return handle


def _is_there(folder: Path, handle: int) -> bool:
    """Whether a folder's lock file is the one that is open."""
    try:
        return os.path.samestat((folder / LOCK).lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _named(folder: Path) -> str:
    try:
        match = re.fullmatch(
            r"(\d{1,10}) ([\w.-]{1,255})\n", untrusted.text(folder, LOCK, MAX_BYTES)
        )
    except UserError:
        match = None
    return f"process {match[1]} on {match[2]}" if match else "another process"


def _let_go() -> None:
    # A forked process would keep the lock when this one is killed.
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_let_go)
