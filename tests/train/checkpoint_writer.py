"""What ``test_checkpoints_killed`` kills."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from peephole.train.checkpoints import Checkpoints

# What a killed process wrote is there, synced or not, and syncing would take nearly all the time.
os.fsync = lambda handle: None


@dataclass(frozen=True)
class State:
    update: int
    text: str


def tensors(update: int) -> dict[str, torch.Tensor]:
    """Of more than a page, so that a write of them has a middle."""
    return {f"model.{k}": torch.full((300, 70), update + k) for k in range(3)}


def work(run: str, log: str) -> None:
    """Go on from the newest checkpoint: write the next two, and the last one again."""
    store = Checkpoints(Path(run), State, keep=2)
    newest, damaged = store.newest()
    assert not damaged, damaged
    last = newest.update if newest else 0
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for update in (last + 1, last + 2, last + 2):
        store.write(update, tensors(update), State(update, "x" * 9999), best=update // 5 * 5)
        os.write(written, f"{update}\n".encode())
