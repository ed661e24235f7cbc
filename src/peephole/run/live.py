"""A run folder in its place, from the first update on: it can be interrupted and resumed."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peephole.data.schema import to_json
from peephole.errors import UserError
from peephole.folders import lacking, made_whole, write_atomically
from peephole.run import about as abouts
from peephole.run import config as configs
from peephole.run import writing
from peephole.run.about import About
from peephole.run.events import Events, lines, parsed
from peephole.run.lock import Lock
from peephole.run.names import ABOUT, ALL, CONFIG, EVENTS, FIGURES, METRICS, STARTED

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LiveRun:
    """A run in which this process trains; see ``start`` and ``resume``.

    Attributes:
        path: the folder.
        about: what the run is.
        events: metrics.jsonl.
        resumed: whether it was begun by another process.
    """

    path: Path
    about: About
    events: Events
    resumed: bool = False

    @property
    def figures(self) -> Path:
        return self.path / FIGURES

    def evaluations(self) -> list[dict[str, Any]]:
        """All so far, those of processes before this one included; what is null becomes NaN."""
        every = (parsed(self.path, line) for line in lines(self.path))
        return [
            {name: math.nan if value is None else value for name, value in event.items()}
            for event in every
            if event.get("event") == "evaluation"
        ]

    def write_model(self, config: Mapping[str, Any], model: "nn.Module") -> None:
        """Write the model that is kept.

        Args:
            config: what the task needs to rebuild it, as JSON.
            model: its weights.
        """
        writing.write_model(self.path, config, model)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Write the final figures. This comes last: with them the run is finished."""
        writing.write_metrics(self.path, metrics)


@contextlib.contextmanager
def start(
    path: str | Path | None, config: object, about: About, *, overwrite: bool = False
) -> Iterator[LiveRun]:
    """Begin a run: its folder is there at once, with its settings, and locked until this ends.

    Args:
        path: where; a new folder in ``runs/``, from the task and the time, if None.
        config: a dataclass, every setting resolved.
        about: what the run is.
        overwrite: whether a run that is there, finished or interrupted, is replaced.

    Raises:
        UserError: the path is taken, or another process trains there.
    """
    target = writing.fresh(about.task) if path is None else Path(path)
    writing.check_out(target, overwrite)
    with contextlib.ExitStack() as held:
        lock = _put_in_place(target, config, about, overwrite)
        held.callback(lock.release)
        yield held.enter_context(_opened(target, about))


def _put_in_place(target: Path, config: object, about: About, overwrite: bool) -> Lock:
    lock = None
    try:
        with (
            contextlib.ExitStack() as old,
            made_whole(target, STARTED, more=ALL, overwrite=overwrite) as hidden,
        ):
            write_atomically(hidden / CONFIG, configs.text(config).encode())
            write_atomically(hidden / ABOUT, writing.dumped(to_json(about)))
            (hidden / EVENTS).touch()
            lock = Lock.take(hidden)
            if overwrite and (target / CONFIG).exists():
                # Nobody begins to train in what is about to go.
                old.callback(Lock.take(target).release)
    except BaseException as error:
        if lock is not None:
            lock.release()
        if isinstance(error, OSError):
            raise UserError(f"cannot make {target}: {error.strerror}", "out") from error
        raise
    lock.folder = target
    return lock


@contextlib.contextmanager
def resume(path: str | Path) -> Iterator[LiveRun]:
    """Go on with a run that was interrupted; it is locked until this ends.

    Its settings are read with ``config.read``.

    Raises:
        UserError: there is none, it is finished, another process trains in it, or a part of it
            is damaged or no plain file.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"there is no run {path}")
    if missing := lacking(path, STARTED):
        raise UserError(f"{path} is not a run that can be resumed: it lacks {', '.join(missing)}")
    with contextlib.ExitStack() as held:
        held.callback(Lock.take(path).release)
        check_plain(path)
        if (path / METRICS).exists():
            raise UserError(f"{path} is finished: there is nothing to resume")
        yield held.enter_context(_opened(path, abouts.read(path), resumed=True))


@contextlib.contextmanager
def _opened(path: Path, about: About, *, resumed: bool = False) -> Iterator[LiveRun]:
    events = Events(path)
    try:
        yield LiveRun(path, about, events, resumed)
    finally:
        events.close()


def check_plain(run: Path) -> None:
    """Raise UserError unless all in a run is plain files and folders.

    What is written goes where a link leads, and a pipe is waited for.
    """
    waiting = [run]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise UserError(f"cannot read {folder}: {error.strerror}") from error
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                what = "a link" if entry.is_symlink() else "neither a file nor a folder"
                raise UserError(f"{entry.path} is {what}; a run has plain files and folders")
