"""What is to be reached: at least, and the aim. Judged from the lines that benchmarks write."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.kinds import MODES
from benchmarks.sizes import SIZES
from benchmarks.verdict import Found, Goal, Line, newest

# Of smaller steps the memory is mostly what the system rounds to.
MIN_MEMORY_MB = 16.0
STEP_HIDDEN = 128
MM_HIDDEN = 512
SAMPLED = 1_000_000
TOY = "batch_size 16"
# Of the table that is to be converted and trained on within bounds.
ROWS = 10_000_000
GIB_IN_MB = 2**30 / 1e6


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


def _engine(
    kinds: Sequence[str], find: Callable[[Line], tuple[float, str]]
) -> Callable[[Sequence[Line]], Found | None]:
    """The worst of these kinds' figures and what it is of; all of the kinds must be there."""

    def worst(lines: Sequence[Line]) -> Found | None:
        rows = newest(
            line for line in lines if line["benchmark"] == "engine" and line["kind"] in kinds
        )
        if {row["kind"] for row in rows} != set(kinds):
            return None
        return Found(*max(map(find, rows)), rows)

    return worst


def _own_cost(line: Line) -> tuple[float, str]:
    name = f"fit / {line['fastest']}"
    low, median, high = (line["ratios"][name][at] for at in ("low", "median", "high"))
    return median, f"{name}, quartiles {low:.3g} to {high:.3g}"


def _text_speed(kind: str) -> Callable[[Sequence[Line]], Found | None]:
    def find(lines: Sequence[Line]) -> Found | None:
        rows = newest(
            line for line in lines if line["benchmark"] == "text" and line["kind"] == kind
        )
        if not rows:
            return None
        rates = rows[-1]["characters_a_second"]
        detail = f"{rates['peephole']:,.0f} of {rates['torch.nn']:,.0f} characters/s"
        return Found(rows[-1]["ratio"]["median"], detail, rows[-1:], rows[-1]["ceiling"])

    return find


def _text_sampling(lines: Sequence[Line]) -> Found | None:
    """The model that wrote last, whatever its size."""
    rows = [line for line in lines if line["benchmark"] == "text" and line["kind"] == "sampling"]
    if not rows:
        return None
    size, what = rows[-1]["size"], "a run" if rows[-1]["trained"] else "untrained"
    detail = f"{size['L']} layers of {size['H']}, {what}"
    return Found(rows[-1]["characters_a_second"]["median"], detail, rows[-1:])


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
    Goal(
        "training a character model, 2 x 128, 50 x 50 (char-rnn's own), against `torch.nn.LSTM`",
        1.2,
        1.5,
        _text_speed("char-rnn"),
    ),
    Goal(
        "the same, 2 x 256, 16 x 64 (what five minutes come to)",
        1.2,
        1.5,
        _text_speed("default"),
    ),
    Goal(
        "sampling one stream of characters",
        3000,
        None,
        _text_sampling,
        "characters/s",
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
        "training by the engine against the fastest bare loop, time, the toy's LSTM",
        1.15,
        1.05,
        _engine(["toy"], _own_cost),
        at_most=True,
    ),
    Goal(
        "share of the time that training on sequences like the vowels waits for data",
        0.05,
        0.02,
        _engine(
            ["vowels"], lambda line: (line["waiting"]["median"], f"{line['rounds']} trainings")
        ),
        "%",
        at_most=True,
    ),
    Goal(
        "steps computed for each that exists",
        1.0,
        None,
        _engine(
            ["toy", "vowels"],
            lambda line: (line["steps"]["ratio"], f"{line['steps']['exist']:,} of {line['kind']}"),
        ),
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
