"""A run from a stranger that asks for a vast network: one clear line before memory is taken."""

import contextlib
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from peephole.cli import main
from peephole.errors import UserError
from peephole.jobs import sizes, table, text
from peephole.jobs.training import Watch
from tests.helpers.errors import raises
from tests.helpers.lives import live
from tests.jobs.test_resume import Stop
from tests.jobs.test_table import SHORT as TABLE_SHORT
from tests.jobs.test_table import SMALL as TABLE_SMALL
from tests.jobs.test_table import shifts, write
from tests.jobs.test_text import SHORT, SMALL
from tests.tasks.text.texts import words

VAST = {"layers": 64, "hidden-size": 16_384}
# More than anything here takes, and less than a layer of the vast network.
LIMIT = 1 << 31

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory by /proc")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a finished run of each kind, and one that was interrupted."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text").write_text(words(2000))
    write(folder / "table.csv", shifts())
    stopped = Watch(on_event=_stop)
    options: dict[str, Any] = {"model": SMALL, "training": replace(SHORT, checkpoint_seconds=0)}
    text.train(folder / "text", out=folder / "text-finished", **options)
    with pytest.raises(Stop):
        text.train(folder / "text", out=folder / "text-stopped", watch=stopped, **options)
    options |= {"model": TABLE_SMALL, "training": replace(TABLE_SHORT, checkpoint_seconds=0)}
    options |= {"target": "label", "sequence": "id", "order": "t"}
    table.train(folder / "table.csv", out=folder / "table-finished", **options)
    with pytest.raises(Stop):
        table.train(folder / "table.csv", out=folder / "table-stopped", watch=stopped, **options)
    return folder


def _stop(event: dict[str, Any]) -> None:
    # There are checkpoints of the updates before.
    if event["update"] >= 2:
        raise Stop


def limited(said: Path, memory: float, command: list[str]) -> None:
    """Run a command that gets little more memory than this process has, on a machine of much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sizes._memory = lambda: int(memory)
    with said.open("w") as file, contextlib.redirect_stderr(file):
        raise SystemExit(main(command))


def told(folder: Path, memory: float, *command: str) -> str:
    """What a command ends with in such a process."""
    said = folder / "said"
    assert live(limited, said, memory, list(command)) == 2
    (line,) = said.read_text().splitlines()
    return line


def change(run: Path, part: str, **settings: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[part] |= settings
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def vast(runs: Path, name: str, folder: Path) -> Path:
    """A copy of a run that asks for it."""
    run = folder / name
    shutil.copytree(runs / name, run)
    change(run, "model", **VAST)
    file = run / "model" / "config.json"
    if file.exists():
        held = json.loads(file.read_text())
        settings = held["network" if "network" in held else "settings"]
        settings |= {option.replace("-", "_"): value for option, value in VAST.items()}
        file.write_text(json.dumps(held))
    return run


@linux
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("text-finished", ["sample", "RUN", "--length", "9"]),
        ("text-finished", ["evaluate", "RUN", "text"]),
        ("table-finished", ["evaluate", "RUN", "table.csv"]),
        ("table-finished", ["predict", "RUN", "table.csv", "--out", "OUT"]),
    ],
)
def test_a_finished_run(runs: Path, tmp_path: Path, name: str, command: list[str]) -> None:
    run = vast(runs, name, tmp_path)
    places = {"RUN": str(run), "OUT": str(tmp_path / "out.csv")}
    there = {word: str(runs / word) for word in ("text", "table.csv")}
    line = told(tmp_path, 1e18, *((places | there).get(word, word) for word in command))
    file = run / "model" / "model.safetensors"
    assert f"{file} does not go with the model's settings: it lacks " in line


@linux
@pytest.mark.parametrize(("kind", "file"), [("text", "text"), ("table", "table.csv")])
@pytest.mark.parametrize("memory", [64e9, 1e18])
def test_a_run_to_resume(runs: Path, tmp_path: Path, kind: str, file: str, memory: float) -> None:
    run = vast(runs, f"{kind}-stopped", tmp_path)
    line = told(tmp_path, memory, "train", kind, str(runs / file), "--resume", str(run))
    if memory == 64e9:
        assert " GB of memory, and this machine has 64 GB: fewer layers or units take less" in line
        return
    newest = max((run / "checkpoints").iterdir()) / "tensors.safetensors"
    assert f"{newest} does not go with the run's settings: it lacks 'model." in line


def stopped(runs: Path, folder: Path) -> Path:
    return Path(shutil.copytree(runs / "text-stopped", folder / "run"))


def test_of_several_checkpoints_one_that_fits_will_do(runs: Path, tmp_path: Path) -> None:
    """A damaged one may have any shapes: it is told, and the one before serves."""
    run = stopped(runs, tmp_path)
    newest, before = sorted((run / "checkpoints").iterdir(), reverse=True)[:2]
    held = load_file(newest / "tensors.safetensors")
    held["model.output_bias"] = torch.zeros(9)
    save_file(held, newest / "tensors.safetensors")
    said: list[str] = []
    text.resume(run, runs / "text", watch=Watch(say=said.append))
    assert any(line.startswith(f"{newest} is damaged") for line in said)
    assert any(line.startswith(f"resumed from {before}") for line in said)


def test_none_of_the_checkpoints_can_be_read(runs: Path, tmp_path: Path) -> None:
    run = stopped(runs, tmp_path)
    for path in (run / "checkpoints").iterdir():
        (path / "tensors.safetensors").write_bytes(b"x" * 100)
    newest = max((run / "checkpoints").iterdir())
    with pytest.raises(UserError, match=f"cannot read {newest}/tensors.safetensors: "):
        text.resume(run, runs / "text")


@pytest.mark.parametrize(
    ("part", "name"), [("model", "hidden-size"), ("model", "dropout"), ("train", "updates")]
)
def test_a_run_leaves_nothing_to_be_measured(
    runs: Path, tmp_path: Path, part: str, name: str
) -> None:
    run = stopped(runs, tmp_path)
    change(run, part, **{name: None})
    message = f"{run}/config.yaml: {part}.{name} is null; a run that began has it"
    with raises(message, UserError):
        text.resume(run, runs / "text")


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_more_than_this_machine_has(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: float
) -> None:
    """Weights, gradients and the two moments, in bytes, and the average where there is one."""
    run = text.open_run(runs / "text-finished")[1]
    weights = 4 * sum(p.numel() for p in run.parameters())
    needed = weights * (4 + (average > 0))
    options = {"model": SMALL, "training": replace(SHORT, average=average, updates=1)}
    monkeypatch.setattr(sizes, "_memory", lambda: needed - 1)
    with pytest.raises(UserError, match="GB of memory, and this machine has"):
        text.train(runs / "text", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(sizes, "_memory", lambda: needed)
    text.train(runs / "text", out=tmp_path / "run", **options)


def test_this_machine_has_some_memory() -> None:
    assert 1 << 28 < sizes._memory() < 1 << 50
