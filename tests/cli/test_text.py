"""A person's own text, from the command line: the whole way, and what can go wrong on it."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from peephole.cli import main
from peephole.cli.text import train_options
from peephole.jobs import text
from peephole.jobs.text import budget as budgets
from peephole.tasks.text.task import TextTask
from tests.tasks.text.texts import words

FAST = ["--model.hidden-size", "12", "--train.updates", "20", "--train.window", "16"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "words.txt").write_text(words(2000))
    command = ["train", "text", str(folder / "words.txt"), *FAST, "--out", str(folder / "run")]
    assert main(command) == 0
    return folder


class TestTrain:
    def test_it_prints_what_it_does_samples_and_the_score(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "t").write_text(words(2000))
        command = ["train", "text", str(tmp_path / "t"), *FAST, "--out", str(tmp_path / "run")]
        assert main(command) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        for part in ("2,000 characters, 6 distinct", "held out", "20 updates", "nats a character"):
            assert part in captured.out
        events = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        samples = [e["text"] for e in map(json.loads, events) if e["event"] == "sample"]
        assert samples
        for sample in samples:
            assert f"    {sample.splitlines()[0]}\n" in captured.out
        assert captured.out.splitlines()[-1] == f"Try: peephole sample {tmp_path / 'run'}"

    def test_a_runs_config_makes_the_same_run(self, trained: Path, tmp_path: Path) -> None:
        command = ["train", "text", "--config", str(trained / "run" / "config.yaml")]
        assert main([*command, "--out", str(tmp_path / "again")]) == 0
        first, again = (
            json.loads((run / "metrics.json").read_text())
            for run in (trained / "run", tmp_path / "again")
        )
        assert {k: v for k, v in again.items() if k != "seconds"} == {
            k: v for k, v in first.items() if k != "seconds"
        }

    @pytest.mark.parametrize("same", [True, False])
    def test_what_torchrun_starts_again_measures_nothing_anew(
        self,
        same: bool,
        tmp_path: Path,
        attempt: Callable[[int], None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """On a machine that would be three times as fast by now."""
        speeds = iter([1e3, 1e3, 3e3, 3e3])
        monkeypatch.setattr(budgets, "speed", lambda *_: next(speeds))
        evaluate, run = TextTask.evaluate, tmp_path / "run"

        def stop(*given: Any) -> dict[str, float]:
            os.kill(os.getpid(), signal.SIGTERM)
            return evaluate(*given)

        (tmp_path / "t").write_text(words(20_000))
        command = ["train", "text", str(tmp_path / "t"), "--budget", "20s", "--out", str(run)]
        with monkeypatch.context() as once:
            once.setattr(TextTask, "evaluate", stop)
            assert main(command) == 143
        attempt(1)
        capsys.readouterr()
        if not same:
            assert main([*command, "--model.layers", "1"]) == 2
            message = f"--out: {run} is a run of other settings that was interrupted"
            assert message in capsys.readouterr().err
            return
        assert main(command) == 0
        assert "resumed from" in capsys.readouterr().out
        assert next(speeds) == 3e3

    def test_options_are_the_settings(self) -> None:
        parser = train_options("train text", "")
        options = parser.parse_args([])
        for group, settings in (("model", text.ModelSettings), ("train", text.TrainSettings)):
            given = dict(vars(options[group]))
            assert set(given) == {field.name for field in fields(settings)}
            if group == "model":
                given["peephole"] = None
            assert settings(**given) == settings()

    @pytest.mark.parametrize(
        ("words_given", "message"),
        [
            (["gone.txt"], "FILE: there is no file or folder gone.txt"),
            (["t", "--unit", "word"], "--unit: 'word' is not one of 'char', 'byte'"),
            (["t", "--budget", "soon"], "--budget: 'soon' is no time; write it as 90s, 5m"),
            (["t", "--model.dropout", "nan"], "--model.dropout: 'nan' is not a number"),
            (["t", "--train.clip", "-1"], "--train.clip: '-1' is not a number above 0"),
            (["t", "--train.window", "9999"], "give more text, or a smaller --train.window"),
            (["t", "--model.tied", "yes", "--model.embedding-size", "3", *FAST], "--model.tied:"),
        ],
    )
    def test_errors_are_one_line(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        words_given: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("t").write_text(words(2000))
        assert main(["train", "text", *words_given]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("peephole train text: ")
        assert message in error

    def test_what_standard_output_lacks_ends_no_training(self, tmp_path: Path) -> None:
        (tmp_path / "t").write_text("é€ù" * 300, encoding="utf-8")
        command = ["train", "text", str(tmp_path / "t"), *FAST, "--out", str(tmp_path / "run")]
        done = subprocess.run(
            [sys.executable, "-m", "peephole", *command],
            env=os.environ | {"PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert "\\u20ac" in done.stdout.decode("latin-1")
        assert "é" in done.stdout.decode("latin-1")

    def test_names_that_are_no_text(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
        try:
            Path(file).write_text(words(2000))
        except OSError:
            pytest.skip("this file system has no such names")
        for _ in range(2):
            command = ["train", "text", file, *FAST, "--out", str(tmp_path / "run"), "--overwrite"]
            assert main(command) == 0
        assert "made anew" not in capsys.readouterr().out

    def test_no_text_at_all(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "b").write_bytes(b"\xff\xfe")
        assert main(["train", "text", str(tmp_path / "b")]) == 2
        error = capsys.readouterr().err
        assert "its byte 1 is 0xff, which is not UTF-8" in error
        assert "(--unit byte)" in error


class TestSample:
    def sample(self, trained: Path, *options: str) -> list[str]:
        return ["sample", str(trained / "run"), *options]

    def test_it_writes_after_the_prompt(
        self, trained: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(self.sample(trained, "--prompt", "bad", "--length", "30", "--seed", "7")) == 0
        wanted = "".join(text.sample(trained / "run", prompt="bad", length=30, seed=7))
        assert capsys.readouterr().out == f"bad{wanted}\n"

    def test_several_have_seeds_of_their_own(
        self, trained: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(self.sample(trained, "--length", "20", "--seed", "3", "--count", "2")) == 0
        texts = ["".join(text.sample(trained / "run", length=20, seed=3 + k)) for k in range(2)]
        assert capsys.readouterr().out == f"{texts[0]}\n\n{texts[1]}\n"

    def test_a_prompt_from_standard_input(
        self,
        trained: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"dad. a")))
        assert main(self.sample(trained, "--prompt", "-", "--length", "5")) == 0
        assert capsys.readouterr().out.startswith("dad. a")

    def test_standard_input_is_read_as_it_is(
        self,
        trained: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for stream, message in (
            (io.TextIOWrapper(io.BytesIO(b"ab\r\n")), r"never seen '\r\n'"),
            (io.TextIOWrapper(io.BytesIO(b"a\xff"), "utf-8"), r"never seen '\udcff'"),
            (None, "--prompt: there is no standard input to read it from"),
        ):
            monkeypatch.setattr(sys, "stdin", stream)
            assert main(self.sample(trained, "--prompt", "-")) == 2
            assert message in capsys.readouterr().err

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
    def test_what_cannot_be_written_is_told(self, trained: Path) -> None:
        command = [sys.executable, "-m", "peephole", *self.sample(trained)]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 2
        assert done.stderr.decode() == (
            "peephole sample: cannot write to standard output: No space left on device\n"
        )

    def test_it_goes_on_until_nobody_reads(self, trained: Path) -> None:
        words_given = self.sample(trained, "--length", "none", "--prompt", "bad")
        command = [sys.executable, "-m", "peephole", *words_given]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(2000).startswith(b"bad")
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 0

    def test_greedy_does_not_depend_on_the_seed(
        self, trained: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for seed in "12":
            assert main(self.sample(trained, "--temperature", "0", "--seed", seed)) == 0
        out = capsys.readouterr().out
        assert out[: len(out) // 2] == out[len(out) // 2 :]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--prompt", "xyz"], "--prompt: the model has never seen 'xyz'; it knows ' .abcd'"),
            (["--temperature", "-1"], "--temperature: '-1' is not a number at least 0"),
            (["--temperature", "nan"], "--temperature: 'nan' is not a number at least 0"),
            (["--top-k", "0"], "--top-k: '0' is not a whole number of at least 1"),
            (["--top-k", "7"], "--top-k: 7; the model's alphabet has 6: it must be from 1 to that"),
            (["--top-p", "nan"], "--top-p: 'nan' is not a number above 0"),
            (["--top-p", "2"], "--top-p: 2.0; it must be above 0 and at most 1"),
            (["--length", "-1"], "--length: '-1' is not a whole number of at least 0"),
            (["--count", "0"], "--count: '0' is not a whole number of at least 1"),
        ],
    )
    def test_errors_are_one_line(
        self,
        trained: Path,
        capsys: pytest.CaptureFixture[str],
        options: list[str],
        message: str,
    ) -> None:
        assert main(self.sample(trained, *options)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"peephole sample: {message}")
        assert captured.err.count("\n") == 1

    def test_a_terminal_gets_nothing_that_steers_it(self) -> None:
        from peephole.cli.text import _Out

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        for stream, wanted in (
            (Terminal(), "a\\x1b[2J\n\tb\\x07é"),
            (io.StringIO(), "a\x1b[2J\n\tb\x07é"),
        ):
            out = _Out(stream)
            out.write("a\x1b[2J\n\t")
            out.write("b\x07é")
            assert stream.getvalue() == wanted

    def test_what_an_encoding_lacks_is_replaced(self) -> None:
        from peephole.cli.text import _Out

        raw = io.BytesIO()
        out = _Out(io.TextIOWrapper(raw, encoding="ascii"))
        out.write("é!")
        out.flush()
        assert raw.getvalue() == b"?!"


class TestEvaluate:
    def test_it_tells_nats_bits_and_what_others_compress_to(
        self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "t").write_text(words(700) + "€")
        command = ["evaluate", str(trained / "run"), str(tmp_path / "t"), "--dynamic"]
        assert main(command) == 0
        out = capsys.readouterr().out
        scores = text.evaluate(trained / "run", tmp_path / "t", dynamic=True)
        assert scores.dynamic is not None
        rows = {
            line.rsplit(maxsplit=2)[0].strip(): line.split()[-2:]
            for line in out.splitlines()
            if line
        }
        assert rows["nats a character"] == [f"{scores.nats:.4g}", f"{scores.dynamic.mean:.4g}"]
        assert rows["bits a character"][0] == f"{scores.bits:.4g}"
        assert rows["perplexity of a character"][0] == f"{scores.perplexity:.4g}"
        assert rows["gzip -9"][0] == f"{8 * scores.gzip:,}"
        assert rows["xz -9e"][0] == f"{8 * scores.xz:,}"
        assert rows["the file"] == [f"{8 * 703:,}", "8"]
        assert rows["the model, learning"][0] == f"{round(8 * scores.compressed(scores.dynamic)):,}"
        assert "701 characters, 1 of them unknown" in out

    def test_a_run_of_another_task_goes_its_own_way(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [f"s{k},{k % 2 + t},{'ab'[k % 2]}" for k in range(12) for t in range(2)]
        (tmp_path / "t.csv").write_text("\n".join(["id,x,label", *rows]) + "\n")
        file, run = str(tmp_path / "t.csv"), str(tmp_path / "run")
        columns = ["--target", "label", "--sequence", "id"]
        command = ["train", "table", file, *columns, "--train.epochs", "1", "--out", run]
        assert main(command) == 0
        assert main(["evaluate", run, file]) == 0
        assert "accuracy" in capsys.readouterr().out
        assert main(["evaluate", run, file, "--dynamic"]) == 2
        assert "--dynamic: it is for runs of texts" in capsys.readouterr().err
        assert main(["sample", run]) == 2
        assert "is a run of 'table' and not of a text" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--missing", "mean"], "--missing: it is for runs of tables, and this one is of a"),
            (["--rate", "1"], "--rate: it is the rate of --dynamic; give that too, or leave it"),
            (["--dynamic", "--rate", "1e30"], "--rate: 1e+30; learning so fast, the model div"),
        ],
    )
    def test_options_that_do_not_go_with_it(
        self,
        trained: Path,
        capsys: pytest.CaptureFixture[str],
        options: list[str],
        message: str,
    ) -> None:
        command = ["evaluate", str(trained / "run"), str(trained / "words.txt"), *options]
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"peephole evaluate: {message}")

    def test_a_run_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", "gone", "t"]) == 2
        assert capsys.readouterr().err == "peephole evaluate: there is no run gone\n"


def test_a_training_keeps_the_memory_that_it_frees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each update would wait for some thousand pages otherwise."""
    kept: list[bool] = []
    monkeypatch.setattr("peephole.jobs.memory.keep_memory", lambda: kept.append(True))
    assert main(["train", "text", str(tmp_path / "none.txt")]) == 2
    assert kept == [True]


def test_yaml_of_a_run_holds_plain_values(trained: Path) -> None:
    config = yaml.safe_load((trained / "run" / "config.yaml").read_text())
    assert config["file"] == str(trained / "words.txt")
    assert config["train"]["updates"] == 20
