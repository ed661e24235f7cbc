"""SIGTERM and SIGINT: a training ends its update, writes a checkpoint and stops."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(Exception):
    """A training was told to stop, and did, where it can go on.

    Attributes:
        signal: SIGTERM or SIGINT.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


class Interrupts:
    """Takes note of the first SIGTERM or SIGINT; a second SIGINT ends the process at once.

    In other threads than the main one, which alone may take signals, it notes nothing.

    Attributes:
        signal: which came; 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
