"""A training that meets trouble ends in one clear line, and is resumed to the same bits."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peephole import folders
from peephole.errors import UserError
from peephole.run.events import Events
from peephole.train import Fit, Position, Settings, fit
from peephole.train.checkpoints import Checkpoints
from tests.helpers.errors import raises
from tests.helpers.training import Sums

SETTINGS = Settings(
    epochs=3,
    learning_rate=0.01,
    batch_size=10,
    optimizer="adam",
    average=0.9,
    evaluations=2,
    keep="best",
    checkpoint_seconds=0,
)
UPDATES = 12


def train(run: Path, task: Sums | None = None) -> tuple[Fit, list[str]]:
    """Go on in a run folder; gives the lines that a person reads too."""
    run.mkdir(exist_ok=True)
    said: list[str] = []
    events = Events(run)
    try:
        fitted = fit(
            task or Sums(dropout=0.3),
            SETTINGS,
            journal=events,
            checkpoints=Checkpoints(run, Position, keep=3),
            resume=True,
            say=said.append,
        )
    finally:
        events.close()
    return fitted, said


class Stop(Exception):
    """What a test raises within an update."""


class Stopping(Sums):
    """Stops at its so many-th batch."""

    def __init__(self, batches: int) -> None:
        super().__init__(dropout=0.3)
        self.left = batches

    def loss(self, *given: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Stop
        return super().loss(*given)


def interrupted(run: Path, update: int) -> None:
    with pytest.raises(Stop):
        train(run, Stopping(update))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fit]:
    run = tmp_path_factory.mktemp("whole")
    fitted, _ = train(run)
    assert fitted.events[-1]["update"] == UPDATES
    return run, fitted


def assert_same(run: Path, fitted: Fit, whole: tuple[Path, Fit]) -> None:
    place, undisturbed = whole
    for name, wanted in undisturbed.model.state_dict().items():
        assert torch.equal(fitted.model.state_dict()[name], wanted), name
    assert fitted.best == undisturbed.best
    assert (run / "metrics.jsonl").read_text() == (place / "metrics.jsonl").read_text()


def checkpoint(run: Path, update: int) -> Path:
    return run / "checkpoints" / f"update-{update:09d}"


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestFullDisk:
    @pytest.mark.parametrize("files", [0, 1, 7, 20])
    def test_at_a_checkpoint(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        whole: tuple[Path, Fit],
        files: int,
    ) -> None:
        left = files

        def write(*given: Any) -> str:
            nonlocal left
            left -= 1
            return no_space() if left < 0 else folders.write_synced(*given)

        monkeypatch.setattr("peephole.train.checkpoints.write_synced", write)
        with pytest.raises(UserError) as caught:
            train(tmp_path / "run")
        kept = Checkpoints(tmp_path / "run", Position).newest()[0]
        assert (kept is None) == (files < 3)
        assert "\n" not in caught.value.message
        assert caught.value.message.endswith(
            "No space left on device; "
            + (f"the newest that is whole is of update {kept.update}" if kept else "there is none")
        )
        monkeypatch.undo()
        fitted, (line,) = train(tmp_path / "run")
        if kept is not None:
            assert line == f"resumed from {kept.path}, after {kept.update} updates"
        else:
            assert line == "there is no checkpoint yet: the training begins anew"
        assert_same(tmp_path / "run", fitted, whole)

    def test_at_a_line_of_metrics(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[Path, Fit]
    ) -> None:
        run = tmp_path / "run"
        lines = iter(range(100))

        def append(*given: Any) -> None:
            return no_space() if next(lines) == 3 else folders.append(*given)

        monkeypatch.setattr("peephole.run.events.append", append)
        with raises(f"cannot write {run / 'metrics.jsonl'}: No space left on device", UserError):
            train(run)
        fitted, _ = train(run)
        assert_same(run, fitted, whole)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "SHA256SUMS"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    tmp_path: Path, whole: tuple[Path, Fit], harm: Callable[[Path], None], file: str
) -> None:
    run = tmp_path / "run"
    interrupted(run, 8)
    harm(checkpoint(run, 8) / file)
    fitted, said = train(run)
    assert len(said) == 2
    assert said[0].startswith(f"{checkpoint(run, 8)} is damaged: ")
    assert said[1] == f"resumed from {checkpoint(run, 7)}, after 7 updates"
    assert_same(run, fitted, whole)


@pytest.mark.parametrize("gone", [False, True])
def test_the_best_is_damaged(tmp_path: Path, gone: bool) -> None:
    """The newest is not: what it learned since is not given up."""
    run = tmp_path / "run"
    interrupted(run, 7)
    best = checkpoint(run, 6)
    if gone:
        shutil.rmtree(best)
    else:
        flip(best / "tensors.safetensors")
    fitted, said = train(run)
    assert said[0].startswith(str(run if gone else best))
    assert said[0].endswith("; the best model is chosen anew from here on")
    assert said[1] == f"resumed from {checkpoint(run, 7)}, after 7 updates"
    assert fitted.best == min(fitted.events, key=lambda event: event["loss"])


def test_all_are_damaged(tmp_path: Path, whole: tuple[Path, Fit]) -> None:
    run = tmp_path / "run"
    interrupted(run, 8)
    damaged = sorted((run / "checkpoints").iterdir(), reverse=True)
    for path in damaged:
        flip(path / "tensors.safetensors")
    metrics = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r" is damaged: .*; none is whole") as caught:
        train(run)
    assert str(caught.value).startswith(str(damaged[-1]))
    assert str(caught.value).endswith("; none is whole: mend one, or begin another run")
    assert (run / "metrics.jsonl").read_bytes() == metrics
    for path in damaged:
        flip(path / "tensors.safetensors")
    fitted, _ = train(run)
    assert_same(run, fitted, whole)


def test_a_clock_that_goes_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[Path, Fit]
) -> None:
    """What is there was written in the future, the newest first of all."""
    run = tmp_path / "run"
    for stop, now in ((3, 4e9), (4, 3e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        interrupted(run, stop)
        for number, path in enumerate(sorted(run.rglob("*"))):
            os.utime(path, (now - number, now - number))
    monkeypatch.setattr(time, "time", lambda: 1e9)
    fitted, said = train(run)
    assert said == [f"resumed from {checkpoint(run, 7)}, after 7 updates"]
    assert_same(run, fitted, whole)
