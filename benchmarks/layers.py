"""``python -m benchmarks layers``: recurrent layers on ragged batches, beside torch.nn."""

import argparse
import functools
import statistics
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks import options as shared
from benchmarks import show
from benchmarks.goals import GOALS, KEPT
from benchmarks.kinds import CONTENDERS, KINDS
from benchmarks.record import Record
from benchmarks.rows import Row, measure_row
from benchmarks.sizes import EPILOG

HELP = """\
Times of a batch, forward and backward with respect to the weights (train) or forward in
inference mode (infer), float32. In every round each contender runs once:

  padded      torch.nn on a padded tensor        packed   torch.nn on a PackedSequence
  auto        peephole on a Ragged               fresh    the same, on a Ragged made anew each time
  lengths     peephole on a padded tensor and its lengths, with both conversions
  same_padded, same_packed   peephole on the very input of padded and packed: only the import
              changed
  reference, cpu             peephole on a Ragged, on that backend (when named)

Of kind diagonal, LSTMs with diagonal peepholes:

  loop        benchmarks/peers/loop.py, plain PyTorch on a padded tensor, written well
  auto, fresh, reference, cpu                    as above

Of kind peepholes, our LSTM with peepholes none, diagonal and full. Their ratios are near 1: give
them many rounds.

All have the same weights and batch, whose lengths are uniform from T/8 (2 in the first) to T. A
ratio "a / b" says how many times as fast b is as a (with full peepholes, per multiply-add): the
median of the rounds' own ratios. best is the quicker one of padded and packed. Its ceiling is what
it would be if b did its multiply-adds at torch.mm's rate in the same run. GFLOP/s count those of
the steps that exist.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.epilog = EPILOG
    shared.add_kind(parser, tuple(KINDS), tuple(KINDS))
    shared.add_mode(parser)
    shared.add_sizes(parser, "all")
    parser.add_argument(
        "--contenders",
        type=functools.partial(shared.some_of, CONTENDERS),
        metavar="NAME,...",
        help="of each kind those of these that it has (default: all but reference and cpu)",
    )
    shared.add_backend(parser, "of our layers")
    shared.add_timing(parser, "a kind, mode and size")
    shared.add_threads(parser)
    shared.add_results(parser, "layers", "a measurement")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save what the options ask for.

    Returns:
        1 where a bar is missed and ``--check`` was given, 2 where there is nothing to measure,
        else 0.
    """
    record = Record("layers", options)
    plan = [
        (kind, mode, size, names)
        for mode in options.mode
        for kind in options.kind
        for size in options.sizes
        if (names := _taking_part(kind, options.contenders))
    ]
    if not plan:
        print("layers: none of these kinds has one of these contenders", file=sys.stderr)
        return 2
    rows = []
    with show.Bar(record.out, len(plan)) as bar:
        for kind, mode, size, names in plan:
            row = measure_row(
                kind,
                mode,
                size,
                options.seconds,
                names=names,
                backend=options.backend,
                min_rounds=options.rounds,
                on_round=bar.start(f"{kind} {mode} {size}"),
            )
            bar.finish()
            rows.append(row)
            record.out.print(_line(row), soft_wrap=True)
            record.save({"seconds": options.seconds, **row.figures()})
    for mode in options.mode:
        for together in dict.fromkeys(tuple(row.contenders) for row in rows):
            _print_tables(
                record.out, [r for r in rows if r.mode == mode and tuple(r.contenders) == together]
            )
    return record.finish((*GOALS, *KEPT))


def _taking_part(kind: str, named: Sequence[str] | None) -> list[str]:
    """The contenders of a kind, in its order."""
    has = KINDS[kind]
    if named is None:
        return list(has.contenders)
    return [name for name in (*has.contenders, *has.optional) if name in named]


def _line(row: Row) -> str:
    """A row's ratios, while others are still measured."""
    ratios = [f"{name} {show.spread(ratio)}" for name, ratio in row.ratios().items()]
    used = ", ".join(f"{name} on {backend}" for name, backend in row.backends.items())
    return "; ".join([f"{row.name}: {', '.join(ratios)}", f"{row.measured.rounds} rounds", used])


def _print_tables(out: Console, rows: Sequence[Row]) -> None:
    """All rows of one mode with the same contenders: times, ratios, rates."""
    if not rows:
        return
    first = rows[0]
    what = {"train": "Forward and backward", "infer": "Inference"}[first.mode]
    names = list(first.ratios())
    times = show.table(f"{what}: ms a batch, median (quartiles)", "B, T, I, H", *first.contenders)
    ratios = show.table(
        f"{what}: ratios of times, median (quartiles); ceiling, of one at torch.mm's rate",
        "B, T, I, H",
        *(column for name in names for column in _columns(first, name, name, "ceiling")),
        *(["best"] if first.best else []),
    )
    rates = show.table(
        f"{what}: useful GFLOP/s (share of torch.mm's)",
        "B, T, I, H",
        *first.contenders,
        "torch.mm",
    )
    for row in rows:
        label = f"{row.kind:4}  {row.size}"
        in_ms = (row.measured.times(name).scaled(1e3) for name in row.contenders)
        times.add_row(label, *map(show.spread, in_ms))
        cells = []
        for name, ratio in row.ratios().items():
            ceiling = show.number(row.ceilings().get(name, 0.0))
            cells += _columns(row, name, show.spread(ratio), ceiling)
        ratios.add_row(label, *cells, *([row.best] if row.best else []))
        reached = row.gflops()
        rates.add_row(
            label,
            *(f"{show.number(reached[n])} ({100 * row.share(n):.0f}%)" for n in row.contenders),
            f"{row.mm_gflops:.0f}",
        )
    ratios.add_section()
    for kind in dict.fromkeys(row.kind for row in rows):
        ratios.add_row(f"{kind:4}  geometric mean", *_means([r for r in rows if r.kind == kind]))
    if len({row.kind for row in rows}) > 1:
        ratios.add_row("all   geometric mean", *_means(rows))
    for table in (times, ratios, rates):
        out.print()
        out.print(table)


def _columns(row: Row, name: str, ratio: str, ceiling: str) -> list[str]:
    """A ratio's cells: itself, and its ceiling where it has one."""
    return [ratio, ceiling] if name in row.ceilings() else [ratio]


def _means(rows: Sequence[Row]) -> list[str]:
    """The geometric means of the ratios' medians and of their ceilings."""
    cells = []
    for name in rows[0].ratios():
        ratio = statistics.geometric_mean([row.ratios()[name].median for row in rows])
        ceilings = [row.ceilings().get(name, 1.0) for row in rows]
        ceiling = show.number(statistics.geometric_mean(ceilings))
        cells += _columns(rows[0], name, show.number(ratio), ceiling)
    return cells
