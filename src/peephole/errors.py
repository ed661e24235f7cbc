"""Errors that a person can mend: they say what was given, what is allowed and what to do."""

from collections.abc import Iterable


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


def listed(items: Iterable[object], most: int = 20) -> str:
    """``'a', 'b', 'c'``, and how many more there are."""
    shown = [repr(item) if isinstance(item, str) else str(item) for item in items]
    more = [f"and {len(shown) - most:,} more"] if len(shown) > most else []
    return ", ".join(shown[:most] + more)
