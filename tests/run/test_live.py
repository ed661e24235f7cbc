"""A run folder in its place: begun, interrupted, resumed, finished."""

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from peephole import folders
from peephole.errors import UserError
from peephole.run import About, LiveRun, Run, check_out, lock, resume, start, state
from peephole.run import about as abouts
from peephole.run import config as configs
from tests.helpers.errors import raises
from tests.helpers.other_process import other_process


@dataclass(frozen=True)
class Config:
    file: str
    hidden_size: int


CONFIG = Config("a.csv", 3)
ABOUT = About.now("table", 100, "loss", "min")
PROCESS = """
from pathlib import Path
from tests.run.test_live import *
"""


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.05)


def train(run: LiveRun) -> None:
    """All that comes between the start and the end."""
    run.events.append({"event": "evaluation", "loss": 0.5})
    run.write_model({"a": 1}, nn.Linear(2, 1))
    run.finish({"valid.loss": 0.5})


def interrupted(path: Path) -> Path:
    with start(path, CONFIG, ABOUT) as run:
        run.events.append({"event": "evaluation", "loss": 0.5})
    return path


def finished(path: Path, **options: Any) -> Path:
    with start(path, CONFIG, ABOUT, **options) as run:
        train(run)
    return path


def full(path: Path, parts: Any) -> str:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestStart:
    def test_it_is_there_at_once_and_whole(self, tmp_path: Path) -> None:
        with start(tmp_path / "run", CONFIG, ABOUT) as run:
            assert run.path == tmp_path / "run"
            assert run.figures == tmp_path / "run" / "figures"
            assert names(tmp_path) == ["run"]
            assert names(run.path) == [".lock", "config.yaml", "metrics.jsonl", "run.json"]
            assert configs.read(run.path, Config) == CONFIG
            assert abouts.read(run.path) == run.about == ABOUT
            assert state(run.path) == "running"
            run.events.append({"event": "evaluation", "loss": 0.5})
            with raises(f"{run.path} is not finished: it is still running", UserError):
                Run.open(run.path)
        assert state(run.path) == "interrupted"
        with raises(f"{run.path} is not finished: it was interrupted; resume it", UserError):
            Run.open(run.path)
        assert names(run.path) == ["config.yaml", "metrics.jsonl", "run.json"]

    def test_it_ends_as_a_run_that_others_read(self, tmp_path: Path) -> None:
        model = nn.Linear(2, 1)
        with start(tmp_path / "run", CONFIG, ABOUT) as live:
            live.events.append({"event": "evaluation", "loss": 0.5})
            live.write_model({"a": 1}, model)
            assert state(live.path) == "running"
            live.finish({"valid.loss": 0.5, "x": float("nan")} | {"x": 1.0})
        assert state(live.path) == "finished"
        run = Run.open(live.path)
        assert run.config == {"file": "a.csv", "hidden-size": 3}
        assert run.metrics == {"valid.loss": 0.5, "x": 1.0}
        assert run.model_config == {"a": 1}
        assert run.events() == [{"event": "evaluation", "loss": 0.5}]
        again = nn.Linear(2, 1, device="meta")
        run.load_weights(again)
        assert torch.equal(again.weight, model.weight)

    def test_a_new_name_each_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with start(None, CONFIG, ABOUT) as first, start(None, CONFIG, ABOUT) as second:
            assert first.path != second.path
            for run in (first, second):
                assert re.fullmatch(r"runs/table-\d{8}-\d{6}-[0-9a-f]{4}", str(run.path))

    def test_an_empty_folder_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        assert state(finished(tmp_path / "run")) == "finished"

    def test_an_error_leaves_an_interrupted_run(self, tmp_path: Path) -> None:
        with pytest.raises(ArithmeticError), start(tmp_path / "run", CONFIG, ABOUT):
            raise ArithmeticError
        assert state(tmp_path / "run") == "interrupted"

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with (
            pytest.raises(UserError, match="cannot make"),
            start(tmp_path / "file" / "run", CONFIG, ABOUT),
        ):
            pass

    def test_a_full_disk_leaves_nothing_and_the_old_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished(tmp_path / "run")
        monkeypatch.setattr(folders, "write_synced", full)
        for path in (tmp_path / "run", tmp_path / "new"):
            with (
                raises(f"out: cannot make {path}: No space left on device", UserError),
                start(path, CONFIG, ABOUT, overwrite=True),
            ):
                pass
        assert names(tmp_path) == ["run"]
        assert state(tmp_path / "run") == "finished"

    def test_a_disk_that_fills_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "run"
        with start(path, CONFIG, ABOUT) as run:
            monkeypatch.setattr(folders, "write_synced", full)
            with raises(
                f"cannot write {path / 'model' / 'config.json'}: No space left on device", UserError
            ):
                run.write_model({}, nn.Linear(2, 1))
            with raises(
                f"cannot write {path / 'metrics.json'}: No space left on device", UserError
            ):
                run.finish({})
        assert state(path) == "interrupted"
        assert not list(path.rglob("*.json.*"))


