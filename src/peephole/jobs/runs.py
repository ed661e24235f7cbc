"""Run folders at a glance: what each is, how far it is and how good.

Only small files are read, and torch is not loaded.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peephole import untrusted
from peephole.errors import UserError
from peephole.run import About, State, about, events, saved, state
from peephole.run.finished import read_metrics
from peephole.run.names import ABOUT, CONFIG, MAX_CONFIG_BYTES, METRICS

MARKS = (CONFIG, ABOUT, METRICS)
DEFAULT = Path("runs")


@dataclass(frozen=True)
class Listed:
    """A run folder, as far as it could be read; None for what it does not say.

    Attributes:
        run: the folder.
        state: how it is.
        damage: why it is damaged.
        task: what is trained.
        started: when, as ISO 8601.
        update: updates done. Of a run that was interrupted or diverged, those that a checkpoint
            holds.
        updates: how many are planned.
        metric: the figure by which models are compared.
        best: the best of it.
    """

    run: Path
    state: State | Literal["diverged", "damaged"]
    damage: str | None = None
    task: str | None = None
    started: str | None = None
    update: int | None = None
    updates: int | None = None
    metric: str | None = None
    best: float | None = None


def list_runs(folders: Sequence[str | Path] | None = None) -> list[Listed]:
    """Look at runs, each alone: a damaged one is told and hides no other.

    Args:
        folders: run folders, and folders of run folders; ``runs/``, if it is there, if None.

    Returns:
        Each run once, oldest first; those that do not say when they began come before.

    Raises:
        UserError: there is no such folder.
    """
    if folders is None:
        folders = [DEFAULT] if DEFAULT.is_dir() else []
    runs = {path.resolve(): path for folder in folders for path in _runs(Path(folder))}
    return sorted(map(look, runs.values()), key=lambda run: (run.started or "", str(run.run)))


def _runs(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if _is_run(folder):
        yield folder
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
    # With a dot before its name it is being made or removed.
    yield from (path for path in inside if not path.name.startswith(".") and _is_run(path))


def _is_run(path: Path) -> bool:
    try:
        return path.is_dir() and any(os.path.lexists(path / name) for name in MARKS)
    except OSError:
        return False


def look(run: Path) -> Listed:
    """Look at one run folder, which may come from a stranger."""
    try:
        return _looked(run)
    except UserError as error:
        return Listed(run, "damaged", error.message)
    except OSError as error:
        return Listed(run, "damaged", f"cannot read {run}: {error.strerror}")


def _looked(run: Path) -> Listed:
    now = state(run)
    untrusted.opened(run, CONFIG, MAX_CONFIG_BYTES).close()
    if now == "finished":
        read_metrics(run)
    is_about = about.read(run)
    progress = _progress(run, is_about)
    done = progress.update or 0
    if now == "running":
        done = max([done, *saved.found(run)])
    elif now == "interrupted":
        done = _saved(run)
    return Listed(
        run,
        "diverged" if now == "interrupted" and progress.diverged else now,
        task=is_about.task,
        started=is_about.started,
        update=done,
        updates=max(is_about.updates, progress.updates or 0),
        metric=is_about.monitor,
        best=progress.best,
    )


@dataclass
class _Progress:
    update: int | None = None
    updates: int | None = None
    best: float | None = None
    diverged: bool = False


def _progress(run: Path, is_about: About) -> _Progress:
    """What a run's events tell: its evaluations, and the last one."""
    progress = _Progress()
    for line in events.lines(run):
        progress.diverged = False
        # Most lines of a long run may be others.
        if b'"evaluation"' not in line and b'"diverged"' not in line:
            continue
        event = events.parsed(run, line)
        progress.diverged = event.get("event") == "diverged"
        if event.get("event") != "evaluation":
            continue
        progress.update = _whole(event.get("update"), progress.update)
        progress.updates = _whole(event.get("updates"), progress.updates)
        value = event.get(is_about.monitor)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seen = [value] if progress.best is None else [value, progress.best]
            progress.best = min(seen) if is_about.goal == "min" else max(seen)
    return progress


def _whole(value: Any, before: int | None) -> int | None:
    return value if type(value) is int and value >= 0 else before


def _saved(run: Path) -> int:
    """The updates of the newest checkpoint whose small files are whole; 0 if there is none."""
    damaged = None
    for update, path in reversed(saved.found(run).items()):
        try:
            return saved.read(run, update, path).update
        except saved.Damaged as error:
            damaged = damaged or error
    if damaged is not None:
        raise damaged
    return 0
