"""Checkpoints of a small training."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from peephole.tensors import Form
from peephole.train.checkpoints import Checkpoints

FILES = ("tensors.safetensors", "state.json", "SHA256SUMS")


@dataclass(frozen=True)
class Settings:
    rate: float
    name: str


@dataclass(frozen=True)
class State:
    update: int
    best: dict[str, float] | None
    numbers: tuple[float, ...]
    settings: Settings


STATE = State(3, {"loss": 0.1}, (1.0, 2.5), Settings(0.01, "adam"))
TENSORS = {
    "model.weight": torch.linspace(-1, 1, 60).reshape(5, 12),
    "model.half": torch.linspace(-1, 1, 3).bfloat16(),
    "optimizer.step": torch.tensor(7),
    "state.h": torch.zeros(0, 4, dtype=torch.float64),
    "state.mask": torch.tensor([True, False, True]),
}
FORMS = {name: Form.of(tensor) for name, tensor in TENSORS.items()}


def store(run: Path, keep: int = 2) -> Checkpoints[State]:
    return Checkpoints(run, State, keep)


def write(run: Path, *updates: int, best: int | None = None, keep: int = 2) -> Path:
    path = run
    for update in updates:
        state = replace(STATE, update=update)
        path = store(run, keep).write(update, TENSORS, state, best=best)
    return path


def updates(run: Path) -> list[int]:
    """Those that are there, by their names."""
    return sorted(int(path.name.removeprefix("update-")) for path in entries(run))


def entries(run: Path) -> Iterable[Path]:
    return (run / "checkpoints").iterdir()


def newest(run: Path) -> tuple[int | None, list[str]]:
    checkpoint, damaged = store(run).newest()
    return None if checkpoint is None else checkpoint.update, damaged


def untouched(run: Path) -> None:
    assert sorted(path.name for path in entries(run)) == ["update-000000003", "update-000000009"]
    assert newest(run) == (9, [])
