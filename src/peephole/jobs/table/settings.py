"""How to train on a table, with defaults that depend on how much data there is."""

from dataclasses import dataclass

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
        epochs: passes over the training data, at most.
        patience: stop after so many epochs without a new best; 0 or None to go on to the end,
            where the learning rate is lowest and the model mostly best.
        weight_decay: of AdamW.
        clip: the largest norm of the gradient; longer ones are scaled down to it.
        average: decay of the moving average of the weights that is evaluated and kept; 0 for none.
        window: steps of back-propagation in a single series.
    """

    learning_rate: float = 0.01
    batch_size: int | None = None
    epochs: int | None = None
    patience: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.995
    window: int = 64


def check(settings: TrainSettings) -> None:
    """Raise UserError where a setting is out of range."""
    for name, value, least in (
        ("batch_size", settings.batch_size, 1),
        ("epochs", settings.epochs, 1),
        ("patience", settings.patience, 0),
        ("weight_decay", settings.weight_decay, 0),
        ("window", settings.window, 1),
    ):
        if value is not None and not value >= least:
            raise UserError(f"{value}; it must be at least {least}", f"train.{name}")
    if not 0 <= settings.average < 1:
        raise UserError(f"{settings.average}; it must be from 0 to below 1", "train.average")
    for name, number in (("learning_rate", settings.learning_rate), ("clip", settings.clip)):
        if not 0 < number < float("inf"):
            raise UserError(f"{number}; it must be more than 0", f"train.{name}")


def batch_size(settings: TrainSettings, sequences: int) -> int:
    """A fiftieth of the data, from 16 to 64 sequences."""
    if settings.batch_size is not None:
        return settings.batch_size
    return int(min(64, max(16, sequences // 50)))


def resolve(settings: TrainSettings, batch: int, updates: int, seed: int) -> Settings:
    """Settings of the loop.

    Args:
        settings: a person's.
        batch: the batch size.
        updates: how many of those an epoch has.
        seed: of weights, order and dropout.
    """
    epochs = settings.epochs
    if epochs is None:
        epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, round(UPDATES / updates)))
    return Settings(
        epochs=epochs,
        batch_size=batch,
        learning_rate=settings.learning_rate,
        optimizer="adam",
        weight_decay=settings.weight_decay,
        schedule="cosine",
        clip=settings.clip,
        average=settings.average or None,
        patience=settings.patience or None,
        keep="best",
        seed=seed,
    )
