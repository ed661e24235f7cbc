"""JSON that may come from a stranger."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from peephole.data.schema import from_json, to_json


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
