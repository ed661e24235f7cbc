"""What a goal is, and whether the lines that benchmarks write reach it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Line = Mapping[str, Any]


class Found(NamedTuple):
    """What the lines say of a goal.

    Attributes:
        value: what is held against the bar.
        detail: over what it was taken, for a reader.
        lines: that it comes from.
        ceiling: what it would be if all multiply-adds ran at ``torch.mm``'s rate; None where that
            says nothing.
    """

    value: float
    detail: str
    lines: Sequence[Line]
    ceiling: float | None = None

    @property
    def over(self) -> str:
        """The detail, and a warning where the yardstick cannot be right."""
        if self.ceiling is None or self.value <= self.ceiling:
            return self.detail
        return f"{self.detail}; above its ceiling: torch.mm was slower than it can be, repeat"


@dataclass(frozen=True)
class Goal:
    """A row of the table.

    Attributes:
        what: is measured.
        bar: what must be reached.
        aim: what is hoped for; None where there is none.
        find: takes it out of lines, oldest first; None where they do not say.
        unit: "x", "%", "s", "GiB" or "characters/s".
        at_most: less is better.
    """

    what: str
    bar: float
    aim: float | None
    find: Callable[[Sequence[Line]], Found | None]
    unit: str = "x"
    at_most: bool = False

    def meets(self, value: float, limit: float | None) -> bool:
        if limit is None:
            return False
        return value <= limit if self.at_most else value >= limit

    def verdict(self, found: Found | None) -> str:
        """One of "aim", "met", "missed" and "not measured"."""
        if found is None:
            return "not measured"
        if not self.meets(found.value, self.bar):
            return "missed"
        return "aim" if self.meets(found.value, self.aim) else "met"

    def told(self, value: float | None) -> str:
        """A value in the goal's unit, with as many digits as show on which side of a bar it is."""
        if value is None:
            return "–"
        scaled = value * 100 if self.unit == "%" else value
        text = ""
        for digits in range(0 if self.unit in ("%", "s", "characters/s") else 2, 9):
            text = f"{scaled:.{digits}f}"
            shown = float(text) / 100 if self.unit == "%" else float(text)
            if all(self.meets(shown, x) == self.meets(value, x) for x in (self.bar, self.aim)):
                break
        return f"{text}{'' if self.unit == '%' else ' '}{self.unit}"

    def limit(self, value: float | None) -> str:
        """The bar or the aim."""
        if value is None:
            return "–"
        text = f"{100 * value:g}%" if self.unit == "%" else f"{value:g} {self.unit}"
        return f"at most {text}" if self.at_most and value == self.bar else text


def newest(lines: Iterable[Line]) -> list[Line]:
    """Of each benchmark, kind, mode and size the last line."""
    found: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        size = {name: n for name, n in line.get("size", {}).items() if name != "N"}
        key = (line["benchmark"], line.get("kind"), line.get("mode"), *size.items())
        found[key] = line
    return list(found.values())
