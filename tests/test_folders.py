"""Files and folders, whole or not at all."""

import errno
import os
from hashlib import sha256
from pathlib import Path

import pytest

from peephole.folders import write_atomically, write_synced


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
