"""The most memory that one training step takes, in this process: ``python -m benchmarks.peak``.

``benchmarks memory`` starts it anew for each contender, so that each has a heap that nobody used.
"""

import argparse
import ctypes
import gc
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.contenders import contenders
from benchmarks.sizes import SIZES, Size

# Touches the same code and the same weights, and keeps no memory worth speaking of.
FIRST = 2
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def can_measure() -> bool:
    """Whether this system tells the peak: Linux does."""
    return STATUS.exists() and CLEAR.exists()


def peak(kind: str, name: str, size: Size, backend: str = "auto") -> tuple[int, int]:
    """Take one training step, forward and backward with respect to the weights.

    Args:
        kind: a key of ``benchmarks.kinds.KINDS``.
        name: the contender.
        size: of batch and layer.
        backend: of our layers.

    Returns:
        The bytes that are resident just before the step (libraries, weights, the batch in the
        contender's form, the upstream gradient), and the most that are during it.
    """
    small = Size(FIRST, FIRST, size.I, size.H)
    contenders(kind, small, [name], backend=backend)[name].call("train")()
    step = contenders(kind, size, [name], backend=backend)[name].call("train")
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        # What was freed goes back to the system, or the step could take it again unseen.
        ctypes.CDLL(None).malloc_trim(0)
    # From proc(5): 5 resets the peak resident set size to the size that is resident now.
    CLEAR.write_text("5")
    before = _bytes("VmRSS")
    gradients = step()
    most = _bytes("VmHWM")
    del gradients
    return before, most


def _bytes(field: str) -> int:
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"{STATUS} has no {field}")


def main(argv: Sequence[str]) -> None:
    """Print ``{"before": bytes, "peak": bytes}``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peak", description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("contender")
    parser.add_argument("size", type=int, help="its number, from 1")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    size = SIZES[options.size - 1]
    before, most = peak(options.kind, options.contender, size, options.backend)
    print(json.dumps({"before": before, "peak": most}))


if __name__ == "__main__":
    main(sys.argv[1:])
