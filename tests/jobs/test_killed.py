"""A run that is killed at any instant, and resumed, ends as if nothing had been."""

import json
import random
import shutil
import time
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pyarrow as pa
import pytest

from peephole.data import tables
from peephole.run import Run, state
from tests.helpers.lives import command, live
from tests.jobs.test_table import shifts, wave

KILLS = 25
SETTINGS = [
    *("--model.hidden-size", "5", "--model.dropout", "0.2"),
    *("--train.batch-size", "3", "--train.epochs", "12", "--train.checkpoint-seconds", "0"),
]
PROBLEMS = {
    "sequences": (shifts(12), ["--target", "label", "--sequence", "id", "--order", "t"]),
    "series": (wave(200), ["--target", "y", "--ahead", "2", "--train.window", "8"]),
}


def timeless(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without how long it took."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: v for name, v in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_at_random_instants(problem: str, tmp_path: Path) -> None:
    columns, words = PROBLEMS[problem]
    file = tmp_path / "data.csv"
    tables.write(pa.table(columns), file)
    begin = ["train", "table", str(file), *words, *SETTINGS]
    again = ["train", "table", str(file)]

    assert live(command, "--version") == 0
    started = time.monotonic()
    cache = tmp_path / "cache"
    whole = tmp_path / "whole"
    assert live(command, *begin, "--out", str(whole), "--cache", str(cache)) == 0
    took = time.monotonic() - started

    draw = random.Random(problem)
    kills, course = 0, 0
    while kills < KILLS:
        # Each course is a run, from its beginning to its end.
        course += 1
        run = tmp_path / f"run-{course}"
        while not (run.exists() and state(run) == "finished"):
            if draw.random() < 0.3:
                shutil.rmtree(cache, ignore_errors=True)
            way = [*again, "--resume", str(run)] if run.exists() else [*begin, "--out", str(run)]
            seconds = draw.uniform(0, took) if kills < KILLS else None
            status = live(command, *way, "--cache", str(cache), seconds=seconds)
            assert status in (0, -SIGKILL)
            kills += status == -SIGKILL
        assert timeless(run) == timeless(whole)
        for name in ("model/model.safetensors", "model/config.json"):
            assert (run / name).read_bytes() == (whole / name).read_bytes()
        metrics, wanted = Run.open(run).metrics, Run.open(whole).metrics
        assert metrics | {"seconds": 0.0} == wanted | {"seconds": 0.0}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
