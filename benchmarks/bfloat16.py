"""``python -m benchmarks bfloat16``: layers in bfloat16, beside float32 and beside torch.nn."""

import argparse
import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks import options as shared
from benchmarks import show
from benchmarks.contenders import SEED, batch, check_agreement, of_dtypes
from benchmarks.kinds import BEST, MM, TORCH, gflop
from benchmarks.machine import mm, mm_gflop
from benchmarks.measure import Measurement, Quartiles, measure
from benchmarks.record import Record
from benchmarks.sizes import EPILOG, Size

CONTENDERS = ("float32", "bfloat16", "autocast", *TORCH, MM)
# a and b of each: how many times as fast b is as a.
RATIOS = (
    ("float32", "bfloat16"),
    ("float32", "autocast"),
    (BEST, "bfloat16"),
    ("padded", "bfloat16"),
    ("packed", "bfloat16"),
)

HELP = """\
Times of a batch, forward and backward with respect to the weights (train) or forward in
inference mode (infer). In every round each contender runs once, on the same batch and weights:

  float32    peephole in float32          bfloat16   peephole, weights and input in bfloat16
  autocast   peephole, weights and input in float32, under torch.autocast to bfloat16
  padded     torch.nn in bfloat16 on a padded tensor
  packed     torch.nn in bfloat16 on a PackedSequence
  mm         torch.mm in bfloat16, of 2048 x 2048 numbers

A ratio "a / b" says how many times as fast b is as a: the median of the rounds' own ratios. best is
the quicker one of padded and packed. GFLOP/s count the multiply-adds of the steps that exist.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.epilog = EPILOG
    shared.add_kind(parser, ("LSTM", "GRU", "RNN"), ("LSTM",))
    shared.add_mode(parser)
    shared.add_sizes(parser, "all")
    parser.add_argument(
        "--contenders",
        type=functools.partial(shared.some_of, CONTENDERS),
        default=CONTENDERS,
        metavar="NAME,...",
        help="of these (default: all)",
    )
    shared.add_backend(parser, "of our layers")
    shared.add_timing(parser, "a kind, mode and size")
    shared.add_threads(parser)
    shared.add_results(parser, "bfloat16", "a measurement")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save; no bar is about these.

    Returns:
        0.
    """
    record = Record("bfloat16", options)
    plan = [
        (kind, mode, size)
        for mode in options.mode
        for kind in options.kind
        for size in options.sizes
    ]
    names = options.contenders
    ratios = [f"{a} / {b}" for a, b in _pairs(names)]
    times = show.table("ms a batch, median (quartiles)", "B, T, I, H", *names)
    compared = show.table("ratios of times, median (quartiles)", "B, T, I, H", *ratios)
    rates = show.table("useful GFLOP/s", "B, T, I, H", *names)
    means: dict[tuple[str, str], list[list[float]]] = {}
    with show.Bar(record.out, len(plan)) as bar:
        for kind, mode, size in plan:
            all = of_dtypes(kind, size, options.backend)
            all = {name: one for name, one in all.items() if name in names}
            check_agreement(all, mode)
            calls = {name: one.call(mode) for name, one in all.items()}
            measured = measure(
                calls | ({MM: mm(torch.bfloat16)} if MM in names else {}),
                options.seconds,
                seed=SEED,
                min_rounds=options.rounds,
                on_round=bar.start(f"{kind} {mode} {size}"),
            )
            bar.finish()
            found = figures(kind, mode, size, measured)
            record.save({"seconds": options.seconds, **found})
            told = (f"{name} {show.spread(r)}" for name, r in _ratios(measured).items())
            record.out.print(f"{kind} {mode} {size}: {', '.join(told)}", soft_wrap=True)
            label = f"{kind} {mode}  {size}"
            in_ms = (measured.times(name).scaled(1e3) for name in names)
            times.add_row(label, *map(show.spread, in_ms))
            compared.add_row(label, *(show.spread(r) for r in _ratios(measured).values()))
            rates.add_row(label, *(show.number(found["gflops"][name]) for name in names))
            medians = [r.median for r in _ratios(measured).values()]
            means.setdefault((kind, mode), []).append(medians)
    for (kind, mode), rows in means.items():
        columns = (statistics.geometric_mean(column) for column in zip(*rows, strict=True))
        compared.add_row(f"{kind} {mode}  geometric mean", *map(show.number, columns))
    for table in (times, compared, rates):
        record.out.print()
        record.out.print(table)
    return record.finish(())


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    there = {*names} | ({BEST} if {*TORCH} <= {*names} else set())
    return [(a, b) for a, b in RATIOS if {a, b} <= there]


def _ratios(measured: Measurement) -> dict[str, Quartiles]:
    return {
        f"{a} / {b}": measured.ratio(measured.fastest(TORCH) if a == BEST else a, b)
        for a, b in _pairs(list(measured.seconds))
    }


def figures(kind: str, mode: str, size: Size, measured: Measurement) -> Mapping[str, Any]:
    """The figures of one kind, mode and size, for JSON."""
    steps = len(batch(size).values)
    done = {
        name: mm_gflop() if name == MM else gflop(kind, name, mode, size, steps)
        for name in measured.seconds
    }
    return {
        "kind": kind,
        "mode": mode,
        "size": size._asdict() | {"N": steps},
        "dtype": "bfloat16",
        "rounds": measured.rounds,
        "times_ms": {name: measured.times(name).scaled(1e3)._asdict() for name in measured.seconds},
        "ratios": {name: ratio._asdict() for name, ratio in _ratios(measured).items()},
        "gflops": {name: done[name] / measured.times(name).median for name in measured.seconds},
    }
