"""Train on a table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from peephole import run as runs
from peephole.data.cache import Cache
from peephole.data.frames import name_of
from peephole.data.missing import Missing
from peephole.data.schema import check_choices, to_json
from peephole.errors import UserError
from peephole.jobs.table import report, settings
from peephole.jobs.table.prepare import Prepared, prepare
from peephole.jobs.table.settings import TrainSettings
from peephole.run import Run
from peephole.tasks.protocol import Batching
from peephole.tasks.table.metrics import Scores
from peephole.tasks.table.model import SequenceModel
from peephole.tasks.table.recipe import Recipe
from peephole.tasks.table.settings import DataSettings, ModelSettings
from peephole.tasks.table.task import SeriesTask, run, score_outputs
from peephole.train import Event, Fit, Settings, fit


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
    say: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> TableRun:
    """Train a model on a table of sequences and write a run folder.

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
        say: takes each line that a person should read.
        on_event: sees each evaluation as it happens.

    Raises:
        UserError: something in the files or options is wrong. Nothing was written but the cache.
        Diverged: the loss became infinite. Nothing was written but the cache.
    """
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
    lines: list[str] = []

    def note(line: str) -> None:
        lines.append(line)
        if say is not None:
            say(line)

    model, training = model or ModelSettings(), training or TrainSettings()
    for chosen in (data, model, training):
        check_choices(chosen)
    if not 0 <= seed < 2**32:
        raise UserError(f"{seed} is not from 0 to 2**32 - 1", "seed")
    runs.check_out(out, overwrite)
    settings.check(training)
    beside = Path("runs") if out is None else Path(out).parent
    prepared = prepare(
        file,
        data,
        model,
        training,
        valid=valid,
        test=test,
        seed=seed,
        say=note,
        cache=Cache(Path(cache or beside / "cache"), note, always=cache is not None),
    )
    loop = _loop_settings(prepared, training, seed)
    with runs.create(out, name="table", overwrite=overwrite) as (draft, path):

        def record(event: Event) -> None:
            draft.event(event)
            if on_event is not None:
                on_event(event)

        fitted = fit(prepared.task, loop, on_event=record)
        best = fitted.model
        assert isinstance(best, SequenceModel)
        scores = _scores(prepared, best)
        metrics = _metrics(scores, fitted)
        draft.event({"event": "final", **metrics})
        config = {
            "file": name_of(file),
            **asdict(prepared.data),
            "valid": None if valid is None else name_of(valid),
            "test": None if test is None else name_of(test),
            "model": asdict(prepared.task.settings),
            "train": _resolved(training, loop),
            "seed": seed,
            "cache": None if cache is None else str(cache),
        }
        draft.finish(config, metrics, model_config(prepared), best)
        report.write(draft, prepared, fitted, scores, config, lines)
    return TableRun(Run.open(path), best, prepared.task.recipe, scores, fitted.seconds)


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


def _loop_settings(prepared: Prepared, training: TrainSettings, seed: int) -> Settings:
    task = prepared.task
    sequences = len(task.train.numbers)
    batch = settings.batch_size(
        training, task.steps // task.window if isinstance(task, SeriesTask) else sequences
    )
    epoch = task.plan(Batching(batch, training.batch_steps, 1, seed)).epoch(0)
    return settings.resolve(training, batch, len(epoch), seed)


def _resolved(training: TrainSettings, loop: Settings) -> dict[str, Any]:
    chosen = {"batch_size": loop.batch_size, "epochs": loop.epochs}
    return asdict(training) | chosen


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
