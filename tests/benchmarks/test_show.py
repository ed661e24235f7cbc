"""Numbers and tables as they are read."""

import io

import pytest
from rich.console import Console

from benchmarks import show
from benchmarks.measure import Quartiles
from benchmarks.verdict import Found, Goal


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0004, "0.000"), (0.3846, "0.385"), (1.0, "1.00"), (28.36, "28.4"), (1234.5, "1234")],
)
def test_number(value: float, shown: str) -> None:
    assert show.number(value) == shown


def test_spread() -> None:
    assert show.spread(Quartiles(0.5, 1.25, 30.0)) == "1.25 (0.500-30.0)"


def test_the_bar_moves_in_a_terminal_and_is_silent_elsewhere() -> None:
    for terminal in (True, False):
        file = io.StringIO()
        out = Console(file=file, force_terminal=terminal, width=80)
        with show.Bar(out, 2) as bar:
            bar.start("GRU train")(0.5)
            bar.finish()
        assert ("GRU train" in file.getvalue()) is terminal
        assert (" 25%" in file.getvalue()) is terminal
        assert (" 50%" in file.getvalue()) is terminal


def test_bars_are_shown_with_their_verdicts() -> None:
    goals = [
        Goal("speed of `a`", 1.9, 2.3, lambda _: Found(1.5, "2 of 6", [], 7.0)),
        Goal("time", 1.1, None, lambda _: Found(1.0, "all", []), at_most=True),
        Goal("not measured", 1.0, None, lambda _: None),
    ]
    file = io.StringIO()
    assert show.print_goals(Console(file=file, width=200), goals, []) == 1
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    assert "speed of a 1.9 x 2.3 x 1.50 x 7.00 x MISSED 2 of 6" in lines
    assert "time at most 1.1 x – 1.00 x – met all" in lines
    assert "Missed: 1 of 2." in lines
    assert "not measured" not in file.getvalue()


def test_without_bars_that_is_said() -> None:
    file = io.StringIO()
    assert show.print_goals(Console(file=file, width=200), [], []) == 0
    assert "No bar is about what was measured." in file.getvalue()
