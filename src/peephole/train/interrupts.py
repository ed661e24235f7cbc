"""SIGTERM and SIGINT: a training ends its update, writes a checkpoint and stops."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

# torchrun passes on a SIGINT that a terminal has sent to all processes already.
SAME_SECONDS = 2.0


class Interrupts:
    """Takes note of the first SIGTERM or SIGINT; a second SIGINT ends the process at once.

    In other threads than the main one, which alone may take signals, it notes nothing.

    Attributes:
        signal: which came; 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._first = 0.0
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
        now = time.monotonic()
        if number != signal.SIGINT or self.signal != signal.SIGINT:
            self.signal, self._first = number, now
        elif "TORCHELASTIC_RUN_ID" not in os.environ or now - self._first > SAME_SECONDS:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
