"""Train a language model on a text."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from peephole import run as runs
from peephole.data.alphabet import Alphabet
from peephole.data.cache import Cache
from peephole.data.decoding import Unit
from peephole.data.schema import check_choices, to_json
from peephole.errors import UserError
from peephole.jobs.text import report, settings
from peephole.jobs.text.prepare import Prepared, prepare
from peephole.jobs.text.settings import MOST_SCORED, ModelSettings, TrainSettings
from peephole.jobs.training import (
    Notes,
    Watch,
    begin,
    check_alike,
    check_out,
    check_same,
    fit_in,
    settled,
)
from peephole.jobs.training import resume as resumed
from peephole.run import About, LiveRun, Run
from peephole.run.names import CONFIG
from peephole.tasks.text import scoring
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.scoring import Cost
from peephole.tasks.text.task import TextTask
from peephole.train import Engine, Fit

BUDGET = "5m"


@dataclass(frozen=True)
class Config:
    """``config.yaml`` of a run: every setting, with nothing left open.

    Attributes:
        file: the text, as it was named; None for the source of Python's standard library.
        unit: char or byte.
        budget: the wall time that the rest was chosen by.
        model: the network.
        train: how it is trained.
        seed: of weights, order and dropout.
        cache: the folder, if one was named.
    """

    file: str | None
    unit: Unit
    budget: str
    model: ModelSettings
    train: TrainSettings
    seed: int
    cache: str | None


@dataclass(frozen=True)
class TextRun:
    """A trained language model.

    Attributes:
        run: its folder.
        model: in evaluation mode.
        alphabet: what its ids stand for.
        seconds: wall time of the training.
    """

    run: Run
    model: TextModel
    alphabet: Alphabet
    seconds: float

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def metrics(self) -> dict[str, float]:
        """The final figures: ``valid.nats``, ``valid.bits``, ``valid.perplexity`` and so on."""
        return self.run.metrics


def train(
    file: str | Path | None = None,
    *,
    unit: Unit = "char",
    budget: str = BUDGET,
    model: ModelSettings | None = None,
    training: TrainSettings | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache: str | Path | None = None,
    watch: Watch | None = None,
    on_sample: Callable[[str], None] | None = None,
) -> TextRun:
    """Train a language model on a text and write a run folder.

    A training that is interrupted can be resumed: see ``resume``.

    Args:
        file: a file, whose last tenth is held out; or a folder, each file of which is a document
            of its own and a tenth of which is held out. The source of Python's standard library
            if None.
        unit: "char" to predict characters, "byte" for bytes of anything.
        budget: wall time, as "90s", "5m" or "1h30m": what ``model`` and ``training`` leave open
            is chosen by it, and by a short measurement of this machine's speed.
        model: the network.
        training: how to train it.
        seed: of the weights, the order of the documents and dropout.
        out: the run folder; a new one in ``runs/`` if None.
        overwrite: whether a run that is there may be replaced.
        cache: the folder in which the encoded text is kept; ``cache`` beside the run if None.
        watch: what is told of the training, and to whom.
        on_sample: takes what the model writes, at each evaluation.

    Raises:
        UserError: something in the files or options is wrong, and nothing was written but the
            cache; or the run folder cannot be written.
        Diverged: the loss became infinite. The run keeps its checkpoints.
        Interrupted: SIGTERM or SIGINT came. The run can be resumed.
        Finished: ``torchrun`` started this job again, which had finished the run before.
    """
    model, training, watch = model or ModelSettings(), training or TrainSettings(), watch or Watch()
    _check(model, training, seed)
    if unit not in ("char", "byte"):
        raise UserError(f"{unit!r}; it is one of 'char' and 'byte'", "unit")
    check_out(out, overwrite)
    if (known := settled(out, Config)) is not None:
        model = settings.filled(model, known.model)
        training = settings.filled(training, known.train)
    given = _Given(file, cache, Path("runs") if out is None else Path(out).parent)
    notes = Notes(watch)
    prepared = given.prepared(unit, budget, model, training, seed, notes)
    named = (None if path is None else str(path) for path in (file, cache))
    config = Config(next(named), unit, budget, prepared.model, prepared.training, seed, next(named))
    task = prepared.task
    about = About.now(
        "text", prepared.updates, task.monitor, task.goal, prepared.sources, notes.lines
    )
    with (
        Engine(prepared.loop) as engine,
        begin(out, config, about, overwrite=overwrite) as live,
    ):
        return _train(engine, live, prepared, config, notes, on_sample)


def resume(
    path: str | Path,
    file: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    on_nonfinite: Literal["stop", "skip"] | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    watch: Watch | None = None,
    on_sample: Callable[[str], None] | None = None,
) -> TextRun:
    """Go on with a training that was interrupted, from its newest checkpoint that is whole.

    With the same number of processes it ends with the very weights that it would have had.

    Args:
        path: the run folder. It may come from a stranger: no path in it is followed.
        file: the text that the run was begun with, as in ``train``.
        cache: as in ``train``.
        on_nonfinite: of ``TrainSettings``, if it is to be another than when the run began.
        device: likewise.
        watch: what is told of the training, and to whom.
        on_sample: takes what the model writes, at each evaluation.

    Raises:
        UserError: there is no such run, it is finished, another process trains in it, it or its
            checkpoint is damaged, or the text is not the one that it began with.
        Diverged: as ``train``, as are Interrupted and Finished.
    """
    path, watch = Path(path), watch or Watch()
    with resumed(path) as live:
        config = runs.read_config(path, Config)
        if file is None and config.file is not None:
            raise UserError(f"not given; {path} was begun with one: give it again", "file")
        training = config.train
        if on_nonfinite is not None:
            training = replace(training, on_nonfinite=on_nonfinite)
        if device is not None:
            training = replace(training, device=device)
        _check(config.model, training, config.seed)
        settings.check_settled(config.model, training, str(path / CONFIG))
        given = _Given(file, cache, path.parent)
        notes = Notes(watch)
        prepared = given.prepared(
            config.unit, config.budget, config.model, training, config.seed, notes
        )
        if live is not None:
            check_same(live, prepared.sources)
        with Engine(prepared.loop) as engine:
            return _train(engine, live, prepared, config, notes, on_sample)


def _check(model: ModelSettings, training: TrainSettings, seed: int) -> None:
    for chosen in (model, training):
        check_choices(chosen)
    if not 0 <= seed < 2**32:
        raise UserError(f"{seed} is not from 0 to 2**32 - 1", "seed")
    settings.check(training)


@dataclass(frozen=True)
class _Given:
    """What a person named, and the folder that the run is in."""

    file: str | Path | None
    cache: str | Path | None
    beside: Path

    def prepared(
        self,
        unit: Unit,
        budget: str,
        model: ModelSettings,
        training: TrainSettings,
        seed: int,
        notes: Notes,
    ) -> Prepared:
        if self.file == "":
            raise UserError("an empty name; leave it out for Python's standard library", "file")
        return prepare(
            None if self.file is None else Path(self.file),
            unit,
            budget,
            model,
            training,
            seed=seed,
            cache=Cache(Path(self.cache or self.beside / "cache"), notes),
            say=notes,
        )


def _train(
    engine: Engine,
    live: LiveRun | None,
    prepared: Prepared,
    config: Config,
    notes: Notes,
    on_sample: Callable[[str], None] | None,
) -> TextRun:
    if live is not None:
        prepared.task.on_sample = partial(_keep, live, on_sample)
    check_alike(engine, prepared.sources)
    fitted = fit_in(live, engine, prepared.task, prepared.loop, notes.watch)
    model = fitted.model.cpu()
    assert isinstance(model, TextModel)
    finished = None
    if live is not None:
        cost = score(prepared.task, model)
        metrics = _metrics(cost, prepared, fitted)
        live.events.append({"event": "final", **metrics})
        live.write_model(model_config(prepared), model)
        report.write(live, fitted, cost, to_json(config, hyphens=True))
        live.finish(metrics)
        finished = Run.open(live.path)
    run = engine.from_first(finished)
    return TextRun(run, model, prepared.task.corpus.alphabet, fitted.seconds)


def _keep(live: LiveRun, on_sample: Callable[[str], None] | None, text: str) -> None:
    """Keep what the model writes at an evaluation, and show it."""
    live.events.append({"event": "sample", "text": text})
    if on_sample is not None:
        on_sample(text)


def _metrics(cost: Cost, prepared: Prepared, fitted: Fit) -> dict[str, float]:
    return {
        "valid.nats": cost.mean,
        "valid.bits": cost.bits,
        "valid.perplexity": cost.perplexity,
        "valid.targets": cost.targets,
        "updates": prepared.updates,
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "seconds": fitted.seconds,
    }


def score(task: TextTask, model: TextModel) -> Cost:
    """What the held-out part costs: each document from its beginning to its end.

    Where that would take long, as many parts of documents as make up ``MOST_SCORED`` characters.
    """
    stretches = task.held_out
    if sum(s.end - s.scored for s in stretches) > MOST_SCORED:
        stretches = scoring.spread(stretches, MOST_SCORED)
    return scoring.static(model, task.corpus.ids, stretches)


def model_config(prepared: Prepared) -> dict[str, Any]:
    """What ``open_run`` rebuilds the model from."""
    return {
        "task": "text",
        "version": 1,
        "network": to_json(prepared.task.network),
        "alphabet": to_json(prepared.task.corpus.alphabet),
    }