class TestOverwrite:
    @pytest.mark.parametrize("before", [interrupted, finished])
    def test_on_demand_alone(self, tmp_path: Path, before: Callable[[Path], Path]) -> None:
        run = before(tmp_path / "run")
        for name in ("checkpoints", "figures", "tensorboard", "profile"):
            (run / name).mkdir()
            (run / name / "x").touch()
        with pytest.raises(UserError, match="overwrite") as caught, start(run, CONFIG, ABOUT):
            pass
        assert caught.value.option == "out"
        assert (run / "metrics.jsonl").read_text()
        with start(run, CONFIG, ABOUT, overwrite=True):
            assert names(run) == [".lock", "config.yaml", "metrics.jsonl", "run.json"]
            assert state(run) == "running"
            assert not (run / "metrics.jsonl").read_text()
        assert names(tmp_path) == ["run"]

    def test_an_interrupted_run_may_be_resumed_instead(self, tmp_path: Path) -> None:
        run = interrupted(tmp_path / "run")
        with raises(
            f"out: {run} is a run that was interrupted; resume it (--resume), overwrite it "
            "(--overwrite), or choose another",
            UserError,
        ):
            check_out(run, overwrite=False)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_what_is_no_run_is_left_alone(self, tmp_path: Path, overwrite: bool) -> None:
        for name, more in (("alone", None), ("with", "thesis.txt"), ("run", "notes.txt")):
            folder = tmp_path / name
            if name == "run":
                interrupted(folder)
            else:
                folder.mkdir()
                (folder / "config.yaml").write_text("mine: 1")
            if more is not None:
                (folder / more).write_text("mine")
            before = names(folder)
            with (
                pytest.raises(UserError, match=r"left alone|was interrupted"),
                start(folder, CONFIG, ABOUT, overwrite=overwrite),
            ):
                pass
            assert names(folder) == before

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_never_while_another_process_trains_there(
        self, tmp_path: Path, overwrite: bool
    ) -> None:
        run = tmp_path / "run"
        code = f"{PROCESS}\nrun = start(Path({str(run)!r}), CONFIG, ABOUT); run.__enter__()"
        with other_process(code) as other:
            message = rf"^out: {re.escape(str(run))} is in use: process {other.pid} on .* trains in"
            for use in (
                lambda: check_out(run, overwrite),
                lambda: finished(run, overwrite=overwrite),
            ):
                with pytest.raises(UserError, match=message):
                    use()
            assert state(run) == "running"
            assert names(run) == [".lock", "config.yaml", "metrics.jsonl", "run.json"]
        assert state(run) == "interrupted"
        assert state(finished(run, overwrite=True)) == "finished"
        assert names(tmp_path) == ["run"]

    def test_not_if_somebody_begins_to_train_there_meanwhile(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = interrupted(tmp_path / "run")
        held = []

        def write(*given: Any) -> None:
            if not held:
                held.append(lock.Lock.take(run))
            folders.write_atomically(*given)

        monkeypatch.setattr("peephole.run.live.write_atomically", write)
        with pytest.raises(UserError, match="is in use: process"):
            finished(run, overwrite=True)
        held[0].release()
        assert state(run) == "interrupted"
        assert names(tmp_path) == ["run"]

    def test_nor_a_folder_that_came_meanwhile(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def check(path: Path, *_: Any, **__: Any) -> None:
            path.mkdir(exist_ok=True)
            (path / "theirs").touch()

        monkeypatch.setattr(folders, "check_free", check)
        with raises(f"out: cannot make {tmp_path / 'run'}: Directory not empty", UserError):
            finished(tmp_path / "run")
        assert names(tmp_path) == ["run"]
        assert names(tmp_path / "run") == ["theirs"]


class TestResume:
    def test_it_goes_on(self, tmp_path: Path) -> None:
        run = interrupted(tmp_path / "run")
        with resume(run) as live:
            assert live.path == run
            assert live.about == ABOUT
            assert state(run) == "running"
            train(live)
        assert state(run) == "finished"
        assert len(Run.open(run).events()) == 2

    def test_after_a_kill(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        code = f"""{PROCESS}
run = start(Path({str(run)!r}), CONFIG, ABOUT)
run.__enter__().events.append({{"n": 1}})
"""
        with (
            other_process(code) as other,
            pytest.raises(UserError, match=f"is in use: process {other.pid}"),
            resume(run),
        ):
            pass
        with resume(run) as live:
            train(live)
        assert len(Run.open(run).events()) == 2

    def test_what_cannot_be_resumed(self, tmp_path: Path) -> None:
        for path, message in (
            (tmp_path / "nowhere", f"there is no run {tmp_path / 'nowhere'}"),
            (
                tmp_path,
                f"{tmp_path} is not a run that can be resumed: it lacks config.yaml, run.json",
            ),
        ):
            with raises(message, UserError), resume(path):
                pass
        run = finished(tmp_path / "run")
        with raises(f"{run} is finished: there is nothing to resume", UserError), resume(run):
            pass
        assert lock.holder(run) is None

    @pytest.mark.parametrize("place", ["metrics.jsonl", "figures/a/x.png", "checkpoints", "new"])
    @pytest.mark.parametrize("kind", ["link", "pipe"])
    def test_nothing_in_it_leads_elsewhere(self, tmp_path: Path, place: str, kind: str) -> None:
        run = interrupted(tmp_path / "run")
        (tmp_path / "mine").write_text("mine")
        file = run / place
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        if kind == "link":
            file.symlink_to(tmp_path / "mine")
            what = "a link"
        else:
            os.mkfifo(file)
            what = "neither a file nor a folder"
        with raises(f"{file} is {what}; a run has plain files and folders", UserError), resume(run):
            pass
        assert (tmp_path / "mine").read_text() == "mine"


WRONG: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda a: a.update(format=2), ".format is 2; it is one of [1]"),
    (lambda a: a.pop("task"), " lacks the entry 'task'"),
    (
        lambda a: a.update(tsk=1),
        " has an entry 'tsk' that does not belong there; did you mean 'task'?",
    ),
    (lambda a: a.update(task=["x"]), ".task is ['x'], not str"),
    (lambda a: a.update(updates=-1), ".updates is -1; it must be at least 0"),
    (lambda a: a.update(updates=True), ".updates is True, not int"),
    (
        lambda a: a.update(goal="x" * 10_000),
        f".goal is '{'x' * 56}...; it is one of ['min', 'max']",
    ),
    (lambda a: a.update(started="now"), ".started is 'now', not a time with its zone"),
    (
        lambda a: a.update(started="2026-01-01"),
        ".started is '2026-01-01', not a time with its zone",
    ),
    (
        lambda a: a.update(started="9999-12-31T23:59:59-12:00"),
        ".started is '9999-12-31T23:59:59-12:00', not a time with its zone",
    ),
    (lambda a: a.update(notes=[1]), ".notes[0] is 1, not str"),
    (lambda a: a.update(task="x" * 3 * 10**6), " has 3,000,155 bytes; at most 2,097,152 are read"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_about_of_a_stranger(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    run = interrupted(tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    change(about)
    (run / "run.json").write_text(json.dumps(about))
    with pytest.raises(UserError) as caught, resume(run):
        pass
    assert (
        re.sub("3,000,1[0-9]{2}", "3,000,155", str(caught.value)) == f"{run / 'run.json'}{message}"
    )
    assert lock.holder(run) is None


def test_about_now() -> None:
    about = About.now("table", 100, "loss", "min")
    assert timedelta(0) <= datetime.now(UTC) - about.time < timedelta(seconds=60)


def test_notes_that_are_many_and_long_are_cut_to_what_is_read_again(tmp_path: Path) -> None:
    notes = ["\x07" * abouts.MAX_NOTE, "\x07" * (abouts.MAX_NOTE + 1)] * abouts.MAX_NOTES
    about = About.now("table", 100, "loss", "min", {}, notes)
    assert about.notes[0] == notes[0]
    assert about.notes[1] == notes[0] + "…"
    assert about.notes[abouts.MAX_NOTES :] == ("and 200 lines more",)
    with start(tmp_path / "run", CONFIG, about):
        assert abouts.read(tmp_path / "run") == about
