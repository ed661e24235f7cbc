"""Progress and tables in a terminal; plain lines where it is none."""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.measure import Quartiles
from benchmarks.verdict import Goal, Line

REFRESH_SECONDS = 0.5


def console() -> Console:
    """One for standard output. In a file or a pipe nothing is cut or broken to fit."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


class Bar:
    """A bar over several measurements, in a terminal alone.

    It is drawn when it is told of progress, between what is timed, and by no thread of its own,
    which would take its time from what is measured.
    """

    def __init__(self, out: Console, total: int) -> None:
        """Make one for ``total`` measurements."""
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=out,
            auto_refresh=False,
            transient=True,
            disable=not out.is_terminal,
        )
        self.task = self.bars.add_task("", total=total)
        self.finished = 0
        self.drawn = 0.0

    def start(self, what: str) -> Callable[[float], None]:
        """Begin a measurement; what is returned takes the share of it that is done, 0 to 1."""
        self.bars.update(self.task, description=what, refresh=True)
        return self._update

    def finish(self) -> None:
        """End a measurement."""
        self.finished += 1
        self.bars.update(self.task, completed=self.finished, refresh=True)

    def _update(self, share: float) -> None:
        if time.monotonic() - self.drawn > REFRESH_SECONDS:
            self.bars.update(self.task, completed=self.finished + share, refresh=True)
            self.drawn = time.monotonic()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()


def table(title: str, *columns: str) -> Table:
    """A table without lines; its first column stands to the left, numbers to the right.

    In a narrow terminal numbers are broken at spaces, the first column never.
    """
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for k, name in enumerate(columns):
        made.add_column(name, justify="right" if k else "left", no_wrap=k == 0, overflow="fold")
    return made


def number(value: float) -> str:
    """About three digits, never as a power of ten."""
    for below, decimals in ((1, 3), (10, 2), (100, 1)):
        if value < below:
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"


def spread(value: Quartiles) -> str:
    """The median, and the quartiles in brackets."""
    return f"{number(value.median)} ({number(value.low)}-{number(value.high)})"


def print_goals(out: Console, goals: Sequence[Goal], lines: Sequence[Line]) -> int:
    """A table of the bars, those that the lines say something of.

    Returns:
        How many are missed.
    """
    shown = table("Bars", "", "bar", "aim", "measured", "ceiling", "verdict", "over")
    judged = [(goal, found) for goal in goals if (found := goal.find(lines)) is not None]
    missed = 0
    for goal, found in judged:
        verdict = goal.verdict(found)
        missed += verdict == "missed"
        shown.add_row(
            goal.what.replace("`", ""),
            goal.limit(goal.bar),
            goal.limit(goal.aim),
            goal.told(found.value),
            goal.told(found.ceiling),
            "[bold red]MISSED[/]" if verdict == "missed" else verdict,
            found.over,
        )
    out.print()
    if not judged:
        out.print("No bar is about what was measured.")
        return 0
    out.print(shown)
    out.print(f"\nMissed: {missed} of {len(judged)}.")
    return missed
