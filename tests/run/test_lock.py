"""One process at a time trains in a folder, and its death lets the next one in."""

import os
import re
import socket
from pathlib import Path

import pytest

from peephole.errors import UserError
from peephole.run import lock
from peephole.run.lock import Lock, holder
from tests.helpers.errors import raises
from tests.helpers.other_process import other_process

TAKE = "from pathlib import Path; from peephole.run.lock import Lock; lock = Lock.take(Path({!r}))"


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.05)


def test_it_is_there_while_it_is_held(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    held = Lock.take(tmp_path)
    me = f"process {os.getpid()} on {socket.gethostname()}"
    assert holder(tmp_path) == me
    with raises(f"out: {tmp_path} is in use: {me} trains in it", UserError):
        Lock.take(tmp_path)
    held.release()
    assert holder(tmp_path) is None
    assert not list(tmp_path.iterdir())
    held.release()
    Lock.take(tmp_path).release()


def test_another_process_is_named_and_its_death_frees_it(tmp_path: Path) -> None:
    with other_process(TAKE.format(str(tmp_path))) as other:
        assert holder(tmp_path) == f"process {other.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=f"is in use: process {other.pid} on .* trains in it"):
            Lock.take(tmp_path)
    assert (tmp_path / ".lock").exists()
    assert holder(tmp_path) is None
    Lock.take(tmp_path).release()


def test_a_child_does_not_keep_it(tmp_path: Path) -> None:
    fork = f"""
import os, sys, time
{TAKE.format(str(tmp_path))}
if not os.fork():
    os.close(1)
    time.sleep(60)
    os._exit(0)
"""
    with other_process(fork) as other:
        assert holder(tmp_path) is not None
        children = Path(f"/proc/{other.pid}/task/{other.pid}/children")
        (child,) = map(int, children.read_text().split())
    try:
        assert holder(tmp_path) is None
        os.kill(child, 0)
    finally:
        os.kill(child, 9)


def test_it_moves_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    held = Lock.take(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    held.folder = tmp_path / "b"
    assert holder(tmp_path / "b") is not None
    held.release()
    assert not list((tmp_path / "b").iterdir())


def test_it_removes_no_lock_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = Lock.take(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").mkdir()
    second = Lock.take(tmp_path / "a")
    first.release()
    assert holder(tmp_path / "a") is not None
    second.release()


def test_who_only_looks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes the lock for an instant; who wants it waits that long."""
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 10.0)
    Lock.take(tmp_path).release()
    (tmp_path / ".lock").touch()
    looking = lock._opened(tmp_path, os.O_RDONLY)
    lock.fcntl.flock(looking, lock.fcntl.LOCK_SH)
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        os.close(looking)

    monkeypatch.setattr(lock.time, "sleep", sleep)
    Lock.take(tmp_path).release()
    assert len(waited) == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    run, file = tmp_path / "run", tmp_path / "run" / ".lock"
    run.mkdir()
    (tmp_path / "mine").write_text("mine")
    if kind == "link":
        file.symlink_to(tmp_path / "mine")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(UserError, match=f"^out: cannot lock {re.escape(str(run))}: .lock"):
        Lock.take(run)
    assert holder(run) is None
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("text", [b"", b"x" * 10**6, b"\xff\n", b"1 \x1b[2J\n", b"1 a\nb\n"])
def test_a_holder_that_does_not_say_who_it_is(tmp_path: Path, text: bytes) -> None:
    held = Lock.take(tmp_path)
    (tmp_path / ".lock").write_bytes(text)
    assert holder(tmp_path) == "another process"
    held.release()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot lock .*: No such file or directory"):
        Lock.take(tmp_path / "nowhere")
    assert holder(tmp_path / "nowhere") is None


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with raises(f"out: cannot lock {tmp_path}: Function not implemented", UserError):
        Lock.take(tmp_path)
    assert holder(tmp_path) is None


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = lock.fcntl.flock, 0

    def late(handle: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / ".lock").unlink()
        flock(handle, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    held = Lock.take(tmp_path)
    assert calls == 2
    assert holder(tmp_path) is not None
    held.release()
