"""Processes that train side by side."""

import ctypes
import multiprocessing
import os
import sys
from multiprocessing.context import BaseContext

# Of glibc's mallopt, with the most that every version takes for the second.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, PIECE_BYTES = 1 << 28, 1 << 25


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def begin(module: str) -> BaseContext:
    """Processes that have ``module`` loaded, where the system can; else they load it themselves.

    It is loaded once, from the first call on, beside what this process does meanwhile: a program
    that calls this before its own first import of torch does not wait for it twice.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    forkserver.ensure_running()
    return context


def keep_memory() -> None:
    """Let this process keep what it frees, where the system's C library is glibc.

    It gives large pieces back at once, and the next evaluation of a model takes as long to get
    them again, page by page, as to compute.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "gnu_get_libc_version"):
        # By itself the first would only keep glibc from adapting the second.
        if library.mallopt(M_MMAP_THRESHOLD, PIECE_BYTES):
            library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
