"""Processes that train side by side."""

import multiprocessing
import os
from multiprocessing.context import BaseContext


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
