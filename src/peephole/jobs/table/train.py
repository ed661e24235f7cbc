"""Train on a table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from peephole import run as runs
from peephole.data.cache import Cache
from peephole.data.missing import Missing
from peephole.data.schema import check_choices, to_json
from peephole.errors import UserError
from peephole.jobs.sizes import check_memory
from peephole.jobs.table import config as configs
from peephole.jobs.table import report, settings
from peephole.jobs.table.config import Config
from peephole.jobs.table.prepare import Prepared, prepare
from peephole.jobs.table.settings import TrainSettings
from peephole.jobs.training import (
    Notes,
    Watch,
    begin,
    check_alike,
    check_out,
    check_same,
    fit_in,
)
from peephole.jobs.training import resume as resumed
from peephole.run import About, LiveRun, Run
from peephole.tasks.protocol import Batching
from peephole.tasks.table.metrics import Scores
from peephole.tasks.table.model import SequenceModel
from peephole.tasks.table.recipe import Recipe
from peephole.tasks.table.settings import DataSettings, ModelSettings
from peephole.tasks.table.task import SeriesTask, run, score_outputs
from peephole.train import Engine, Fit, Settings


@dataclass(frozen=True)
class TableRun:
    """A trained model of a table.

    Attributes:
        run: its folder.
        model: in evaluation mode.
        recipe: from tables to examples, and from outputs to predictions.
        scores: of "valid", and "test" if there was such a file.
        seconds: wall time of the training.
    """

    run: Run
    model: SequenceModel
    recipe: Recipe
    scores: dict[str, Scores]
    seconds: float

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def metrics(self) -> dict[str, float]:
        """The final figures: ``valid.accuracy``, ``test.baseline.accuracy`` and so on."""
        return self.run.metrics


def train(
    file: Any,
    *,
    target: str,
    sequence: str | None = None,
    order: str | None = None,
    features: Sequence[str] | None = None,
    task: Literal["classify", "regress"] | None = None,
    target_per: Literal["auto", "sequence", "step"] = "auto",
    ahead: int | None = None,
    missing: Missing = "error",
    valid: Any = None,
    test: Any = None,
    model: ModelSettings | None = None,
    training: TrainSettings | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache: str | Path | None = None,
    watch: Watch | None = None,
) -> TableRun:
    """Train a model on a table of sequences and write a run folder.

    A training that is interrupted can be resumed: see ``resume``.

    Args:
        file: CSV, Parquet or JSON lines, a row a step; or a folder, one sequence a file; or a table
            from Python: an Arrow table, a pandas or polars frame, a ``datasets.Dataset``, or what
            ``from_tensors`` makes.
        target: as ``sequence``, ``order``, ``features``, ``task``, ``target_per``, ``ahead`` and
            ``missing``: see ``DataSettings``.
        valid: a file or table to choose the best model by; a part of ``file`` is held out if None.
        test: a file or table to score the final model on.
        model: the network; the defaults of ``ModelSettings`` if None.
        training: how to train it; the defaults of ``TrainSettings`` if None.
        seed: of the weights, the order of the batches and which sequences are held out.
        out: the run folder; a new one in ``runs/`` if None.
        overwrite: whether a run that is there may be replaced.
        cache: a folder for what tables are converted to, once, so as to be read from the disk
            while training: all of them then, whatever their size. If None that is done with large
            ones, and the folder is ``cache`` beside the run.
        watch: what is told of the training, and to whom.

    Raises:
        UserError: something in the files or options is wrong, and nothing was written but the
            cache; or the run folder cannot be written.
        Diverged: the loss became infinite. The run keeps its checkpoints.
        Interrupted: SIGTERM or SIGINT came. The run can be resumed.
        Finished: ``torchrun`` started this job again, which had finished the run before.
    """
    model, training, watch = model or ModelSettings(), training or TrainSettings(), watch or Watch()
    data = DataSettings(
        target=target,
        sequence=sequence,
        order=order,
        features=_names(features),
        task=task,
        target_per=target_per,
        ahead=ahead,
        missing=missing,
    )
    for chosen in (data, model, training):
        check_choices(chosen)
    if not 0 <= seed < 2**32:
        raise UserError(f"{seed} is not from 0 to 2**32 - 1", "seed")
    check_out(out, overwrite)
    settings.check(training)
    given = _Given(file, valid, test, cache, Path("runs") if out is None else Path(out).parent)
    notes = Notes(watch)
    prepared = given.prepared(data, model, training, seed, notes)
    loop, about = _plan(prepared, training, seed, notes.lines)
    config = configs.of(
        prepared, training, loop, file=file, valid=valid, test=test, cache=given.cache
    )
    with (
        Engine(loop) as engine,
        begin(out, config, about, overwrite=overwrite) as live,
    ):
        return _train(engine, live, prepared, loop, config, notes)


def resume(
    path: str | Path,
    file: Any,
    *,
    valid: Any = None,
    test: Any = None,
    cache: str | Path | None = None,
    on_nonfinite: Literal["stop", "skip"] | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    watch: Watch | None = None,
) -> TableRun:
    """Go on with a training that was interrupted, from its newest checkpoint that is whole.

    With the same number of processes it ends with the very weights that it would have had.

    Args:
        path: the run folder. It may come from a stranger: no path in it is followed.
        file: the data that the run was begun with, as in ``train``.
        valid: likewise.
        test: likewise.
        cache: as in ``train``.
        on_nonfinite: of ``TrainSettings``, if it is to be another than when the run began.
        device: likewise.
        watch: what is told of the training, and to whom.

    Raises:
        UserError: there is no such run, it is finished, another process trains in it, it or its
            checkpoint is damaged, or the data are not those that it began with.
        Diverged: as ``train``, as are Interrupted and Finished.
    """
    path, watch = Path(path), watch or Watch()
    with resumed(path) as live:
        config = runs.read_config(path, Config)
        training = config.train
        if on_nonfinite is not None:
            training = replace(training, on_nonfinite=on_nonfinite)
        if device is not None:
            training = replace(training, device=device)
        for chosen in (config.data, config.model, training):
            check_choices(chosen)
        settings.check(training)
        given = _Given(file, valid, test, cache, path.parent)
        notes = Notes(watch)
        prepared = given.prepared(config.data, config.model, training, config.seed, notes)
        if live is not None:
            check_same(live, prepared.sources)
        loop, _ = _plan(prepared, training, config.seed)
        with Engine(loop) as engine:
            return _train(engine, live, prepared, loop, config, notes)


@dataclass(frozen=True)
class _Given:
    """What a person named, and the folder that the run is in."""

    file: Any
    valid: Any
    test: Any
    cache: str | Path | None
    beside: Path

    def prepared(
        self,
        data: DataSettings,
        model: ModelSettings,
        training: TrainSettings,
        seed: int,
        notes: Notes,
    ) -> Prepared:
        folder = Path(self.cache or self.beside / "cache")
        return prepare(
            self.file,
            data,
            model,
            training,
            valid=self.valid,
            test=self.test,
            seed=seed,
            say=notes,
            cache=Cache(folder, notes, always=self.cache is not None),
        )


def _plan(
    prepared: Prepared, training: TrainSettings, seed: int, notes: Sequence[str] = ()
) -> tuple[Settings, About]:
    task = prepared.task
    sequences = len(task.train.numbers)
    batch = settings.batch_size(
        training, task.steps // task.window if isinstance(task, SeriesTask) else sequences
    )
    updates = len(task.plan(Batching(batch, training.batch_steps, 1, seed)).epoch(0))
    loop = settings.resolve(training, batch, updates, seed)
    check_memory(task, loop)
    updates *= loop.epochs
    about = About.now("table", updates, task.monitor, task.goal, prepared.sources, notes)
    return loop, about


def _train(
    engine: Engine,
    live: LiveRun | None,
    prepared: Prepared,
    loop: Settings,
    config: Config,
    notes: Notes,
) -> TableRun:
    check_alike(engine, prepared.sources)
    fitted = fit_in(live, engine, prepared.task, loop, notes.watch)
    model = fitted.model
    assert isinstance(model, SequenceModel)
    finished = None
    if live is not None:
        with engine.evaluating(model):
            scores = _scores(prepared, model)
        metrics = _metrics(scores, fitted)
        live.events.append({"event": "final", **metrics})
        live.write_model(model_config(prepared), model)
        report.write(live, prepared, fitted, scores, config)
        live.finish(metrics)
        finished = Run.open(live.path), scores
    run, scores = engine.from_first(finished)
    return TableRun(run, model, prepared.task.recipe, scores, fitted.seconds)


def _names(features: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if features is None:
        return None
    return (features,) if isinstance(features, str) else tuple(features)


def model_config(prepared: Prepared) -> dict[str, Any]:
    """What ``open_run`` rebuilds the model from."""
    return {
        "task": "table",
        "version": 1,
        "settings": to_json(prepared.task.settings),
        "recipe": to_json(prepared.task.recipe),
    }


def _scores(prepared: Prepared, model: SequenceModel) -> dict[str, Scores]:
    """Final scores; a series is read from its very beginning."""
    loaded = {"valid": prepared.task.valid, "test": prepared.test}
    return {
        name: score_outputs(prepared.task.recipe, run(model, data.examples), data)
        for name, data in loaded.items()
        if data is not None
    }


def _metrics(scores: dict[str, Scores], fitted: Fit) -> dict[str, float]:
    metrics: dict[str, float] = {
        f"{name}.{key}": value for name, s in scores.items() for key, value in s.metrics.items()
    }
    best = fitted.best
    return metrics | {
        "best.update": best["update"],
        "best.epoch": best["epoch"],
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "seconds": fitted.seconds,
    }
