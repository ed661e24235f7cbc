"""``python -m benchmarks text``: both models train alike, and lines say what was found."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import text
from benchmarks.__main__ import main
from benchmarks.peers.plain import Plain
from benchmarks.text import SETTINGS, Setting
from peephole.jobs import text as jobs
from peephole.tasks.text.settings import Network
from tests.tasks.text.texts import words

QUICK = ["text", "--seconds", "0.01", "--rounds", "2", "--threads", "1"]
SMALL = {
    "char-rnn": Setting(Network("lstm", 6, 2, 5, tied=False), 3, 7),
    "default": Setting(Network("lstm", 6, 2, 6, tied=True), 2, 9),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, setting in SMALL.items():
        monkeypatch.setitem(SETTINGS, kind, setting)
    monkeypatch.setattr(text, "LENGTH", 20)


@pytest.mark.parametrize("kind", SMALL)
def test_both_train_alike(kind: str) -> None:
    all = text.contenders(SMALL[kind])
    text.check_agreement(all)
    before = [p.detach().clone() for p in all["peephole"].parameters]
    for training in all.values():
        training.update()
    ours, theirs = (training.model.state_dict() for training in all.values())
    for name, weight in text.plain.renamed(ours).items():
        # Where a gradient is all but zero Adam makes as large a step of what rounding left.
        away = (weight - theirs[name]).abs() > 1e-5
        assert away.double().mean() < 0.05, name
    moved = [not torch.equal(p, b) for p, b in zip(all["peephole"].parameters, before, strict=True)]
    assert False not in moved


def test_another_function_is_refused() -> None:
    all = text.contenders(SMALL["default"])
    theirs = all["torch.nn"].model
    assert isinstance(theirs, Plain)
    with torch.no_grad():
        theirs.lstm.bias_hh_l0[8] += 0.1
    with pytest.raises(ValueError, match=r"^the gradients of \S+ are off by 0\.\d+ of their norm$"):
        text.check_agreement(all)


def test_the_state_counts() -> None:
    all = text.contenders(SMALL["char-rnn"])
    all["torch.nn"].loss = lambda batch, state: text.plain.dense_loss(  # type: ignore[assignment]
        all["torch.nn"].model, batch, None
    )
    with pytest.raises(ValueError, match=r"^the gradients of \S+ are off by"):
        text.check_agreement(all)


@pytest.mark.parametrize("tied", [True, False])
def test_the_multiply_adds_are_those_that_torch_counts(tied: bool) -> None:
    setting = Setting(Network("lstm", 8, 2, 8, tied=tied), 3, 40)
    # In float64 torch computes an LSTM by single products, which it can count.
    model = Plain(setting.size["A"], setting.network).double()
    with FlopCounterMode(display=False) as counter:
        logits, _ = model.dense(torch.randint(60, (40, 3)))
        logits.sum().backward()
    counted = counter.get_total_flops()
    # The first step's product with the initial state has no gradient to give.
    first = 2 * 3 * 2 * 4 * 8 * 8
    # The first layer's product need not be of each step.
    looked_up = 2 * 3 * (3 * 40 - setting.size["A"]) * 4 * 8 * 8
    assert counted == pytest.approx(1e9 * setting.gflop - first + looked_up)


def test_appends_a_line_a_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "text.jsonl"
    assert main([*QUICK, "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["char-rnn", "default", "sampling"]
    assert lines[0]["size"] == {"S": 3, "W": 7, "L": 2, "H": 6, "E": 5, "A": 66}
    for line in lines[:2]:
        rates = line["characters_a_second"]
        size = line["size"]
        for name, times in line["times_ms"].items():
            assert rates[name] * times["median"] / 1e3 == pytest.approx(size["S"] * size["W"], 1e-4)
        assert line["ceiling"] > 0
    assert lines[2]["trained"] is False
    assert lines[2]["size"] == {"L": 2, "H": 6, "E": 6, "A": 66}
    printed = capsys.readouterr().out
    assert "of 3." in printed
    assert "2 layers of 6, untrained" in printed


def test_a_run_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").write_text(words(500))
    jobs.train(
        tmp_path / "t",
        model=jobs.ModelSettings(hidden_size=7, layers=1),
        training=jobs.TrainSettings(updates=1, window=8),
        out=tmp_path / "run",
    )
    command = [*QUICK, "--kind", "sampling", "--no-save"]
    assert main([*command, "--run", str(tmp_path / "run")]) == 0
    assert "1 layers of 7, a run" in capsys.readouterr().out
    assert main([*command, "--run", str(tmp_path / "gone")]) == 2
    assert "text: there is no run" in capsys.readouterr().err


class TestPlain:
    def test_it_trains_on_the_split_of_train_text(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(text, "PLAIN", Network("lstm", 8, 1, 4, tied=False))
        file, out = tmp_path / "t", tmp_path / "text.jsonl"
        file.write_text(words(3000))
        command = ["text", "--plain", str(file), "--minutes", "0.005", "--threads", "1"]
        assert main([*command, "--out", str(out), "--check"]) == 0
        (line,) = (json.loads(each) for each in out.read_text().splitlines())
        assert line["size"] == {"text": 2700, "minutes": 0.005}
        assert line["targets"] == 300
        assert line["passes"] == pytest.approx(line["characters"] / 2700, rel=1e-4)
        assert line["updates"] > 0
        assert 0.3 < line["nats"] < 2.2
        printed = capsys.readouterr().out
        assert f"held-out part: {line['nats']:.4f}" in printed
        assert "(300 scored); 0.005 minutes" in printed
        # Nothing of it stays beside the text.
        assert sorted(path.name for path in tmp_path.iterdir()) == ["t", "text.jsonl"]

    def test_what_is_no_text_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "b").write_bytes(b"\xff")
        assert main(["text", "--plain", str(tmp_path / "b"), "--no-save"]) == 2
        assert "its byte 1 is 0xff, which is not UTF-8" in capsys.readouterr().err
