"""What a training tells, and what becomes of it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from peephole.train.training import Event


@runtime_checkable
class Journal(Protocol):
    """Where events are kept: a run's metrics.jsonl."""

    def append(self, event: Event) -> None: ...

    def position(self) -> int:
        """Its length in bytes."""

    def truncate(self, position: int) -> None:
        """Cut off what came after that length."""


@dataclass(frozen=True)
class Fit:
    """A trained model and how it came about.

    Attributes:
        model: in evaluation mode.
        events: one for each evaluation of this process's life: ``update``, ``updates`` (planned),
            ``epoch`` (done, with fraction), ``train_loss`` (a target's, since the evaluation
            before) and the metrics.
        best: the event of the returned model.
        seconds: wall time, evaluations included.
    """

    model: nn.Module
    events: list[Event]
    best: Event
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        update: updates done.
        updates: planned.
        epoch: the one it is in, from 0.
        loss: a target's, since the last evaluation.
        steps_per_second: since the last time it was shown; 0 where the task tells no steps.
    """

    update: int
    updates: int
    epoch: int
    loss: float
    steps_per_second: float


class Diverged(ArithmeticError):
    """The loss or a gradient stopped being a finite number.

    Attributes:
        what: which, where and on which sequences.
        fit: what there was.
    """

    def __init__(self, what: str, fit: Fit) -> None:
        super().__init__(
            f"{what}; try a smaller learning rate, or leave such updates out (on_nonfinite='skip')"
        )
        self.what, self.fit = what, fit
