"""What is to be reached: at least, and the aim. Judged from the lines that benchmarks write."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.kinds import MODES
from benchmarks.sizes import SIZES

Line = Mapping[str, Any]
# Of smaller steps the memory is mostly what the system rounds to.
MIN_MEMORY_MB = 16.0
STEP_HIDDEN = 128
MM_HIDDEN = 512
SAMPLED = 1_000_000
TOY = "batch_size 16"
# Of the table that is to be converted and trained on within bounds.
ROWS = 10_000_000
GIB_IN_MB = 2**30 / 1e6


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
        unit: "x", "%", "s" or "GiB".
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
        for digits in range(0 if self.unit in "%s" else 2, 9):
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


def _named(line: Line) -> str:
    size = line["size"]
    words = (line.get("kind"), line.get("mode"), ", ".join(str(size[n]) for n in "BTIH"))
    return " ".join(word for word in words if word)


def _layers(lines: Iterable[Line], kinds: Sequence[str], mode: str | None) -> list[Line]:
    return [
        line
        for line in lines
        if line["benchmark"] == "layers" and line["kind"] in kinds and mode in (None, line["mode"])
    ]


def _medians(rows: Sequence[Line], ratio: str) -> list[float]:
    return [row["ratios"][ratio]["median"] for row in rows]


def _mean(kinds: Sequence[str], mode: str, ratio: str) -> Callable[[Sequence[Line]], Found | None]:
    """The geometric mean of a ratio over the sizes."""

    def find(lines: Sequence[Line]) -> Found | None:
        rows = newest(row for row in _layers(lines, kinds, mode) if ratio in row["ratios"])
        if not rows:
            return None
        values = _medians(rows, ratio)
        ceilings = [row["ceilings"][ratio] for row in rows if ratio in row["ceilings"]]
        details = [f"{len(rows)} of {len(kinds) * len(SIZES)} measured"]
        details.append(f"{min(values):.3g} to {max(values):.3g}")
        if len(kinds) > 1:
            by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
            details += [
                f"{kind} {statistics.geometric_mean(_medians(own, ratio)):.3g}"
                for kind, own in by_kind.items()
                if own
            ]
        ceiling = statistics.geometric_mean(ceilings) if ceilings else None
        return Found(statistics.geometric_mean(values), ", ".join(details), rows, ceiling)

    return find


def _worst(
    kinds: Sequence[str], mode: str | None, ratio: str, choose: Callable[..., Any]
) -> Callable[[Sequence[Line]], Found | None]:
    """The least or the most of a ratio, by ``choose``, over kinds, modes and sizes."""

    def find(lines: Sequence[Line]) -> Found | None:
        rows = newest(row for row in _layers(lines, kinds, mode) if ratio in row["ratios"])
        if not rows:
            return None
        row = choose(rows, key=lambda row: row["ratios"][ratio]["median"])
        every = len(kinds) * len(SIZES) * (1 if mode else len(MODES))
        detail = f"{len(rows)} of {every} measured, worst {_named(row)}"
        value = row["ratios"][ratio]["median"]
        return Found(value, detail, rows, row["ceilings"].get(ratio))

    return find


def _share(lines: Sequence[Line]) -> Found | None:
    """Of ``torch.mm``'s rate, at H = 512."""
    rows = newest(
        row
        for row in _layers(lines, ["LSTM"], "train")
        if row["size"]["H"] == MM_HIDDEN and "auto" in row["shares_of_mm"]
    )
    if not rows:
        return None
    rate, best = rows[0]["gflops"]["auto"], rows[0]["mm_gflops"]
    return Found(
        rows[0]["shares_of_mm"]["auto"], f"{rate:.0f} of {best:.0f} GFLOP/s", rows, ceiling=1.0
    )


def _memory(lines: Sequence[Line]) -> Found | None:
    """The worst size's memory, where steps are not so small that it is noise."""
    rows = newest(
        line
        for line in lines
        if line["benchmark"] == "memory"
        and line["kind"] == "LSTM"
        and {"auto", "padded"} <= set(line["peaks_mb"])
        and line["peaks_mb"]["padded"]["median"] >= MIN_MEMORY_MB
    )
    if not rows:
        return None
    row = max(rows, key=lambda row: row["ratios"]["auto / padded"])
    peaks = (f"{row['peaks_mb'][name]['median']:.0f}" for name in ("auto", "padded"))
    detail = f"worst {_named(row)}: {' of '.join(peaks)} MB"
    return Found(row["ratios"]["auto / padded"], detail, rows)


def _steps(lines: Sequence[Line]) -> Found | None:
    rows = newest(
        line for line in lines if line["benchmark"] == "steps" and line["size"]["H"] == STEP_HIDDEN
    )
    if not rows:
        return None
    row = rows[0]
    theirs, ours = row["best"]["torch"], row["best"]["peephole"]
    return Found(row["ratio"]["median"], f"{theirs} / {ours}", rows)


