"""From wall time to a network and a schedule."""

import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from peephole.data.corpus import Corpus, of_texts
from peephole.errors import UserError
from peephole.jobs.text import budget as budgets
from peephole.jobs.text.budget import SIZES, Budget, largest, seconds, settle, speed
from peephole.jobs.text.settings import ModelSettings, TrainSettings
from peephole.tasks.text.settings import Network
from tests.tasks.text.texts import words


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """A million characters, to plan for."""
    return of_texts([words(1000) * 1000, words(1000) * 100], [False, True])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Network]:
    """The networks that are measured; a machine that does 10^10 multiplications a second."""
    found: list[Network] = []

    def fast(
        corpus: Corpus, network: Network, training: Any, seed: int, lasting: float = 1.0
    ) -> float:
        found.append(network)
        return 1e10 / budgets._work(network, corpus.alphabet.size)

    monkeypatch.setattr(budgets, "speed", fast)
    return found


def settled(corpus: Corpus, budget: float, said: list[str] | None = None, **options: Any) -> Budget:
    model = {name: options.pop(name) for name in list(options) if hasattr(ModelSettings, name)}
    said = [] if said is None else said
    return settle(
        corpus,
        ModelSettings(**model),
        TrainSettings(**options),
        budget,
        began=time.monotonic(),
        seed=0,
        say=said.append,
    )


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("0.5h", 1800), ("2d", 172800), ("1m5s", 65)],
)
def test_times(written: str, wanted: float) -> None:
    assert seconds(written) == wanted


@pytest.mark.parametrize("written", ["", "5", "m", "5 m", "-5m", "5min", "nan", "5m!", "infs"])
def test_what_is_no_time(written: str) -> None:
    message = f"budget: {written!r} is no time; write it as 90s, 5m or 1h30m"
    with pytest.raises(UserError, match=re.escape(message)):
        seconds(written)


def test_too_short_a_time() -> None:
    with pytest.raises(UserError, match="budget: '4s'; it must be at least 5s"):
        seconds("4s")
    with pytest.raises(UserError, match="it must be at least 5s"):
        seconds("9" * 400 + "d")


def test_more_time_makes_larger_networks_and_longer_trainings(
    corpus: Corpus, measured: list[Network]
) -> None:
    found = [settled(corpus, budget) for budget in (10, 100, 1000, 10_000)]
    sizes = [budget.network.hidden_size for budget in found]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    read = [(b.training.updates or 0) / (b.characters_a_second or 1) for b in found]
    assert read == sorted(read)


def test_updates_fill_the_time(corpus: Corpus, measured: list[Network]) -> None:
    for budget in (60, 300):
        chosen = settled(corpus, budget)
        assert chosen.training.updates is not None
        characters = chosen.training.updates * budgets.STREAMS * budgets.WINDOW
        assert chosen.characters_a_second is not None
        assert 0.5 * budget < characters / chosen.characters_a_second < budget


def test_updates_leave_time_for_the_evaluations(measured: list[Network]) -> None:
    """Counted by hand, with more than one evaluation an epoch, and a large held-out part."""
    corpus = of_texts([words(1000) * 1000, words(1000) * 2000], [False, True])
    updates, held_out = 1_000_000 / 1024, 2_000_000
    chosen = settled(corpus, 300, hidden_size=256)
    assert chosen.characters_a_second is not None
    assert chosen.training.updates is not None
    passes = chosen.training.updates / updates
    assert passes < 10
    per_epoch = round(10 / passes)
    scored = (per_epoch * passes + 1) * min(budgets.SCORED, held_out) + min(1 << 20, held_out)
    took = (chosen.training.updates * 1024 + scored / 3) / chosen.characters_a_second
    assert 0.85 * 300 < took < 0.91 * 300


def test_a_small_text_gets_a_small_network_and_an_end(measured: list[Network]) -> None:
    small = of_texts([words(5000), words(100)], [False, True])
    chosen = settled(small, 1e6)
    assert chosen.network.hidden_size == SIZES[0].hidden_size
    assert chosen.network.dropout == budgets.DROPPING[-1].dropout
    said: list[str] = []
    settled(small, 1e6, said)
    assert f": {budgets.MOST_PASSES}.0 passes" in said[0]


