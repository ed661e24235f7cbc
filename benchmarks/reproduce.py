"""``python -m benchmarks reproduce``: how long the seed experiment takes."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import options as shared
from benchmarks.goals import GOALS
from benchmarks.record import Record

HELP = """\
Seconds from the start of `peephole reproduce` to its end: every model of the seed experiment is
trained, with the data's full size, and the report is written to a folder that is thrown away. It
uses the processes that it chooses itself. It takes minutes.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.add_argument(
        "--quick", action="store_true", help="with less data, to try this; there is no bar for it"
    )
    shared.add_results(parser, "reproduce", "a run")
    parser.set_defaults(threads=None)


def run(options: argparse.Namespace) -> int:
    """Run it once, show and save.

    Returns:
        1 where a bar is missed and ``--check`` was given, or where the experiment failed.
    """
    record = Record("reproduce", options)
    with tempfile.TemporaryDirectory() as folder:
        words = ["reproduce", "--out", str(Path(folder) / "reproduce")]
        words += ["--quick"] if options.quick else []
        begin = time.perf_counter()
        status = subprocess.run([sys.executable, "-m", "peephole", *words]).returncode
        elapsed = time.perf_counter() - begin
    if status:
        print(f"reproduce: `peephole reproduce` ended with {status}", file=sys.stderr)
        return 1
    record.out.print(f"\npeephole {' '.join(['reproduce', *words[3:]])}: {elapsed:.1f} s")
    record.save({"quick": options.quick, "elapsed_s": elapsed})
    return record.finish(GOALS)
