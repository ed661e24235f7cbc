"""Checkpoints whose digests are right and which say what cannot be: one clear line each."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from peephole.errors import UserError
from tests.helpers.errors import raises
from tests.helpers.training import train

UPDATE = 5


def begun(run: Path, task: str) -> Path:
    """A run's newest checkpoint."""
    train(run, task, 0.0, epochs=2, updates=UPDATE)
    return run / "checkpoints" / f"update-{UPDATE:09d}"


def seal(path: Path) -> None:
    names = ("tensors.safetensors", "state.json")
    lines = [f"{sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (path / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": 10**17}, "update is 100000000000000000; it must be 5"),
        ({"update": -7}, "update is -7; it must be 5"),
        ({"planned": -1}, "planned is -1; it must be at least 0"),
        ({"epoch": -1}, "epoch is -1; it must be at least 0"),
        ({"batch": -3}, "batch is -3; it must be at least 0"),
        ({"targets": -1}, "targets is -1; it must be at least 0"),
        ({"events_bytes": -1}, "events_bytes is -1; it must be at least 0"),
        ({"carried": 10**15}, "carried is 1000000000000000; it must be at most 1000"),
        ({"planned": 0}, "planned is 0; it must be at least 1"),
        ({"best": {"update": 5, "loss": 1.0}}, "best['epoch'] is 'missing'; it must be a number"),
        ({"seconds": {"not-finite": "nan"}}, "seconds is nan; it must be a time"),
        ({"best": {"loss": 1.0}}, "best['update'] is null; it must be between 0 and 5"),
        ({"best": {"update": 6}}, "best['update'] is 6; it must be between 0 and 5"),
        ({"best": {"update": 5}}, "best['loss'] is 'missing'; it must be a number"),
        ({"best": {"update": 5, "loss": "x"}}, "best['loss'] is 'x'; it must be a number"),
    ],
)
def test_a_position_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = begun(tmp_path, "sums")
    held = json.loads((path / "state.json").read_text())
    held["state"].update(changes)
    (path / "state.json").write_text(json.dumps(held))
    seal(path)
    with raises(f"{path}: {message}", UserError):
        train(tmp_path, "sums", 0.0, epochs=2)


def test_a_position_in_other_data(tmp_path: Path) -> None:
    path = begun(tmp_path, "sums")
    held = json.loads((path / "state.json").read_text())
    held["state"]["batch"] = 10**9
    (path / "state.json").write_text(json.dumps(held))
    seal(path)
    with raises(
        "the checkpoint is of other data: it was after 1,000,000,000 updates of epoch 0, which has "
        "7",
        UserError,
    ):
        train(tmp_path, "sums", 0.0, epochs=2)


def without(end: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda held: {name: value for name, value in held.items() if not name.endswith(end)}


def states(*shapes: tuple[int, ...]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda held: held | {f"state.{k}": torch.zeros(s) for k, s in enumerate(shapes)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("0.exp_avg_sq"), " lacks 'optimizer.0.exp_avg_sq'"),
        (without("1.step"), " lacks 'optimizer.1.step'"),
        (without("state.1"), " lacks 'state.1'"),
        (states((), ()), " has states of [()] streams"),
        (states((6, 5), (3, 5)), " has states of [(3,), (6,)] streams"),
        (states((0, 5), (0, 5)), " has states of [(0,)] streams"),
        (
            lambda held: held | {f"state.{'9' * 5000}": torch.zeros(1)},
            "/tensors.safetensors does not go with the run's settings: it has 'state."
            + "9" * 50
            + "..., which does not belong there",
        ),
        (
            lambda held: held | {f"optimizer.{'9' * 5000}.step": torch.zeros(1)},
            " lacks 'optimizer." + "9" * 46 + "...",
        ),
    ],
)
def test_tensors_that_are_not_complete(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    path = begun(tmp_path, "stream")
    file = path / "tensors.safetensors"
    save_file(change(load_file(file)), file)
    seal(path)
    with raises(f"{path}{message}", UserError):
        train(tmp_path, "stream", 0.0, epochs=2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state[:1],
        lambda state: torch.zeros(len(state), 9),
        lambda state: state.long(),
    ],
    ids=["rows", "width", "dtype"],
)
def test_states_that_do_not_fit(tmp_path: Path, spoil: Callable[[Tensor], Tensor]) -> None:
    path = begun(tmp_path, "stream")
    file = path / "tensors.safetensors"
    held = load_file(file)
    spoiled = {k: spoil(v).contiguous() for k, v in held.items() if k.startswith("state.")}
    save_file(held | spoiled, file)
    seal(path)
    with raises("the states in the checkpoint do not fit the model", UserError):
        train(tmp_path, "stream", 0.0, epochs=2)
