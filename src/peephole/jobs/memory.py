"""What becomes of memory that a process frees."""

import ctypes
import sys

# Of glibc's mallopt, with the most that every version takes for the second.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, PIECE_BYTES = 1 << 28, 1 << 25


def keep_memory() -> None:
    """Let this process keep up to 256 MiB of what it frees, in pieces of less than 32 MiB.

    glibc gives such pieces back at once, and the next update or evaluation of a model waits for the
    system to give them again, page by page. With another C library nothing is changed.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "gnu_get_libc_version"):
        # By itself the first would only keep glibc from adapting the second.
        if library.mallopt(M_MMAP_THRESHOLD, PIECE_BYTES):
            library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
