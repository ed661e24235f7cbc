"""A person's text, from files to what a model writes and what it costs."""

import gzip
import itertools
import json
import lzma
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import peephole
from peephole.errors import Interrupted, UserError
from peephole.jobs import text
from peephole.jobs.runs import look
from peephole.jobs.text import ModelSettings, TextRun, TrainSettings
from peephole.jobs.training import Watch
from peephole.run import Run
from tests.tasks.text.texts import words

SMALL = ModelSettings(hidden_size=12, layers=2, embedding_size=8)
SHORT = TrainSettings(streams=4, window=16, updates=30, learning_rate=0.02)
Train = Callable[..., TextRun]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Train for a moment, on 2,000 characters where nothing else is named."""

    def short(file: str | Path | None = None, **options: Any) -> TextRun:
        if file is None:
            file = tmp_path / "words.txt"
            file.write_text(words(2000))
        usual = {"model": SMALL, "training": SHORT, "out": tmp_path / "run"}
        return text.train(file, **(usual | options))

    return short


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TextRun:
    """A trained model that no test changes."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "words.txt").write_text(words(2000))
    return text.train(folder / "words.txt", model=SMALL, training=SHORT, out=folder / "run")


class TestTrain:
    def test_a_run_folder_holds_all(self, tmp_path: Path, train: Train) -> None:
        said: list[str] = []
        samples: list[str] = []
        events: list[Any] = []
        run = train(watch=Watch(say=said.append, on_event=events.append), on_sample=samples.append)
        assert said[:2] == [
            f"{tmp_path}/words.txt: 2,000 characters, 6 distinct",
            "held out: the last tenth, 200 characters",
        ]
        assert said[2].startswith("2 layers of 12 (")
        assert "30 updates of 4 x 16: 1.1 passes" in said[2]
        assert len(said) == 3
        lines = [json.loads(s) for s in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert [line["text"] for line in lines if line["event"] == "sample"] == samples
        evaluations = [line for line in lines if line["event"] == "evaluation"]
        assert [line["update"] for line in evaluations] == [event["update"] for event in events]
        assert len(evaluations) == len(samples) >= 5
        assert lines[-1] == {"event": "final"} | run.metrics
        assert json.loads((run.path / "metrics.json").read_text()) == run.metrics
        assert run.metrics["valid.targets"] == 200
        assert run.metrics["valid.bits"] == pytest.approx(run.metrics["valid.nats"] / math.log(2))
        assert run.metrics["updates"] == 30
        figures = {path.name for path in (run.path / "figures").iterdir()}
        assert figures == {"learning_curve.png", "position.png"}
        page = (run.path / "report.html").read_text()
        assert samples[-1].splitlines()[0].strip() in page
        # Else a browser makes one line of a sample.
        assert "td { white-space: pre-wrap; }" in page
        listed = look(run.path)
        assert (listed.state, listed.task, listed.update, listed.updates) == (
            "finished",
            "text",
            30,
            30,
        )

    def test_config_has_nothing_left_open(self, run: TextRun) -> None:
        config = yaml.safe_load((run.path / "config.yaml").read_text())
        assert config["unit"] == "char"
        assert config["budget"] == "5m"
        assert config["model"] == {
            "cell": "lstm",
            "hidden-size": 12,
            "layers": 2,
            "embedding-size": 8,
            "tied": False,
            "peephole": None,
            "layer-norm": "none",
            "dropout": 0.0,
            "recurrent-dropout": 0.0,
        }
        open_ones = [name for name, value in config["train"].items() if value is None]
        assert open_ones == ["warm-up"]

    def test_the_same_seed_gives_the_same_model(self, tmp_path: Path, train: Train) -> None:
        first = train()
        again = train(out=tmp_path / "again")
        other = train(out=tmp_path / "other", seed=1)
        for ours, theirs in zip(first.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        assert first.metrics["valid.nats"] == again.metrics["valid.nats"]
        assert first.metrics["valid.nats"] != other.metrics["valid.nats"]

    def test_a_folder_is_documents(self, tmp_path: Path, train: Train) -> None:
        folder = tmp_path / "texts"
        folder.mkdir()
        for k in range(12):
            (folder / f"{k}.txt").write_text(words(100 + k, k))
        said: list[str] = []
        run = train(folder, watch=Watch(say=said.append))
        assert said[0] == f"{folder}: 1,266 characters in 12 documents, 6 distinct"
        assert said[1].startswith("held out: 1 documents, 1")
        assert 100 <= run.metrics["valid.targets"] <= 111

    def test_bytes_of_anything(self, tmp_path: Path, train: Train) -> None:
        (tmp_path / "b").write_bytes(bytes(range(256)) * 4)
        run = train(tmp_path / "b", unit="byte")
        assert run.metrics["valid.targets"] == 103
        written = "".join(text.sample(run, length=20))
        assert len(written.encode("utf-8", "replace")) >= 20 - 3
        page = (run.path / "report.html").read_text()
        assert "nats a byte" in page
        assert "character" not in page

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"budget": "soon"}, "budget: 'soon' is no time; write it as 90s, 5m or 1h30m"),
            ({"unit": "word"}, "unit: 'word'; it is one of 'char' and 'byte'"),
            ({"seed": -1}, r"seed: -1 is not from 0 to 2\*\*32 - 1"),
            ({"model": {"layers": 0}}, "model.layers: 0; it must be from 1"),
            (
                {"model": {"hidden_size": 8, "embedding_size": 4, "tied": True}},
                "model.tied: an embedding of 4 cannot be the output matrix of 8",
            ),
            ({"model": {"cell": "cnn"}}, "cell: it is 'cnn'; it is one of"),
            ({"training": {"window": 0}}, "train.window: 0; it must be at least 1"),
            ({"training": {"clip": math.nan}}, "clip: it is nan, not a finite number"),
            ({"training": {"clip": -1.0}}, "train.clip: -1.0; it must be more than 0"),
            ({"training": {"average": 1.0}}, "train.average: 1.0; it must be from 0"),
            (
                {"training": {"window": 1801}},
                "words.txt has 1,800 characters to train on, and a window of 1,801 would not fit; "
                "give more text, or a smaller --train.window",
            ),
        ],
    )
    @pytest.mark.usefixtures("unhooked")
    def test_what_cannot_be(
        self, tmp_path: Path, train: Train, options: dict[str, Any], message: str
    ) -> None:
        makers = {"model": ModelSettings, "training": TrainSettings}
        options = {
            name: makers[name](**value) if name in makers else value
            for name, value in options.items()
        }
        with pytest.raises(UserError, match=message):
            train(**options)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "file: .* is empty"),
            (b"caf\xe9 au lait", r"file: .*/t is not text: its byte 4 is 0xe9, .*\(--unit byte\)"),
            (
                b"to be or not to be",
                "file: .*/t has 16 characters to train on, and a window of 64",
            ),
        ],
    )
    def test_files_that_are_of_no_use(
        self, tmp_path: Path, train: Train, content: bytes, message: str
    ) -> None:
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(UserError, match=message):
            train(tmp_path / "t", training=TrainSettings(updates=1))
        assert not (tmp_path / "run").exists()

    def test_an_empty_name_is_not_the_folder_that_one_is_in(self, train: Train) -> None:
        with pytest.raises(UserError, match="file: an empty name; leave it out for Python's"):
            train("")


