"""Tasks that are trained on only to see what that takes."""

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any, Literal

from torch import nn

from peephole.tasks.protocol import Task
from peephole.train import Settings, fit


class Double:
    """A task that does what another one does."""

    monitor: str
    goal: Literal["min", "max"]

    def __init__(self, task: Task) -> None:
        self.task, self.monitor, self.goal = task, task.monitor, task.goal
        self.draws = getattr(task, "draws", True)
        self.model, self.plan = task.model, task.plan
        self.loss, self.names = task.loss, task.names

    def batches(self, shares: Iterable[Any]) -> Iterator[Any]:
        return self.task.batches(shares)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self.task.evaluate(model)


class Unevaluated(Double):
    """It does all but evaluate."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {self.monitor: 0.0}


class Watched(Double):
    """It notes how long its batches are waited for, and how long it is evaluated.

    Attributes:
        waited: seconds.
        evaluated: seconds.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.waited = self.evaluated = 0.0

    def batches(self, shares: Iterable[Any]) -> Iterator[Any]:
        batches = super().batches(shares)
        while True:
            asked = perf_counter()
            batch = next(batches, None)
            self.waited += perf_counter() - asked
            if batch is None:
                return
            yield batch

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        begin = perf_counter()
        metrics = super().evaluate(model)
        self.evaluated += perf_counter() - begin
        return metrics


def training(task: Task, settings: Settings) -> dict[str, float]:
    """Train.

    Returns:
        ``update_ms``, a mean, evaluations aside, and ``waiting``, the share of that time in which
        the data of a batch were fetched.
    """
    watched = Watched(task)
    begin = perf_counter()
    fitted = fit(watched, settings)
    elapsed = perf_counter() - begin - watched.evaluated
    updates: int = fitted.events[-1]["update"]
    return {"update_ms": elapsed / updates * 1e3, "waiting": watched.waited / elapsed}
