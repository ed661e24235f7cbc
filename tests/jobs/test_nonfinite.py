"""What is not finite in one of two processes ends the update in both."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from peephole.data import tables
from peephole.jobs.runs import look
from peephole.train import Position
from peephole.train.checkpoints import Checkpoints
from tests.helpers.lives import command, live
from tests.jobs.test_processes import WORDS, finished, torchrun
from tests.jobs.test_table import shifts

# Trains, and leaves each process's model. Only what the second process computes is spoiled: the
# loss or, by the square root's derivative at 0, the gradient alone.
PROGRAM = """
import importlib, json, os, sys
import torch
from peephole import cli
from peephole.tasks.table.task import SequencesTask

job = importlib.import_module("peephole.jobs.table.train")
spoiled, folder, *words = sys.argv[1:]
spoiled, rank = json.loads(spoiled), os.environ["RANK"]
plain, fit, update = SequencesTask.loss, job.fit_in, 0

def loss(self, model, *given):
    global update
    update += 1
    found = plain(self, model, *given)
    what = spoiled.get(str(update)) if rank == "1" else None
    weight = next(model.parameters()).sum()
    if what == "loss":
        return found._replace(total=found.total * torch.nan)
    if what == "gradient":
        return found._replace(total=found.total + (weight - weight.detach()).abs().sqrt())
    return found

def fit_in(*given):
    fitted = fit(*given)
    torch.save(fitted.model.state_dict(), os.path.join(folder, rank + ".pt"))
    return fitted

SequencesTask.loss, job.fit_in = loss, fit_in
sys.exit(cli.main(words))
"""

Begin = Callable[..., Any]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Train in ``run`` by two processes, where some updates are spoiled in the second one."""
    tables.write(pa.table(shifts(30)), tmp_path / "data.csv")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def start(spoiled: dict[int, str], *words: str) -> Any:
        train = ["train", "table", str(tmp_path / "data.csv"), *WORDS, *words]
        given = [str(program), json.dumps(spoiled), str(tmp_path), *train]
        return torchrun(*given, "--out", str(tmp_path / "run"), restarts=0)

    return start


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_both_stop_with_one_line_and_the_last_good_checkpoint(
    what: str, tmp_path: Path, begin: Begin
) -> None:
    run = tmp_path / "run"
    process = begin({8: what})
    out, err = process.communicate()
    assert process.returncode != 0
    (line,) = [line for line in err.splitlines() if line.startswith("peephole")]
    assert line.startswith(f"peephole train table: the {what} is nan in update 8 of ")
    assert ", on sequence 's" in line
    assert "rror" not in out
    assert look(run).state == "diverged"
    newest, damaged = Checkpoints(run, Position).newest()
    assert newest is not None
    assert (newest.update, damaged) == (7, [])
    held = load_file(newest.path / "tensors.safetensors")
    assert all(tensor.isfinite().all() for tensor in held.values())
    assert not list(tmp_path.glob("*.pt"))
    data = str(tmp_path / "data.csv")
    assert live(command, "train", "table", data, "--resume", str(run)) == 0
    assert look(run).state == "finished"


def test_both_skip_it_and_go_on_with_the_same_weights(tmp_path: Path, begin: Begin) -> None:
    options = ("--train.on-nonfinite", "skip", "--train.epochs", "4")
    finished(begin({3: "loss", 8: "gradient", 9: "loss"}, *options))
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    assert [line["skipped"] for line in evaluations] == [1, 3, 3, 3]
    assert all(math.isfinite(line["loss"]) for line in evaluations)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, weight in first.items():
        assert weight.isfinite().all()
        assert torch.equal(weight, second[name]), name
