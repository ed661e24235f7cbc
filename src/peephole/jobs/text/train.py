"""Train a language model on a text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peephole import run as runs
from peephole.data.alphabet import Alphabet
from peephole.data.cache import Cache
from peephole.data.decoding import Unit
from peephole.data.schema import check_choices, to_json
from peephole.errors import UserError
from peephole.jobs.text import report, settings
from peephole.jobs.text.prepare import Prepared, prepare
from peephole.jobs.text.settings import ModelSettings, TrainSettings
from peephole.run import About, LiveRun, Run
from peephole.tasks.text import scoring
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.scoring import Cost
from peephole.train import Event, Fit, Position, Progress, fit
from peephole.train.checkpoints import Checkpoints

BUDGET = "5m"
# How many characters of the held-out part the trained model is scored on, at most.
SCORED = 1 << 20


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
    say: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_sample: Callable[[str], None] | None = None,
) -> TextRun:
    """Train a language model on a text and write a run folder.

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
        say: takes each line that a person should read.
        on_event: sees each evaluation as it happens.
        on_progress: sees, a few times a second, how far the training is.
        on_sample: takes what the model writes, at each evaluation.

    Raises:
        UserError: something in the files or options is wrong, and nothing was written but the
            cache; or the run folder cannot be written.
        Diverged: the loss became infinite. The run keeps its checkpoints.
        Interrupted: SIGTERM or SIGINT came.
    """
    model, training = model or ModelSettings(), training or TrainSettings()
    for chosen in (model, training):
        check_choices(chosen)
    if not 0 <= seed < 2**32:
        raise UserError(f"{seed} is not from 0 to 2**32 - 1", "seed")
    if unit not in ("char", "byte"):
        raise UserError(f"{unit!r}; it is one of 'char' and 'byte'", "unit")
    runs.check_out(out, overwrite)
    settings.check(training)
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        if say is not None:
            say(line)

    beside = Path("runs") if out is None else Path(out).parent
    prepared = prepare(
        None if file is None else Path(file),
        unit,
        budget,
        model,
        training,
        seed=seed,
        cache=Cache(Path(cache or beside / "cache"), note),
        say=note,
    )
    config = Config(
        None if file is None else str(file),
        unit,
        budget,
        prepared.model,
        prepared.training,
        seed,
        None if cache is None else str(cache),
    )
    about = About.now("text", prepared.updates, prepared.task.monitor, prepared.task.goal)
    with runs.start(out, config, about, overwrite=overwrite) as live:
        watch_samples(prepared, live, on_sample)
        fitted = fit(
            prepared.task,
            prepared.loop,
            journal=live.events,
            checkpoints=Checkpoints(live.path, Position, keep=prepared.loop.checkpoints),
            say=say,
            on_event=on_event,
            on_progress=on_progress,
        )
        finish(live, prepared, fitted, config, notes)
        path = live.path
    trained = fitted.model
    assert isinstance(trained, TextModel)
    return TextRun(Run.open(path), trained, prepared.task.corpus.alphabet, fitted.seconds)


def watch_samples(
    prepared: Prepared, live: LiveRun, on_sample: Callable[[str], None] | None
) -> None:
    """Keep what the model writes at each evaluation, and show it."""

    def keep(text: str) -> None:
        live.events.append({"event": "sample", "text": text})
        if on_sample is not None:
            on_sample(text)

    prepared.task.on_sample = keep


def finish(
    live: LiveRun, prepared: Prepared, fitted: Fit, config: Config, notes: list[str]
) -> None:
    """Score the trained model and write all that a finished run has."""
    model = fitted.model.cpu()
    assert isinstance(model, TextModel)
    cost = score(prepared, model)
    metrics = {
        "valid.nats": cost.mean,
        "valid.bits": cost.bits,
        "valid.perplexity": cost.perplexity,
        "valid.targets": cost.targets,
        "updates": prepared.updates,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": fitted.seconds,
    }
    live.events.append({"event": "final", **metrics})
    live.write_model(model_config(prepared), model)
    report.write(live, fitted, cost, to_json(config, hyphens=True), notes)
    live.finish(metrics)


def score(prepared: Prepared, model: TextModel) -> Cost:
    """What the held-out part costs: each document from its beginning to its end.

    Where that would take long, as many parts of documents as make up ``SCORED`` characters.
    """
    task = prepared.task
    stretches = task.held_out
    if sum(s.end - s.scored for s in stretches) > SCORED:
        stretches = scoring.spread(stretches, SCORED)
    return scoring.static(model, task.corpus.ids, stretches)


def model_config(prepared: Prepared) -> dict[str, Any]:
    """What ``open_run`` rebuilds the model from."""
    return {
        "task": "text",
        "version": 1,
        "network": to_json(prepared.task.network),
        "alphabet": to_json(prepared.task.corpus.alphabet),
    }
