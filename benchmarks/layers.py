"""``python -m benchmarks layers``: LSTM, GRU and RNN on ragged batches, beside torch.nn."""

import argparse
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import results, show
from benchmarks.contenders import SEED, Size, check_agreement, contenders
from benchmarks.machine import commit, machine, mm_gflops, versions
from benchmarks.measure import Measurement, Quartiles, measure

# Gates a unit, G.
KINDS = {"LSTM": 4, "GRU": 3, "RNN": 1}
MODES = ("train", "infer")
SIZES = (
    Size(16, 4, 1, 16),
    Size(32, 100, 8, 32),
    Size(64, 100, 64, 128),
    Size(64, 200, 256, 256),
    Size(32, 128, 512, 512),
    Size(64, 64, 1024, 1024),
)
SMALL = SIZES[:3]

AUTO, FRESH, REFERENCE = "auto / best", "fresh / best", "reference / packed"
SAME_PADDED, SAME_PACKED = "same_padded / padded", "same_packed / packed"
# The most that a ratio of times may be.
BARS = {
    "train": {AUTO: 1.10, REFERENCE: 1.3, SAME_PADDED: 1.10, SAME_PACKED: 1.10},
    "infer": {AUTO: 1.10, REFERENCE: 2.0, SAME_PADDED: 1.10, SAME_PACKED: 1.10},
}
MM_SECONDS = 0.5

HELP = """\
Times of a batch, forward and backward with respect to the weights (train) or forward in
inference mode (infer), float32. In every round each contender runs once:

  padded      torch.nn on a padded tensor        packed     torch.nn on a PackedSequence
  auto        peephole on a Ragged               reference  the same, backend="reference"
  fresh       auto, on a Ragged made anew at each call
  same_padded, same_packed   auto on the very input of padded and packed: only the import changed

All have the same weights and batch, whose lengths are uniform from T/8 (2 in the first) to T. A
ratio is the median of the rounds' own ratios; best is the quicker one of padded and packed.
GFLOP/s count the steps that exist, beside those of torch.mm in the same run.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    sizes = [f"  {k}   {size}" for k, size in enumerate(SIZES, 1)]
    parser.epilog = "\n".join(["sizes: B sequences, T steps, I features, H units", *sizes])
    parser.add_argument(
        "--kind",
        type=functools.partial(_some_of, tuple(KINDS)),
        default=tuple(KINDS),
        metavar="KIND,...",
        help="LSTM, GRU, RNN (default: all)",
    )
    parser.add_argument(
        "--mode",
        type=functools.partial(_some_of, MODES),
        default=MODES,
        metavar="MODE,...",
        help="train, infer (default: both)",
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=SIZES,
        metavar="K,...",
        help="by their numbers below, or small (1,2,3), or all (default: all)",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=3.0,
        metavar="S",
        help="to spend on each measurement, a kind, mode and size (default: 3; five rounds at "
        "least)",
    )
    parser.add_argument(
        "--threads", type=_count, metavar="N", help="of torch (default: as torch chooses)"
    )
    saved = parser.add_mutually_exclusive_group()
    saved.add_argument(
        "--out",
        type=Path,
        default=results.FOLDER / "layers.jsonl",
        metavar="FILE",
        help="append a JSON line a measurement (default: benchmarks/results/layers.jsonl)",
    )
    saved.add_argument("--no-save", action="store_true", help="write no file")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")


@dataclass(frozen=True)
class Row:
    """What was measured of one kind and size.

    Attributes:
        kind: "LSTM", "GRU" or "RNN".
        mode: "train" or "infer".
        size: of batch and layer.
        steps: that the batch has in all, N.
        measured: the times.
        mm_gflops: the rate of ``torch.mm`` just before.
        auto_backend: what "auto" took; None where the layer does not tell.
    """

    kind: str
    mode: str
    size: Size
    steps: int
    measured: Measurement
    mm_gflops: float
    auto_backend: str | None

    @property
    def name(self) -> str:
        return f"{self.kind} {self.mode} {self.size}"

    @property
    def best(self) -> str:
        """The quicker form of torch.nn."""
        return self.measured.fastest(["padded", "packed"])

    def ratios(self) -> dict[str, Quartiles]:
        return {
            AUTO: self.measured.ratio("auto", self.best),
            FRESH: self.measured.ratio("fresh", self.best),
            REFERENCE: self.measured.ratio("reference", "packed"),
            SAME_PADDED: self.measured.ratio("same_padded", "padded"),
            SAME_PACKED: self.measured.ratio("same_packed", "packed"),
        }

    def missed(self) -> list[str]:
        """The ratios whose median is above its bar."""
        ratios = self.ratios()
        return [name for name, bar in BARS[self.mode].items() if ratios[name].median > bar]

    def gflop(self) -> float:
        """The multiplications and additions that a batch cannot do without, in GFLOP.

        Two for each weight and step: forward; backward for the weights; and backward from step to
        step for ``weight_hh`` alone, since nobody asks for the input's gradient.
        """
        weights = 2 * self.size.I + 3 * self.size.H
        if self.mode == "infer":
            weights = self.size.I + self.size.H
        return 2 * KINDS[self.kind] * self.size.H * self.steps * weights / 1e9

    def gflops(self) -> dict[str, float]:
        """Useful GFLOP/s of each contender, at its median."""
        return {
            name: self.gflop() / self.measured.times(name).median for name in self.measured.seconds
        }

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "kind": self.kind,
            "mode": self.mode,
            "size": self.size._asdict() | {"N": self.steps},
            "rounds": self.measured.rounds,
            "repetitions": self.measured.repetitions,
            "times_ms": {
                name: self.measured.times(name).scaled(1e3)._asdict()
                for name in self.measured.seconds
            },
            "best": self.best,
            "ratios": {name: ratio._asdict() for name, ratio in self.ratios().items()},
            "bars": BARS[self.mode],
            "missed": self.missed(),
            "gflop": self.gflop(),
            "gflops": self.gflops(),
            "mm_gflops": self.mm_gflops,
            "auto_backend": self.auto_backend,
        }


def run(options: argparse.Namespace) -> int:
    """Measure, show and save what the options ask for.

    Returns:
        1 where a bar is missed and ``--check`` was given, else 0.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    out = show.console()
    here = {**commit(), "machine": machine(), "versions": versions()}
    plan = [
        (kind, mode, size)
        for mode in options.mode
        for kind in options.kind
        for size in options.sizes
    ]
    rows = []
    with show.Bar(out, len(plan)) as bar:
        for kind, mode, size in plan:
            row = measure_row(kind, mode, size, options.seconds, bar.start(f"{kind} {mode} {size}"))
            bar.finish()
            rows.append(row)
            out.print(_line(row), soft_wrap=True)
            if not options.no_save:
                results.append(options.out, _head(options, here) | row.figures())
    for mode in options.mode:
        _print_tables(out, [row for row in rows if row.mode == mode])
    if not options.no_save:
        lines = "1 line" if len(rows) == 1 else f"{len(rows)} lines"
        out.print(f"\n{lines} appended to {options.out}", soft_wrap=True, markup=False)
    return int(options.check and any(row.missed() for row in rows))


