"""config.yaml: safe YAML, and a closed schema."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from peephole.errors import UserError
from peephole.run import config
from tests.helpers.errors import raises


@dataclass(frozen=True)
class Model:
    hidden_size: int
    cell: Literal["lstm", "gru"]


@dataclass(frozen=True)
class Config:
    file: str
    columns: tuple[str, ...] | None
    learning_rate: float
    by_name: dict[str, int]
    model: Model


CONFIG = Config("a.csv", ("x_1", "2001-01-01", "1:30", "no"), 1e-5, {"a_b": 1}, Model(3, "gru"))


def written(run: Path, settings: object = CONFIG) -> Path:
    (run / "config.yaml").write_text(config.text(settings), encoding="utf-8")
    return run


def test_there_and_back(tmp_path: Path) -> None:
    assert config.read(written(tmp_path), Config) == CONFIG
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {
        "file": "a.csv",
        "columns": ["x_1", "2001-01-01", "1:30", "no"],
        "learning-rate": 1e-5,
        "by-name": {"a_b": 1},
        "model": {"hidden-size": 3, "cell": "gru"},
    }


@example("\x85", ["\u2028", " a", "ä", "a\r\nb"], 0.0)
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_text_and_number(file: str, columns: list[str] | None, rate: float) -> None:
    settings = Config(file, (columns and tuple(columns)) or None, rate, {}, CONFIG.model)
    with TemporaryDirectory() as run:
        assert config.read(written(Path(run), settings), Config) == settings


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "hidden-size: 3",
            "hiden-size: 3",
            ".model has an entry 'hiden-size' that does not belong there; did you mean "
            "'hidden-size'?",
        ),
        (
            "hidden-size: 3",
            "hidden_size: 3",
            ".model has an entry 'hidden_size' that does not belong there; did you mean "
            "'hidden-size'?",
        ),
        ("file: a.csv", "zzz: 1", " has an entry 'zzz' that does not belong there"),
        ("file: a.csv\n", "", " lacks the entry 'file'"),
        (
            "cell: gru",
            "cell: os.system",
            ".model.cell is 'os.system'; it is one of ['lstm', 'gru']",
        ),
        ("hidden-size: 3", "hidden-size: 3.0", ".model.hidden-size is 3.0, not int"),
        ("hidden-size: 3", "hidden-size: yes", ".model.hidden-size is True, not int"),
        ("rate: 1.0e-05", "rate: .inf", ".learning-rate is inf, not a finite number"),
        (
            "rate: 1.0e-05",
            "rate: 2001-01-01",
            ".learning-rate is datetime.date(2001, 1, 1), not float",
        ),
    ],
)
def test_what_does_not_belong_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = written(tmp_path) / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with raises(f"{file}{message}", UserError):
        config.read(tmp_path, Config)


IS_NOT = " is not YAML as peephole writes it: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", IS_NOT + "while parsing a flow sequence"),
        ("a: !!python/object/apply:os.getcwd []", IS_NOT + "could not determine a constructor"),
        ("!!python/name:os.system", IS_NOT + "could not determine a constructor"),
        ("a: &x [1]\nb: *x", IS_NOT + "it has an alias, which a run's settings never do"),
        (
            "a: &a [x, x]\n"
            + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abc", "bcd", strict=True)),
            IS_NOT + "it has an alias",
        ),
        ("a: 1\nb: 2\na: 3", IS_NOT + "it has 'a' twice"),
        ("a: 2001-99-99", IS_NOT + "month must be in 1..12"),
        ("a: 0x" + "f" * 9999, IS_NOT + "'0xffff"),
        ("a: " + "9" * 9999, IS_NOT + "'9999"),
        # To the base of 60, which would take hours.
        ("a: 1" + ":1" * 100_000, IS_NOT + "'1:1:1"),
        ("a: " + "[" * 100_000, IS_NOT + "maximum recursion depth exceeded"),
        ("- " * 100_000, IS_NOT + "maximum recursion depth exceeded"),
        ("a: 1\n---\nb: 1", IS_NOT + "expected a single document"),
        ("a: \x00", IS_NOT + "unacceptable character"),
        ("", " must hold names and values, got null"),
        ("- 1", " must hold names and values, got [1]"),
        ("1: 2", " must hold names and values, got {1: 2}"),
        ("x" * (1 << 18) + ": 1", " has 262,147 bytes; at most 262,144 are read"),
    ],
)
def test_yaml_of_a_stranger(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        config.load(tmp_path)
    assert str(caught.value).startswith(f"{file}{message}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_name_of_a_stranger(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"? {'x' * 200_000}\n: 1\n")
    with raises(
        f"{tmp_path / 'config.yaml'} has an entry '{'x' * 56}... that does not belong there",
        UserError,
    ):
        config.read(tmp_path, Config)
