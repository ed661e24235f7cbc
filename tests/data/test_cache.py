"""Entries of a cache: made once, checked, whole or not at all."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peephole.data.cache import Cache
from peephole.data.locks import lock
from peephole.errors import UserError

TEXT = "some text " * 100


@dataclass(frozen=True)
class Note:
    """What the entries here are about."""

    number: int


class Trial:
    """A cache with one entry, and what happened to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.said, self.made = path, [], 0
        self.cache = Cache(path, self.said.append)
        self.stale: Callable[[Note], str | None] = lambda note: None

    def get(self) -> str:
        return self.cache.entry(
            "entry", Note, make=self.make, load=self.load, stale=lambda note: self.stale(note)
        )

    def make(self, folder: Path) -> Note:
        self.made += 1
        (folder / "text").write_text(TEXT)
        (folder / "more").write_bytes(b"\x00" * 1000)
        return Note(7)

    @staticmethod
    def load(folder: Path, note: Note) -> str:
        if (folder / "more").read_bytes() != b"\x00" * 1000:
            raise ValueError("more is not what it should be")
        return f"{note.number} {(folder / 'text').read_text()}"

    def left(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}


WHOLE = {"CACHEDIR.TAG", ".entry.lock", "entry"}


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path / "deep" / "cache")


def test_an_entry_is_made_once(trial: Trial) -> None:
    assert [trial.get() for _ in range(3)] == [f"7 {TEXT}"] * 3
    assert trial.made == 1
    assert trial.said == []
    assert trial.left() == WHOLE
    assert Trial(trial.path).get() == f"7 {TEXT}"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda e: flip(e / "text"), "text is not as it was written"),
        (lambda e: os.truncate(e / "text", 999), "text has 999 bytes, not 1,000"),
        (lambda e: (e / "more").unlink(), "it has no file 'more'"),
        (lambda e: (e / "index.json").unlink(), "it lacks index.json"),
        (lambda e: os.truncate(e / "index.json", 50), "damaged"),
        (lambda e: (e / "index.json").write_bytes(b"\xff\xfe"), "damaged"),
        (lambda e: (e / "index.json").write_text("[" * 100_000), "damaged"),
        (lambda e: flip(e / "index.json"), "damaged"),
        (lambda e: edit(e / "index.json", lambda d: d.update(version=2)), "not as it was written"),
        (lambda e: edit(e / "index.json", lambda d: d["about"].update(number=8)), "not as it was"),
        (lambda e: edit(e / "index.json", lambda d: d.update(more=1)), "other entries"),
        (
            lambda e: ((e / "text").unlink(), (e / "text").symlink_to(__file__)),
            "it has no file 'text'",
        ),
    ],
)
def test_a_damaged_entry_is_made_anew(
    trial: Trial, harm: Callable[[Path], object], why: str
) -> None:
    trial.get()
    harm(trial.path / "entry")
    assert trial.get() == f"7 {TEXT}"
    assert trial.made == 2
    (line,) = trial.said
    assert line.startswith(f"{trial.path / 'entry'} is damaged: ")
    assert line.endswith("; it is made anew")
    assert why in line
    assert trial.left() == WHOLE
    trial.get()
    assert trial.made == 2


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "..", "", "deep/text"])
def test_no_path_leads_out_of_an_entry(trial: Trial, name: str) -> None:
    from peephole.data import cache

    trial.get()
    (trial.path.parent / "outside").write_text(TEXT)

    def lead_out(data: Any) -> None:
        data["files"][0] = data["files"][1] | {"name": name}
        del data["digest"]
        data["digest"] = cache._digest(data)

    edit(trial.path / "entry" / "index.json", lead_out)
    trial.get()
    assert trial.made == 2
    assert f"it has no file {name!r}" in trial.said[0]


def test_an_entry_that_makes_no_sense_is_made_anew(trial: Trial) -> None:
    """Whatever its digests say."""
    good = trial.make

    def bad(folder: Path) -> Note:
        note = good(folder)
        (folder / "more").write_bytes(b"\x01")
        return note

    trial.make = bad  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="more is not what it should be"):
        trial.get()
    trial.make = good  # type: ignore[method-assign]
    assert trial.get() == f"7 {TEXT}"
    assert "more is not what it should be; it is made anew" in trial.said[0]


def test_an_entry_out_of_date_is_made_anew(trial: Trial) -> None:
    trial.get()
    trial.stale = lambda note: f"{note.number} is too old" if trial.made == 1 else None
    trial.get()
    assert trial.made == 2
    assert trial.said == ["7 is too old; it is made anew"]


def test_an_entry_that_cannot_be_made_leaves_nothing_and_the_old_one(trial: Trial) -> None:
    trial.get()

    def fail(folder: Path) -> Note:
        (folder / "text").write_text("half")
        raise UserError("it is the wrong file", "file")

    trial.make = fail  # type: ignore[method-assign]
    trial.stale = lambda note: "it has changed"
    with pytest.raises(UserError, match="wrong file"):
        trial.get()
    assert trial.left() == WHOLE
    trial.stale = lambda note: None
    assert trial.get() == f"7 {TEXT}"


def test_what_killed_processes_left_is_removed(trial: Trial) -> None:
    trial.get()
    for name in (".entry.ab12.making", ".entry.77.old", ".other.ab12.making", ".busy.1.making"):
        (trial.path / name).mkdir()
        (trial.path / name / "text").write_text("half")
    (trial.path / ".entry.77.old").rename(trial.path / ".entry.78.old")
    shutil.rmtree(trial.path / "entry")
    with lock(trial.path / ".busy.lock") as locked:
        assert locked
        trial.get()
    left = {".other.lock", ".busy.lock", ".busy.1.making"}
    assert trial.left() == WHOLE | left


def test_those_used_last_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", lambda line: None)

    def get(name: str, age: int) -> None:
        cache.entry(name, Note, make=lambda folder: Note(1), load=lambda folder, note: None)
        then = 1_000_000_000 - age
        os.utime(cache.path / name / "index.json", (then, then))

    for k in range(5):
        get(f"a-{k}", age=k)
    get("b-0", age=99)
    with lock(cache.path / ".a-3.lock"):
        cache.prune("a-", 2)
    assert {p.name for p in cache.path.iterdir() if p.is_dir()} == {"a-0", "a-1", "a-3", "b-0"}


def test_a_cache_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trial = Trial(tmp_path / "file" / "cache")
    with pytest.raises(UserError, match=r"cannot write to the cache .*; name another") as caught:
        trial.get()
    assert caught.value.option == "cache"


def wait_and_get(path: Path, ready: Any, said: Any) -> None:
    trial = Trial(path)
    ready.wait()
    trial.get()
    said.put((trial.made, trial.said))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="locks are those of POSIX")
def test_of_processes_that_need_it_at_once_one_makes_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, said = spawn.Barrier(3), spawn.Queue()
    processes = [
        spawn.Process(target=wait_and_get, args=(tmp_path / "cache", ready, said)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    results = [said.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(made for made, _ in results) == [0, 0, 1]


def test_a_lock_is_waited_for_or_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path, shared=True) as first, lock(path, shared=True) as second:
        assert first
        assert second
        with lock(path) as third:
            assert not third
    with lock(path) as alone:
        assert alone
    with lock(tmp_path / "no" / "folder") as nowhere:
        assert not nowhere