def measure_row(
    kind: str,
    mode: str,
    size: Size,
    seconds: float,
    on_round: Callable[[float], None] = lambda share: None,
) -> Row:
    """Measure one kind, mode and size.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        mode: "train" or "infer".
        size: of batch and layer.
        seconds: the budget for all contenders together.
        on_round: as in ``measure``.

    Raises:
        ValueError: the contenders do not compute the same.
    """
    all = contenders(kind, size)
    check_agreement(all, mode)
    # Before and not among the rounds: it would clear the caches that small layers live in.
    ceiling = mm_gflops(min(seconds, MM_SECONDS))
    calls = {name: contender.call(mode) for name, contender in all.items()}
    measured = measure(calls, seconds, seed=SEED, on_round=on_round)
    return Row(
        kind,
        mode,
        size,
        len(all["auto"].upstream),
        measured,
        ceiling,
        getattr(all["auto"].layer, "backend_used", None),
    )


def _head(options: argparse.Namespace, here: Mapping[str, Any]) -> dict[str, Any]:
    """What a line says of the conditions, before the figures."""
    return {
        "benchmark": "layers",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **here,
        "device": "cpu",
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "seconds": options.seconds,
        "seed": SEED,
    }


def _line(row: Row) -> str:
    """A row's ratios, while others are still measured."""
    ratios = ", ".join(f"{name} {_ratio(row, name)}" for name in row.ratios())
    backend = f", auto is {row.auto_backend}" if row.auto_backend else ""
    return f"{row.name}: {ratios}, {row.measured.rounds} rounds{backend}"


def _ratio(row: Row, name: str) -> str:
    text = show.spread(row.ratios()[name])
    return f"[bold red]{text} ![/]" if name in row.missed() else text


def _print_tables(out: Console, rows: Sequence[Row]) -> None:
    """All rows of one mode: times, ratios, rates."""
    mode = rows[0].mode
    what = {"train": "Forward and backward", "infer": "Inference"}[mode]
    names = list(rows[0].measured.seconds)
    times = show.table(f"{what}: ms a batch, median (quartiles)", "B, T, I, H", *names)
    ratios = show.table(f"{what}: ratios of times", "B, T, I, H", *rows[0].ratios(), "best")
    rates = show.table(f"{what}: useful GFLOP/s", "B, T, I, H", *names, "torch.mm")
    for row in rows:
        label = f"{row.kind:4}  {row.size}"
        in_ms = (row.measured.times(name).scaled(1e3) for name in names)
        times.add_row(label, *map(show.spread, in_ms))
        ratios.add_row(label, *(_ratio(row, name) for name in row.ratios()), row.best)
        reached = row.gflops()
        rates.add_row(
            label, *(show.number(reached[name]) for name in names), f"{row.mm_gflops:.0f}"
        )
    ratios.add_section()
    for kind in dict.fromkeys(row.kind for row in rows):
        ratios.add_row(f"{kind:4}  geometric mean", *_means([r for r in rows if r.kind == kind]))
    if len({row.kind for row in rows}) > 1:
        ratios.add_row("all   geometric mean", *_means(rows))
    for table in (times, ratios, rates):
        out.print()
        out.print(table)
    bars = ", ".join(f"{name} at most {bar:g}" for name, bar in BARS[mode].items())
    missed = sum(len(row.missed()) for row in rows)
    out.print(f"\nBars: {bars}. Missed (!): {missed} of {len(rows) * len(BARS[mode])}.")


def _means(rows: Sequence[Row]) -> list[str]:
    """The geometric mean of each ratio's medians."""
    return [
        show.number(statistics.geometric_mean([row.ratios()[name].median for row in rows]))
        for name in rows[0].ratios()
    ]


def _some_of(allowed: Sequence[str], text: str) -> tuple[str, ...]:
    """Words between commas, in any case, each at most once."""
    known = {name.lower(): name for name in allowed}
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word.lower() not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(allowed)}")
    return tuple(dict.fromkeys(known[word.lower()] for word in words))


def _sizes(text: str) -> tuple[Size, ...]:
    if text in ("small", "all"):
        return SMALL if text == "small" else SIZES
    numbers = [str(k) for k in range(1, len(SIZES) + 1)]
    try:
        return tuple(SIZES[int(number) - 1] for number in _some_of(numbers, text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, small, all") from error


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value
