"""Processes that are killed: each begins in no time, since what it imports is loaded already."""

import contextlib
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

# What the command would load when it runs.
import peephole.jobs.table
import peephole.report.page  # noqa: F401
from peephole.cli import main


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def live(work: Callable[..., Any], *given: Any, seconds: float | None = None) -> int | None:
    """Let a process do some work; gives its exit status.

    Args:
        work: a function of a module.
        given: what it takes.
        seconds: it is killed after this time; then the status is -9 if it was not done.
    """
    process = _context().Process(target=_quietly, args=(work, *given))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def command(*words: str) -> None:
    """What typing ``peephole`` and these words does."""
    sys.exit(main(words))


def _quietly(work: Callable[..., Any], *given: Any) -> None:
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        work(*given)
