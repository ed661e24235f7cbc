"""The seed experiment: train every model of the toy's table, side by side, and report."""

import json
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch

from peephole.errors import UserError
from peephole.folders import made_whole
from peephole.jobs.reproduce_report import Grid, Result, cores, draw_figures, write_page
from peephole.tasks.toy import MODELS, Toy
from peephole.train import Diverged, Event, Settings, fit

EVALUATIONS = 20
SEQUENCES = 200_000
QUICK_SEQUENCES = 40_000


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


def reproduce(
    out: Path,
    *,
    quick: bool = False,
    only: Sequence[str] | None = None,
    seeds: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Result]:
    """Train the models and write ``results.json``, ``figures/`` and ``report.html`` to ``out``.

    Args:
        out: a new folder.
        quick: a fifth of the data and few epochs, for a look in under a minute.
        only: names of models; all if None.
        seeds: trainings a model, each with data of its own.
        overwrite: whether earlier results in ``out`` are replaced, when the new ones are whole.
        on_progress: called in this process while the trainings go on in others.

    Returns:
        What ``results.json`` holds: an object for each model and seed, in the table's order.

    Raises:
        UserError: a name that is no model's, fewer than one seed, or a folder that is there.
    """
    names = _checked(only)
    if seeds < 1:
        raise UserError(f"{seeds} is too few; it must be at least 1", option="seeds")
    begin = time.perf_counter()
    jobs = [_job(name, seed, quick) for name in names for seed in range(seeds)]
    results: dict[Job, Result] = {}
    grids: dict[str, Grid] = {}
    with made_whole(out, ["results.json", "report.html"], overwrite=overwrite) as folder:
        for job, (result, grid) in _side_by_side(jobs, on_progress):
            results[job] = result
            if job.seed == 0:
                grids[job.name] = grid
        ordered = [results[job] for job in jobs]
        text = json.dumps(ordered, indent=1, allow_nan=False)
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        draw_figures(folder / "figures", ordered, {name: grids[name] for name in names})
        write_page(folder, ordered, seconds=time.perf_counter() - begin)
    return ordered


def _job(name: str, seed: int, quick: bool) -> Job:
    if quick:
        return Job(name, seed, QUICK_SEQUENCES, MODELS[name].quick_epochs)
    return Job(name, seed, SEQUENCES, MODELS[name].epochs)


def _checked(only: Sequence[str] | None) -> list[str]:
    for name in only or ():
        if name not in MODELS:
            near = get_close_matches(name, MODELS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"there is no model {name!r}; {hint}there are {', '.join(MODELS)}", option="only"
            )
    return [name for name in MODELS if only is None or name in only]


# In this process: the pool


def _side_by_side(
    jobs: list[Job], on_progress: Callable[[Progress], None] | None
) -> Iterator[tuple[Job, tuple[Result, Grid]]]:
    """Run the jobs, as many at a time as there are cores, longest first."""
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    workers = min(len(jobs), cores())
    if on_progress is not None:
        for job in jobs:
            on_progress(Progress(job.name, job.seed, False, 0.0, None))
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (events,)) as pool:
            ordered = sorted(jobs, key=lambda job: job.work, reverse=True)
            waiting = {pool.submit(_train, job): job for job in ordered}
            while waiting:
                done, _ = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
                while not events.empty():
                    progress = events.get()
                    if on_progress is not None:
                        on_progress(progress)
                for future in done:
                    yield waiting.pop(future), future.result()
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise


# In a worker: one training

_events: Any = None


def _start_worker(events: Any) -> None:
    global _events
    _events = events
    # An interrupt is the parent's to answer; here it just ends the process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)


def _train(job: Job) -> tuple[Result, Grid]:
    _events.put(Progress(job.name, job.seed, True, 0.0, None))
    model = MODELS[job.name]
    toy = Toy(model, job.sequences, job.seed)
    settings = Settings(
        epochs=job.epochs,
        batch_size=model.batch_size,
        learning_rate=model.rate,
        evaluations=EVALUATIONS,
        seed=job.seed,
    )

    def tell(event: Event) -> None:
        done = event["update"] / event["updates"]
        _events.put(Progress(job.name, job.seed, True, done, event["mse"]))

    try:
        trained = fit(toy, settings, tell)
    except Diverged as diverged:
        trained = diverged.fit
    test = toy.squared_errors(trained.model, toy.test)
    bayes = toy.bayes_squared_errors()
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
