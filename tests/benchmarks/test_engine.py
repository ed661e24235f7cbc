"""``python -m benchmarks engine``: all loops train, and what is counted is what happened."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import engine, watched
from benchmarks.__main__ import main
from benchmarks.peers.training import by_hand
from peephole.tasks.protocol import Loss
from peephole.tasks.toy import Toy
from peephole.train import Settings
from tests.helpers.training import Sums

QUICK = ["engine", "--sequences", "300", "--seconds", "0.01", "--rounds", "2", "--threads", "1"]


@pytest.fixture
def toy() -> Toy:
    return Toy(engine.MODEL, 300, 0)


def test_all_loops_train_alike(toy: Toy) -> None:
    calls = engine.loops(toy)
    assert list(calls) == ["fit", *engine.BARE]
    torch.manual_seed(engine.SEED)
    start = nn.utils.parameters_to_vector(toy.model().parameters())
    ends = [nn.utils.parameters_to_vector(call().parameters()) for call in calls.values()]
    for end in ends:
        torch.testing.assert_close(end, ends[0])
        assert not torch.allclose(end, start, rtol=0.01)


def test_a_loop_that_trains_otherwise_is_refused(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(model: nn.Module, batches: Any, rate: float) -> None:
        by_hand(model, batches, rate / 2)

    monkeypatch.setattr(engine, "with_optimizer", slower)
    with pytest.raises(ValueError, match=r"^fit trains to other weights: they are off by 0\."):
        engine.loops(toy)


def test_steps_are_those_that_the_kernels_are_told(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    exist = len(toy.train.inputs.values)
    found = engine.steps_figures(toy, engine.toy_settings(), exist)
    assert found == {"exist": exist, "computed": exist, "ratio": 1.0}

    class Padded(Toy):
        """Each sequence has as many steps as the longest."""

        def batches(self, shares: Iterable[Any]) -> Iterator[Any]:
            for batch in super().batches(shares):
                x = batch.inputs
                padded = x.to_padded().flatten(0, 1)
                ends = torch.arange(len(x) + 1) * x.max_length
                yield batch._replace(inputs=type(x)(padded, ends))

    padded = engine.steps_figures(Padded(engine.MODEL, 300, 0), engine.toy_settings(), exist)
    assert 1.2 < padded["ratio"] < 2


def test_vowels_have_their_form() -> None:
    task, settings = engine.vowels()
    lengths = task.train.numbers.lengths
    assert (int(lengths.min()), int(lengths.max())) == (7, 29)
    assert len(lengths) + len(task.valid.examples.numbers) == 270
    assert task.train.numbers.values.shape[1] == 12
    assert task.recipe.outputs == 9
    assert settings.batch_size == 16


def test_waiting_is_the_time_within_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Slow(Sums):
        """Its parts take 3, 1 and 100 seconds of that clock."""

        def batches(self, shares: Iterable[Any]) -> Iterator[Any]:
            for batch in super().batches(shares):
                clock[0] += 3
                yield batch

        def loss(self, *given: Any) -> Loss:
            clock[0] += 1
            return super().loss(*given)

        def evaluate(self, model: nn.Module) -> dict[str, float]:
            clock[0] += 100
            return {"loss": 0.0}

    monkeypatch.setattr(watched, "perf_counter", lambda: clock[0])
    found = watched.training(Slow(), Settings(epochs=2, batch_size=10, learning_rate=0.1))
    assert found == {"update_ms": 4000, "waiting": 0.75}


def test_appends_a_line_a_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "VOWELS", 36)
    out = tmp_path / "engine.jsonl"
    assert main([*QUICK, "--out", str(out)]) == 0
    toy, vowels = (json.loads(line) for line in out.read_text().splitlines())
    assert (toy["kind"], vowels["kind"]) == ("toy", "vowels")
    assert list(toy["times_us"]) == ["fit", *engine.BARE]
    assert toy["fastest"] in engine.BARE
    assert toy["steps"]["ratio"] == vowels["steps"]["ratio"] == 1
    assert 0 < vowels["waiting"]["median"] < 1
    printed = capsys.readouterr().out
    assert "The toy, 14 updates" in printed
    assert "of 3." in printed
