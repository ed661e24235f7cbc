"""Numbers and tables as they are read."""

import io

import pytest
from rich.console import Console

from benchmarks import show
from benchmarks.measure import Quartiles


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
