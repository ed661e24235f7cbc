"""How to train on a table, with defaults that depend on how much data there is."""

from dataclasses import dataclass
from typing import Literal

from peephole.errors import UserError
from peephole.train import Settings

# How long to train where nobody says: about so many updates, within these passes over the data.
UPDATES, LEAST_EPOCHS, MOST_EPOCHS = 600, 12, 200


@dataclass(frozen=True)
class TrainSettings:
    """How to train. None leaves the choice to the amount of data.

    Attributes:
        learning_rate: of AdamW, at its highest; it rises at first and falls along a cosine.
        batch_size: sequences an update; in a single series, streams.
        batch_steps: steps an update, at most; in a single series without effect.
        epochs: passes over the training data, at most.
        evaluations: times an epoch that the model is measured, at equal distances.
        patience: stop after so many evaluations without a new best; 0 or None to go on to the
            end, where the learning rate is lowest and the model mostly best.
        weight_decay: of AdamW.
        clip: the largest norm of the gradient; longer ones are scaled down to it.
        average: decay of the moving average of the weights that is evaluated and kept; 0 for none.
        window: steps of back-propagation in a single series.
        accumulate: parts in which an update is computed, for less memory.
        schedule: of the learning rate, after its rise: constant, or falling to zero by the end
            along half a cosine or a line.
        warm_up: updates in which the rate rises; None for a twentieth of all.
        on_nonfinite: what to do where the loss or a gradient is not finite: stop, or skip the
            update.
        device: cpu, cuda, or auto for the best there is.
        precision: of the computation: 32, or bf16-mixed.
        checkpoint_seconds: time between checkpoints, at most.
    """

    learning_rate: float = 0.01
    batch_size: int | None = None
    batch_steps: int | None = None
    epochs: int | None = None
    evaluations: int = 1
    patience: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.995
    window: int = 64
    accumulate: int = 1
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warm_up: int | None = None
    on_nonfinite: Literal["stop", "skip"] = "stop"
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Literal["32", "bf16-mixed"] = "32"
    checkpoint_seconds: float = 60.0


def check(settings: TrainSettings) -> None:
    """Raise UserError where a setting is out of range."""
    for name, value, least in (
        ("batch_size", settings.batch_size, 1),
        ("batch_steps", settings.batch_steps, 1),
        ("accumulate", settings.accumulate, 1),
        ("warm_up", settings.warm_up, 0),
        ("epochs", settings.epochs, 1),
        ("evaluations", settings.evaluations, 1),
        ("patience", settings.patience, 0),
        ("weight_decay", settings.weight_decay, 0),
        ("window", settings.window, 1),
        ("checkpoint_seconds", settings.checkpoint_seconds, 0),
    ):
        if value is not None and not value >= least:
            raise UserError(f"{value}; it must be at least {least}", f"train.{name}")
    if not 0 <= settings.average < 1:
        raise UserError(f"{settings.average}; it must be from 0 to below 1", "train.average")
    for name, number in (("learning_rate", settings.learning_rate), ("clip", settings.clip)):
        if not 0 < number < float("inf"):
            raise UserError(f"{number}; it must be more than 0", f"train.{name}")


def batch_size(settings: TrainSettings, sequences: int) -> int | None:
    """A fiftieth of the data, from 16 to 64 sequences; no limit where steps are counted."""
    if settings.batch_size is not None or settings.batch_steps is not None:
        return settings.batch_size
    return int(min(64, max(16, sequences // 50)))


def resolve(settings: TrainSettings, batch: int | None, updates: int, seed: int) -> Settings:
    """Settings of the loop.

    Args:
        settings: a person's.
        batch: the batch size, if there is one.
        updates: how many an epoch has.
        seed: of weights, order and dropout.
    """
    epochs = settings.epochs
    if epochs is None:
        epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, round(UPDATES / updates)))
    return Settings(
        epochs=epochs,
        batch_size=batch,
        batch_steps=settings.batch_steps,
        accumulate=settings.accumulate,
        learning_rate=settings.learning_rate,
        optimizer="adam",
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        warm_up=settings.warm_up,
        on_nonfinite=settings.on_nonfinite,
        device=settings.device,
        precision=settings.precision,
        checkpoint_seconds=settings.checkpoint_seconds,
        clip=settings.clip,
        average=settings.average or None,
        evaluations=settings.evaluations,
        patience=settings.patience or None,
        keep="best",
        seed=seed,
    )
