"""Progress and tables in a terminal; plain lines where it is none."""

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from peephole.report import Table
from peephole.report.page import show

if TYPE_CHECKING:
    # A table is printed without the seconds that torch takes to load.
    from peephole.jobs.toy_training import Progress as Training
    from peephole.train import Event
    from peephole.train import Progress as Progressed

# How long a training may go on without a line, where there is no bar.
LINE_SECONDS = 60.0

# In a file or a pipe nothing is cut or broken to fit.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)


class Bars:
    """Bars in a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

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


class Trainings(Bars):
    """Several trainings side by side: a bar for each, or a line for each quarter of one."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, TaskID] = {}
        self.quarters: dict[str, int] = {}

    def show(self, training: "Training") -> None:
        name = training.name if training.seed == 0 else f"{training.name}, seed {training.seed}"
        note = "" if training.test_mse is None else f"test error {training.test_mse:.4f}"
        if not console.is_terminal:
            quarter = int(training.done * 4)
            if quarter > self.quarters.get(name, 0):
                self.quarters[name] = quarter
                print_line(f"{name}: {training.done:.0%}, {note}")
            return
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=1.0, start=False, note="waiting")
        if training.running:
            self.bars.start_task(self.tasks[name])
            self.bars.update(self.tasks[name], completed=training.done, note=note)


class Bar(Bars):
    """One training: a bar; or a line for each tenth of it, and each minute in between."""

    def __init__(self, *, shown: bool = True) -> None:
        super().__init__()
        self.bars.disable = self.bars.disable or not shown
        self.task: TaskID | None = None
        self.tenths = 0
        self.printed = time.monotonic()
        self.metrics = ""

    def event(self, event: "Event") -> None:
        """Show an evaluation."""
        done, of = event["update"], event["updates"]
        self.metrics = ""
        for key, name in (("loss", "validation loss"), ("accuracy", "accuracy"), ("rmse", "RMSE")):
            if key in event:
                self.metrics += f", {name} {event[key]:.4g}"
        epoch = round(event["epoch"], 2)
        note = f"epoch {epoch:g}, training loss {event['train_loss']:.4f}{self.metrics}"
        tenth = 10 * done // of
        if tenth > self.tenths:
            self.tenths = tenth
            self.print(done, of, note)
        self.move(done, of, note)

    def advance(self, progress: "Progressed") -> None:
        """Show how far it is."""
        done, of = progress.update, progress.updates
        speed = f", {progress.steps_per_second:,.0f} steps/s" if progress.steps_per_second else ""
        loss = "" if math.isnan(progress.loss) else f", training loss {progress.loss:.4f}"
        note = f"epoch {progress.epoch + 1}{speed}{loss}"
        if time.monotonic() - self.printed > LINE_SECONDS:
            self.print(done, of, note)
        self.move(done, of, note + self.metrics)

    def print(self, done: int, of: int, note: str) -> None:
        self.printed = time.monotonic()
        if not console.is_terminal:
            print_line(f"{done / of:4.0%}  {note}")

    def move(self, done: int, of: int, note: str) -> None:
        if self.task is None:
            self.task = self.bars.add_task("training", total=of, completed=done, note=note)
        self.bars.update(self.task, completed=done, note=note)


def print_line(line: str) -> None:
    """A line as it is: a column's name may look like markup."""
    console.print(_writable(line), markup=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """A report's table; numbers stand to the right."""
    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    first = table.rows[0] if table.rows else []
    for k, name in enumerate(table.header):
        number = bool(first) and not isinstance(first[k], str)
        drawn.add_column(
            Text(_writable(name)), justify="right" if number else "left", no_wrap=k == 0
        )
    for row in table.rows:
        drawn.add_row(*(Text(_writable(show(cell))) for cell in row))
    console.print(drawn)


def _writable(text: str) -> str:
    """What the encoding of standard output lacks as an escape: no training ends for a line."""
    encoding = getattr(console.file, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
