"""Errors that a person can mend: they say what was given, what is allowed and what to do."""

import signal
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Something in a person's files or options is wrong.

    Args:
        message: one line.
        option: the option it is about, as it is called in Python (``learning_rate``); the command
            line shows it as the flag that was typed (``--learning-rate``).
    """

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message if option is None else f"{option}: {message}")
        self.message = message
        self.option = option


class Interrupted(Exception):
    """A training was told to stop, and did, where it can go on.

    Args:
        number: SIGTERM or SIGINT.
        run: the folder of a run that can be resumed; None where nothing was kept.
    """

    def __init__(self, number: int, run: Path | None = None) -> None:
        kept = "" if run is None else f"; {run} can be resumed"
        super().__init__(f"stopped by {signal.Signals(number).name}{kept}")
        self.signal = number
        self.run = run

    @property
    def exit_code(self) -> int:
        """As a shell tells of a process that a signal ended."""
        return 128 + self.signal


class Finished(Exception):
    """The processes of a job were started again, and had finished their run before.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(f"{run} is finished")


def listed(items: Iterable[object], most: int = 20) -> str:
    """``'a', 'b', 'c'``, and how many more there are."""
    shown = [repr(item) if isinstance(item, str) else str(item) for item in items]
    more = [f"and {len(shown) - most:,} more"] if len(shown) > most else []
    return ", ".join(shown[:most] + more)