class TestResume:
    def test_a_run_that_was_interrupted_ends_as_if_it_never_was(
        self, tmp_path: Path, train: Train
    ) -> None:
        """The same weights, samples and text, with dropout and the states of streams."""
        model = ModelSettings(
            hidden_size=8, layers=2, embedding_size=8, dropout=0.2, recurrent_dropout=0.2
        )
        options = {"model": model, "training": replace(SHORT, checkpoint_seconds=0.0)}
        whole = train(**options)
        reached: list[Any] = []

        def stop(event: Any) -> None:
            reached.append(event)
            if len(reached) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted):
            train(**options, out=tmp_path / "stopped", watch=Watch(on_event=stop))
        assert look(tmp_path / "stopped").state == "interrupted"
        again = text.resume(tmp_path / "stopped", tmp_path / "words.txt")
        for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        lines = [
            [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
            for run in (whole, again)
        ]
        for line in lines[0][-1:] + lines[1][-1:]:
            del line["seconds"]
        assert lines[0] == lines[1]
        assert list(text.sample(again, length=100)) == list(text.sample(whole, length=100))

    def test_of_another_text_it_is_not(self, tmp_path: Path, train: Train) -> None:
        def stop(event: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted):
            train(watch=Watch(on_event=stop))
        (tmp_path / "words.txt").write_text(words(2000, 1))
        with pytest.raises(UserError, match=r"file: "):
            text.resume(tmp_path / "run", tmp_path / "words.txt")
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(UserError, match=r"file: not given; .*/run was begun with one"):
            text.resume(tmp_path / "run")
        # It did not read the standard library to find that out.
        assert not (tmp_path / "cache").exists()


class TestSample:
    def test_a_run_by_its_folder_writes_as_the_model(self, run: TextRun) -> None:
        wanted = "".join(text.sample(run, prompt="ba", length=40, seed=3))
        assert len(wanted) == 40
        for given in (run.path, str(run.path)):
            assert "".join(text.sample(given, prompt="ba", length=40, seed=3)) == wanted
        assert "".join(text.sample(run, prompt="ba", length=40, seed=4)) != wanted

    def test_it_is_in_the_package_and_goes_on(self, run: TextRun) -> None:
        assert peephole.sample is text.sample
        endless = peephole.sample(run.path, temperature=0.5)
        assert len(list(itertools.islice(endless, 50))) == 50

    def test_a_trained_model_writes_words(self, train: Train) -> None:
        trained = train(
            training=TrainSettings(streams=8, window=32, updates=200, learning_rate=0.02)
        )
        written = "".join(text.sample(trained, prompt=" ", length=100, temperature=0))
        assert set(written.split()[1:-1]) <= {"ab", "abc", "bad", "dad."}
        assert trained.metrics["valid.nats"] < 0.6

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"length": -1}, "length: -1; it must be at least 0"),
            ({"length": math.nan}, "length: nan; it must be at least 0"),
            ({"seed": -1}, r"seed: -1 is not from 0 to 2\*\*64 - 1"),
            ({"temperature": -0.1}, "temperature: -0.1; it must be a number of at least 0"),
            ({"temperature": math.nan}, "temperature: nan"),
            ({"top_k": 7}, "top_k: 7; the model's alphabet has 6: it must be from 1 to that"),
            ({"top_p": 0}, "top_p: 0; it must be above 0 and at most 1"),
            ({"prompt": "ROMEO"}, "prompt: the model has never seen 'ROME'; it knows ' .abcd'"),
        ],
    )
    @pytest.mark.usefixtures("unhooked")
    def test_errors_come_at_once(self, run: TextRun, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            text.sample(run, **options)

    def test_another_kind_of_run(self, run: TextRun, tmp_path: Path) -> None:
        for config, what in (({"task": "table"}, "a run of 'table'"), ({}, "a run")):
            other = tmp_path / (what.replace(" ", "") + "r")
            other.mkdir()
            for path in run.path.rglob("*"):
                if path.is_file() and "checkpoints" not in path.parts:
                    (other / path.relative_to(run.path)).parent.mkdir(exist_ok=True)
                    (other / path.relative_to(run.path)).write_bytes(path.read_bytes())
            (other / "model" / "config.json").write_text(json.dumps(config))
            with pytest.raises(UserError, match=f"{other} is {what} and not of a text"):
                text.sample(other)

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no run"):
            text.sample(tmp_path / "gone")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"version": 2}, r"version is 2; it is one of \[1\]"),
            ({"alphabet": {"unit": "char", "characters": "ba"}}, "must be sorted"),
            ({"alphabet": {"unit": "char", "characters": "ab"}}, "does not go with"),
            ({"network": None}, "network is null, not an object"),
        ],
    )
    def test_a_strangers_config(self, train: Train, change: dict[str, Any], message: str) -> None:
        made = train()
        config = made.path / "model" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        with pytest.raises(UserError, match=message):
            text.open_run(made.path)

    def test_a_strangers_weights(self, train: Train) -> None:
        made = train()
        file = made.path / "model" / "model.safetensors"
        weights = load_file(file)
        weights["output_bias"][1] = math.nan
        save_file(weights, file)
        with pytest.raises(UserError, match="has weights that are not finite: it is damaged"):
            text.open_run(made.path)


