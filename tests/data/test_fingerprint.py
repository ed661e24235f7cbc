"""Whether a file is still the one it was."""

import os
import time
from pathlib import Path

import pytest

from peephole.data import fingerprint
from peephole.data.fingerprint import content, difference, marks
from peephole.errors import UserError


def write(path: Path, text: str, age: float = 10) -> Path:
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose contents were looked at."""
    files: list[Path] = []
    digest_of = fingerprint.digest_of
    monkeypatch.setattr(fingerprint, "digest_of", lambda p: (files.append(p), digest_of(p))[1])
    return files


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is settled as soon as it is written: the tests cannot wait."""
    monkeypatch.setattr(fingerprint, "SETTLED_NS", -(10**12))


@pytest.mark.usefixtures("settled")
def test_an_untouched_file_is_not_read_again(tmp_path: Path, hashed: list[Path]) -> None:
    file = write(tmp_path / "t.csv", "a\n1\n")
    known = marks(file)
    assert hashed == [file]
    assert difference(file, known) is None
    assert hashed == [file]


@pytest.mark.usefixtures("settled")
def test_a_change_of_a_field_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "a\n1\n")
    status = file.stat()
    known = marks(file)
    file.write_text("a\n2\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == known[0].modified
    assert difference(file, known) == f"{file} has changed"


@pytest.mark.usefixtures("settled")
def test_other_times_of_the_same_contents_are_no_change(tmp_path: Path, hashed: list[Path]) -> None:
    file = write(tmp_path / "t.csv", "a\n1\n")
    known = marks(file)
    write(file, "a\n1\n", age=5)
    assert difference(file, known) is None
    assert hashed == [file, file]
    assert content(marks(file)) == content(known)
    write(file, "a\n3\n", age=5)
    assert content(marks(file)) != content(known)


@pytest.mark.parametrize("age", [0, -3600])
def test_a_file_of_this_moment_or_of_the_future_is_read_again(
    tmp_path: Path, hashed: list[Path], age: float
) -> None:
    """As after a clock went back: its times prove nothing."""
    file = write(tmp_path / "t.csv", "a\n1\n", age=age)
    known = marks(file)
    assert not known[0].settled
    assert difference(file, known) is None
    assert len(hashed) == 2


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("b10", "b2"):
        write(folder / f"{name}.csv", "a\n1\n")
    known = marks(folder)
    assert [mark.name for mark in known] == ["b2.csv", "b10.csv"]
    assert difference(folder, known) is None
    write(folder / "b3.csv", "a\n1\n")
    assert difference(folder, known) == f"{folder}: b3.csv is new"
    (folder / "b3.csv").rename(folder / "b4.csv")
    (folder / "b10.csv").unlink()
    assert difference(folder, known) == f"{folder}: b10.csv is gone"
    write(folder / "b10.csv", "a\n12\n")
    assert difference(folder, known) == f"{folder / 'b10.csv'} has changed"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        marks(tmp_path / "t.csv")
    write(tmp_path / "t.csv", "a\n1\n")
    known = marks(tmp_path / "t.csv")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(UserError, match="there is no file"):
        difference(tmp_path / "t.csv", known, "valid")
