"""Timing several contenders side by side, so that what disturbs one disturbs all.

In every round each contender runs once, in an order drawn anew. A ratio is the median of the
rounds' own ratios: a machine that slows down between two rounds does not change it.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

# Quartiles of fewer rounds say nothing.
MIN_ROUNDS = 5
# A contender quicker than this is called several times in a row: what the clock cannot resolve and
# what it costs to read it are then less than a thousandth.
MIN_TIMED_SECONDS = 1e-3
# The first calls choose kernels and take memory from the system.
WARM_UP_SECONDS = 0.02


class Quartiles(NamedTuple):
    """The lower quartile, the median and the upper quartile, in the unit of what they are of."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Those of two or more numbers, interpolated between neighbours."""
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def scaled(self, factor: float) -> "Quartiles":
        """In another unit, one that is ``factor`` (above 0) times as many."""
        return Quartiles(*(factor * value for value in self))


@dataclass(frozen=True)
class Measurement:
    """What was measured of several contenders.

    Attributes:
        seconds: for each contender the seconds of a call, a number for each round.
        repetitions: for each contender the calls that a round's number is the mean of.
    """

    seconds: dict[str, list[float]]
    repetitions: dict[str, int]

    @property
    def rounds(self) -> int:
        return len(next(iter(self.seconds.values())))

    def times(self, name: str) -> Quartiles:
        """Seconds of a call."""
        return Quartiles.of(self.seconds[name])

    def ratio(self, name: str, other: str) -> Quartiles:
        """How many times as long ``name`` takes as ``other``: quartiles of the rounds' ratios."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return Quartiles.of([mine / theirs for mine, theirs in pairs])

    def fastest(self, names: Sequence[str]) -> str:
        """The contender with the least median.

        Not the least in each round: with two of the same speed that would favour the pair, by
        their noise.
        """
        return min(names, key=lambda name: self.times(name).median)


def measure(
    contenders: Mapping[str, Callable[[], object]],
    seconds: float,
    *,
    seed: int = 0,
    min_rounds: int = MIN_ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[float], None] = lambda share: None,
) -> Measurement:
    """Time contenders in rounds until the budget is spent.

    Args:
        contenders: what to call, by name; each is called before it is timed.
        seconds: the budget for all of them together, without warming up; above 0.
        seed: of the order within the rounds.
        min_rounds: are run even where the budget is spent before; two or more.
        clock: gives seconds; for tests.
        on_round: called between rounds with the share of the work that is done, 0 to 1.

    Raises:
        ValueError: no contenders, or no budget.
    """
    if not contenders:
        raise ValueError("measure needs at least one contender")
    if not seconds > 0:
        raise ValueError(f"seconds={seconds}; the budget must be above 0")
    repetitions = {name: _repetitions(call, clock) for name, call in contenders.items()}
    timed: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    draw = random.Random(seed)
    rounds, begin = 0, clock()
    while rounds < min_rounds or clock() - begin < seconds:
        draw.shuffle(order)
        for name in order:
            elapsed = _timed(contenders[name], repetitions[name], clock)
            timed[name].append(elapsed / repetitions[name])
        rounds += 1
        on_round(min(1.0, rounds / min_rounds, (clock() - begin) / seconds))
    return Measurement(timed, repetitions)


def _repetitions(call: Callable[[], object], clock: Callable[[], float]) -> int:
    """Warm up, and find how many calls in a row take as long as is timed at least."""
    begin = clock()
    while clock() - begin < WARM_UP_SECONDS:
        call()
    repetitions = 1
    while _timed(call, repetitions, clock) < MIN_TIMED_SECONDS:
        repetitions *= 2
    return repetitions


def _timed(call: Callable[[], object], repetitions: int, clock: Callable[[], float]) -> float:
    """Seconds of so many calls in a row. Garbage of one contender is not to be another's time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        begin = clock()
        for _ in range(repetitions):
            call()
        return clock() - begin
    finally:
        if collecting:
            gc.enable()