class TestEvaluate:
    def test_the_held_out_part_costs_what_training_says(self, run: TextRun, tmp_path: Path) -> None:
        (tmp_path / "t").write_text(words(2000)[1800:])
        scores = text.evaluate(run, tmp_path / "t")
        assert scores.targets == scores.bytes == 200
        assert scores.nats == pytest.approx(run.metrics["valid.nats"])
        assert scores.bits == pytest.approx(run.metrics["valid.bits"])
        assert scores.perplexity == pytest.approx(math.exp(scores.nats))
        assert scores.compressed(scores.static) == pytest.approx(200 * scores.bits / 8)
        assert scores.dynamic is None
        assert scores.unknown == 0

    def test_beside_it_stand_gzip_and_xz(self, run: TextRun, tmp_path: Path) -> None:
        (tmp_path / "t").write_text(words(5000))
        data = (tmp_path / "t").read_bytes()
        scores = text.evaluate(run.path, tmp_path / "t")
        assert scores.gzip == len(gzip.compress(data, 9))
        theirs = len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
        assert scores.xz == pytest.approx(theirs, abs=4)

    def test_learning_helps_on_what_repeats(self, run: TextRun, tmp_path: Path) -> None:
        (tmp_path / "t").write_text("dcba" * 300)
        scores = text.evaluate(run, tmp_path / "t", dynamic=True, rate=0.5)
        assert scores.dynamic is not None
        assert scores.dynamic.targets == scores.targets
        assert scores.dynamic.mean < 0.9 * scores.nats
        assert scores.compressed(scores.dynamic) < scores.compressed(scores.static)

    def test_what_is_unknown_costs_the_choice_among_all_others(
        self, run: TextRun, tmp_path: Path
    ) -> None:
        (tmp_path / "t").write_text("abc €€ dad")
        scores = text.evaluate(run, tmp_path / "t")
        assert (scores.targets, scores.bytes, scores.unknown) == (10, 14, 2)
        extra = scores.compressed(scores.static) - scores.static.nats / math.log(2) / 8
        assert extra == pytest.approx(2 * math.log2(0x110000 - 2048 - 6) / 8)

    def test_a_folder_is_documents(self, run: TextRun, tmp_path: Path) -> None:
        (tmp_path / "f").mkdir()
        costs = []
        for name in "ab":
            (tmp_path / "f" / name).write_text(words(150, ord(name)))
            costs.append(text.evaluate(run, tmp_path / "f" / name).static.nats)
        both = text.evaluate(run, tmp_path / "f")
        assert both.static.nats == pytest.approx(sum(costs), rel=1e-5)
        assert both.targets == 300

    @pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
    def test_rates(self, run: TextRun, tmp_path: Path, rate: float) -> None:
        with pytest.raises(UserError, match=r"rate: .* it must be more than 0"):
            text.evaluate(run, tmp_path, rate=rate)

    def test_files(self, run: TextRun, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="file: there is no file or folder"):
            text.evaluate(run, tmp_path / "gone")
        (tmp_path / "b").write_bytes(b"ab\xff")
        with pytest.raises(UserError, match=r"file: .* is not text: its byte 3"):
            text.evaluate(run, tmp_path / "b")


def test_a_run_can_be_read_as_any_other(run: TextRun) -> None:
    assert Run.open(run.path).model_config["task"] == "text"
