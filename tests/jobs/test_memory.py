"""What becomes of memory that a process frees."""

import ctypes
import subprocess
import sys

import pytest

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

# How many pages the system had to give for 20 arrays of 8 MB, the first of which does not count.
FAULTS = """
import resource
import numpy as np
from peephole.jobs.memory import keep_memory

if {keep}:
    keep_memory()
np.ones(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    a, b = np.ones(2**20), np.ones(2**20)
    del a, b
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    code = FAULTS.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_is_kept_if_one_asks() -> None:
    kept, given_back = faults(keep=True), faults(keep=False)
    assert 10 * kept < given_back
