"""The harness, by a clock that the contenders themselves move on."""

import gc
from collections.abc import Callable, Iterable
from itertools import cycle

import numpy as np
import pytest

from benchmarks.measure import MIN_ROUNDS, MIN_TIMED_SECONDS, Measurement, Quartiles, measure


class Clock:
    """Stands still but while a contender runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, seconds: Iterable[float]) -> Callable[[], None]:
        """One that takes so long at its calls, over and over."""
        taken = cycle(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += next(taken)

        return call


def test_quartiles_are_numpys() -> None:
    values = np.random.default_rng(0).exponential(size=23).tolist()
    assert Quartiles.of(values) == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]))


def test_quartiles_in_another_unit() -> None:
    assert Quartiles(0.5, 2.0, 3.0).scaled(1e3) == (500, 2000, 3000)


def test_times_are_those_of_a_call() -> None:
    clock = Clock()
    calls = {"slow": clock.contender("slow", [0.25]), "quick": clock.contender("quick", [1e-5])}
    measured = measure(calls, 3.0, clock=clock)
    assert measured.times("slow") == pytest.approx((0.25, 0.25, 0.25))
    assert measured.times("quick") == pytest.approx((1e-5, 1e-5, 1e-5))


def test_a_quick_contender_is_timed_several_calls_at_once() -> None:
    clock = Clock()
    calls = {"slow": clock.contender("slow", [0.25]), "quick": clock.contender("quick", [1e-5])}
    measured = measure(calls, 1.0, clock=clock)
    assert measured.repetitions["slow"] == 1
    assert 1 <= measured.repetitions["quick"] * 1e-5 / MIN_TIMED_SECONDS < 2


def test_every_contender_runs_once_a_round_in_changing_order() -> None:
    clock = Clock()
    names = ["a", "b", "c"]
    measured = measure({name: clock.contender(name, [0.1]) for name in names}, 6.0, clock=clock)
    timed = clock.calls[-3 * measured.rounds :]
    rounds = [tuple(timed[k : k + 3]) for k in range(0, len(timed), 3)]
    assert all(sorted(order) == names for order in rounds)
    assert len(set(rounds)) > 3


def test_rounds_fill_the_budget() -> None:
    clock = Clock()
    measured = measure({"a": clock.contender("a", [0.25])}, 2.0, clock=clock)
    assert measured.rounds == 8


def test_rounds_are_enough_for_quartiles_whatever_the_budget() -> None:
    clock = Clock()
    measured = measure({"a": clock.contender("a", [100.0])}, 0.01, clock=clock)
    assert measured.rounds == MIN_ROUNDS


def test_rounds_are_at_least_as_many_as_are_asked_for() -> None:
    clock = Clock()
    shares = list[float]()
    calls = {"a": clock.contender("a", [1.0])}
    measured = measure(calls, 2.0, min_rounds=8, clock=clock, on_round=shares.append)
    assert measured.rounds == 8
    assert shares == pytest.approx([k / 8 for k in range(1, 9)])


def test_progress_ends_at_one() -> None:
    clock, shares = Clock(), list[float]()
    measure({"a": clock.contender("a", [0.25])}, 2.0, clock=clock, on_round=shares.append)
    assert shares == pytest.approx([k / 8 for k in range(1, 9)])


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The machine is slower by the round; the ratios of the medians would be 1.5.
    measured = Measurement({"a": [2.0, 3.0, 90.0], "b": [1.0, 2.0, 30.0]}, {"a": 1, "b": 1})
    assert measured.ratio("a", "b") == (1.75, 2.0, 2.5)
    assert measured.fastest(["a", "b"]) == "b"


def test_a_slow_spell_does_not_change_a_ratio() -> None:
    # Each contender takes ten times as long in a third of its calls; warming up takes two calls.
    clock = Clock()
    calls = {name: clock.contender(name, [s, s, 10 * s]) for name, s in (("a", 0.3), ("b", 0.2))}
    assert measure(calls, 30.0, clock=clock).ratio("a", "b") == pytest.approx((1.5, 1.5, 1.5))


def test_garbage_is_not_collected_while_timing() -> None:
    clock = Clock()
    states = []

    def call() -> None:
        states.append(gc.isenabled())
        clock.now += 0.1

    measured = measure({"a": call}, 1.0, clock=clock)
    assert not any(states[-measured.rounds :])
    assert gc.isenabled()


@pytest.mark.parametrize(("count", "seconds", "words"), [(0, 1.0, "contender"), (1, 0.0, "budget")])
def test_nothing_to_measure_is_refused(count: int, seconds: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measure(dict.fromkeys(["a"][:count], lambda: None), seconds)
