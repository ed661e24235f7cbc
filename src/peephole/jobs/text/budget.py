"""From wall time to a network and a schedule, by how fast this machine is.

All that was chosen by trying stands in the tables of this file.
"""

import contextlib
import math
import os
import re
import statistics
import time
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch

from peephole.data.cache import Say
from peephole.data.corpus import Corpus
from peephole.errors import UserError
from peephole.jobs.sizes import check_memory
from peephole.jobs.text.settings import (
    MOST_SCORED,
    ModelSettings,
    TrainSettings,
    evaluations,
    loop_settings,
)
from peephole.tasks.protocol import Batching
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.settings import Network, check
from peephole.tasks.text.task import SCORED, TextTask
from peephole.train import fit

T = TypeVar("T")

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LEAST_SECONDS = 5.0


class Size(NamedTuple):
    """A network that is worth its time from some amount of reading on.

    Attributes:
        read: characters that the budget must let it read.
        text: characters that the training part must have.
        hidden_size: as ``layers`` and ``embedding_size``: see ``Network``.
        learning_rate: at its highest.
    """

    read: float
    text: float
    hidden_size: int
    layers: int
    embedding_size: int
    learning_rate: float


class Dropping(NamedTuple):
    """How much is dropped from how many passes over the text on."""

    passes: float
    dropout: float
    recurrent_dropout: float


SIZES = (
    Size(0, 0, 128, 2, 64, 6e-3),
    Size(1.0e6, 2e5, 256, 2, 128, 4e-3),
    Size(1.0e7, 5e5, 384, 2, 128, 3e-3),
    Size(2.0e7, 8e5, 512, 2, 128, 3e-3),
    Size(8.0e7, 5e6, 768, 2, 256, 2e-3),
    Size(2.0e8, 2e7, 1024, 2, 256, 1.5e-3),
)
DROPPING = (
    Dropping(0, 0.0, 0.0),
    Dropping(3, 0.1, 0.0),
    Dropping(9, 0.2, 0.1),
    Dropping(12, 0.3, 0.2),
    Dropping(25, 0.4, 0.3),
)
# What the speed of the others is told from, before the one that is chosen is measured.
REFERENCE = SIZES[1]
# Of as many characters, more and smaller updates teach a small network more.
STREAMS, WINDOW = 16, 64
# More passes over a small text bring nothing, however long there is.
MOST_PASSES = 100

# How long to measure a speed, at least and at most, and in how many updates after the first.
MEASURED_SECONDS, MOST_MEASURED_SECONDS, MEASURED_UPDATES = 1.0, 10.0, 3
# How many times as many characters are scored in a second as are trained on.
SCORING = 3.0
# Of the time that is left, how much to plan with: the speed may fall, and at the end a report is
# written.
KEPT = 0.9


class Budget(NamedTuple):
    """What a budget came to: settings with nothing left open, and the speed that was measured."""

    network: Network
    training: TrainSettings
    characters_a_second: float | None


