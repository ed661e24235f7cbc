"""The seed experiment: train every model of the toy's table, side by side, and report."""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from difflib import get_close_matches
from pathlib import Path

from peephole.errors import UserError
from peephole.folders import made_whole
from peephole.jobs import workers
from peephole.jobs.reproduce_report import draw_figures, write_page
from peephole.jobs.toy_training import Grid, Job, Progress, Result, start, train
from peephole.tasks.toy import MODELS

SEQUENCES = 200_000
QUICK_SEQUENCES = 40_000


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
    context = workers.begin(train.__module__)
    events = context.Queue()
    if on_progress is not None:
        for job in jobs:
            on_progress(Progress(job.name, job.seed, False, 0.0, None))
    try:
        with ProcessPoolExecutor(
            min(len(jobs), workers.cores()), context, start, (events,)
        ) as pool:
            ordered = sorted(jobs, key=lambda job: job.work, reverse=True)
            waiting = {pool.submit(train, job): job for job in ordered}
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
