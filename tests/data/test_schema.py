"""JSON that may come from a stranger."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from peephole.data.schema import from_json, to_json
from tests.helpers.errors import raises


@dataclass(frozen=True)
class Part:
    name: str
    size: float


@dataclass(frozen=True)
class Whole:
    kind: Literal["a", "b"]
    version: Literal[1]
    parts: tuple[Part, ...]
    label: int | str | None
    on: bool


WHOLE = Whole("a", 1, (Part("p", 1.5), Part("q", 2.0)), None, True)


@pytest.mark.parametrize("label", [None, 3, "x"])
def test_there_and_back(label: Any) -> None:
    whole = Whole("b", 1, WHOLE.parts, label, False)
    assert from_json(Whole, json.loads(json.dumps(to_json(whole))), "file") == whole


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("kind",), "c", r"file.kind is 'c'; it is one of \['a', 'b'\]"),
        (("version",), True, "file.version is True; it is one of"),
        (("parts",), {}, "file.parts is {}, not a list"),
        (("parts", 1, "size"), "1", r"file.parts\[1\].size is '1', not float"),
        (("parts", 1, "size"), float("nan"), "not a finite number"),
        (("parts", 0), 3, r"file.parts\[0\] is 3, not an object"),
        (("parts", 0, "extra"), 3, "an entry 'extra' that does not belong there"),
        (("label",), [], r"file.label is \[\], not"),
        (("on",), 1, "file.on is 1, not bool"),
    ],
)
def test_what_does_not_fit_is_named(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = to_json(WHOLE)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        from_json(Whole, data, "file")


def test_a_field_that_is_not_there() -> None:
    data = to_json(WHOLE)
    del data["on"]
    with pytest.raises(ValueError, match="file lacks the entry 'on'"):
        from_json(Whole, data, "file")


@dataclass(frozen=True)
class Log:
    learning_rate: float
    best_of: dict[str, float | None]
    last_ones: list[Part]


LOG = Log(0.1, {"a_b": 1.0, "c": None}, [Part("p", 2.0)])


def test_dicts_and_lists() -> None:
    data = to_json(LOG)
    assert data == {
        "learning_rate": 0.1,
        "best_of": {"a_b": 1.0, "c": None},
        "last_ones": [{"name": "p", "size": 2.0}],
    }
    assert from_json(Log, data, "file") == LOG


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("best_of",), [], "file.best_of is [], not an object"),
        (("best_of",), {1: 1.0}, "file.best_of is {1: 1.0}, not an object"),
        (("best_of", "x"), "y", "file.best_of['x'] is 'y', not float"),
        (("best_of", "x" * 10**6), "y", f"file.best_of['{'x' * 56}...] is 'y', not float"),
        (("last_ones",), {}, "file.last_ones is {}, not a list"),
        (
            ("learning_rat",),
            1,
            "file has an entry 'learning_rat' that does not belong there; did you mean "
            "'learning_rate'?",
        ),
        (("z" * 10**6,), 1, f"file has an entry '{'z' * 56}... that does not belong there"),
    ],
)
def test_what_does_not_fit_is_one_short_line(
    path: tuple[str, ...], value: Any, message: str
) -> None:
    data = to_json(LOG)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with raises(message):
        from_json(Log, data, "file")


def test_names_with_hyphens() -> None:
    data = {
        "learning-rate": 0.1,
        "best-of": {"a_b": 1.0, "c": None},
        "last-ones": [{"name": "p", "size": 2.0}],
    }
    assert from_json(Log, data, "file", hyphens=True) == LOG
    with raises("file.learning-rate is 'x', not float"):
        from_json(Log, data | {"learning-rate": "x"}, "file", hyphens=True)
    with raises(
        "file has an entry 'learning_rate' that does not belong there; did you mean "
        "'learning-rate'?"
    ):
        from_json(Log, data | {"learning_rate": 0.1}, "file", hyphens=True)
    del data["best-of"]
    with raises("file lacks the entry 'best-of'"):
        from_json(Log, data, "file", hyphens=True)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_need_not_be_finite(number: float) -> None:
    data = to_json(LOG) | {"learning_rate": number}
    with raises(f"file.learning_rate is {number}, not a finite number"):
        from_json(Log, data, "file")
    assert repr(from_json(Log, data, "file", finite=False).learning_rate) == repr(number)


def test_a_number_too_long_to_be_written_out() -> None:
    with raises("file.learning_rate is a number of 39,997 bits, not float"):
        from_json(Log, to_json(LOG) | {"learning_rate": -(16**9999)}, "file")
