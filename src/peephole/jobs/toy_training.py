"""One training of the seed experiment, in a process of its own."""

import math
import signal
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from peephole.jobs.memory import keep_memory
from peephole.tasks.toy import MODELS, Toy
from peephole.train import Diverged, Event, Settings, fit

Result = dict[str, Any]


class Grid(NamedTuple):
    """A model's answers on the noise-free grid, ``[points]`` each."""

    f: torch.Tensor
    z: torch.Tensor
    prediction: torch.Tensor


class Progress(NamedTuple):
    """How far one training is.

    Attributes:
        name: the model's.
        seed: its seed.
        running: whether it has begun.
        done: from 0 to 1.
        test_mse: at the last evaluation; None before the first.
    """

    name: str
    seed: int
    running: bool
    done: float
    test_mse: float | None


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: the model's.
        seed: of the data, the weights and the order.
        sequences: how many are drawn, to train and to test.
        epochs: over those that train.
    """

    name: str
    seed: int
    sequences: int
    epochs: int

    @property
    def work(self) -> float:
        """Roughly how long it takes, against the others."""
        model = MODELS[self.name]
        return self.epochs * self.sequences / model.batch_size * model.cost


_events: Any = None
# Of the data that this process has seen, by data set, sequences and seed.
_bayes: dict[tuple[str, int, int], torch.Tensor] = {}


def start(events: Any) -> None:
    """Make a process ready: ``events`` is the queue that takes each ``Progress``."""
    global _events
    _events = events
    # An interrupt is the parent's to answer; here it just ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
    keep_memory()


def train(job: Job) -> tuple[Result, Grid]:
    """Train, and measure the model on all there is; what diverges is measured as it was."""
    _events.put(Progress(job.name, job.seed, True, 0.0, None))
    model = MODELS[job.name]
    toy = Toy(model, job.sequences, job.seed)
    settings = Settings(
        epochs=job.epochs,
        batch_size=model.batch_size,
        learning_rate=model.rate,
        evaluations=model.evaluations,
        seed=job.seed,
    )

    def tell(event: Event) -> None:
        done = event["update"] / event["updates"]
        _events.put(Progress(job.name, job.seed, True, done, event["mse"]))

    try:
        trained = fit(toy, settings, on_event=tell)
    except Diverged as diverged:
        trained = diverged.fit
    test = toy.squared_errors(trained.model, toy.test)
    data = (model.data, job.sequences, job.seed)
    if data not in _bayes:
        _bayes[data] = toy.bayes_squared_errors()
    bayes = _bayes[data]
    f, z, grid = toy.grid()
    grid_errors = toy.squared_errors(trained.model, grid)
    result = {
        "name": job.name,
        "seed": job.seed,
        "data": model.data,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "epochs": job.epochs,
        "sequences": len(toy.train.inputs),
        "updates": trained.events[-1]["update"],
        "train_mse": _number(toy.squared_errors(trained.model, toy.train).mean()),
        "test_mse": _number(test.mean()),
        "bayes_mse": _number(bayes.mean()),
        "mean_mse": _number(toy.mean_squared_errors().mean()),
        "grid_mse": _number(grid_errors.mean()),
        "grid_max_error": _number(grid_errors.max().sqrt()),
        "seconds": trained.seconds,
        "curve": [
            {
                "update": event["update"],
                "sequences": round(event["epoch"] * len(toy.train.inputs)),
                "test_mse": _number(event["mse"]),
            }
            for event in trained.events
        ],
    }
    if len(toy.data.lengths) > 1:
        for name, errors in (("test_mse", test), ("bayes_mse", bayes)):
            parts = toy.by_length(errors)
            result[f"{name}_by_length"] = {T: _number(error) for T, error in parts.items()}
    return result, Grid(f, z, toy.predict_z(trained.model, grid))


def _number(value: float | torch.Tensor) -> float | None:
    """JSON has no NaN."""
    number = float(value)
    return number if math.isfinite(number) else None
