"""Files that may come from a stranger."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peephole.errors import UserError
from peephole.untrusted import one_line, parsed, printable, read, shown, text
from tests.helpers.errors import raises


def test_a_plain_file_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("äx")
    (tmp_path / "link").symlink_to(tmp_path)
    assert read(tmp_path, "model/a", 3) == b"\xc3\xa4x"
    assert text(tmp_path, "model/a", 3) == "äx"
    # The folder is the person's own word.
    assert text(tmp_path / "link", "model/a", 3) == "äx"


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    run = tmp_path / "run"
    (run / "model" / "a").symlink_to(tmp_path / "secret")
    with raises(f"{run}/model/a is a link; it must be a plain file", UserError):
        read(run, "model/a", 9)
    (run / "away").symlink_to(tmp_path)
    with raises(f"{run}/away is a link; it must be a plain folder", UserError):
        read(run, "away/secret", 9)


def test_what_is_no_file(tmp_path: Path) -> None:
    with raises(f"cannot read {tmp_path}/a: No such file or directory", UserError):
        read(tmp_path, "a", 9)
    with raises(f"cannot read {tmp_path}/a: No such file or directory", UserError):
        read(tmp_path, "a/b", 9)
    # Opening one waits for a writer, for good.
    os.mkfifo(tmp_path / "a")
    with raises(f"{tmp_path}/a is no file; it must be a plain file", UserError):
        read(tmp_path, "a", 9)
    with raises(f"{tmp_path} is no file; it must be a plain file", UserError):
        read(tmp_path.parent, tmp_path.name, 9)


def test_more_than_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1234")
    with raises(f"{tmp_path}/a has 4 bytes; at most 3 are read", UserError):
        read(tmp_path, "a", 3)
    os.truncate(tmp_path / "a", 1 << 40)
    with raises(f"{tmp_path}/a has 1,099,511,627,776 bytes; at most 3 are read", UserError):
        read(tmp_path, "a", 3)


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"^cannot read .*/a: 'utf-8' codec can't decode byte 0xff"):
        text(tmp_path, "a", 9)


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda trees: st.lists(trees) | st.dictionaries(st.text(), trees),
    max_leaves=10,
)


@given(trees)
def test_json_comes_back(tree: Any) -> None:
    assert repr(parsed(json.dumps(tree), "it")) == repr(tree)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ('{"a": 1, "a": 1}', "it has 'a' twice"),
        ("[NaN]", "NaN is no number of JSON"),
        ("-Infinity", "-Infinity is no number of JSON"),
        ("1e999", "the number '1e999' is too large"),
        (str(2**63), f"the number '{2**63}' is too large"),
        (str(-(2**63) - 1), f"the number '{-(2**63) - 1}' is too large"),
        ("9" * 10_000, f"the number '{'9' * 56}... is too large"),
        ('{"' + "x" * 10**7 + '": 1, "' + "x" * 10**7 + '": 1}', f"it has '{'x' * 56}... twice"),
    ],
)
def test_json_is_strict(given: str, message: str) -> None:
    with raises(f"it is not JSON as peephole writes it: {message}", UserError):
        parsed(given, "it")


def test_json_is_not_deep() -> None:
    with pytest.raises(UserError, match=r"^it is not JSON as peephole writes it: maximum recu"):
        parsed("[" * 100_000, "it")


def test_what_is_shown_is_short_and_printable() -> None:
    assert shown(None) == "null"
    assert shown("a\n\x1b[31m\udcff") == r"'a\n\x1b[31m\udcff'"
    assert shown(10**5000) == "a number of 16,610 bits"
    assert shown(-(10**5000)) == "a number of 16,610 bits"
    assert len(shown("x" * 10**7)) == len(shown(["x"] * 10**6)) == 60
    assert one_line(ValueError("a\n  b\x1b[2J\udcff")) == r"a b\x1b[2J\udcff"
    assert len(one_line(ValueError("x" * 10**6))) == 200


@given(st.text())
def test_printable(line: str) -> None:
    assert printable(line).isprintable()
    printable(line).encode()
    if line.isprintable():
        assert printable(line) == line
