"""What follows from the times of a row."""

import pytest

from benchmarks import machine, rows
from benchmarks.kinds import KINDS, MM
from benchmarks.measure import Measurement
from benchmarks.rows import Row, measure_row
from benchmarks.sizes import Size

SIZE = Size(2, 50, 30, 10)


@pytest.fixture(autouse=True)
def small_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MM_SIZE", 64)


def row_of(kind: str = "LSTM", mode: str = "train", **seconds: float) -> Row:
    """A row in which each contender always takes as long; 1 s where it is not told."""
    names = [*KINDS[kind].contenders, *(name for name in seconds if name == "reference")]
    measured = {name: [seconds.get(name, 1.0)] * 5 for name in names}
    return Row(
        kind=kind,
        mode=mode,
        size=SIZE,
        steps=60,
        measured=Measurement(measured, dict.fromkeys(names, 1)),
        mm_seconds=[machine.mm_gflop() / 100.0] * 3,
        backends={"auto": "torch"},
    )


def test_ratios_are_to_the_better_of_torch_nn() -> None:
    row = row_of(
        padded=2.0,
        packed=4.0,
        auto=1.0,
        fresh=1.6,
        lengths=2.5,
        same_padded=2.5,
        same_packed=3.0,
        reference=6.0,
    )
    assert row.best == "padded"
    assert {name: ratio.median for name, ratio in row.ratios().items()} == {
        "best / auto": 2.0,
        "packed / auto": 4.0,
        "best / fresh": 1.25,
        "best / lengths": 0.8,
        "reference / packed": 1.5,
        "same_padded / padded": 1.25,
        "same_packed / packed": 0.75,
    }
    assert row_of(padded=4.0, packed=2.0).best == "packed"


def test_a_ceiling_is_the_ratio_at_the_rate_of_mm() -> None:
    row = row_of(padded=2.0, packed=4.0, auto=1.0)
    ideal = row.gflop("auto") / 100.0
    ceilings = row.ceilings()
    assert set(ceilings) == {"best / auto", "packed / auto", "best / fresh", "best / lengths"}
    assert ceilings["best / auto"] == pytest.approx(2.0 / ideal)
    assert ceilings["packed / auto"] == pytest.approx(4.0 / ideal)
    assert row.mm_gflops == pytest.approx(100.0)
    assert row.share("auto") == pytest.approx(ideal / 1.0)
    # A contender at its ceiling is as fast as torch.mm.
    fast = row_of(padded=2.0, auto=ideal)
    assert fast.ratios()["best / auto"].median == pytest.approx(fast.ceilings()["best / auto"])


def test_the_share_of_mm_is_taken_round_by_round_where_it_ran_in_each() -> None:
    # The machine halves its speed in most rounds; the medians alone would say otherwise.
    mm = [1.0, 2.0, 2.0]
    times = {"auto": [3.0, 6.0, 4.0], MM: mm}
    measured = Measurement(times, dict.fromkeys(times, 1))
    row = Row("LSTM", "train", SIZE, 60, measured, mm, {})
    assert row.share("auto") == pytest.approx(row.gflop("auto") / machine.mm_gflop() / 3.0)
    assert row.contenders == ["auto"]


def test_full_peepholes_are_compared_by_multiply_add() -> None:
    row = row_of("peepholes", none=1.0, diagonal=1.02, full=1.5)
    ratios = {name: ratio.median for name, ratio in row.ratios().items()}
    assert ratios["diagonal / none"] == pytest.approx(1.02)
    work = (4 * 10 * (2 * 30 + 3 * 10) + 9 * 10**2) / (4 * 10 * (2 * 30 + 3 * 10))
    assert ratios["full / none"] == pytest.approx(1.5 / work)
    assert row.ceilings() == {}
    assert row.best is None


def test_rates_are_over_the_median() -> None:
    row = row_of("GRU", auto=0.5)
    assert row.gflops()["auto"] == pytest.approx(row.gflop("auto") / 0.5)


@pytest.mark.parametrize("among", [1, 1000])
def test_mm_runs_among_the_rounds_of_large_sizes_and_around_those_of_small(
    among: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MM_AMONG", among)
    row = measure_row("RNN", "infer", Size(3, 5, 2, 4), 0.01, names=["auto", "packed"])
    assert (MM in row.measured.seconds) == (among == 1)
    assert row.contenders == ["auto", "packed"]
    assert list(row.ratios()) == ["best / auto", "packed / auto"]
    # Five rounds at least; around them, five before and five after.
    assert len(row.mm_seconds) >= (5 if among == 1 else 10)
    assert row.mm_gflops > 0
    assert 3 * 2 <= row.steps <= 3 * 5
    assert set(row.backends) == {"auto"}


def test_rounds_are_as_many_as_are_asked_for() -> None:
    row = measure_row("RNN", "infer", Size(3, 5, 2, 4), 1e-6, names=["auto"], min_rounds=9)
    assert row.measured.rounds == 9
