"""Whether a file is still the one it was."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from peephole.data import fingerprint
from peephole.data.fingerprint import check_sources, content, difference, marks, of_sources
from peephole.errors import UserError
from tests.helpers.errors import raises


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


class TestSources:
    """What a run keeps of its files."""

    def sources(self, tmp_path: Path) -> list[Path]:
        (tmp_path / "files").mkdir()
        for k in range(3):
            write(tmp_path / "files" / f"m{k}.csv", f"a\n{k}\n")
        return [write(tmp_path / "t.csv", "a\n1\n"), tmp_path / "files"]

    @pytest.mark.usefixtures("settled")
    def test_the_same_are_not_read_again(self, tmp_path: Path, hashed: list[Path]) -> None:
        paths = self.sources(tmp_path)
        known = of_sources(paths)
        assert list(known) == [str(path) for path in hashed]
        assert len(known) == 4
        assert all(len(text) < 140 for text in known.values())
        check_sources(paths, json.loads(json.dumps(known)))
        assert len(hashed) == 4

    @pytest.mark.parametrize("age", [0, -3600, 10])
    def test_other_times_tell_nothing(self, tmp_path: Path, hashed: list[Path], age: float) -> None:
        paths = self.sources(tmp_path)
        known = of_sources(paths)
        write(tmp_path / "t.csv", "a\n1\n", age=age)
        check_sources(paths, known)
        assert tmp_path / "t.csv" in hashed[4:]

    @pytest.mark.usefixtures("settled")
    @pytest.mark.parametrize(
        ("change", "file", "why"),
        [
            (lambda p: p.write_text("a\n2\n"), "t.csv", "has changed"),
            (lambda p: p.write_text("a\n1\n1\n"), "t.csv", "has changed"),
            (lambda p: p.write_text("a\n7\n"), "files/m1.csv", "has changed"),
            (lambda p: p.unlink(), "files/m1.csv", "is gone"),
            (lambda p: p.write_text("a\n1\n"), "files/m9.csv", "is new"),
        ],
    )
    def test_a_change_is_told(
        self, tmp_path: Path, change: Callable[[Path], object], file: str, why: str
    ) -> None:
        paths = self.sources(tmp_path)
        known = of_sources(paths)
        change(tmp_path / file)
        with raises(
            f"file: {tmp_path / file} {why} since the run began; put back what it was trained on, "
            "or begin another run",
            UserError,
        ):
            check_sources(paths, known, "file")

    def test_no_such_file(self, tmp_path: Path) -> None:
        with raises(f"valid: there is no file {tmp_path / 't.csv'}", UserError):
            of_sources([tmp_path / "t.csv"], "valid")
        with raises(f"valid: there is no file {tmp_path / 't.csv'}", UserError):
            check_sources([tmp_path / "t.csv"], {}, "valid")

    @pytest.mark.parametrize("text", ["", " ", "x", "x 4", "0 4 0 0 0", "\n"])
    def test_what_a_stranger_kept_is_only_compared(self, tmp_path: Path, text: str) -> None:
        file = write(tmp_path / "t.csv", "a\n1\n")
        with pytest.raises(UserError, match=r"/t.csv has changed since"):
            check_sources([file], {str(file): text})
        secret = write(tmp_path / "secret", "mine")
        known = of_sources([file]) | {f"{secret}\x1b[2J" + "x" * 10**6: text}
        with pytest.raises(UserError, match=r"/secret\\x1b\[2Jx+ is gone since") as caught:
            check_sources([file], known)
        assert len(caught.value.message) < 500