def seconds(budget: str) -> float:
    """Wall time as a person writes it: 90s, 5m, 1h30m.

    Raises:
        UserError: it is not that, or too short for anything.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", budget)
    if not parts or "".join(number + unit for number, unit in parts) != budget:
        raise UserError(f"{budget!r} is no time; write it as 90s, 5m or 1h30m", "budget")
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not LEAST_SECONDS <= total < math.inf:
        raise UserError(f"{budget!r}; it must be at least {LEAST_SECONDS:g}s", "budget")
    return total


def settle(
    corpus: Corpus,
    model: ModelSettings,
    training: TrainSettings,
    budget: float,
    *,
    began: float,
    seed: int,
    say: Say,
) -> Budget:
    """Choose what a person left open.

    Args:
        corpus: the text.
        model: a person's choice.
        training: likewise.
        budget: wall time, in seconds.
        began: when it began, by ``time.monotonic``.
        seed: of the plan.
        say: takes each line that a person should read.

    Raises:
        UserError: several processes are to share the work, and something is left open that only
            a measurement settles; or a choice is out of range.
    """
    check(_network(model, REFERENCE))
    if model.hidden_size is None or training.updates is None:
        _check_alone()
    training = replace(
        training,
        streams=_given(training.streams, STREAMS),
        window=_given(training.window, WINDOW),
    )
    text = int(corpus.lengths[~corpus.held_out].sum())
    alphabet = corpus.alphabet.size

    def left() -> float:
        return budget - (time.monotonic() - began)

    first: tuple[Network, float] | None = None
    if model.hidden_size is None:
        network = _network(model, REFERENCE)
        first = network, speed(corpus, network, training, seed)
        size = largest(text, first, model, alphabet, left())
    else:
        hidden = model.hidden_size
        size = min(SIZES, key=lambda s: abs(s.hidden_size - hidden))
    network = _network(model, size)
    check(network)
    training = replace(training, learning_rate=_given(training.learning_rate, size.learning_rate))
    measured = None
    if training.updates is None:
        first = first or (network, speed(corpus, network, training, seed))
        # Dropping takes time too, and how much is dropped follows from how much can be read.
        read = _work(first[0], alphabet) * first[1] / _work(network, alphabet) * left()
        dropped = _dropping(network, model, read / text)
        measured = speed(corpus, dropped, training, seed, _lasting(budget))
        training = replace(training, updates=_updates(corpus, training, measured, left(), seed))
    network = _dropping(network, model, _passes(corpus, training, seed))
    check(network)
    settled = Budget(network, training, measured)
    say(described(settled, corpus, seed))
    return settled


def described(settled: Budget, corpus: Corpus, seed: int) -> str:
    """A line that tells what was chosen."""
    network, training = settled.network, settled.training
    assert training.updates is not None
    with torch.device("meta"):
        model = TextModel(corpus.alphabet.size, network)
    parameters = sum(p.numel() for p in model.parameters())
    speed = settled.characters_a_second
    return (
        f"{network.layers} layers of {network.hidden_size} ({parameters:,} parameters), dropout "
        f"{network.dropout:g} and {network.recurrent_dropout:g}, "
        f"{training.updates:,} updates of {training.streams} x {training.window}: "
        f"{_passes(corpus, training, seed):.1f} passes"
        + ("" if speed is None else f"; measured {speed:,.0f} characters/s")
    )


def speed(
    corpus: Corpus,
    network: Network,
    training: TrainSettings,
    seed: int,
    lasting: float = MEASURED_SECONDS,
) -> float:
    """How many characters a second this machine trains on, measured for ``lasting`` seconds."""
    assert training.window is not None
    task = TextTask(corpus, network, training.window)
    times: list[float] = []

    def note() -> None:
        times.append(time.monotonic())
        if len(times) > MEASURED_UPDATES and times[-1] - times[0] > lasting:
            raise _Enough

    short = replace(training, updates=10**6, learning_rate=1e-3, schedule="constant")
    loop = loop_settings(short, _updates_an_epoch(task, training, seed), seed)
    check_memory(task, loop)
    with contextlib.suppress(_Enough):
        fit(_Unscored(corpus, network, training.window), loop, on_update=note)
    # The median: what else the machine does for a moment is not its speed.
    each = statistics.median(after - before for before, after in pairwise(times))
    return _characters_an_update(task, training, seed) / each


def _lasting(budget: float) -> float:
    """How many seconds of a budget to measure the speed of what is chosen."""
    return min(max(MEASURED_SECONDS, budget / 100), MOST_MEASURED_SECONDS)


def largest(
    text: int,
    measured: tuple[Network, float],
    model: ModelSettings,
    alphabet: int,
    budget: float,
) -> Size:
    """The largest network that is worth its time.

    Args:
        text: characters of the training part.
        measured: a network and its speed.
        model: a person's choice.
        alphabet: its size.
        budget: seconds.
    """
    found = SIZES[0]
    work = _work(measured[0], alphabet) * measured[1]
    for size in SIZES:
        read = work / _work(_network(model, size), alphabet) * budget
        if text >= size.text and read >= size.read:
            found = size
    return found


def _work(network: Network, alphabet: int) -> float:
    """Multiplications a character, about."""
    H = network.hidden_size
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[network.cell] * H
    inputs = network.embedding_size + (network.layers - 1) * H
    return gates * (inputs + network.layers * H) + H * alphabet


def _network(model: ModelSettings, size: Size) -> Network:
    """A person's choice, and the table's where there is none."""
    hidden = _given(model.hidden_size, size.hidden_size)
    tied = model.tied
    usual = hidden if tied else min(size.embedding_size, hidden)
    embedding = _given(model.embedding_size, usual)
    return Network(
        cell=model.cell,
        hidden_size=hidden,
        layers=_given(model.layers, size.layers),
        embedding_size=embedding,
        tied=embedding == hidden if tied is None else tied,
        peephole=model.peephole,
        layer_norm=model.layer_norm,
        dropout=_given(model.dropout, 0.0),
        recurrent_dropout=_given(model.recurrent_dropout, 0.0),
    )


def _given(chosen: T | None, usual: T) -> T:
    return usual if chosen is None else chosen


def _dropping(network: Network, model: ModelSettings, passes: float) -> Network:
    found = max((row for row in DROPPING if row.passes <= passes), key=lambda row: row.passes)
    return replace(
        network,
        dropout=_given(model.dropout, found.dropout),
        recurrent_dropout=_given(model.recurrent_dropout, found.recurrent_dropout),
    )


def _updates(corpus: Corpus, training: TrainSettings, speed: float, left: float, seed: int) -> int:
    """How many fit into the time that is left, with the evaluations."""
    assert training.window is not None
    task = TextTask(corpus, Network(), training.window)
    held_out = int(corpus.lengths[corpus.held_out].sum())
    characters = _characters_an_update(task, training, seed)
    an_epoch = _updates_an_epoch(task, training, seed)
    left *= KEPT

    def fitting(seconds: float) -> int:
        return max(1, min(int(seconds * speed / characters), MOST_PASSES * an_epoch))

    without = fitting(left)
    times = evaluations(without, an_epoch) * without / an_epoch + 1
    scored = times * min(SCORED, held_out) + min(MOST_SCORED, held_out)
    return fitting(max(left - scored / (SCORING * speed), left / 2))


def _passes(corpus: Corpus, training: TrainSettings, seed: int) -> float:
    assert training.window is not None
    assert training.updates is not None
    task = TextTask(corpus, Network(), training.window)
    return training.updates / _updates_an_epoch(task, training, seed)


def _updates_an_epoch(task: TextTask, training: TrainSettings, seed: int) -> int:
    return len(task.plan(Batching(training.streams, None, 1, seed)).epoch(0))


def _characters_an_update(task: TextTask, training: TrainSettings, seed: int) -> float:
    return task.steps / _updates_an_epoch(task, training, seed)


def _check_alone() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "a budget is measured by one process alone; of several, give "
            "--model.hidden-size and --train.updates",
            "budget",
        )


class _Enough(Exception):
    pass


class _Unscored(TextTask):
    """Where an epoch is shorter than the measurement, nothing is lost in its evaluation."""

    def evaluate(self, model: object) -> dict[str, float]:
        del model
        return {"loss": 0.0}
