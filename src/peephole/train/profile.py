"""``profile/``: where a training's time and memory go.

``trace.json`` has every operator of some updates, in Chrome's trace format: open it in
https://ui.perfetto.dev (it stays on your machine) or in chrome://tracing. ``operators.txt`` has the
operators that took longest, and those that took most memory, as tables.
"""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch.profiler import profile, record_function

from peephole.errors import UserError
from peephole.folders import sync_folder, write_synced
from peephole.run import writing
from peephole.run.names import PROFILE

TRACE, OPERATORS = "trace.json", "operators.txt"
MAKING = ".making"
ROWS = 40
# How the tables are sorted, and what to call that. Those of a device stand where one is used.
TABLES = {
    "self_cpu_time_total": "Operators by their own time on the CPU",
    "self_device_time_total": "Operators by their own time on the device",
    "self_cpu_memory_usage": "Operators by the memory of the CPU that they took themselves",
    "self_device_memory_usage": "Operators by the memory of the device that they took themselves",
}


class Profile:
    """Records some updates of this process; to be entered around ``fit(on_update=...)``.

    The files are written as soon as the updates are done, whole or not at all, in place of older
    ones. A training that is over before them is recorded from as early as it takes; one that ends
    with an error before them leaves no files.

    In both files a span "update" lies around each update; an evaluation or a checkpoint counts to
    the update after it. Its own time is what passed in Python, not in torch's operators.

    Args:
        run: the run folder.
        warm_up: updates before, in which memory is taken and code is compiled.
        updates: how many are recorded.

    Raises:
        UserError: the folder cannot be made or is a link.
    """

    def __init__(self, run: Path, *, warm_up: int = 5, updates: int = 20) -> None:
        self.folder = writing.folder(run, PROFILE)
        self.warm_up, self.last = warm_up, warm_up + updates
        self.done = 0
        self._recorder: profile | None = None
        self._span: Any = None

    def __enter__(self) -> Self:
        # The profiler tells of each start and stop on the terminal, as the gravest of its messages.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._recorder is not None:
            recorded = self._stop()
            if kind is None:
                self._write(recorded)

    def on_update(self) -> None:
        """Take note that an update is done.

        Raises:
            UserError: the files cannot be written.
        """
        if self._recorder is None:
            return
        self.done += 1
        if self.done == self.last:
            self._write(self._stop())
        elif self.done == self.warm_up:
            self._stop()
            self._start()
        else:
            self._span.__exit__(None, None, None)
            self._begin_span()

    def _start(self) -> None:
        self._recorder = profile(profile_memory=True)
        self._recorder.start()
        self._begin_span()

    def _begin_span(self) -> None:
        self._span = record_function("update")
        self._span.__enter__()

    def _stop(self) -> profile:
        recorder = self._recorder
        assert recorder is not None
        self._span.__exit__(None, None, None)
        recorder.stop()
        self._recorder = None
        return recorder

    def _write(self, recorded: profile) -> None:
        making = self.folder / MAKING
        try:
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            write_synced(making / OPERATORS, [tables(recorded).encode()])
            recorded.export_chrome_trace(str(making / TRACE))
            if not _is_whole(making / TRACE):
                raise UserError(
                    f"cannot write {self.folder}: the profiler could not write its trace; the "
                    "disk may be full"
                )
            for name in (TRACE, OPERATORS):
                (making / name).replace(self.folder / name)
            sync_folder(self.folder)
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror}") from error
        finally:
            shutil.rmtree(making, ignore_errors=True)


def tables(recorded: profile) -> str:
    """The operators that took longest, and those that took most memory."""
    operators = recorded.key_averages()
    parts = []
    for key, title in TABLES.items():
        if "device" not in key or any(getattr(each, key, 0) for each in operators):
            table = operators.table(sort_by=key, row_limit=ROWS, max_name_column_width=60)
            parts.append(f"{title}\n{table}\n")
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads\n\n" + "\n".join(parts)


def _is_whole(trace: Path) -> bool:
    """Whether a trace is there and has its end; if so it is on the disk when this returns.

    The profiler says nothing where it could not write it.
    """
    if not trace.exists():
        return False
    with trace.open("rb") as file:
        os.fsync(file.fileno())
        file.seek(max(0, trace.stat().st_size - 16))
        return file.read().rstrip().endswith(b"}")
