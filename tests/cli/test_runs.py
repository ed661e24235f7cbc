"""``peephole runs``, as a person meets it."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peephole.cli import main
from tests.cli.test_main import loaded_by
from tests.jobs.test_runs import made


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    made(Path("runs/one"), finish=True)
    made(Path("runs/two"), started="2026-03-02T12:00:00+00:00", task="a\x1b[2Jb")
    made(Path("runs/three"), started="2026-03-03T12:00:00+00:00", losses=(), checkpoints=())
    made(Path("runs/bad"))
    Path("runs/bad/run.json").write_text("{")
    yield tmp_path
    monkeypatch.undo()
    time.tzset()


def test_a_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    header, bad, *rows, damage = (line.rstrip() for line in captured.out.splitlines())
    assert header.split() == ["run", "task", "state", "updates", "best", "started"]
    assert bad.split() == ["runs/bad", "–", "damaged", "–", "–", "–"]
    assert damage.startswith(
        "runs/bad is damaged: runs/bad/run.json is not JSON as peephole writes"
    )
    one, two, three = (re.split(r"\s{2,}", row) for row in rows)
    begun = "2026-03-01 12:00"
    assert one == ["runs/one", "table", "finished", "30 of 100", "loss 0.25", begun]
    assert two[:5] == ["runs/two", r"a\x1b[2Jb", "interrupted", "40 of 100", "loss 0.25"]
    assert three[:5] == ["runs/three", "table", "interrupted", "0 of 100", "–"]


def test_lines_of_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "runs/one", "runs/bad", "--json"]) == 0
    bad, one = map(json.loads, capsys.readouterr().out.splitlines())
    assert one == {
        "run": "runs/one",
        "state": "finished",
        "damage": None,
        "task": "table",
        "started": "2026-03-01T12:00:00+00:00",
        "update": 30,
        "updates": 100,
        "metric": "loss",
        "best": 0.25,
    }
    assert bad["state"] == "damaged"
    assert bad["damage"].startswith("runs/bad/run.json is not JSON")


def test_no_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "no runs here\n"
    assert main(["runs", "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["runs", "nowhere"]) == 2
    assert capsys.readouterr().err == "peephole runs: there is no folder nowhere\n"


@pytest.mark.parametrize(("words", "loads"), [([], {"rich"}), (["--json"], set())])
def test_it_loads_no_torch(runs: Path, words: list[str], loads: set[str]) -> None:
    done, loaded = loaded_by(["runs", *words], runs)
    assert done.returncode == 0
    assert "runs/one" in done.stdout
    assert loaded == loads


def test_a_name_that_steers_a_terminal(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/bad").rename("runs/\x1b[31mred\udcff")
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"runs/\x1b[31mred\udcff" in out
    assert main(["runs", "--json"]) == 0
    assert "\x1b" not in capsys.readouterr().out
