"""metrics.jsonl: lines are whole, and a resumed run loses none and has none twice."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peephole.errors import UserError
from peephole.run.events import MAX_LINE_BYTES, Events, lines, parsed
from tests.helpers.errors import raises


def read(run: Path) -> list[dict[str, Any]]:
    return [parsed(run, line) for line in lines(run)]


def append(run: Path, *numbers: int) -> int:
    events = Events(run)
    for number in numbers:
        events.append({"event": "x", "n": number})
    position = events.position()
    events.close()
    return position


def test_lines_are_appended(tmp_path: Path) -> None:
    assert append(tmp_path) == 0
    first = append(tmp_path, 1, 2)
    assert append(tmp_path, 3) > first == len('{"event": "x", "n": 1}\n') * 2
    assert [event["n"] for event in read(tmp_path)] == [1, 2, 3]


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.append({"a": float("nan"), "b": float("-inf"), "c": 0.1})
    with pytest.raises(ValueError, match="Out of range float values"):
        events.append({"a": [float("nan")]})
    with raises("an event has 1,048,586 bytes; at most 1,048,576 can be read"):
        events.append({"a": "x" * MAX_LINE_BYTES})
    events.close()
    assert read(tmp_path) == [{"a": None, "b": None, "c": 0.1}]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_stays_on_its_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    run = tmp_path_factory.mktemp("run")
    events = Events(run)
    for _ in range(2):
        events.append({text: text})
    events.close()
    assert read(run) == [{text: text}] * 2


def test_a_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.append({"a": 1})
    assert read(tmp_path) == [{"a": 1}]
    events.close()


def test_a_resumed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    position = append(tmp_path, 1, 2)
    append(tmp_path, 3, 4)
    events = Events(tmp_path)
    events.truncate(position)
    assert events.position() == position
    events.append({"event": "x", "n": 3})
    events.close()
    assert [event["n"] for event in read(tmp_path)] == [1, 2, 3]


def test_from_the_beginning(tmp_path: Path) -> None:
    append(tmp_path, 1)
    events = Events(tmp_path)
    events.truncate(0)
    events.close()
    assert read(tmp_path) == []


def test_a_position_that_is_not_this_files(tmp_path: Path) -> None:
    position = append(tmp_path, 1)
    file = tmp_path / "metrics.jsonl"
    before = file.read_bytes()
    events = Events(tmp_path)
    for wrong in (position + 1, 1 << 70, -1):
        with raises(
            f"{file} has {position} bytes and had {wrong:,} when the checkpoint was written: it "
            "was changed since",
            UserError,
        ):
            events.truncate(wrong)
    for wrong in (1, position - 1):
        with raises(
            f"{file} has no end of a line at its byte {wrong}, where the checkpoint was written: "
            "it was changed since",
            UserError,
        ):
            events.truncate(wrong)
    events.close()
    assert file.read_bytes() == before


def test_a_last_line_cut_short_is_dropped(tmp_path: Path) -> None:
    append(tmp_path, 1, 2)
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    half = len(whole) // 2
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        kept = [event["n"] for event in read(tmp_path)]
        assert kept == [1, 2][: cut // half]
        append(tmp_path, 3)
        assert [event["n"] for event in read(tmp_path)] == [*kept, 3]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events(tmp_path)
    events.append({"n": 1})
    write, calls = os.write, 0

    def full(handle: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return write(handle, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with raises(
            f"cannot write {tmp_path / 'metrics.jsonl'}: No space left on device", UserError
        ):
            events.append({"n": 2})
    assert calls == 2
    events.append({"n": 3})
    events.close()
    assert read(tmp_path) == [{"n": 1}, {"n": 3}]


def test_the_kernel_refuses_in_the_middle_of_a_line(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from peephole.run.events import Events
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
events = Events(Path({str(tmp_path)!r}))
try:
    while True:
        events.append({{"text": "x" * 20}})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {tmp_path / 'metrics.jsonl'}: File too large\n"
    assert read(tmp_path) == [{"text": "x" * 20}] * 3


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file(tmp_path: Path, kind: str) -> None:
    run, file = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    run.mkdir()
    (tmp_path / "mine").write_text("mine\n")
    if kind == "link":
        file.symlink_to(tmp_path / "mine")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    for use in (lambda: Events(run), lambda: read(run)):
        with pytest.raises(UserError, match=r"metrics.jsonl"):
            use()
    assert (tmp_path / "mine").read_text() == "mine\n"


def test_lines_of_a_stranger(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for text, message in (
        (b"{}\n[]\n", f"{file} must hold an object a line, got []"),
        (b"{\n", f"{file} is not JSON as peephole writes it: Expecting property name"),
        (b"[" * 10**5 + b"\n", f"{file} is not JSON as peephole writes it: maximum recursion"),
        (b"\xff\n", f"cannot read {file}: 'utf-8' codec can't decode"),
        (b"x" * (MAX_LINE_BYTES + 1), f"{file} has a line of more than 1,048,576 bytes"),
        (b"x" * (MAX_LINE_BYTES + 1) + b"\n", f"{file} has a line of more than 1,048,576 bytes"),
    ):
        file.write_bytes(text)
        with pytest.raises(UserError) as caught:
            read(tmp_path)
        assert str(caught.value).startswith(message)
        assert len(str(caught.value)) < 500
    os.truncate(file, 1 << 40)
    with raises(f"{file} has 1,099,511,627,776 bytes; at most 268,435,456 are read", UserError):
        read(tmp_path)
    with raises(f"{file} has a line of more than 1,048,576 bytes", UserError):
        Events(tmp_path)


def test_a_large_file_is_read_a_line_at_a_time(tmp_path: Path) -> None:
    """In less memory than it has bytes."""
    line = b'{"a": "' + b"x" * 100_000 + b'"}\n'
    (tmp_path / "metrics.jsonl").write_bytes(line * 1000)
    code = f"""
import resource
from pathlib import Path
from peephole.run.events import lines
limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(sum(map(len, lines(Path({str(tmp_path)!r})))))
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < limit + 20_000_000
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(line) * 1000}\n"
