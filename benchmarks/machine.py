"""What a figure depends on besides what was measured: the machine, the versions, the commit."""

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import peephole
from peephole.ops import cpu

ROOT = Path(__file__).parent.parent
MM_SIZE = 2048


def machine() -> dict[str, Any]:
    """The processor, by nothing that names this one machine.

    Returns:
        ``cpu`` (its model), ``cores`` (those this process may use), ``instructions`` (the set that
        torch chose: "AVX2", "AVX512", ...), ``kernels`` (the set that our compiled kernels chose,
        None where there are none) and ``system`` ("Linux x86_64").
    """
    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kernels": _kernels(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of ``python``, ``torch`` and ``peephole``."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peephole": peephole.__version__,
    }


def commit() -> dict[str, Any]:
    """The checkout that is measured.

    Returns:
        ``commit`` (40 hex digits) and ``dirty``: whether a file differs from it or is not in it.
        Results do not count: a benchmark that writes some is not to spoil the next one. Both are
        None where there is no git checkout.
    """
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    if head is None or changes is None:
        return {"commit": None, "dirty": None}
    return {"commit": head, "dirty": bool(changes)}


def mm(dtype: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    """A square product by ``torch.mm``, to time: the ceiling of all else."""
    a = torch.rand(MM_SIZE, MM_SIZE).to(dtype)
    b = torch.rand(MM_SIZE, MM_SIZE).to(dtype)
    return lambda: torch.mm(a, b)


def mm_gflop() -> float:
    """The multiplications and additions of that product, in GFLOP."""
    return 2 * MM_SIZE**3 / 1e9


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _kernels() -> str | None:
    try:
        return cpu.instruction_set()
    except RuntimeError:
        # The extension is missing.
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git(*words: str) -> str | None:
    """What git prints, or None where it is missing or refuses. It takes no lock of the checkout."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
