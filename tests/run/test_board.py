"""Curves for TensorBoard, as its own reader sees them."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from peephole.errors import UserError
from peephole.run import Board, board
from tests.helpers.errors import raises

EVENT = {"event": "evaluation", "update": 20, "updates": 500, "epoch": 1.5, "train_loss": 0.25}


@dataclass(frozen=True)
class Progress:
    update: int
    loss: float
    steps_per_second: float


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Each curve: updates and values."""
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    names = found.Tags()["scalars"]
    return {name: [(p.step, p.value) for p in found.Scalars(name)] for name in names}


def train(run: Path, *updates: int, after: int | None = None) -> None:
    with Board(run) as made:
        if after is not None:
            made.go_back(after)
        for update in updates:
            made.event({"event": "evaluation", "update": update, "loss": update / 2})


def test_numbers_of_events_become_points(tmp_path: Path) -> None:
    with Board(tmp_path) as made:
        made.event(EVENT | {"accuracy": 1, "best": True, "rmse": None, "note": "x"})
        # TensorBoard shows a training while it goes on, and after a kill.
        assert points(tmp_path) == {
            "evaluation/epoch": [(20, 1.5)],
            "evaluation/train_loss": [(20, 0.25)],
            "evaluation/accuracy": [(20, 1.0)],
        }
        made.event(EVENT | {"update": 40, "train_loss": float("inf")})
        assert points(tmp_path)["evaluation/train_loss"] == [(20, 0.25), (40, float("inf"))]


def test_progress_is_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Board(tmp_path) as made:
        for update in range(10):
            made.progress(Progress(update, update / 4, 1000.0))
            now += 0.5
    assert points(tmp_path) == {
        "progress/loss": [(0, 0.0), (4, 1.0), (8, 2.0)],
        "progress/steps_per_second": [(0, 1000.0), (4, 1000.0), (8, 1000.0)],
    }


def test_a_resumed_run_takes_later_points_back(tmp_path: Path) -> None:
    train(tmp_path, 1, 2, 3, 4)
    train(tmp_path, 3, after=2)
    assert points(tmp_path) == {"evaluation/loss": [(1, 0.5), (2, 1.0), (3, 1.5)]}
    train(tmp_path, 9, after=0)
    assert points(tmp_path) == {"evaluation/loss": [(9, 4.5)]}


def test_a_clock_that_goes_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start, now in enumerate((4e9, 2e9, 1e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        train(tmp_path, start + 1, start + 2, after=start)
    assert points(tmp_path) == {"evaluation/loss": [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]}


def test_a_record_that_was_cut_short_hides_no_other(tmp_path: Path) -> None:
    train(tmp_path, 1, 2)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    train(tmp_path, 2, 3, after=1)
    assert points(tmp_path) == {"evaluation/loss": [(1, 0.5), (2, 1.0), (3, 1.5)]}


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for use in (board.check_installed, lambda: Board(tmp_path)):
        with raises(
            "log: tensorboard is not installed; install it (pip install 'peephole[tensorboard]'), "
            "or leave it out: metrics.jsonl holds the same figures",
            UserError,
        ):
            use()
    assert not list(tmp_path.iterdir())


def test_nothing_leads_out_of_the_run(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder = run / "tensorboard"
    run.mkdir()
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    with raises(f"{folder} is a link; it must be a plain folder", UserError):
        Board(run)
    folder.unlink()
    folder.write_text("x")
    with raises(f"cannot make {folder}: File exists", UserError):
        Board(run)
    folder.unlink()
    folder.mkdir()
    for number in (1, 2):
        (folder / f"events.out.tfevents.{number:09d}").symlink_to(elsewhere / "file")
    train(run, 1)
    assert not list(elsewhere.iterdir())
    (folder / "events.out.tfevents.000000004").mkdir()
    train(run, 2)
    assert (folder / "events.out.tfevents.000000005").is_file()


def test_a_file_that_came_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 1)
    monkeypatch.setattr(board, "_newest", lambda folder: 0)
    file = tmp_path / "tensorboard" / "events.out.tfevents.000000001"
    with raises(f"cannot make {file}: File exists", UserError):
        Board(tmp_path)
    assert points(tmp_path) == {"evaluation/loss": [(1, 0.5)]}


def test_a_full_disk_is_one_line_and_keeps_what_there_was(tmp_path: Path) -> None:
    """The kernel refuses in the middle of a record."""
    code = """
import resource, sys
from pathlib import Path
from peephole.errors import UserError
from peephole.run import Board
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
board = Board(Path(sys.argv[1]))
for update in range(100):
    try:
        board.event({"event": "evaluation", "update": update, "loss": 0.5})
    except UserError as error:
        print(error)
        break
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert (done.stdout, done.stderr) == (f"cannot write {file}: File too large\n", "")
    train(tmp_path, 100)
    found = points(tmp_path)["evaluation/loss"]
    assert len(found) > 10
    assert [update for update, _ in found] == [*range(len(found) - 1), 100]
