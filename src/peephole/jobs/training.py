"""What every command that trains does: a run folder, its checkpoints, and what a person sees."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from peephole import run as runs
from peephole.errors import Finished, UserError
from peephole.jobs import sizes
from peephole.run import About, Board, LiveRun
from peephole.run.board import check_installed
from peephole.run.names import CONFIG
from peephole.tasks.protocol import Task
from peephole.train import Engine, Event, Fit, Position, Progress, Settings, fit, launch
from peephole.train.checkpoints import Checkpoints
from peephole.train.profile import Profile

T = TypeVar("T")
Log = Literal["tensorboard"]


@dataclass(frozen=True)
class Watch:
    """What a training tells, and to whom.

    Attributes:
        log: "tensorboard" to write its files, into the run folder; None for metrics.jsonl alone.
        profile: whether to record, into the run folder, what some updates spend their time on.
        say: takes each line that a person should read.
        on_event: sees each evaluation as it happens.
        on_progress: sees, a few times a second, how far the training is.

    Raises:
        UserError: ``log`` is something else, or what it needs is not installed.
    """

    log: Log | None = None
    profile: bool = False
    say: Callable[[str], None] | None = None
    on_event: Callable[[Event], None] | None = None
    on_progress: Callable[[Progress], None] | None = None

    def __post_init__(self) -> None:
        if self.log not in (None, "tensorboard"):
            raise UserError(f"{self.log!r}; it must be 'tensorboard', or None", "log")
        if self.log == "tensorboard":
            check_installed()


def is_first() -> bool:
    """Whether this process is the first of those that ``torchrun`` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


class Notes:
    """Takes the lines about the data: they are shown, and kept for a run that begins."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if self.watch.say is not None and is_first():
            self.watch.say(line)


def check_out(out: str | Path | None, overwrite: bool) -> None:
    """See that a run can begin, or begin again, in ``out``.

    Raises:
        UserError: it cannot.
        Finished: these processes were started again, and had finished it before.
    """
    if out is not None:
        _check_unfinished(Path(out))
    if not is_first() or _begins_again(out):
        return
    if out is None and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        raise UserError("not given; torchrun may start this again, which must find its run", "out")
    runs.check_out(out, overwrite)


def settled(out: str | Path | None, kind: type[T]) -> T | None:
    """The settings of the run in ``out``, if this job began it before torchrun started it again.

    What was measured to settle them would be measured otherwise now. All processes see the same.

    Args:
        out: the run folder, for which ``check_out`` was called.
        kind: the dataclass that they are.

    Raises:
        UserError: they are not that.
    """
    if out is None or not launch.had(Path(out)) or not (Path(out) / CONFIG).exists():
        return None
    return runs.read_config(Path(out), kind)


@contextlib.contextmanager
def begin(
    out: str | Path | None, config: object, about: About, *, overwrite: bool
) -> Iterator[LiveRun | None]:
    """Begin a run, or go on with it where torchrun starts its processes again.

    Args:
        out: as ``config``, ``about`` and ``overwrite``: see ``run.start``.

    Yields:
        The run; None in all processes but the first.

    Raises:
        UserError: as ``run.start``.
    """
    if not is_first():
        yield None
    elif out is not None and _begins_again(out):
        with runs.resume(out) as live:
            if runs.read_config(live.path, type(config)) != config:
                raise UserError(
                    f"{live.path} is a run of other settings that was interrupted; resume it "
                    "(--resume), or choose another",
                    "out",
                )
            check_same(live, about.sources)
            yield live
    else:
        with runs.start(out, config, about, overwrite=overwrite) as live:
            launch.remember(live.path)
            yield live


@contextlib.contextmanager
def resume(path: str | Path) -> Iterator[LiveRun | None]:
    """Go on with a run that was interrupted.

    Yields:
        The run; None in all processes but the first.

    Raises:
        UserError: as ``run.resume``.
        Finished: these processes were started again, and had finished it before.
    """
    _check_unfinished(Path(path))
    if not is_first():
        yield None
        return
    with contextlib.ExitStack() as held:
        try:
            live = held.enter_context(runs.resume(path))
        except UserError as error:
            raise UserError(error.message, "resume") from error
        launch.remember(live.path)
        yield live


def check_alike(engine: Engine, sources: Mapping[str, str]) -> None:
    """Raise UserError unless this process has the data that the first one has.

    Otherwise they would wait for each other for ever, where one has more of them.
    """
    first = engine.from_first(dict(sources))
    for option, found in sources.items():
        if first.get(option) != found:
            raise UserError("it does not hold here what it holds for the first process", option)


def check_same(live: LiveRun, sources: Mapping[str, str]) -> None:
    """Raise UserError unless a run's data hold what they held when it began.

    Args:
        live: the run.
        sources: for the option that named each of the data, a fingerprint of what they hold now.
    """
    known = live.about.sources
    for option in ("file", *sorted(known.keys() | sources.keys())):
        if option not in sources and option in known:
            raise UserError(f"not given; {live.path} was begun with one: give it again", option)
        if option not in known and option in sources:
            raise UserError(f"{live.path} was begun without one: leave it out", option)
        if option in known and sources[option] != known[option]:
            raise UserError(
                f"it does not hold what it held when {live.path} was begun: give what it was, or "
                "begin another run",
                option,
            )


def fit_in(
    live: LiveRun | None, engine: Engine, task: Task, settings: Settings, watch: Watch
) -> Fit:
    """Train in a run folder, from where it is.

    Args:
        live: the run; None in all processes but the first.
        engine: what it runs on.
        task: the problem.
        settings: how.
        watch: who sees it.

    Raises:
        Diverged: as ``fit``; as is Interrupted.
        UserError: as ``fit``; the model of a run that is resumed is not that of its checkpoints.
    """
    if live is not None and live.resumed:
        sizes.check_checkpoints(live.path, task)
    # Till then the others wait, and take no memory either.
    engine.from_first(None)
    if live is None:
        return fit(task, settings, engine=engine)
    with contextlib.ExitStack() as held:
        board = held.enter_context(Board(live.path)) if watch.log == "tensorboard" else None
        profile = held.enter_context(Profile(live.path)) if watch.profile else None
        return _fit(live, engine, task, settings, watch, board, profile)


def _fit(
    live: LiveRun,
    engine: Engine,
    task: Task,
    settings: Settings,
    watch: Watch,
    board: Board | None,
    profile: Profile | None,
) -> Fit:
    def on_event(event: Event) -> None:
        if board is not None:
            board.event(event)
        if watch.on_event is not None:
            watch.on_event(event)

    def on_progress(progress: Progress) -> None:
        if board is not None:
            board.progress(progress)
        if watch.on_progress is not None:
            watch.on_progress(progress)

    return fit(
        task,
        settings,
        journal=live.events,
        checkpoints=Checkpoints(live.path, Position, keep=settings.checkpoints),
        resume=live.resumed,
        engine=engine,
        say=watch.say,
        on_event=on_event,
        on_progress=on_progress,
        on_update=None if profile is None else profile.on_update,
        on_resume=None if board is None else board.go_back,
    )


def _begins_again(out: str | Path | None) -> bool:
    """Whether a run is one that this job began before torchrun started its processes again.

    An older one is not to be gone on with, as it would be where a process is lost before it is
    overwritten.
    """
    return out is not None and launch.had(Path(out)) and runs.is_interrupted(Path(out))


def _check_unfinished(run: Path) -> None:
    # All processes see this, so that none waits for another.
    if launch.had(run) and runs.state(run) == "finished":
        raise Finished(run)
