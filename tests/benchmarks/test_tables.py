"""``python -m benchmarks tables``: its parts do theirs, and lines say what was found."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import large, tables
from benchmarks.__main__ import main
from benchmarks.goals import GOALS, ROWS
from peephole.data import tables as read

needs_linux = pytest.mark.skipif(not large.STATUS.exists(), reason="only Linux tells memory")
FOUND = {"seconds": 3.0, "prepare_s": 5.0, "update_ms": 7.0, "waiting": 0.01, "own": 400.0}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_table_has_its_rows_in_order_or_not(tmp_path: Path, form: str) -> None:
    orders = []
    for mixed in (False, True):
        path = tmp_path / f"{mixed}.{form}"
        large.write(path, 3000, mixed)
        table = read.read(path).table
        assert table.column_names == ["unit", "minute", "x0", "x1", "x2", "x3", "mode", "load"]
        assert table.num_rows == 3000
        orders.append(np.stack([table["unit"], table["minute"]], 1))
        lengths = np.bincount(table["unit"].to_numpy())
        assert (lengths[:-1] >= large.SHORTEST).all()
        assert (lengths <= large.LONGEST).all()
    ordered, mixed_up = (order.tolist() for order in orders)
    assert ordered == sorted(ordered) == sorted(mixed_up)
    assert mixed_up != ordered


@needs_linux
def test_parts_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path / "t.csv"), "--threads", "1"]
    cache = ["--cache", str(tmp_path / "cache")]
    large.main(["write", *words, "--rows", "2000"])
    large.main(["convert", *words, *cache])
    entries = list((tmp_path / "cache").glob("rows-*"))
    large.main(["train", *words, *cache, "--updates", "2"])
    assert list((tmp_path / "cache").glob("rows-*")) == entries
    assert len(list((tmp_path / "cache").glob("examples-*"))) == 2
    written, converted, trained = (
        json.loads(line) for line in capsys.readouterr().out.split("\n")[:3]
    )
    assert 0 < written["own"] < written["resident"]
    assert converted["seconds"] > 0
    assert trained["prepare_s"] > 0
    assert 0 < trained["waiting"] < 1


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The parts that were run; each needed little."""
    run: list[Sequence[str]] = []

    def part(name: str, file: Path, *words: str) -> dict[str, Any]:
        run.append([name, file.name, *words])
        file.touch()
        return FOUND | {"resident": 900.0 + 10 * len(run)}

    monkeypatch.setattr(tables, "part", part)
    monkeypatch.setattr(tables, "STATUS", Path(__file__))
    monkeypatch.setattr("benchmarks.record.commit", lambda: {"commit": None, "dirty": None})
    return run


def test_appends_a_line_a_kind(
    parts: list[Sequence[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tables.jsonl"
    assert main(["tables", "--kind", "csv,mixed-parquet", "--check", "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["csv", "mixed-parquet"]
    assert lines[0]["size"] == {"rows": ROWS}
    assert lines[0]["converting_mb"] == {"resident": 920, "own": 400}
    assert lines[0]["training_mb"] == {"resident": 940, "own": 400}
    assert [part[0] for part in parts[:5]] == ["write", "convert", "convert", "train", "train"]
    assert [part[1] for part in parts[::5]] == ["t.csv", "t.parquet"]
    assert ["--mixed" in part for part in parts[::5]] == [False, True]
    printed = capsys.readouterr().out
    assert "940 (400)" in printed
    assert "Missed: 0 of 3." in printed


def test_a_small_table_has_no_bar(
    parts: list[Sequence[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tables", "--rows", "1000", "--kind", "csv", "--no-save", "--check"]) == 0
    assert parts[0][-2:] == ["--rows", "1000"]
    assert "No bar" in capsys.readouterr().out


def test_the_worst_kind_is_held_against_the_bars() -> None:
    def line(kind: str, seconds: float, resident: float, waiting: float) -> dict[str, Any]:
        memory = {"resident": resident, "own": 1.0}
        return {
            "benchmark": "tables",
            "kind": kind,
            "size": {"rows": ROWS},
            "convert_s": seconds,
            "waiting": waiting,
            "converting_mb": memory,
            "training_mb": {"resident": 500.0, "own": 1.0},
        }

    lines = [line("csv", 12, 1100, 0.01), line("parquet", 61, 600, 0.06)]
    by_name = {goal.what: goal for goal in GOALS}
    verdicts = {}
    for begin in (
        "a table of 10 million",
        "most memory resident",
        "share of the time that training on it",
    ):
        (goal,) = (g for what, g in by_name.items() if what.startswith(begin))
        found = goal.find(lines)
        verdicts[begin] = goal.verdict(found), goal.told(found.value), goal.find(lines[:1])
    assert [v[0] for v in verdicts.values()] == ["missed"] * 3
    assert [v[1] for v in verdicts.values()] == ["61 s", "1.02 GiB", "6%"]
    assert verdicts["a table of 10 million"][2].detail == "1 of 4 measured, worst csv"


def test_elsewhere_it_says_that_it_cannot(
    parts: list[Sequence[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tables, "STATUS", Path("/no/such/file"))
    assert main(["tables", "--no-save"]) == 1
    assert "only Linux" in capsys.readouterr().err
    assert parts == []