def _reproduce(lines: Sequence[Line]) -> Found | None:
    rows = newest(line for line in lines if line["benchmark"] == "reproduce" and not line["quick"])
    if not rows:
        return None
    return Found(rows[0]["elapsed_s"], f"{rows[0]['machine']['cores']} cores", rows)


def _sampler(lines: Sequence[Line]) -> Found | None:
    rows = newest(
        line
        for line in lines
        if line["benchmark"] == "sampler" and line["kind"] == TOY and line["size"]["B"] == SAMPLED
    )
    if not rows:
        return None
    return Found(rows[0]["of_training"]["median"], f"{rows[0]['updates']:,} updates", rows)


def _tables(find: Callable[[Line], float]) -> Callable[[Sequence[Line]], Found | None]:
    """The worst kind of table's figure, of tables of full size."""

    def worst(lines: Sequence[Line]) -> Found | None:
        rows = newest(
            line for line in lines if line["benchmark"] == "tables" and line["size"]["rows"] == ROWS
        )
        if not rows:
            return None
        row = max(rows, key=find)
        return Found(find(row), f"{len(rows)} of 4 measured, worst {row['kind']}", rows)

    return worst


LSTM, GRU_RNN, TORCHS = ("LSTM",), ("GRU", "RNN"), ("LSTM", "GRU", "RNN")

GOALS = (
    Goal(
        "LSTM training, geometric mean over the sizes, against best of torch",
        1.9,
        2.3,
        _mean(LSTM, "train", "best / auto"),
    ),
    Goal("the same, each size", 1.4, 1.9, _worst(LSTM, "train", "best / auto", min)),
    Goal("against torch packed, geometric mean", 4.5, 6.0, _mean(LSTM, "train", "packed / auto")),
    Goal(
        "diagonal peepholes against `benchmarks/peers/loop.py`, geometric mean",
        4.0,
        5.0,
        _mean(("diagonal",), "train", "loop / auto"),
    ),
    Goal(
        "diagonal peepholes against none, both ours",
        1.03,
        1.01,
        _mean(("peepholes",), "train", "diagonal / none"),
        at_most=True,
    ),
    Goal(
        "full peepholes against none, per multiply-add",
        1.15,
        1.05,
        _mean(("peepholes",), "train", "full / none"),
        at_most=True,
    ),
    Goal(
        "LSTM inference, geometric mean against best of torch",
        1.7,
        2.1,
        _mean(LSTM, "infer", "best / auto"),
    ),
    Goal(
        "GRU and RNN training against best of torch, geometric mean",
        2.5,
        3.3,
        _mean(GRU_RNN, "train", "best / auto"),
    ),
    Goal(
        f"useful GFLOP/s at H = {MM_HIDDEN}, training, against `torch.mm` in the same run",
        0.85,
        0.92,
        _share,
        "%",
    ),
    Goal("peak memory of a training step against torch padded", 0.5, 0.35, _memory, at_most=True),
    Goal(
        f"one sequence, one step at a time (H = {STEP_HIDDEN}), against the faster of `nn.LSTM` "
        "and `nn.LSTMCell`",
        1.0,
        1.5,
        _steps,
    ),
    Goal(
        "padded input with `lengths`, conversion included, against best of torch, geometric mean",
        1.6,
        2.0,
        _mean(LSTM, "train", "best / lengths"),
    ),
    Goal("`peephole reproduce`, full size, two cores", 240, 150, _reproduce, "s", at_most=True),
    Goal(
        "deciding which of a million sequences make an update, of the toy's training time",
        0.01,
        None,
        _sampler,
        "%",
        at_most=True,
    ),
    Goal(
        "a table of 10 million rows, converted once",
        60,
        20,
        _tables(lambda line: line["convert_s"]),
        "s",
        at_most=True,
    ),
    Goal(
        "most memory resident while it is converted or trained on",
        1.0,
        0.8,
        _tables(
            lambda line: (
                max(line[f"{part}_mb"]["resident"] for part in ("converting", "training"))
                / GIB_IN_MB
            )
        ),
        "GiB",
        at_most=True,
    ),
    Goal(
        "share of the time that training on it waits for data",
        0.05,
        0.02,
        _tables(lambda line: line["waiting"]),
        "%",
        at_most=True,
    ),
)
# Held since the layers were made: what a changed import costs, and the reference.
KEPT = (
    *(
        Goal(
            f"the same {form} input in `torch.nn`'s layer and in ours, time, each",
            1.1,
            None,
            _worst(TORCHS, None, f"same_{form} / {form}", max),
            at_most=True,
        )
        for form in ("padded", "packed")
    ),
    *(
        Goal(
            f"reference backend against torch packed, time, {mode}, each",
            bar,
            None,
            _worst(TORCHS, mode, "reference / packed", max),
            at_most=True,
        )
        for mode, bar in (("train", 1.3), ("infer", 2.0))
    ),
)
