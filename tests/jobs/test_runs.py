"""Run folders at a glance, whatever is in them."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from peephole.errors import UserError
from peephole.jobs.runs import Listed, list_runs, look
from peephole.run import About, lock, resume, start
from peephole.train.checkpoints import Checkpoints
from tests.helpers.errors import raises
from tests.run.test_live import CONFIG
from tests.run.test_live import Config as State

ABOUT = About(1, "table", "2026-03-01T12:00:00+00:00", 100, "loss", "min")


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def made(
    path: Path,
    losses: tuple[float, ...] = (0.5, 0.25, 0.75),
    checkpoints: tuple[int, ...] = (20, 40),
    finish: bool = False,
    **about: Any,
) -> Path:
    """A run with an evaluation each 10 updates."""
    with start(path, CONFIG, replace(ABOUT, **about)) as run:
        for k, loss in enumerate(losses):
            event = {"event": "evaluation", "update": 10 * k + 10, "updates": 100, "loss": loss}
            run.events.append(event)
            run.events.append({"event": "rate", "update": 99, "loss": -1.0})
        for update in checkpoints:
            store = Checkpoints(path, State, keep=9)
            store.write(update, {"a": torch.zeros(1)}, State("x", update))
        if finish:
            run.write_model({}, nn.Linear(2, 1))
            run.finish({"valid.loss": 0.25})
    return path


def test_an_interrupted_run(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    assert look(run) == Listed(
        run,
        "interrupted",
        task="table",
        started="2026-03-01T12:00:00+00:00",
        update=40,
        updates=100,
        metric="loss",
        best=0.25,
    )


def test_one_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    run = look(made(tmp_path / "run", checkpoints=()))
    assert (run.state, run.update, run.best) == ("interrupted", 0, 0.25)


def test_a_finished_run(tmp_path: Path) -> None:
    run = look(made(tmp_path / "run", finish=True, goal="max"))
    assert (run.state, run.update, run.updates, run.best) == ("finished", 30, 100, 0.75)


def test_a_running_run(tmp_path: Path) -> None:
    path = made(tmp_path / "run")
    held = lock.Lock.take(path)
    assert (look(path).state, look(path).update) == ("running", 40)
    held.release()
    with start(tmp_path / "new", CONFIG, ABOUT) as run:
        assert (look(run.path).state, look(run.path).update, look(run.path).best) == (
            "running",
            0,
            None,
        )
        run.events.append({"event": "evaluation", "update": 7, "loss": None})
        assert (look(run.path).update, look(run.path).best) == (7, None)


def test_the_newest_checkpoint_is_damaged(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    states = sorted(run.glob("checkpoints/*/state.json"))
    states[1].unlink()
    assert (look(run).state, look(run).update) == ("interrupted", 20)
    states[0].unlink()
    listed = look(run)
    assert listed.state == "damaged"
    assert listed.damage is not None
    assert "update-000000040 is damaged: cannot read" in listed.damage


def test_a_run_that_diverged(tmp_path: Path) -> None:
    path = made(tmp_path / "run")
    with resume(path) as run:
        before = run.events.position()
        run.events.append({"event": "diverged", "update": 40, "what": "the loss is nan"})
        assert look(path).state == "running"
    assert (look(path).state, look(path).update, look(path).best) == ("diverged", 40, 0.25)
    with resume(path) as run:
        run.events.truncate(before)
    assert look(path).state == "interrupted"
    with resume(path) as run:
        run.events.append({"event": "diverged", "update": 40, "what": "the loss is nan"})
        run.events.append({"event": "rate", "what": "diverged"})
    assert look(path).state == "interrupted"


def test_runs_are_found_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list_runs() == []
    for name, day in (("c", "01"), ("a", "02"), ("b", "02"), ("sub/d", "03")):
        made(Path("runs", name), checkpoints=(), started=f"2026-03-{day}T12:00:00+00:00")
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / ".x.123.making").mkdir()
    (tmp_path / "runs" / ".x.123.making" / "config.yaml").touch()
    (tmp_path / "runs" / "latest").symlink_to("a")
    (tmp_path / "runs" / "round").symlink_to("round")
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "config.yaml").touch()

    def names(*folders: str) -> list[str]:
        return [str(run.run) for run in list_runs(folders or None)]

    found = names()
    assert found[:2] == ["runs/damaged", "runs/c"]
    assert set(found[2:]) <= {"runs/a", "runs/b", "runs/latest"}
    assert len(found) == 4
    assert names("runs/a") == ["runs/a"]
    assert names("runs/sub", "runs/c", "runs/c", str(tmp_path / "runs" / "c")) == [
        str(tmp_path / "runs" / "c"),
        "runs/sub/d",
    ]
    assert names("runs/empty") == []
    for nowhere in ("nowhere", "runs/notes.txt"):
        with raises(f"there is no folder {nowhere}", UserError):
            names("runs", nowhere)


def write(name: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(text.encode() if isinstance(text, str) else text)


def changed(**about: Any) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        held = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(held | about))

    return change


def sparse(name: str) -> Callable[[Path], object]:
    return lambda run: os.truncate(run / name, 1 << 42)


def linked(name: str) -> Callable[[Path], object]:
    def link(run: Path) -> None:
        moved = (run / name).rename(run.parent / "moved")
        (run / name).symlink_to(moved)

    return link


def piped(name: str) -> Callable[[Path], object]:
    def pipe(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return pipe


def gone(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).unlink()


EVENT = '{"event": "evaluation", '
DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (gone("config.yaml"), "config.yaml: No such file"),
    (gone("run.json"), "run.json: No such file"),
    (gone("metrics.jsonl"), "metrics.jsonl: No such file"),
    *((piped(name), f"{name} is no file") for name in ("config.yaml", "run.json", "metrics.jsonl")),
    *((linked(name), f"{name} is a link") for name in ("config.yaml", "run.json", "metrics.jsonl")),
    (linked("checkpoints"), "checkpoints is a link; it must be a plain folder"),
    *(
        (sparse(name), f"{name} has 4,398,046,511,104 bytes; at most")
        for name in ("config.yaml", "run.json", "metrics.jsonl")
    ),
    (write("run.json", "[" * 10**4), "is not JSON as peephole writes it: maximum recursion"),
    (write("run.json", '{"format": 1' + "0" * 5000 + "}"), "is too large"),
    (changed(format=2), "format is 2; it is one of [1]"),
    (changed(more=2), "an entry 'more' that does not belong there"),
    (changed(started="yesterday"), "started is 'yesterday', not a time"),
    (changed(updates=10**400), "is too large"),
    (write("metrics.jsonl", EVENT + "\n"), "is not JSON"),
    (write("metrics.jsonl", b'"evaluation" \xff\n'), "can't decode"),
    (write("metrics.jsonl", "x" * (2 << 20)), "has a line of more than"),
    (write("metrics.json", "{}x"), "metrics.json is not JSON"),
    (write("metrics.json", '{"a": "/etc/passwd"}'), "'a' is '/etc/passwd', not a number"),
    (lambda run: (run / "metrics.json").symlink_to("/dev/zero"), "metrics.json is a link"),
    (lambda run: os.mkfifo(run / "metrics.json"), "metrics.json is no file"),
]


@pytest.mark.parametrize(("damage", "why"), DAMAGE)
def test_damage_is_told_and_stops_nothing(
    tmp_path: Path, damage: Callable[[Path], object], why: str
) -> None:
    good, bad = made(tmp_path / "good", checkpoints=(3,)), made(tmp_path / "bad", checkpoints=(3,))
    damage(bad)
    first, second = list_runs([tmp_path])
    assert (second.run, second.state) == (good, "interrupted")
    assert (first.run, first.state) == (bad, "damaged")
    assert first.damage is not None
    assert why in first.damage
    assert "\n" not in first.damage
    assert len(first.damage) < 600


@pytest.mark.parametrize(
    "event",
    [
        '"update": true, "loss": true',
        '"update": -1, "loss": "0"',
        '"update": 1.5, "loss": null',
        '"update": {}, "loss": []',
        '"updates": 3',
    ],
)
def test_figures_that_are_none(tmp_path: Path, event: str) -> None:
    run = made(tmp_path / "run", finish=True)
    (run / "metrics.jsonl").write_text(EVENT + event + "}\n")
    listed = look(run)
    assert (listed.state, listed.update, listed.best) == ("finished", 0, None)


def test_a_run_that_goes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        made(tmp_path / name)

    def vanish(run: Path) -> Listed:
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        return look(run)

    monkeypatch.setattr("peephole.jobs.runs.look", vanish)
    assert {run.run.name: run.state for run in list_runs([tmp_path])} == {
        "a": "interrupted",
        "b": "damaged",
    }
