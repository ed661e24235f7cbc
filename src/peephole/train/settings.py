"""How to train."""

from dataclasses import dataclass
from typing import Literal

from peephole.errors import UserError
from peephole.tasks.protocol import Batching

# Of an update, each with a state of its own.
MOST_PARTS = 10_000


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        epochs: passes over the training data, at most.
        learning_rate: of the optimizer, at its highest.
        batch_size: sequences (or streams) an update, over all processes.
        batch_steps: steps an update, over all processes. One of the two is given, or both.
        pool: batches whose sequences are sorted by length together; 1 for none.
        accumulate: parts in which each process computes its share of an update, for less memory.
        updates: stop after so many. None for no limit but ``epochs``.
        optimizer: "sgd" (plain) or "adam" (with decoupled weight decay).
        weight_decay: of "adam".
        schedule: of the learning rate, after its rise: "constant", or down to zero by the end,
            "cosine" along half a cosine or "linear".
        warm_up: updates in which the rate rises linearly; None for none if it is constant, and
            for a twentieth of all otherwise.
        clip: the largest norm of the gradient; longer ones are scaled down to it. None for any.
        average: evaluate and keep an exponential moving average of the weights with this decay,
            rather than the weights themselves (Polyak & Juditsky 1992); the decay rises to it over
            the first updates. None for none.
        evaluations: how often an epoch is interrupted to evaluate, at equal distances.
        patience: stop after so many evaluations without a new best. None to go on.
        keep: whether the "best" model by the task's monitor is returned, or the "last".
        on_nonfinite: what to do where the loss or a gradient is not a finite number: "stop", or
            "skip" the update.
        checkpoint_seconds: time between checkpoints, at most.
        checkpoints: how many of the newest are kept, besides the best.
        device: "cpu", "cuda", or "auto" for the best there is.
        precision: "32", or "bf16-mixed".
        seed: of the weights, the order of the batches and dropout.
    """

    epochs: int
    learning_rate: float
    batch_size: int | None = None
    batch_steps: int | None = None
    pool: int = 1
    accumulate: int = 1
    updates: int | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warm_up: int | None = None
    clip: float | None = None
    average: float | None = None
    evaluations: int = 1
    patience: int | None = None
    keep: Literal["best", "last"] = "last"
    on_nonfinite: Literal["stop", "skip"] = "stop"
    checkpoint_seconds: float = 60.0
    checkpoints: int = 2
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Literal["32", "bf16-mixed"] = "32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("batch_steps", 1),
            ("pool", 1),
            ("accumulate", 1),
            ("updates", 1),
            ("warm_up", 0),
            ("evaluations", 1),
            ("patience", 1),
            ("checkpoints", 1),
            ("checkpoint_seconds", 0),
            ("weight_decay", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise UserError(f"{value}; it must be at least {least}", name)
        if self.accumulate > MOST_PARTS:
            raise UserError(f"{self.accumulate}; it must be at most {MOST_PARTS}", "accumulate")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{value}; it must be more than 0", name)
        if self.average is not None and not 0 < self.average < 1:
            raise UserError(f"{self.average}; it must be between 0 and 1", "average")
        if self.batch_size is None and self.batch_steps is None:
            raise UserError("not given, nor is batch_steps; give one of them or both", "batch_size")

    @property
    def batching(self) -> Batching:
        return Batching(self.batch_size, self.batch_steps, self.pool, self.seed)
