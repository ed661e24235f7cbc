"""``python -m benchmarks steps``: all walks end in the same place."""

import json
from pathlib import Path

import pytest

from benchmarks import steps
from benchmarks.__main__ import main
from benchmarks.measure import Measurement

QUICK = ["steps", "--hidden", "8,3", "--seconds", "0.01", "--threads", "1"]


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_all_walks_end_in_the_same_state(backend: str) -> None:
    walks = steps.walkers(7, backend)
    assert tuple(walks) == (*steps.TORCH, *steps.OURS)
    steps.check_same_end(walks)
    for walk in walks.values():
        end = steps.inference(walk)()
        assert end.shape == (1, 7)
        assert end.is_inference()


@pytest.mark.parametrize("name", ["nn.LSTMCell", *steps.OURS])
def test_another_end_is_refused(name: str) -> None:
    walks = steps.walkers(7, "auto")
    walk = walks[name]
    walks[name] = lambda: 1.001 * walk()
    with pytest.raises(ValueError, match=f"^{name} ends elsewhere"):
        steps.check_same_end(walks)


def test_the_ratio_is_between_the_fastest_of_both() -> None:
    times = dict(zip((*steps.TORCH, *steps.OURS), (9.0, 6.0, 5.0, 4.0, 8.0), strict=True))
    measured = Measurement({n: [t] * 5 for n, t in times.items()}, dict.fromkeys(times, 1))
    found = steps.figures(16, measured)
    assert found["best"] == {"torch": "nn.LSTMCell", "peephole": "LSTM on a Ragged"}
    assert found["ratio"]["median"] == 1.5
    assert found["times_us"]["LSTM"]["median"] == pytest.approx(5e6 / steps.STEPS)


def test_appends_a_line_a_number_of_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "steps.jsonl"
    assert main([*QUICK, "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["size"] for line in lines] == [{"I": 8, "H": 8}, {"I": 3, "H": 3}]
    # The bar is about 128 hidden units.
    assert "No bar is about what was measured." in capsys.readouterr().out


def test_the_bar_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["steps", "--hidden", "128", "--seconds", "0.01", "--threads", "1", "--no-save"]
    assert main([*words, "--check"]) in (0, 1)
    assert "one step at a time" in capsys.readouterr().out
