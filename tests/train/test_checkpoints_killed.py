"""A process that writes checkpoints is killed, at every instant."""

import random
from pathlib import Path

import torch

from peephole.tensors import Form
from peephole.train.checkpoints import Checkpoints
from tests.helpers.forks import Forks
from tests.train.checkpoint_writer import State, tensors

WRITER = "tests.train.checkpoint_writer"


def check(run: Path, log: Path) -> int:
    """The newest checkpoint is whole, and no older than the last whose writing returned."""
    newest, damaged = Checkpoints(run, State).newest()
    assert not damaged
    returned = [int(line) for line in log.read_text().splitlines()] if log.exists() else []
    if newest is None:
        assert not returned
        return 0
    assert newest.update >= max(returned, default=0)
    wanted = tensors(newest.update)
    found = newest.tensors({name: Form.of(tensor) for name, tensor in wanted.items()})
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert newest.state == State(newest.update, "x" * 9999)
    return newest.update


def settle(run: Path, log: Path) -> None:
    """After a write that was not disturbed nothing is left over, and what must be kept is."""
    last = check(run, log)
    kept = {last - 1, last, (last - 1) // 5 * 5, last // 5 * 5} - {-1, 0}
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == [f"update-{update:09d}" for update in sorted(kept)]


def test_before_each_thing_it_does_to_files(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = tmp_path / "run"
    run.mkdir()
    with Forks(WRITER, run, log) as forks:
        touches = 1
        while not forks.run(touches):
            check(run, log)
            touches += 1
        settle(run, log)
        assert touches > 50


def test_at_random_instants(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = tmp_path / "run"
    run.mkdir()
    instants = random.Random(0)
    with Forks(WRITER, run, log) as forks:
        for _ in range(40):
            forks.run_for(instants.uniform(0, 0.05))
            check(run, log)
        assert forks.run()
        settle(run, log)
    assert check(run, log) > 10
