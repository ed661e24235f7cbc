"""What a person can choose about a language model; the budget chooses the rest."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from peephole.errors import UserError
from peephole.tasks.text.settings import Cell, LayerNorm, Network, Peephole
from peephole.train import Settings

# How often a training is interrupted to evaluate it and to print a sample.
EVALUATIONS = 10
# How many characters of the held-out part the trained model is scored on, at most.
MOST_SCORED = 1 << 20
# Here None leaves nothing open: there are no peepholes, or the rise follows from the updates.
NONE_IS_A_CHOICE = ("peephole", "warm_up")


@dataclass(frozen=True)
class ModelSettings:
    """The network; see ``Network``. None leaves a choice to the budget.

    Attributes:
        cell: lstm, gru or rnn (tanh).
        hidden_size: hidden units in each layer.
        layers: recurrent layers, one on top of the other.
        embedding_size: how many numbers stand for a character.
        tied: whether the output matrix is that of the embeddings; None for wherever the sizes
            allow.
        peephole: None, diagonal or full: how the gates of an lstm look into its cell.
        layer_norm: none; output, of what each layer gives; or gates, within each step.
        dropout: share of the numbers dropped in training, between layers and before the
            output.
        recurrent_dropout: share of the units that the gates do not see while training.
    """

    cell: Cell = "lstm"
    hidden_size: int | None = None
    layers: int | None = None
    embedding_size: int | None = None
    tied: bool | None = None
    peephole: Peephole | None = None
    layer_norm: LayerNorm = "none"
    dropout: float | None = None
    recurrent_dropout: float | None = None


@dataclass(frozen=True)
class TrainSettings:
    """How to train. None leaves a choice to the budget.

    Attributes:
        streams: parts of the text that are read side by side.
        window: characters of each in an update, and steps of back-propagation.
        updates: how many.
        learning_rate: of AdamW, at its highest; it rises at first and falls along a cosine.
        weight_decay: of AdamW.
        clip: the largest norm of the gradient; longer ones are scaled down to it.
        average: decay of the moving average of the weights that is evaluated and kept; 0 for none.
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

    streams: int | None = None
    window: int | None = None
    updates: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.99
    accumulate: int = 1
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warm_up: int | None = None
    on_nonfinite: Literal["stop", "skip"] = "stop"
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Literal["32", "bf16-mixed"] = "32"
    checkpoint_seconds: float = 60.0


S = TypeVar("S", ModelSettings, TrainSettings)


def check(training: TrainSettings) -> None:
    """Raise UserError where a setting is out of range."""
    for name, value, least in (
        ("streams", training.streams, 1),
        ("window", training.window, 1),
        ("updates", training.updates, 1),
        ("accumulate", training.accumulate, 1),
        ("warm_up", training.warm_up, 0),
        ("weight_decay", training.weight_decay, 0),
        ("checkpoint_seconds", training.checkpoint_seconds, 0),
    ):
        if value is not None and not least <= value < math.inf:
            raise UserError(f"{value}; it must be at least {least}", f"train.{name}")
    for name, number in (("learning_rate", training.learning_rate), ("clip", training.clip)):
        if number is not None and not 0 < number < math.inf:
            raise UserError(f"{number}; it must be more than 0", f"train.{name}")
    if not 0 <= training.average < 1:
        raise UserError(f"{training.average}; it must be from 0 to below 1", "train.average")


def filled(given: S, known: S) -> S:
    """A person's settings, and where they leave something open, what it was settled as before.

    Args:
        given: a person's.
        known: with nothing left open.
    """
    left: dict[str, Any] = {
        name: getattr(known, name)
        for name, value in vars(given).items()
        if value is None and name not in NONE_IS_A_CHOICE
    }
    return replace(given, **left)


def check_settled(model: ModelSettings, training: TrainSettings, where: str) -> None:
    """Raise UserError where the settings of a run, which stand in a file, leave something open."""
    for part, settings in (("model", model), ("train", training)):
        for name, value in vars(settings).items():
            if value is None and name not in NONE_IS_A_CHOICE:
                hyphens = name.replace("_", "-")
                raise UserError(f"{where}: {part}.{hyphens} is null; a run that began has it")


def as_settings(network: Network) -> ModelSettings:
    """A network as settings with nothing left open."""
    return ModelSettings(**vars(network))


def evaluations(updates: int, updates_an_epoch: int) -> int:
    """How often an epoch is interrupted by an evaluation."""
    return max(1, round(EVALUATIONS * updates_an_epoch / updates))


def loop_settings(training: TrainSettings, updates_an_epoch: int, seed: int) -> Settings:
    """Settings of the loop.

    The model that is kept is the last one, the average of the weights when the rate is lowest:
    the held-out part decides nothing.

    Args:
        training: with nothing left open.
        updates_an_epoch: of the training's plan.
        seed: of weights, order and dropout.
    """
    assert training.updates is not None
    assert training.learning_rate is not None
    return Settings(
        epochs=-(-training.updates // updates_an_epoch),
        updates=training.updates,
        batch_size=training.streams,
        learning_rate=training.learning_rate,
        optimizer="adam",
        weight_decay=training.weight_decay,
        clip=training.clip,
        average=training.average or None,
        accumulate=training.accumulate,
        schedule=training.schedule,
        warm_up=training.warm_up,
        on_nonfinite=training.on_nonfinite,
        device=training.device,
        precision=training.precision,
        checkpoint_seconds=training.checkpoint_seconds,
        evaluations=evaluations(training.updates, updates_an_epoch),
        keep="last",
        seed=seed,
    )
