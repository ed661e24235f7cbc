"""``python -m benchmarks tables``: tables that are read from the disk while training."""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import options as shared
from benchmarks import show
from benchmarks.goals import GOALS, ROWS
from benchmarks.large import BATCH, LONGEST, SHORTEST, STATUS
from benchmarks.machine import ROOT
from benchmarks.record import Record

KINDS = ("csv", "parquet", "mixed-csv", "mixed-parquet")
UPDATES = 300

HELP = f"""\
A table of {ROWS:,} rows (a sequence's id, a step's number, four numbers, a word and a target;
sequences of {SHORTEST} to {LONGEST} steps) is written to a folder that is thrown away, and then

  convert   put in order and into the cache, for the first time
  open      opened again, from the cache
  prepare   made ready for training: encoders fitted, features and targets encoded and kept
  again     the same in a second run
  update    one of the default training, on {BATCH} sequences
  waiting   the share of that time in which the batch is fetched

each in a process of its own. Its memory is the most that is resident (VmHWM), what is mapped from
files included, and in parentheses without that (RssAnon, sampled). Training ends with an
evaluation. The rows of the mixed kinds are in no order. Linux alone tells the memory.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.add_argument(
        "--kind",
        type=functools.partial(shared.some_of, KINDS),
        default=KINDS,
        metavar="KIND,...",
        help=f"{', '.join(KINDS)} (default: all)",
    )
    parser.add_argument(
        "--rows", type=shared.count, default=ROWS, metavar="N", help=f"(default: {ROWS})"
    )
    parser.add_argument(
        "--updates", type=shared.count, default=UPDATES, metavar="K", help=f"(default: {UPDATES})"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="for the data, some 2 GB; they are removed (default: the system's for such files)",
    )
    shared.add_threads(parser)
    shared.add_results(parser, "tables", "a kind")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save.

    Returns:
        1 where a bar is missed and ``--check`` was given, or where the system cannot tell.
    """
    if not STATUS.exists():
        print("tables: only Linux tells the memory that is resident", file=sys.stderr)
        return 1
    record = Record("tables", options)
    with show.Bar(record.out, len(options.kind)) as bar:
        for kind in options.kind:
            bar.start(kind)
            record.save(figures(kind, options.rows, options.updates, options.folder))
            bar.finish()
    names = ("convert s", "open s", "prepare s", "again s", "update ms", "waiting")
    memory = ("converting MB", "training MB")
    table = show.table(f"{options.rows:,} rows", "kind", *names, *memory)
    for line in record.lines:
        seconds = (f"{line[name]:.1f}" for name in ("convert_s", "open_s", "prepare_s", "again_s"))
        mb = (f"{line[part]['resident']:.0f} ({line[part]['own']:.0f})" for part in MEMORY)
        update = (f"{line['update_ms']:.1f}", f"{100 * line['waiting']:.1f}%")
        table.add_row(line["kind"], *seconds, *update, *mb)
    record.out.print(table)
    return record.finish(GOALS)


MEMORY = ("converting_mb", "training_mb")


def figures(kind: str, rows: int, updates: int, folder: Path | None) -> dict[str, Any]:
    """All of one kind, for JSON."""
    mixed, _, form = kind.rpartition("-")
    with tempfile.TemporaryDirectory(dir=folder) as data:
        file, cache = Path(data) / f"t.{form}", str(Path(data) / "cache")
        part("write", file, "--rows", str(rows), *(["--mixed"] if mixed else []))
        converted = part("convert", file, "--cache", cache)
        opened = part("convert", file, "--cache", cache)
        trained, again = (
            part("train", file, "--cache", cache, "--updates", str(updates)) for _ in range(2)
        )
        size = file.stat().st_size
    return {
        "kind": kind,
        "size": {"rows": rows},
        "file_mb": size / 1e6,
        "convert_s": converted["seconds"],
        "open_s": opened["seconds"],
        "prepare_s": trained["prepare_s"],
        "again_s": again["prepare_s"],
        "update_ms": again["update_ms"],
        "waiting": again["waiting"],
        "converting_mb": _memory(converted),
        "training_mb": _memory(trained),
    }


def part(name: str, file: Path, *words: str) -> dict[str, Any]:
    """Run a part of ``benchmarks.large`` in a process of its own."""
    threads = ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large", name, str(file), *words, *threads],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _memory(found: Mapping[str, float]) -> dict[str, float]:
    return {name: found[name] for name in ("resident", "own")}
