"""A training that is stopped or killed, at any time and in any number of processes, goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peephole.errors import Interrupted
from tests.helpers import training
from tests.helpers.training import train

ROOT = Path(__file__).parents[2]
EVERY_TASK = pytest.mark.parametrize("task", training.TASKS)


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def command(
    folder: Path, task: str, dropout: float, processes: int = 1, **changes: Any
) -> list[str]:
    words = [sys.executable, "-m"]
    if processes > 1:
        words += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return [*words, "tests.helpers.training", str(folder), task, str(dropout), json.dumps(changes)]


def run(
    folder: Path, task: str, dropout: float, processes: int = 1, **changes: Any
) -> dict[str, Tensor]:
    done = subprocess.run(
        command(folder, task, dropout, processes, **changes),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    weights: dict[str, Tensor] = torch.load(folder / "trained.pt")
    return weights


class Stop(Exception):
    """What a test raises within an update."""


@EVERY_TASK
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"keep": "last"}, {"average": None}])
def test_the_same_bits_from_every_update_on(
    task: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"epochs": 2, "batch_size": 10, **changes}
    whole = train(tmp_path / "whole", task, 0.3, **changes)
    updates = whole.events[-1]["update"]
    kind = training.TASKS[task]
    plain = kind.loss
    for stop in range(1, updates + 1):
        folder = tmp_path / str(stop)
        calls = iter(range(10**6))

        def loss(self: Any, *given: Any, stop: int = stop, calls: Any = calls) -> Any:
            if next(calls) == stop * changes.get("accumulate", 1):
                raise Stop
            return plain(self, *given)

        monkeypatch.setattr(kind, "loss", loss)
        try:
            train(folder, task, 0.3, **changes)
        except Stop:
            monkeypatch.setattr(kind, "loss", plain)
        monkeypatch.setattr(kind, "loss", plain)
        again = train(folder, task, 0.3, **changes)
        for name, wanted in whole.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[name], wanted), (stop, name)
        assert events(folder) == events(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_update_and_leaves_a_checkpoint(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", "sums", 0.3, epochs=3)
    kind = training.Sums
    plain = kind.loss
    calls = iter(range(10**6))

    def loss(self: Any, *given: Any) -> Any:
        if next(calls) == 4:
            os.kill(os.getpid(), number)
        return plain(self, *given)

    monkeypatch.setattr(kind, "loss", loss)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as got:
        train(tmp_path / "stopped", "sums", 0.3, epochs=3, checkpoint_seconds=1e9)
    assert got.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    names = [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()]
    assert "update-000000005" in names
    again = train(tmp_path / "stopped", "sums", 0.3, epochs=3)
    for name, wanted in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], wanted), name


def test_a_signal_in_the_last_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, plain = training.Sums, training.Sums.evaluate

    def evaluate(self: Any, model: Any) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, model)

    monkeypatch.setattr(kind, "evaluate", evaluate)
    with pytest.raises(Interrupted):
        train(tmp_path, "sums", 0.0, epochs=1, evaluations=1)
    monkeypatch.setattr(kind, "evaluate", plain)
    before = events(tmp_path)
    again = train(tmp_path, "sums", 0.0, epochs=1, evaluations=1)
    assert again.best["update"] == before[-1]["update"]
    assert events(tmp_path) == before


@EVERY_TASK
def test_several_processes_give_the_weights_of_one(task: str, tmp_path: Path) -> None:
    changes = {"epochs": 30, "evaluations": 1}
    wanted = run(tmp_path / "1", task, 0.0, **changes)
    assert events(tmp_path / "1")[-1]["update"] >= 200
    found = run(tmp_path / "2", task, 0.0, processes=2, **changes)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-9, atol=1e-9)


@EVERY_TASK
def test_any_number_of_processes_resumes_any_others_run(task: str, tmp_path: Path) -> None:
    # The schedule's end is that of the updates that are asked for.
    wanted = run(tmp_path / "whole", task, 0.0, schedule="constant")
    folder = tmp_path / "shared"
    for updates, processes in ((9, 2), (20, 4), (31, 1), (None, 2)):
        changes = {"schedule": "constant", "updates": updates}
        found = run(folder, task, 0.0, processes=processes, **changes)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-9, atol=1e-9)
