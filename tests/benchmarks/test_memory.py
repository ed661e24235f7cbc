"""``python -m benchmarks memory``: the peak of a step is what the step took."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import memory, peak
from benchmarks.__main__ import main
from benchmarks.sizes import SIZES, Size

needs_linux = pytest.mark.skipif(not peak.can_measure(), reason="only Linux tells the peak")
MIB = 2**20


class Hungry:
    """A contender whose step takes so many bytes and gives them back."""

    def __init__(self, size: int) -> None:
        self.size = size

    def call(self, mode: str) -> Any:
        assert mode == "train"
        return lambda: torch.ones(self.size, dtype=torch.uint8)[:1].clone()


@needs_linux
def test_the_peak_is_told_even_if_the_memory_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Size] = []

    def make(kind: str, size: Size, names: list[str], *, backend: str) -> dict[str, Hungry]:
        given.append(size)
        return {names[0]: Hungry(256 * MIB if len(given) == 2 else 1)}

    monkeypatch.setattr(peak, "contenders", make)
    before, most = peak.peak("LSTM", "auto", SIZES[3])
    assert given == [Size(2, 2, 256, 256), SIZES[3]]
    assert most - before == pytest.approx(256 * MIB, rel=0.1)


@needs_linux
@pytest.mark.slow
def test_a_process_of_its_own_measures_a_layer() -> None:
    assert 0 <= memory.step_mb("LSTM", "padded", SIZES[0], "auto") < 50


def test_ratios_are_of_the_medians() -> None:
    found = memory.summary(
        "LSTM", SIZES[3], {"padded": [10, 20, 90], "packed": [40, 40, 40], "auto": [5, 8, 8]}
    )
    assert found["ratios"] == {"auto / padded": 0.4, "auto / packed": 0.2}
    assert found["peaks_mb"]["padded"] == {"low": 15, "median": 20, "high": 55}
    assert found["repeats"] == 3


class TestCommand:
    @pytest.fixture(autouse=True)
    def no_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        peaks = {"padded": 100.0, "packed": 120.0, "auto": 45.0, "loop": 300.0}
        monkeypatch.setattr(memory, "can_measure", lambda: True)
        monkeypatch.setattr(memory, "step_mb", lambda kind, name, *_: peaks[name])

    def test_appends_a_line_a_size(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "memory.jsonl"
        words = ["memory", "--sizes", "4,5", "--threads", "1", "--check", "--out", str(out)]
        assert main(words) == 0
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["size"]["H"] for line in lines] == [256, 512]
        assert lines[0]["ratios"] == {"auto / padded": 0.45, "auto / packed": 0.375}
        printed = capsys.readouterr().out
        assert "auto / padded 0.450" in printed
        assert "Missed: 0 of 1." in printed

    def test_the_loop_is_measured_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["memory", "--kind", "diagonal", "--sizes", "4", "--no-save"]) == 0
        assert "auto / loop 0.150" in capsys.readouterr().out

    def test_a_missed_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "step_mb", lambda *_: 50.0)
        words = ["memory", "--sizes", "4", "--threads", "1", "--no-save"]
        assert main(words) == 0
        assert main([*words, "--check"]) == 1

    def test_elsewhere_it_says_that_it_cannot(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(memory, "can_measure", lambda: False)
        assert main(["memory", "--no-save"]) == 1
        assert "only Linux" in capsys.readouterr().err
