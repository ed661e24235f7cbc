"""One part of ``benchmarks tables``, in this process: ``python -m benchmarks.large``.

``benchmarks tables`` starts it anew for each part, so that the most memory is the part's own.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from benchmarks.contenders import SEED
from benchmarks.watched import training
from peephole.data.cache import Cache
from peephole.data.opening import open_table
from peephole.data.reading import Form
from peephole.jobs.table.prepare import prepare
from peephole.jobs.table.settings import TrainSettings, resolve
from peephole.tasks.table.settings import DataSettings, ModelSettings

FORM = Form("unit", "minute")
TARGET = "load"
WORDS = ("idle", "heating", "cooling", "fault", "cleaning", "start", "stop", "service")
SHORTEST, LONGEST = 20, 180
BATCH = 64
SAMPLE_SECONDS = 0.02
STATUS = Path("/proc/self/status")
MB = 1e6


def write(path: Path, rows: int, mixed: bool) -> None:
    """Write a table: sequences of 20 to 180 steps, four numbers and a word at each, and a target.

    Args:
        path: ends in ``.csv`` or ``.parquet``.
        rows: how many.
        mixed: whether they come in any order; else sequence by sequence.
    """
    generator = np.random.default_rng(SEED)
    lengths = generator.integers(SHORTEST, LONGEST + 1, rows // SHORTEST + 1)
    ends = lengths.cumsum()
    lengths = lengths[: int(ends.searchsorted(rows)) + 1]
    begins = lengths.cumsum() - lengths
    unit = np.arange(len(lengths)).repeat(lengths)[:rows]
    x = generator.normal(size=(rows, 4)).round(5)
    columns = {
        "unit": unit,
        "minute": np.arange(rows) - begins[unit],
        **{f"x{k}": x[:, k] for k in range(4)},
        "mode": pa.array(WORDS).take(pa.array(generator.integers(0, len(WORDS), rows))),
        TARGET: (x[:, 0] + 0.1 * generator.normal(size=rows)).round(4),
    }
    table = pa.table(columns)
    if mixed:
        table = table.take(pa.array(generator.permutation(rows)))
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)


def convert(path: Path, cache: Path) -> dict[str, float]:
    """Open a table by way of a cache, which may have it.

    Returns:
        ``seconds``.
    """
    begin = time.perf_counter()
    open_table(path, FORM, check=lambda columns: None, cache=_cache(cache))
    return {"seconds": time.perf_counter() - begin}


def train(path: Path, cache: Path, updates: int) -> dict[str, float]:
    """Prepare a table for training, make some updates, and evaluate.

    Returns:
        ``prepare_s``, and what ``benchmarks.watched.training`` does.
    """
    begin = time.perf_counter()
    prepared = prepare(
        path,
        DataSettings(target=TARGET, sequence=FORM.sequence, order=FORM.order),
        ModelSettings(),
        TrainSettings(),
        valid=None,
        test=None,
        seed=SEED,
        say=lambda line: None,
        cache=_cache(cache),
    )
    prepare_s = time.perf_counter() - begin
    loop = replace(resolve(TrainSettings(), BATCH, updates, SEED), epochs=updates, updates=updates)
    return {"prepare_s": prepare_s, **training(prepared.task, loop)}


def _cache(path: Path) -> Cache:
    return Cache(path, lambda line: None, always=True)


@contextlib.contextmanager
def watched() -> Iterator[dict[str, float]]:
    """The most memory that this process has had, told when the block ends, in MB.

    Yields:
        Gets ``resident`` (VmHWM: what is mapped from files counts, though the system can take it
        back at any time) and ``own`` (RssAnon, sampled: without that).
    """
    most: dict[str, float] = {"own": 0.0}
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            most["own"] = max(most["own"], _mb("RssAnon"))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()
        most["own"] = max(most["own"], _mb("RssAnon"))
        most["resident"] = _mb("VmHWM")


def _mb(field: str) -> float:
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / MB
    raise OSError(f"{STATUS} has no {field}")


def main(argv: Sequence[str]) -> None:
    """Print what the part found, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("part", choices=["write", "convert", "train"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--updates", type=int)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    pa.set_cpu_count(options.threads)
    found: dict[str, Any] = {}
    with watched() as most:
        if options.part == "write":
            write(options.file, options.rows, options.mixed)
        elif options.part == "convert":
            found = convert(options.file, options.cache)
        else:
            found = train(options.file, options.cache, options.updates)
    print(json.dumps(found | most))


if __name__ == "__main__":
    main(sys.argv[1:])
