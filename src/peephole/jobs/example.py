"""A generated data set to try things on, with a known best score.

The story: machines work in shifts, idle, cutting or drilling. In each shift two short events
happen, one after the other: friction, which shows as heat, or play, which shows as vibration. What
breaks in the end depends on their order: friction and then play is a bearing, play and then
friction is a belt, and twice the same is nothing. What the machine is doing, the text column,
moves both sensors half as far as an event does. One entry in twenty is wrong. So a model must read
the text at each step, and remember what came first: a bag of steps cannot tell a belt from a
bearing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from peephole.data import tables
from peephole.data.sequences import Array
from peephole.errors import UserError

CLASSES = ("bearing", "belt", "none")
# Each story is its two events, 0 for friction and 1 for play, its class and its probability.
STORIES = (((0, 1), 0, 1 / 3), ((1, 0), 1, 1 / 3), ((0, 0), 2, 1 / 6), ((1, 1), 2, 1 / 6))
# What the machine does, and what that adds to heat and vibration; it changes now and then.
ACTIVITIES = ("idle", "cutting", "drilling")
SHIFTS = np.array([[-3.0, -3.0], [3.0, 0.0], [0.0, 3.0]])
CHANGE = 0.2
# How often the fault that is written down is one of the other two.
WRONG = 0.05
# A shift is calm, event, calm, event, calm; a stage goes on with this probability.
STAY = (0.7, 0.75, 0.7, 0.75, 0.7)
EVENTS = (None, 0, None, 1, None)
STAGES = len(STAY)
# What an event adds to its sensor. All in standard deviations of the noise of a step.
SIGNAL = 6.0
HEAT, VIBRATION = (60.0, 4.0), (0.8, 0.25)


@dataclass(frozen=True)
class Example:
    """What was written.

    Attributes:
        path: the file.
        sequences: how many.
        steps: of all of them.
        best_accuracy: of the best possible classifier on this very file.
        expected_accuracy: of the same on the sensors of this file, over what may have caused
            them: the mean of its largest probability.
        majority_accuracy: of always naming the file's most frequent class.
    """

    path: Path
    sequences: int
    steps: int
    best_accuracy: float
    expected_accuracy: float
    majority_accuracy: float


def table(
    out: str | Path, *, sequences: int = 2000, seed: int = 0, overwrite: bool = False
) -> Example:
    """Write a table of machines' shifts, with the columns shift, minute, heat, vibration, load,
    activity and fault, which is the target.

    Args:
        out: a CSV, Parquet or JSON lines file.
        sequences: how many shifts.
        seed: of all that is drawn.
        overwrite: whether a file that is there may be replaced.

    Raises:
        UserError: fewer than two sequences, or a file that cannot be written.
    """
    if sequences < 2:
        raise UserError(f"{sequences}; it must be at least 2", "sequences")
    tables.check_writable(out, overwrite=overwrite)
    generator = np.random.default_rng(seed)
    shifts = [_shift(generator) for _ in range(sequences)]
    labels = np.array([shift.label for shift in shifts])
    posteriors = np.stack([_posterior(shift) for shift in shifts])
    lengths = np.array([len(shift.sensors) for shift in shifts])
    sensors = np.concatenate([shift.sensors for shift in shifts])
    activities = np.concatenate([shift.activities for shift in shifts])
    N = len(sensors)
    columns = {
        "shift": pa.array([f"S{k + 1:04d}" for k in np.arange(sequences).repeat(lengths)]),
        "minute": pa.array(np.concatenate([np.arange(n) for n in lengths])),
        "heat": pa.array(_scaled(sensors[:, 0], HEAT)),
        "vibration": pa.array(_scaled(sensors[:, 1], VIBRATION)),
        "load": pa.array(generator.uniform(20, 100, N).round(1)),
        "activity": pa.array(ACTIVITIES).take(pa.array(activities)),
        "fault": pa.array(CLASSES).take(pa.array(labels.repeat(lengths))),
    }
    tables.write(pa.table(columns), out, overwrite=overwrite)
    return Example(
        Path(out),
        sequences,
        N,
        float((posteriors.argmax(1) == labels).mean()),
        float(posteriors.max(1).mean()),
        float(np.bincount(labels).max() / sequences),
    )


@dataclass(frozen=True)
class _Shift:
    """One sequence: sensors ``[T, 2]`` in units of their noise, activities ``[T]``, class."""

    sensors: Array
    activities: Array
    label: int


def _shift(generator: np.random.Generator) -> _Shift:
    weights = [probability for _, _, probability in STORIES]
    events, label, _ = STORIES[generator.choice(len(STORIES), p=weights)]
    if generator.random() < WRONG:
        label = (label + int(generator.integers(1, len(CLASSES)))) % len(CLASSES)
    stages = np.concatenate(
        [np.full(generator.geometric(1 - stay), k) for k, stay in enumerate(STAY)]
    )
    changes = generator.integers(1, 3, len(stages)) * (generator.random(len(stages)) < CHANGE)
    changes[0] = generator.integers(3)
    activities = changes.cumsum() % len(ACTIVITIES)
    means = _means(events)[stages] + SHIFTS[activities]
    sensors = means + generator.standard_normal(means.shape)
    # The best score is that of the file, which has the sensors' rounded readings.
    return _Shift(_rounded(sensors), activities, label)


def _means(events: tuple[int, int]) -> Array:
    """What the stages of a story add to the sensors, ``[stage, sensor]``."""
    means = np.zeros((STAGES, 2))
    for stage, which in enumerate(EVENTS):
        if which is not None:
            means[stage, events[which]] = SIGNAL
    return means


def _posterior(shift: _Shift) -> Array:
    """The probability of each class to be written down given the sensors, by the forward algorithm.

    Given the story, the stages are a Markov chain that begins in the first and ends with the
    last. How the activities came about tells nothing, and neither does the load.
    """
    stay = np.array(STAY)
    likelihoods = np.zeros(len(CLASSES))
    logs = [_story(shift, events, stay) for events, _, _ in STORIES]
    scale = max(logs)
    for (_, label, probability), log in zip(STORIES, logs, strict=True):
        likelihoods[label] += probability * np.exp(log - scale)
    true = likelihoods / likelihoods.sum()
    written: Array = (1 - WRONG) * true + WRONG * (1 - true) / (len(CLASSES) - 1)
    return written


def _story(shift: _Shift, events: tuple[int, int], stay: Array) -> float:
    """The log-likelihood of a shift's sensors in a story, up to a constant."""
    excess = shift.sensors - SHIFTS[shift.activities]
    density = np.exp(-0.5 * np.square(excess - _means(events)[:, None]).sum(-1))
    alpha = np.zeros(STAGES)
    alpha[0] = density[0, 0]
    log = 0.0
    for at in density[:, 1:].T:
        moved = alpha * stay
        moved[1:] += (alpha * (1 - stay))[:-1]
        alpha = moved * at
        total = alpha.sum()
        log += np.log(total)
        alpha /= total
    return float(log + np.log(alpha[-1]))


def _scaled(sensor: Array, scale: tuple[float, float]) -> Array:
    """Noise's units to a sensor's own, as (mean, sd), to three places."""
    mean, sd = scale
    scaled: Array = (mean + sd * sensor).round(3)
    return scaled


def _rounded(sensors: Array) -> Array:
    """What the readings of the file are in the noise's units."""
    columns = [
        (_scaled(sensors[:, k], scale) - scale[0]) / scale[1]
        for k, scale in enumerate((HEAT, VIBRATION))
    ]
    return np.stack(columns, 1)
