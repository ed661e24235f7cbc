"""What stays in memory of a table once it is ready to be trained on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

# What it prints, in bytes: the memory of the process's own, and what of it nothing uses.
PREPARED = """
import sys
from pathlib import Path
import pyarrow as pa
from peephole.data.cache import Cache
from peephole.jobs.table.prepare import prepare
from peephole.jobs.table.settings import TrainSettings
from peephole.tasks.table.settings import DataSettings, ModelSettings

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

def quiet(line):
    pass

prepared = prepare(
    Path(sys.argv[1]), DataSettings("y", sequence="id"), ModelSettings(), TrainSettings(),
    valid=None, test=None, seed=0, say=quiet, cache=Cache(Path(sys.argv[2]), quiet, always=True),
)
before = own()
pa.default_memory_pool().release_unused()
print(before, before - own())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the memory")
def test_what_reading_took_is_given_back(tmp_path: Path) -> None:
    rows = 1 << 20
    draw = np.random.default_rng(0)
    words = pa.array(["one", "two", "three"]).take(pa.array(draw.integers(0, 3, rows)))
    columns = {"id": np.arange(rows) // 64, "word": words, "y": draw.normal(size=rows)}
    columns |= {f"x{k}": draw.normal(size=rows) for k in range(4)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = subprocess.run(
        [sys.executable, "-c", PREPARED, str(tmp_path / "t.parquet"), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=True,
    )
    own, unused = map(int, found.stdout.split())
    assert own > 50e6
    assert unused < 5e6
