"""A training's trace and its tables."""

import contextlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from peephole import folders
from peephole.errors import UserError
from peephole.train import Settings, fit
from peephole.train.profile import Profile
from tests.helpers.errors import raises
from tests.helpers.training import Sums

FILES = ["operators.txt", "trace.json"]


def train(profile: Profile, updates: int, task: Sums | None = None) -> None:
    settings = Settings(epochs=9, learning_rate=0.01, batch_size=10, updates=updates)
    with profile:
        fit(task or Sums(), settings, on_update=profile.on_update)


def fail(profile: Profile, updates: int) -> list[list[str]]:
    """What files there are before each update; an error comes after the last."""
    seen = []
    with contextlib.suppress(ArithmeticError), profile:
        for _ in range(updates):
            seen.append(names(profile.folder))
            profile.on_update()
        raise ArithmeticError
    return seen


def spans(run: Path) -> Counter[str]:
    """How often each thing is in the trace."""
    events = json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]
    return Counter(event["name"] for event in events if event["ph"] == "X")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("updates", "recorded"), [(30, 4), (7, 4), (6, 3), (4, 1), (2, 2), (1, 1)])
def test_some_updates_after_some_are_recorded(tmp_path: Path, updates: int, recorded: int) -> None:
    """Where there are fewer than that, those that there are."""
    train(Profile(tmp_path, warm_up=3, updates=4), updates)
    assert names(tmp_path / "profile") == FILES
    found = spans(tmp_path)
    assert found["aten::_foreach_add_"] == recorded
    # What comes after the last one is in a span too.
    assert found["update"] == (4 if updates >= 7 else recorded + 1)
    tables = (tmp_path / "profile" / "operators.txt").read_text()
    (line,) = [line for line in tables.splitlines() if line.split()[:1] == ["aten::addmm"]][:1]
    assert int(line.split()[-1]) == found["aten::addmm"]
    assert tables.count("Operators by") == 2


def test_files_are_there_as_soon_as_it_is_done(tmp_path: Path) -> None:
    assert fail(Profile(tmp_path, warm_up=1, updates=2), 5) == [[], [], [], FILES, FILES]
    assert names(tmp_path / "profile") == FILES


def test_an_error_before_leaves_nothing(tmp_path: Path) -> None:
    fail(Profile(tmp_path), 7)
    assert not names(tmp_path / "profile")
    # And the next can begin.
    train(Profile(tmp_path), 3)
    assert names(tmp_path / "profile") == FILES


def test_the_files_of_a_run_that_is_resumed_are_replaced(tmp_path: Path) -> None:
    train(Profile(tmp_path, warm_up=0, updates=2), 5)
    (tmp_path / "profile" / ".making").mkdir()
    assert spans(tmp_path)["aten::_foreach_add_"] == 2
    train(Profile(tmp_path, warm_up=1, updates=3), 5)
    assert names(tmp_path / "profile") == FILES
    assert spans(tmp_path)["aten::_foreach_add_"] == 3


def test_the_training_is_the_same(tmp_path: Path) -> None:
    settings = Settings(epochs=2, learning_rate=0.01, batch_size=10)
    with Profile(tmp_path, warm_up=1, updates=2) as profile:
        found = fit(Sums(dropout=0.3), settings, on_update=profile.on_update)
    assert found.events == fit(Sums(dropout=0.3), settings).events


def test_it_leads_out_of_no_run(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    place = tmp_path / "run" / "profile"
    place.symlink_to(tmp_path / "elsewhere")
    with raises(f"{place} is a link; it must be a plain folder", UserError):
        Profile(tmp_path / "run")
    place.unlink()
    place.mkdir()
    for name in FILES:
        (place / name).symlink_to(tmp_path / "elsewhere" / name)
    train(Profile(tmp_path / "run"), 2)
    assert not [name for name in FILES if (place / name).is_symlink()]
    (place / ".making").symlink_to(tmp_path / "elsewhere")
    with raises(f"cannot write {place}: File exists", UserError):
        train(Profile(tmp_path / "run"), 2)
    assert not names(tmp_path / "elsewhere")


def test_a_full_disk_leaves_the_older_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(Profile(tmp_path), 2)
    before = (tmp_path / "profile" / "trace.json").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("peephole.train.profile.write_synced", full)
    with raises(f"cannot write {tmp_path / 'profile'}: No space left on device", UserError):
        train(Profile(tmp_path), 2)
    assert names(tmp_path / "profile") == FILES
    assert (tmp_path / "profile" / "trace.json").read_bytes() == before
    monkeypatch.setattr("peephole.train.profile.write_synced", folders.write_synced)
    train(Profile(tmp_path), 2)


def test_a_disk_that_fills_while_the_profiler_writes(tmp_path: Path) -> None:
    """It says nothing about that itself, nor anything else."""
    code = """
import resource, sys
from pathlib import Path
from peephole.errors import UserError
from tests.train.test_profile import *
train(Profile(Path(sys.argv[1])), 2)
try:
    with Profile(Path(sys.argv[1])) as profile:
        fit(Sums(), Settings(epochs=1, learning_rate=0.01, batch_size=10, updates=4))
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (
        f"cannot write {tmp_path / 'profile'}: the profiler could not write its trace; the disk "
        "may be full\n",
        "",
    )
    assert names(tmp_path / "profile") == FILES
    assert spans(tmp_path)["aten::_foreach_add_"] == 2
