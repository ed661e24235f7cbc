"""``python -m benchmarks report``: one table, of lines that may stand in one."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.goals import GOALS, KEPT
from benchmarks.report import comparable
from benchmarks.sizes import SIZES


def line(**changes: Any) -> dict[str, Any]:
    return {
        "benchmark": "layers",
        "command": "python -m benchmarks layers",
        "date": "2030-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "machine": {
            "cpu": "Abacus",
            "cores": 2,
            "instructions": "AVX2",
            "kernels": "avx2",
            "system": "Linux x86_64",
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0", "peephole": "0.1.0"},
        "threads": 2,
        "backend": "auto",
        "kind": "LSTM",
        "mode": "train",
        "size": SIZES[4]._asdict() | {"N": 99},
        "ratios": {"best / auto": {"low": 1.0, "median": 2.0, "high": 3.0}},
        "ceilings": {"best / auto": 2.5},
        "gflops": {"auto": 90.0},
        "mm_gflops": 100.0,
        "shares_of_mm": {"auto": 0.9},
        **changes,
    }


class TestComparable:
    def test_conditions_are_those_of_the_newest_line(self) -> None:
        old, new = line(), line(date="2030-02-01", threads=1)
        assert comparable([new, old]) == [new]
        assert comparable([new, old], threads=2) == [old]
        assert comparable([old, new], threads=3) == []

    @pytest.mark.parametrize(
        "other",
        [
            {"machine": {**line()["machine"], "kernels": "avx512"}},
            {"versions": {**line()["versions"], "torch": "2.14.0"}},
            {"backend": "reference"},
            {"command": None},
        ],
    )
    def test_others_do_not_count(self, other: dict[str, Any]) -> None:
        new = line(date="2030-02-01")
        assert comparable([line(**other), new]) == [new]

    def test_our_own_version_may_differ(self) -> None:
        old, new = line(versions={**line()["versions"], "peephole": "0.0"}), line(date="2031")
        assert comparable([new, old]) == [old, new]

    def test_lines_that_know_no_command_do_not_count(self) -> None:
        old = {key: value for key, value in line().items() if key not in ("command", "backend")}
        assert comparable([old]) == []


class TestCommand:
    def write(self, folder: Path, *lines: dict[str, Any]) -> list[str]:
        text = "".join(json.dumps(each) + "\n" for each in lines)
        (folder / "layers.jsonl").write_text(text)
        return ["report", "--results", str(folder)]

    def test_every_bar_has_its_row(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = "python -m benchmarks layers --kind diagonal"
        diagonal = line(
            kind="diagonal",
            command=other,
            dirty=True,
            ratios={"loop / auto": {"median": 3.5}},
            ceilings={"loop / auto": 7.0},
        )
        assert main(self.write(tmp_path, line(), diagonal)) == 0
        printed = capsys.readouterr().out.splitlines()
        for goal in (*GOALS, *KEPT):
            assert sum(text.startswith(f"| {goal.what} |") for text in printed) == 1
        first = next(text for text in printed if text.startswith("| LSTM training"))
        assert first.split(" | ")[1:] == [
            "1.9 x",
            "2.3 x",
            "2.00 x",
            "2.50 x",
            "yes",
            "1 of 6 measured, 2 to 2",
            "1 |",
        ]
        share = next(text for text in printed if text.startswith("| useful GFLOP/s"))
        assert "| 85% | 92% | 90% | 100% | yes | 90 of 100 GFLOP/s | 1 |" in share
        loop = next(text for text in printed if "loop.py" in text)
        assert "| 3.50 x | 7.00 x | **no** |" in loop
        assert "| 32, 128, 512, 512 | 2.00 of 2.5; 90% | 3.50 of 7; 90% |" in printed
        assert printed[-2:] == [
            "1. `python -m benchmarks layers` (2030-01-02; 012345678)",
            f"2. `{other}` (2030-01-02; 012345678 with changes)",
        ]
        assert printed[0].startswith("Abacus, 2 cores, threads: 2; AVX2, kernels for avx2")

    def test_all_rows_of_a_table_have_as_many_cells(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main(self.write(tmp_path, line(), line(mode="infer")))
        tables: list[set[int]] = [set()]
        for text in capsys.readouterr().out.splitlines():
            if text.startswith("|"):
                tables[-1].add(text.count("|"))
            elif tables[-1]:
                tables.append(set())
        assert [len(counts) for counts in tables[:-1]] == [1, 1, 1, 1]

    def test_check_wants_every_bar_met(self, tmp_path: Path) -> None:
        words = self.write(tmp_path, line())
        assert main(words) == 0
        assert main([*words, "--check"]) == 1

    def test_no_results_are_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["report", "--results", str(tmp_path)]) == 1
        assert "no results" in capsys.readouterr().err
