"""What ``torchrun`` remembers of a job when it starts the job's processes again.

It has a store that all processes reach, and that lives as long as it does itself.
"""

import os
from pathlib import Path
from typing import Any

import torch


def store() -> Any:
    """That store; None where the processes are not those of a ``torchrun`` that lends it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return torch._C._distributed_c10d.TCPStore(*place, is_master=False, wait_for_workers=False)


def attempt() -> int:
    """How often the processes were started again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def remember(run: Path) -> None:
    """Remember that this job trains in a run folder."""
    if (kept := store()) is not None:
        kept.set(_key(run), "")


def had(run: Path) -> bool:
    """Whether processes of this job, before they were started again, trained in a run folder."""
    kept = store() if attempt() else None
    return kept is not None and bool(kept.check([_key(run)]))


def _key(run: Path) -> str:
    return f"peephole/run/{run.resolve()}"
