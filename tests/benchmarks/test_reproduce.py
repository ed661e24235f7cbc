"""``python -m benchmarks reproduce``: it times the command, and says when that failed."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import reproduce
from benchmarks.__main__ import main


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run; each took 200 s."""
    commands: list[list[str]] = []
    now = [0.0]

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(words)
        now[0] += 200.0
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    monkeypatch.setattr("benchmarks.record.commit", lambda: {"commit": None, "dirty": None})
    monkeypatch.setattr(reproduce.time, "perf_counter", lambda: now[0])
    return commands


def test_full_size_has_a_bar(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reproduce.jsonl"
    assert main(["reproduce", "--check", "--out", str(out)]) == 0
    assert ran[0][1:5] == ["-m", "peephole", "reproduce", "--out"]
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert (line["quick"], line["elapsed_s"]) == (False, 200.0)
    assert "Missed: 0 of 1." in capsys.readouterr().out


def test_a_quick_one_has_none(ran: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--quick", "--no-save"]) == 0
    assert ran[0][-1] == "--quick"
    assert "No bar" in capsys.readouterr().out


def test_a_failure_is_no_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.record.commit", lambda: {"commit": None, "dirty": None})
    failed = subprocess.CompletedProcess([], 3)
    monkeypatch.setattr(reproduce.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr("benchmarks.results.append", lambda *_: pytest.fail("saved"))
    assert main(["reproduce"]) == 1
    assert "ended with 3" in capsys.readouterr().err
