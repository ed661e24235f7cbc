"""``tensorboard/``: curves of a training, which TensorBoard draws while it goes on.

    tensorboard --logdir runs

TensorBoard reads the files in the order of their names, so these are numbered: a clock may go back.
They are written here, of tensorboard's own records, rather than by ``SummaryWriter``: that names
them by the time, and writes in a thread, where a full disk shows late and as a stack of calls.
"""

import io
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from peephole.errors import UserError
from peephole.folders import append
from peephole.run import writing
from peephole.run.names import BOARD

# Of progress, which is told several times a second, for weeks.
SECONDS = 2.0


@runtime_checkable
class Progress(Protocol):
    """How far a training is, as ``peephole.train`` tells it."""

    @property
    def update(self) -> int: ...

    @property
    def loss(self) -> float: ...

    @property
    def steps_per_second(self) -> float: ...


def check_installed() -> None:
    """Raise UserError unless tensorboard is installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(
            "tensorboard is not installed; install it (pip install 'peephole[tensorboard]'), or "
            "leave it out: metrics.jsonl holds the same figures",
            "log",
        ) from error


class Board:
    """The curves of a run; one process at a time writes them.

    Args:
        run: the run folder.

    Raises:
        UserError: tensorboard is not installed, or the folder cannot be written to or is a link.
    """

    def __init__(self, run: Path) -> None:
        check_installed()
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._message, self._record = Event, RecordWriter
        folder = writing.folder(run, BOARD)
        self.file = folder / f"events.out.tfevents.{_newest(folder) + 1:09d}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            self._handle = os.open(self.file, flags, 0o666)
        except OSError as error:
            raise UserError(f"cannot make {self.file}: {error.strerror}") from error
        self._next_progress = 0.0
        self._write(file_version="brain.Event:2")

    def go_back(self, update: int) -> None:
        """Take back all points of later updates: the run goes on after this one.

        Raises:
            UserError: as ``event``.
        """
        self._write(step=update + 1, session_log={"status": "START"})

    def event(self, event: Mapping[str, Any]) -> None:
        """Add a point for each number of an event, at its update.

        A curve is called as its number is in metrics.jsonl, after the kind of the event:
        ``evaluation/loss``.

        Raises:
            UserError: it cannot be written, since the disk is full for example. Then the points
                before are there.
        """
        points = {
            f"{event['event']}/{name}": float(value)
            for name, value in event.items()
            if type(value) in (int, float) and name not in ("update", "updates")
        }
        self._add(event["update"], points)

    def progress(self, progress: Progress) -> None:
        """Add a point of the loss and the speed, if the last one is two seconds ago.

        Raises:
            UserError: as ``event``.
        """
        now = time.monotonic()
        if now < self._next_progress:
            return
        self._next_progress = now + SECONDS
        points = {
            "progress/loss": progress.loss,
            "progress/steps_per_second": progress.steps_per_second,
        }
        self._add(progress.update, points)

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, update: int, points: Mapping[str, float]) -> None:
        values = [{"tag": name, "simple_value": number} for name, number in points.items()]
        self._write(step=update, summary={"value": values})

    def _write(self, **fields: Any) -> None:
        record = io.BytesIO()
        message = self._message(wall_time=time.time(), **fields)
        self._record(record).write(message.SerializeToString())
        try:
            append(self._handle, record.getvalue())
        except OSError as error:
            raise UserError(f"cannot write {self.file}: {error.strerror}") from error


def _newest(folder: Path) -> int:
    matches = [
        re.fullmatch(r"events\.out\.tfevents\.([0-9]{9})", path.name) for path in folder.iterdir()
    ]
    return max((int(match[1]) for match in matches if match), default=0)
