"""``metrics.jsonl``: a line for each event of a training, in order."""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peephole import untrusted
from peephole.errors import UserError
from peephole.folders import append
from peephole.run.names import EVENTS

MAX_BYTES = 1 << 28
MAX_LINE_BYTES = 1 << 20


class Events:
    """The file, to append to. One process at a time may have it open.

    A last line that a killed process cut short is dropped.

    Args:
        run: the run folder.

    Raises:
        UserError: it is no plain file, or cannot be written.
    """

    def __init__(self, run: Path) -> None:
        self.file = run / EVENTS
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            self._handle = os.open(self.file, flags, 0o666)
        except OSError as error:
            raise self._cannot("open", error) from error
        if not stat.S_ISREG(os.fstat(self._handle).st_mode):
            self.close()
            raise UserError(f"{self.file} is no file; it must be a plain file")
        self._drop_cut_line()

    def append(self, event: Mapping[str, Any]) -> None:
        """Append an event; numbers that are not finite become null.

        When this returns a kill of this process cannot lose it.

        Raises:
            UserError: it cannot be written, since the disk is full for example. Then the file is
                as before.
            ValueError: the event is none that can be read again.
        """
        line = (json.dumps(plain(event), ensure_ascii=False, allow_nan=False) + "\n").encode()
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(
                f"an event has {len(line):,} bytes; at most {MAX_LINE_BYTES:,} can be read"
            )
        try:
            append(self._handle, line)
        except OSError as error:
            raise self._cannot("write", error) from error

    def position(self) -> int:
        """How many bytes it has. They are on the disk when this returns."""
        os.fsync(self._handle)
        return self._size()

    def truncate(self, position: int) -> None:
        """Drop all that was appended after a position.

        Raises:
            UserError: the file is not the one whose position that was: it is shorter, or no line
                ends there.
        """
        size = self._size()
        if not 0 <= position <= size:
            raise UserError(
                f"{self.file} has {size:,} bytes and had {position:,} when the checkpoint was "
                "written: it was changed since"
            )
        if position and os.pread(self._handle, 1, position - 1) != b"\n":
            raise UserError(
                f"{self.file} has no end of a line at its byte {position:,}, where the checkpoint "
                "was written: it was changed since"
            )
        os.ftruncate(self._handle, position)
        os.fsync(self._handle)

    def close(self) -> None:
        os.close(self._handle)

    def _size(self) -> int:
        return os.fstat(self._handle).st_size

    def _drop_cut_line(self) -> None:
        size = self._size()
        begin = max(0, size - MAX_LINE_BYTES)
        end = os.pread(self._handle, size - begin, begin)
        if begin and b"\n" not in end:
            self.close()
            raise UserError(f"{self.file} has a line of more than {MAX_LINE_BYTES:,} bytes")
        whole = begin + end.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(self._handle, whole)

    def _cannot(self, what: str, error: OSError) -> UserError:
        return UserError(f"cannot {what} {self.file}: {error.strerror}")


def plain(event: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in event.items()
    }


def lines(run: Path) -> Iterator[bytes]:
    """The lines of a run's events, one in memory at a time; not a last one that is cut short.

    Raises:
        UserError: the file is missing, no plain file, too large, or a line of it is.
    """
    with untrusted.opened(run, EVENTS, MAX_BYTES) as file:
        while (line := file.readline(MAX_LINE_BYTES + 1)).endswith(b"\n"):
            yield line
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{run / EVENTS} has a line of more than {MAX_LINE_BYTES:,} bytes")


def parsed(run: Path, line: bytes) -> dict[str, Any]:
    """A line as an event.

    Raises:
        UserError: it is none.
    """
    where = run / EVENTS
    try:
        event = untrusted.parsed(line.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {where}: {untrusted.one_line(error)}") from error
    if not isinstance(event, dict):
        raise UserError(f"{where} must hold an object a line, got {untrusted.shown(event)}")
    return event
