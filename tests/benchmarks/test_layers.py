"""``python -m benchmarks layers``: its options, what it shows and what it writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import layers, machine, options
from benchmarks.__main__ import COMMANDS, main
from benchmarks.kinds import KINDS
from benchmarks.measure import Measurement
from benchmarks.rows import Row, measure_row
from benchmarks.sizes import SIZES, Size

QUICK = ["layers", "--seconds", "0.01", "--threads", "1", "--sizes", "1"]
CONDITIONS = {"benchmark", "command", "date", "commit", "dirty", "machine", "versions", "device"}
CONDITIONS |= {"dtype", "threads", "backend", "seed", "seconds"}


@pytest.fixture(autouse=True)
def small_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MM_SIZE", 64)


class TestCommand:
    def lines(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def test_appends_a_line_a_measurement(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "layers.jsonl"
        assert main([*QUICK, "--kind", "GRU,rnn", "--mode", "infer", "--out", str(out)]) == 0
        assert main([*QUICK, "--kind", "LSTM", "--out", str(out)]) == 0
        lines = self.lines(out)
        assert [(line["kind"], line["mode"]) for line in lines] == [
            ("GRU", "infer"),
            ("RNN", "infer"),
            ("LSTM", "train"),
            ("LSTM", "infer"),
        ]
        printed = capsys.readouterr().out
        assert "\x1b" not in printed
        assert f"2 lines appended to {out}" in printed
        for words in ("LSTM train 16, 4, 1, 16", "geometric mean", "torch.mm", "Bars", "ceiling"):
            assert words in printed

    def test_a_line_holds_all_figures_and_conditions(self, tmp_path: Path) -> None:
        out = tmp_path / "layers.jsonl"
        main([*QUICK, "--kind", "LSTM", "--mode", "train", "--out", str(out)])
        (line,) = self.lines(out)
        row = measure_row("RNN", "infer", SIZES[0], 0.01)
        assert set(line) == CONDITIONS | set(row.figures())
        assert (line["threads"], line["seconds"]) == (1, 0.01)
        assert line["command"].startswith("python -m benchmarks layers --seconds 0.01 --threads 1")
        size = line["size"]
        assert (size["B"], size["T"], size["I"], size["H"]) == SIZES[0]
        assert 2 * size["B"] <= size["N"] <= 4 * size["B"]
        names = set(KINDS["LSTM"].contenders)
        for figure in ("times_ms", "gflop", "gflops", "shares_of_mm", "repetitions"):
            assert set(line[figure]) == names
        assert set(line["ceilings"]) < set(line["ratios"])
        assert line["best"] in ("padded", "packed")
        assert line["backends"]["auto"] in ("cpu", "torch", "reference")
        for spread in [*line["times_ms"].values(), *line["ratios"].values()]:
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]

    def test_saves_nothing_when_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("benchmarks.results.append", lambda *_: pytest.fail("saved"))
        assert main([*QUICK, "--kind", "RNN", "--mode", "infer", "--no-save"]) == 0
        assert "appended" not in capsys.readouterr().out

    def test_kinds_with_peepholes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "layers.jsonl"
        words = ["--kind", "diagonal,peepholes", "--mode", "train", "--rounds", "7"]
        assert main([*QUICK, *words, "--out", str(out)]) == 0
        diagonal, peepholes = self.lines(out)
        assert (
            set(diagonal["ratios"]) == {"loop / auto", "loop / fresh"} == set(diagonal["ceilings"])
        )
        assert set(peepholes["ratios"]) == {"diagonal / none", "full / none"}
        assert peepholes["gflop"]["full"] > peepholes["gflop"]["none"]
        assert min(diagonal["rounds"], peepholes["rounds"]) >= 7
        printed = capsys.readouterr().out
        for words in ("loop / auto", "full peepholes against none", "benchmarks/peers/loop.py"):
            assert words in printed

    def test_contenders_are_those_that_are_named(self, tmp_path: Path) -> None:
        out = tmp_path / "layers.jsonl"
        words = ["--kind", "RNN,diagonal,peepholes", "--mode", "infer", "--out", str(out)]
        assert main([*QUICK, *words, "--contenders", "reference,packed,auto"]) == 0
        lines = self.lines(out)
        assert [list(line["times_ms"]) for line in lines] == [
            ["packed", "auto", "reference"],
            ["auto", "reference"],
        ]
        assert set(lines[0]["ratios"]) == {"best / auto", "packed / auto", "reference / packed"}
        assert lines[0]["best"] == "packed"
        assert lines[1]["ratios"] == {}

    def test_nobody_to_measure_is_an_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--kind", "peepholes", "--contenders", "auto", "--no-save"]
        assert main([*QUICK, *words]) == 2
        assert "none of these kinds" in capsys.readouterr().err

    def test_the_backend_is_that_which_is_named(self, tmp_path: Path) -> None:
        out = tmp_path / "layers.jsonl"
        words = ["--kind", "RNN", "--mode", "infer", "--out", str(out), "--backend", "reference"]
        assert main([*QUICK, *words]) == 0
        (line,) = self.lines(out)
        assert line["backend"] == "reference"
        assert set(line["backends"].values()) == {"reference"}

    @pytest.mark.parametrize(("auto", "status"), [(0.5, 0), (0.6, 1)])
    @pytest.mark.parametrize("check", [True, False])
    def test_check_tells_by_its_status(
        self,
        auto: float,
        status: int,
        check: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        # Best of torch takes 1 s: twice as fast is enough for the mean, and for each size.
        times = {"padded": [1.0] * 5, "packed": [3.0] * 5, "auto": [auto] * 5}
        row = Row(
            "LSTM",
            "train",
            SIZES[0],
            47,
            Measurement(times, dict.fromkeys(times, 1)),
            [1.0],
            {"auto": "cpu"},
        )
        monkeypatch.setattr(layers, "measure_row", lambda *_, **__: row)
        words = [*QUICK, "--kind", "LSTM", "--mode", "train", "--no-save"]
        assert main([*words, *["--check"] * check]) == status * check
        printed = capsys.readouterr().out
        assert f"Missed: {status} of 3" in printed
        assert printed.count("MISSED") == status


class TestOptions:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--kind", "LSTN"], "'LSTN' is none of LSTM, GRU, RNN, diagonal, peepholes"),
            (["--contenders", "me"], "'me' is none of padded, packed, auto"),
            (["--backend", "torch"], "invalid choice: 'torch'"),
            (["--rounds", "1"], "1 is less than 2"),
            (["--mode", "test"], "'test' is none of train, infer"),
            (["--sizes", "0"], "'0' is none of 1, 2, 3, 4, 5, 6, small, all"),
            (["--seconds", "0"], "0 is not a number above 0"),
            (["--threads", "0"], "0 is less than 1"),
            (["--no-save", "--out", "x"], "not allowed with argument"),
        ],
    )
    def test_wrong_ones_are_refused(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            main(["layers", *words])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "sizes"),
        [("small", SIZES[:3]), ("all", SIZES), ("2,6,2", (SIZES[1], SIZES[5]))],
    )
    def test_sizes(self, text: str, sizes: tuple[Size, ...]) -> None:
        assert options.sizes(text) == sizes

    @pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)])
    def test_help(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"usage: python -m benchmarks {words[0] if words[1:] else '['}")
