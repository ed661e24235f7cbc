"""Files and folders, whole or not at all."""

import errno
import multiprocessing
import os
import shutil
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from peephole import folders
from peephole.errors import UserError
from peephole.folders import made_whole, write_atomically, write_synced


def test_a_file_is_written_in_parts(tmp_path: Path) -> None:
    parts = [b"ab", memoryview(b"cd"), b""]
    assert write_synced(tmp_path / "file", parts) == sha256(b"abcd").hexdigest()
    assert (tmp_path / "file").read_bytes() == b"abcd"
    write_atomically(tmp_path / "new" / "file", parts)
    assert (tmp_path / "new" / "file").read_bytes() == b"abcd"


def test_a_failure_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_no_link_that_lies_in_wait_is_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / f".file.{os.getpid()}").symlink_to(tmp_path / "mine")
    (tmp_path / "run" / "file").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "run" / "file", b"x")
    assert (tmp_path / "mine").read_text() == "mine"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]
    assert not (tmp_path / "run" / "file").is_symlink()


def killed_making(path: Path, moment: str, conn: Connection | None) -> None:
    """Make a folder in a process that dies, or waits, at some moment."""

    def die(*_: object, **__: object) -> None:
        os._exit(9)

    if moment == "before it is moved":
        folders.put = die  # type: ignore[assignment]
    elif moment == "before the old one goes":
        shutil.rmtree = die  # type: ignore[assignment]
    with made_whole(path, ["file"], overwrite=True) as hidden:
        (hidden / "file").write_text("new")
        if conn is not None:
            conn.send(hidden)
            conn.recv()


@pytest.mark.parametrize("moment", ["before it is moved", "before the old one goes"])
def test_what_a_killed_process_left_goes_next_time(tmp_path: Path, moment: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("old")
    others = [".a.making", ".a.x.making", ".ab.1.making", ".a.1.makings", "a.1.making"]
    for other in others:
        (tmp_path / other).mkdir()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=killed_making, args=(tmp_path / "a", moment, None))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert len(list(tmp_path.iterdir())) == len(others) + 2
    with made_whole(tmp_path / "a", ["file"], overwrite=True) as hidden:
        (hidden / "file").write_text("newer")
    assert (tmp_path / "a" / "file").read_text() == "newer"
    assert {path.name for path in tmp_path.iterdir()} == {"a", *others}


def test_what_a_living_process_makes_is_left_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=killed_making, args=(tmp_path / "a", "never", theirs))
    process.start()
    hidden = ours.recv()
    with made_whole(tmp_path / "a", ["file"], overwrite=True) as own:
        (own / "file").write_text("ours")
        assert (hidden / "file").read_text() == "new"
    ours.send("go on")
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mine"), made_whole(tmp_path / "a", [], overwrite=False):
        raise UserError("mine")
    assert list(tmp_path.iterdir()) == []