def test_what_a_person_chose_stays(corpus: Corpus, measured: list[Network]) -> None:
    chosen = settled(
        corpus, 300, hidden_size=40, dropout=0.25, window=50, streams=7, learning_rate=0.5
    )
    assert (chosen.network.hidden_size, chosen.network.dropout) == (40, 0.25)
    assert [(network.hidden_size, network.dropout) for network in measured] == [(40, 0.25)] * 2
    training = chosen.training
    assert (training.window, training.streams, training.learning_rate) == (50, 7, 0.5)
    assert chosen.network.tied is (chosen.network.embedding_size == 40)
    assert settled(corpus, 300, tied=True).network.tied
    peeping = settled(corpus, 300, cell="gru", layer_norm="output").network
    assert (peeping.cell, peeping.layer_norm) == ("gru", "output")


def test_the_speed_that_counts_is_with_what_is_dropped(
    corpus: Corpus, measured: list[Network]
) -> None:
    chosen = settled(corpus, 3000)
    assert chosen.network.dropout > 0
    assert [network.dropout for network in measured] == [0, chosen.network.dropout]
    assert measured[-1] == chosen.network


@pytest.mark.parametrize(("budget", "wanted"), [(5, 1), (300, 3), (86400, 10)])
def test_a_hundredth_of_the_budget_measures(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, budget: float, wanted: float
) -> None:
    found: list[float] = []

    def fast(*_: object) -> float:
        found.append(float(_[4]) if len(_) > 4 else 1.0)
        return 1e4

    monkeypatch.setattr(budgets, "speed", fast)
    settled(corpus, budget)
    assert found == [1.0, wanted]


def test_where_nothing_is_open_nothing_is_measured(corpus: Corpus, measured: list[Network]) -> None:
    said: list[str] = []
    chosen = settled(corpus, 300, said, hidden_size=40, updates=17)
    assert not measured
    assert chosen.training.updates == 17
    assert "measured" not in said[0]


def test_several_processes_do_not_measure(
    corpus: Corpus, measured: list[Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for options in ({}, {"hidden_size": 40}, {"updates": 3}):
        with pytest.raises(UserError, match="budget: a budget is measured by one process alone"):
            settled(corpus, 300, **options)
    assert settled(corpus, 300, hidden_size=40, updates=3).training.updates == 3


def test_a_larger_network_needs_more_text_and_time() -> None:
    """The table's own order, without which the choice makes no sense."""
    for less, more in pairwise(SIZES):
        assert less.read < more.read
        assert less.text < more.text
        assert less.hidden_size < more.hidden_size
    network = Network(hidden_size=256, embedding_size=128, tied=False)
    assert largest(10, (network, 1e4), ModelSettings(), 65, 1e9) == SIZES[0]
    assert largest(10**9, (network, 1e-3), ModelSettings(), 65, 1.0) == SIZES[0]
    assert largest(10**9, (network, 1e4), ModelSettings(), 65, 1e9) == SIZES[-1]


def test_speed_is_of_the_usual_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes 0.4 s an update, and once for an hour while something else runs."""
    text = of_texts([words(5000), words(100)], [False, True])
    now, updates = 0.0, 0

    def fit(*arguments: object, on_update: Callable[[], None]) -> None:
        nonlocal now, updates
        while True:
            updates += 1
            now += 3600 if updates == 3 else 0.4
            on_update()

    monkeypatch.setattr(budgets, "fit", fit)
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now)
    monkeypatch.setattr(budgets, "MEASURED_UPDATES", 5)
    network = Network(hidden_size=4, embedding_size=4)
    training = TrainSettings(streams=8, window=16)
    assert speed(text, network, training, 0) == pytest.approx(8 * 16 / 0.4, rel=0.02)
    monkeypatch.undo()
    assert speed(text, network, training, 0) > 0
