"""``torchrun --nproc-per-node 2 -m peephole train table``, and what may happen to it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from peephole.data import tables
from peephole.run import state
from tests.helpers.lives import command, live
from tests.jobs.test_killed import timeless
from tests.jobs.test_table import shifts
from tests.tasks.text.texts import words

WORDS = [
    *("--target", "label", "--sequence", "id", "--order", "t"),
    *("--model.hidden-size", "5", "--model.dropout", "0.2"),
    *("--train.batch-size", "4", "--train.epochs", "30", "--train.checkpoint-seconds", "0"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.csv"
    tables.write(pa.table(shifts(30)), path)
    return path


# The first time it ends in an error after all is done.
PROGRAM = """
import os, sys
from peephole.cli import main
sys.exit(main() or os.environ["TORCHELASTIC_RESTART_COUNT"] == "0")
"""


def started(file: Path, *words: str, restarts: int = 0) -> "subprocess.Popen[str]":
    return torchrun("-m", "peephole", "train", "table", str(file), *words, restarts=restarts)


def torchrun(*words: str, restarts: int, processes: int = 2) -> "subprocess.Popen[str]":
    options = ["--standalone", f"--max-restarts={restarts}", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(process: "subprocess.Popen[str]") -> tuple[str, str]:
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return out, err


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)


def evaluations(run: Path) -> int:
    lines = run / "metrics.jsonl"
    return len(lines.read_text().splitlines()) if lines.exists() else 0


def children(process: "subprocess.Popen[str]") -> list[int]:
    folder = Path("/proc")
    found = []
    for entry in folder.iterdir():
        if entry.name.isdecimal():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[1]) == process.pid:
                found.append(int(entry.name))
    return sorted(found)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


class Whole(NamedTuple):
    """A training by two processes that nothing disturbed."""

    run: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    run = tmp_path_factory.mktemp("whole") / "run"
    return Whole(run, *finished(started(file, *WORDS, "--out", str(run))))


def test_one_speaks_and_one_writes(whole: Whole) -> None:
    lines = [line for line in whole.out.splitlines() if line]
    assert len(lines) == len(set(lines))
    assert lines[-1].startswith(str(whole.run / "report.html"))
    assert "istributed" not in whole.out
    assert "peephole" not in whole.err
    assert state(whole.run) == "finished"
    assert [path.name for path in whole.run.parent.iterdir()] == ["run"]


def test_as_one_process_but_for_rounding(file: Path, tmp_path: Path) -> None:
    words = [*WORDS, "--model.dropout", "0", "--train.epochs", "3"]
    finished(started(file, *words, "--out", str(tmp_path / "two")))
    assert live(command, "train", "table", str(file), *words, "--out", str(tmp_path / "one")) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, wanted in one.items():
        torch.testing.assert_close(two[name], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_lost_process_starts_the_job_again_where_it_was(
    whole: Whole, file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = started(file, *WORDS, "--out", str(run), restarts=1)
    wait_for(lambda: evaluations(run) > 5, process)
    os.kill(children(process)[-1], signal.SIGKILL)
    out, _ = finished(process)
    assert "resumed from" in out
    assert timeless(run) == timeless(whole.run)
    for name, wanted in weights(whole.run).items():
        assert torch.equal(weights(run)[name], wanted)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_budget_is_measured_once(tmp_path: Path) -> None:
    """Started again the job goes on with the settings that its first process settled."""
    (tmp_path / "t").write_text(words(100_000))
    run = tmp_path / "run"
    command = ["-m", "peephole", "train", "text", str(tmp_path / "t"), "--out", str(run)]
    options = ["--budget", "5s", "--train.checkpoint-seconds", "0.1"]
    process = torchrun(*command, *options, restarts=1, processes=1)
    wait_for(lambda: evaluations(run) > 3, process)
    config = (run / "config.yaml").read_text()
    os.kill(children(process)[-1], signal.SIGKILL)
    out, _ = finished(process)
    assert "resumed from" in out
    assert (run / "config.yaml").read_text() == config
    assert out.count("; measured") == 1, out


def test_a_process_that_is_lost_after_the_end(file: Path, tmp_path: Path) -> None:
    program, run = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)
    words = ("train", "table", str(file), *WORDS, "--train.epochs", "2", "--out", str(run))
    out, _ = finished(torchrun(str(program), *words, restarts=1))
    assert out.count("of training") == 1
    assert out.splitlines()[-1] == f"{run} is finished"


def test_a_signal_and_another_number_of_processes(file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(file, *WORDS, "--out", str(run))
    wait_for(lambda: evaluations(run) > 5, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode != 0
    assert f"--resume {run}" in err
    assert state(run) == "interrupted"
    assert live(command, "train", "table", str(file), "--resume", str(run)) == 0
    assert state(run) == "finished"


def test_what_may_be_started_again_needs_a_place(file: Path) -> None:
    process = started(file, *WORDS, restarts=1)
    _, err = process.communicate()
    assert process.returncode != 0
    assert "--out: not given; torchrun may start this again, which must find its run" in err


def test_an_error_that_all_have_is_told_once(tmp_path: Path) -> None:
    process = started(tmp_path / "nowhere.csv", *WORDS)
    _, err = process.communicate()
    assert process.returncode != 0
    assert err.count("there is no file") == 1
    assert "(process 1)" not in err
