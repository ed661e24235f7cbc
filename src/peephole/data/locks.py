"""Locks between processes. The system opens a process's locks when it ends, however it ends."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # There is none on Windows.
    HAS_LOCKS = False
else:
    HAS_LOCKS = True


@contextlib.contextmanager
def lock(
    path: Path, *, shared: bool = False, waiting: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Hold a lock while the block runs.

    Args:
        path: a file that stands for what is locked; it is made, and stays.
        shared: whether others may hold it too, shared like this one.
        waiting: is called before waiting for another process. If None, there is no waiting.

    Yields:
        Whether it is held. It is not where the folder cannot be written to or its file system has
        no locks and, if there is no waiting, where another process holds it.
    """
    with contextlib.ExitStack() as stack:
        yield _held(path, shared, waiting, stack)


def _held(
    path: Path, shared: bool, waiting: Callable[[], None] | None, stack: contextlib.ExitStack
) -> bool:
    if not HAS_LOCKS:
        return False
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return False
    stack.callback(os.close, handle)
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is None:
            return False
        waiting()
        fcntl.flock(handle, how)
    except OSError:
        return False
    return True
