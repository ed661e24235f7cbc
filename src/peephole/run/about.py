"""``run.json``: what a run is, besides its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from peephole import untrusted
from peephole.data.schema import from_json
from peephole.errors import UserError
from peephole.run.names import ABOUT
from peephole.untrusted import shown

MAX_BYTES = 1 << 21
# A table may have any number of columns, with names of any length.
MAX_NOTES, MAX_NOTE = 200, 1000


@dataclass(frozen=True)
class About:
    """What a run is.

    Attributes:
        format: of the run folder.
        task: what is trained: "table" for example.
        started: when, as ISO 8601 in UTC.
        updates: how many are planned.
        monitor: the metric by which the best model is chosen.
        goal: whether the least or the largest of it is best.
        sources: for each of its data, a fingerprint of what they held when it began.
        notes: what was said of the data when it began, a line each.
    """

    format: Literal[1]
    task: str
    started: str
    updates: int
    monitor: str
    goal: Literal["min", "max"]
    sources: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def now(
        cls,
        task: str,
        updates: int,
        monitor: str,
        goal: Literal["min", "max"],
        sources: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> "About":
        """Of a run that begins now. Where there are many notes, or long ones, the rest is cut."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        kept = [note if len(note) <= MAX_NOTE else f"{note[:MAX_NOTE]}…" for note in notes]
        if len(kept) > MAX_NOTES:
            kept[MAX_NOTES:] = [f"and {len(kept) - MAX_NOTES:,} lines more"]
        return cls(1, task, started, updates, monitor, goal, dict(sources or {}), tuple(kept))

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.started)


def read(run: Path) -> About:
    """A run's ``run.json``.

    Raises:
        UserError: it is missing, or not what we write.
    """
    where = run / ABOUT
    data = untrusted.parsed(untrusted.text(run, ABOUT, MAX_BYTES), where)
    try:
        about = from_json(About, data, f"{where}")
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
    if about.updates < 0:
        raise UserError(f"{where}.updates is {about.updates}; it must be at least 0")
    if not _is_time(about.started):
        raise UserError(f"{where}.started is {shown(about.started)}, not a time with its zone")
    return about


def _is_time(started: str) -> bool:
    try:
        time = datetime.fromisoformat(started)
    except ValueError:
        return False
    # Python's own years end at 9999, and a change of zone must not pass that.
    return time.tzinfo is not None and 1970 < time.year < 9000
