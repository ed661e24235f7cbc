"""Who is compared with whom, and what counts as work."""

import pytest

from benchmarks.kinds import BEST, KINDS, gflop
from benchmarks.sizes import SIZES, Size

SIZE = Size(2, 50, 30, 10)


def test_ratios_are_those_whose_contenders_take_part() -> None:
    lstm = KINDS["LSTM"]
    assert lstm.ratios(["auto", "padded", "same_padded"]) == [
        (BEST, "auto"),
        ("same_padded", "padded"),
    ]
    assert lstm.ratios(["auto", "fresh"]) == []
    assert KINDS["diagonal"].ratios(["loop", "auto"]) == [("loop", "auto")]


@pytest.mark.parametrize("kind", KINDS)
def test_every_ratio_is_between_contenders(kind: str) -> None:
    has = KINDS[kind]
    everybody = (*has.contenders, *has.optional)
    assert has.ratios(everybody) == list(has.pairs)


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1), ("diagonal", 4)])
def test_useful_gflop_is_the_designs_count(kind: str, gates: int) -> None:
    train = gflop(kind, "auto", "train", SIZE, 60)
    assert train == pytest.approx(2 * gates * 10 * 60 * (2 * 30 + 3 * 10) / 1e9)
    infer = gflop(kind, "auto", "infer", SIZE, 60)
    assert infer == pytest.approx(2 * gates * 10 * 60 * (30 + 10) / 1e9)


def test_full_peepholes_are_three_matrices_more_in_each_pass() -> None:
    for mode, passes in (("infer", 1), ("train", 3)):
        none, diagonal, full = (
            gflop("peepholes", name, mode, SIZE, 60) for name in KINDS["peepholes"].contenders
        )
        assert diagonal == none
        assert full - none == pytest.approx(2 * 60 * passes * 3 * 10**2 / 1e9)


def test_sizes_are_numbered_from_one() -> None:
    assert [str(size) for size in SIZES[:2]] == ["16, 4, 1, 16", "32, 100, 8, 32"]
