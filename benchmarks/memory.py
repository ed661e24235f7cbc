"""``python -m benchmarks memory``: the most memory that a training step takes."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks import options as shared
from benchmarks import show
from benchmarks.goals import GOALS, MIN_MEMORY_MB
from benchmarks.kinds import KINDS
from benchmarks.machine import ROOT
from benchmarks.measure import Quartiles
from benchmarks.peak import can_measure
from benchmarks.record import Record
from benchmarks.sizes import EPILOG, SIZES, Size

CONTENDERS = ("padded", "packed", "auto")
MB = 1e6

HELP = f"""\
The most memory that a step takes, forward and backward with respect to the weights, float32: what
is resident at the peak (VmHWM, after 5 is written to /proc/self/clear_refs) less what is resident
just before the step, which is the libraries, the weights, the batch in the contender's form and
the upstream gradient. Each contender runs in processes of its own, after a step of two sequences
of two steps, so that its heap is clean. Linux alone tells this.

  padded   torch.nn on a padded tensor        packed   torch.nn on a PackedSequence
  auto     peephole on a Ragged               loop     of kind diagonal: benchmarks/peers/loop.py

A size whose padded step takes less than {MIN_MEMORY_MB:g} MB has no bar: it is mostly noise.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.epilog = EPILOG
    shared.add_kind(parser, [kind for kind in KINDS if kind != "peepholes"], ["LSTM"])
    shared.add_sizes(parser, "4,5,6")
    parser.add_argument(
        "--repeats",
        type=shared.rounds,
        default=3,
        metavar="K",
        help="processes for each contender and size (default: 3)",
    )
    shared.add_backend(parser, "of our layers")
    shared.add_threads(parser)
    shared.add_results(parser, "memory", "a kind and size")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save.

    Returns:
        1 where a bar is missed and ``--check`` was given, or where the system cannot tell.
    """
    if not can_measure():
        print("memory: only Linux tells the peak of the memory that is resident", file=sys.stderr)
        return 1
    record = Record("memory", options)
    plan = [(kind, size) for kind in options.kind for size in options.sizes]
    with show.Bar(record.out, len(plan)) as bar:
        for kind, size in plan:
            names = CONTENDERS if kind != "diagonal" else ("loop", "auto")
            on_share = bar.start(f"{kind} {size}")
            taken: dict[str, list[float]] = {name: [] for name in names}
            for k in range(options.repeats):
                for name in names:
                    taken[name].append(step_mb(kind, name, size, options.backend))
                on_share((k + 1) / options.repeats)
            bar.finish()
            found = summary(kind, size, taken)
            record.save(found)
            record.out.print(_line(found), soft_wrap=True)
    return record.finish(GOALS)


def step_mb(kind: str, name: str, size: Size, backend: str) -> float:
    """The memory that a step takes, in a process of its own, in MB."""
    words = [kind, name, str(SIZES.index(size) + 1)]
    words += ["--backend", backend, "--threads", str(torch.get_num_threads())]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peak", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures = json.loads(done.stdout)
    return float(figures["peak"] - figures["before"]) / MB


def summary(kind: str, size: Size, taken: dict[str, list[float]]) -> dict[str, Any]:
    """The figures of one kind and size, for JSON.

    Args:
        kind: a key of ``KINDS``.
        size: of batch and layer.
        taken: MB of each repeat, by contender.
    """
    peaks = {name: Quartiles.of(values) for name, values in taken.items()}
    return {
        "kind": kind,
        "mode": "train",
        "size": size._asdict(),
        "repeats": len(taken["auto"]),
        "peaks_mb": {name: peak._asdict() for name, peak in peaks.items()},
        "ratios": {
            f"auto / {name}": peaks["auto"].median / peaks[name].median
            for name in taken
            if name != "auto"
        },
    }


def _line(found: Mapping[str, Any]) -> str:
    size = Size(*found["size"].values())
    peaks = [
        f"{name} {show.spread(Quartiles(**peak))} MB" for name, peak in found["peaks_mb"].items()
    ]
    ratios = [f"{name} {ratio:.3f}" for name, ratio in found["ratios"].items()]
    return f"{found['kind']} {size}: {', '.join(peaks + ratios)}"
