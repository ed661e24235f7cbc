"""A training that was interrupted goes on from the command line, and is watched."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from peephole.cli import main
from peephole.jobs.runs import look
from peephole.run import state
from peephole.tasks.table.task import SequencesTask
from tests.cli.test_table import COLUMNS, rows_of, write
from tests.jobs.test_killed import timeless

FAST = ["--train.epochs", "4", "--model.hidden-size", "4", "--train.batch-size", "3"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write(tmp_path / "data.csv", rows_of())


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train until an update, in which a signal comes; gives the exit status."""
    plain = SequencesTask.loss

    def train(words: list[str], at: int, number: int) -> int:
        calls = iter(range(10**6))

        def loss(self: Any, *given: Any) -> Any:
            if next(calls) == at:
                os.kill(os.getpid(), number)
            return plain(self, *given)

        monkeypatch.setattr(SequencesTask, "loss", loss)
        status = main(words)
        monkeypatch.setattr(SequencesTask, "loss", plain)
        return status

    return train


def begin(data: str, run: Path) -> list[str]:
    return ["train", "table", data, *COLUMNS, *FAST, "--out", str(run)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_and_on(
    number: signal.Signals,
    data: str,
    tmp_path: Path,
    stop: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert stop(begin(data, run), 5, number) == 128 + number
    err = capsys.readouterr().err
    again = f"peephole train table {data} --resume {run}"
    assert err == f"peephole train table: stopped by {number.name}; {run} can be resumed: {again}\n"
    assert state(run) == "interrupted"
    assert main(["train", "table", data, "--resume", str(run)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"resumed from {run}/checkpoints/update-000000006, after 6 updates" in captured.out
    assert captured.out.splitlines()[-1].startswith(str(run / "report.html"))
    assert main(begin(data, tmp_path / "whole")) == 0
    for name in ("model/model.safetensors", "model/config.json", "config.yaml"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "0"], "--seed: leave it out; a run that is resumed keeps its settings"),
        (["--target", "x"], "--target: leave it out; a run that is resumed keeps its settings"),
        (["--model.layers", "2"], "--model.layers: leave it out"),
        (["--train.epochs", "9"], "--train.epochs: leave it out"),
        (["--overwrite"], "--overwrite: leave it out"),
        (["--test", "DATA"], "--test: RUN was begun without one: leave it out"),
    ],
)
def test_options_that_belong_to_the_run(
    words: list[str],
    message: str,
    data: str,
    tmp_path: Path,
    stop: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    stop(begin(data, run), 3, signal.SIGTERM)
    capsys.readouterr()
    words = [word.replace("DATA", data) for word in words]
    assert main(["train", "table", data, "--resume", str(run), *words]) == 2
    assert message.replace("RUN", str(run)) in capsys.readouterr().err
    assert state(run) == "interrupted"


def test_what_may_be_given_anew(
    data: str, tmp_path: Path, stop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    stop([*begin(data, run), "--train.on-nonfinite", "skip"], 3, signal.SIGTERM)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("device: cpu", "device: cuda"))
    if not torch.cuda.is_available():
        assert main(["train", "table", data, "--resume", str(run)]) == 2
        assert "--train.device: 'cuda', but torch sees no GPU" in capsys.readouterr().err
    anew = ["--train.device", "cpu", "--train.on-nonfinite", "stop"]
    assert main(["train", "table", data, "--resume", str(run), *anew]) == 0


@pytest.mark.parametrize("same", [True, False])
def test_what_torchrun_starts_again_goes_on_in_its_own_run(
    same: bool,
    data: str,
    tmp_path: Path,
    stop: Any,
    attempt: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    stop([*begin(data, run), "--overwrite"], 3, signal.SIGTERM)
    attempt(1)
    capsys.readouterr()
    words = [*begin(data, run), "--overwrite"]
    assert main(words if same else [*words, "--train.learning-rate", "0.5"]) == (0 if same else 2)
    captured = capsys.readouterr()
    if same:
        assert "resumed from" in captured.out
    else:
        assert f"--out: {run} is a run of other settings that was interrupted" in captured.err


def test_what_torchrun_starts_again_leaves_an_older_run(
    data: str,
    tmp_path: Path,
    stop: Any,
    attempt: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those before were lost before they began theirs."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as alone:
        alone.delenv("TORCHELASTIC_USE_AGENT_STORE")
        stop(begin(data, run), 3, signal.SIGTERM)
    attempt(1)
    capsys.readouterr()
    assert main(begin(data, run)) == 2
    assert f"{run} is a run that was interrupted; resume it" in capsys.readouterr().err
    assert main([*begin(data, run), "--overwrite"]) == 0
    assert "resumed from" not in capsys.readouterr().out


@pytest.mark.parametrize("way", ["--out", "--overwrite", "--resume"])
def test_what_torchrun_starts_again_after_its_end_is_done(
    way: str,
    data: str,
    tmp_path: Path,
    stop: Any,
    attempt: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    words = [*begin(data, run), *(["--overwrite"] if way == "--overwrite" else [])]
    if way == "--resume":
        stop(words, 3, signal.SIGTERM)
        words = ["train", "table", data, "--resume", str(run)]
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    attempt(1)
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr() == (f"{run} is finished\n", "")
    with pytest.MonkeyPatch.context() as other:
        other.setenv("RANK", "1")
        assert main(words) == 0
    assert capsys.readouterr() == ("", "")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_what_cannot_be_resumed(
    data: str, tmp_path: Path, stop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, none = tmp_path / "run", tmp_path / "none"
    test = write(tmp_path / "test.csv", rows_of(seed=1))
    stop([*begin(data, run), "--test", test], 3, signal.SIGTERM)
    capsys.readouterr()
    other = write(tmp_path / "other.csv", rows_of(seed=2))
    for words, message in (
        ([data, "--resume", str(none)], f"there is no run {none}"),
        ([data, "--resume", str(run)], f"--test: not given; {run} was begun with one: give it"),
        (
            [other, "--test", test, "--resume", str(run)],
            f"FILE: it does not hold what it held when {run} was begun",
        ),
        ([data, "--test", data, "--resume", str(run)], "--test: it does not hold what it held"),
    ):
        assert main(["train", "table", *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "table", data, "--test", test, "--resume", str(run)]) == 0
    capsys.readouterr()
    assert main(["train", "table", data, "--test", test, "--resume", str(run)]) == 2
    assert f"{run} is finished: there is nothing to resume" in capsys.readouterr().err


def test_a_run_that_diverged_goes_on_past_a_bad_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of()
    for row in rows:
        row["x"] += 1000.0 * (row["id"] == "s4")
    data, plain = write(tmp_path / "data.csv", rows), SequencesTask.loss

    def loss(self: Any, model: Any, batch: Any, state: Any) -> Any:
        found = plain(self, model, batch, state)
        bad = batch.numbers.values.max() > 2
        return found._replace(total=found.total * torch.nan) if bad else found

    monkeypatch.setattr(SequencesTask, "loss", loss)
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert main([*begin(data, run), "--train.checkpoint-seconds", "0"]) == 2
    err = capsys.readouterr().err
    assert "sequence 's4'" in err
    assert main(["runs", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "diverged"
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["what"] in err
    skip = ["--train.on-nonfinite", "skip"]
    assert main(["train", "table", data, "--resume", str(run), *skip]) == 0
    assert main([*begin(data, whole), *skip]) == 0
    assert timeless(run) == timeless(whole)
    assert look(run).state == "finished"


def test_a_strangers_paths_are_not_followed(
    data: str, tmp_path: Path, stop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run, secret = tmp_path / "run", tmp_path / "secret.csv"
    stop(begin(data, run), 3, signal.SIGTERM)
    secret.write_text("password\nhunter2\n")
    config = yaml.safe_load((run / "config.yaml").read_text())
    trap = tmp_path / "elsewhere" / "cache"
    config |= {"file": str(secret), "cache": str(trap), "valid": None}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    capsys.readouterr()
    assert main(["train", "table", data, "--resume", str(run)]) == 0
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err + (run / "report.html").read_text()
    assert not trap.exists()


def test_a_damaged_checkpoint_is_named(
    data: str, tmp_path: Path, stop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = [*begin(data, run), "--train.checkpoint-seconds", "0"]
    stop(words, 5, signal.SIGTERM)
    capsys.readouterr()
    newest = max((run / "checkpoints").iterdir())
    tensors = newest / "tensors.safetensors"
    data_of = bytearray(tensors.read_bytes())
    data_of[-1] ^= 1
    tensors.write_bytes(data_of)
    assert main(["train", "table", data, "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert f"{newest} is damaged" in out
    assert f"resumed from {run}/checkpoints/update-000000005, after 5 updates" in out


def test_tensorboard_and_a_profile(data: str, tmp_path: Path, stop: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    extra = ["--log", "tensorboard", "--profile"]
    assert stop([*begin(data, run), *extra], 7, signal.SIGTERM) == 143
    assert main(["train", "table", data, "--resume", str(run), *extra]) == 0
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    drawn = {point.step: point.value for point in accumulator.Scalars("evaluation/loss")}
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    known = {line["update"]: line["loss"] for line in lines if line["event"] == "evaluation"}
    assert drawn == pytest.approx(known, rel=1e-6)
    assert json.loads((run / "profile" / "trace.json").read_text())["traceEvents"]
    assert "aten::" in (run / "profile" / "operators.txt").read_text()


def test_a_log_that_is_not_installed(
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main([*begin(data, tmp_path / "run"), "--log", "tensorboard"]) == 2
    err = capsys.readouterr().err
    assert "--log: tensorboard is not installed; install it" in err
    assert not (tmp_path / "run").exists()
