"""``python -m benchmarks layers``: its arithmetic, its options and what it writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import layers, machine
from benchmarks.__main__ import main
from benchmarks.contenders import Size
from benchmarks.layers import AUTO, FRESH, REFERENCE, SAME_PACKED, SAME_PADDED, SIZES, Row
from benchmarks.measure import Measurement

NAMES = ("padded", "packed", "auto", "fresh", "reference", "same_padded", "same_packed")
QUICK = ["layers", "--seconds", "0.01", "--threads", "1", "--sizes", "1"]


@pytest.fixture(autouse=True)
def small_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MM_SIZE", 64)


def row_of(mode: str = "train", **seconds: float) -> Row:
    """A row in which each contender always takes as long; 1 s where it is not told."""
    names = NAMES
    measured = {name: [seconds.get(name, 1.0)] * 5 for name in names}
    return Row(
        kind="LSTM",
        mode=mode,
        size=Size(2, 50, 30, 10),
        steps=60,
        measured=Measurement(measured, dict.fromkeys(names, 1)),
        mm_gflops=100.0,
        auto_backend=None,
    )


class TestRow:
    def test_ratios_are_to_the_better_of_torch_nn(self) -> None:
        row = row_of(
            padded=2.0,
            packed=4.0,
            auto=3.0,
            fresh=5.0,
            reference=6.0,
            same_padded=2.5,
            same_packed=3.0,
        )
        assert row.best == "padded"
        medians = {name: ratio.median for name, ratio in row.ratios().items()}
        assert medians == {
            AUTO: 1.5,
            FRESH: 2.5,
            REFERENCE: 1.5,
            SAME_PADDED: 1.25,
            SAME_PACKED: 0.75,
        }
        assert row_of(padded=4.0, packed=2.0, auto=3.0).best == "packed"

    @pytest.mark.parametrize(
        ("mode", "auto", "reference", "missed"),
        [
            ("train", 1.1, 1.3, []),
            ("train", 1.11, 1.3, [AUTO]),
            ("train", 1.1, 1.31, [REFERENCE]),
            ("infer", 1.11, 2.01, [AUTO, REFERENCE]),
            ("infer", 1.1, 2.0, []),
        ],
    )
    def test_bars(self, mode: str, auto: float, reference: float, missed: list[str]) -> None:
        assert row_of(mode, auto=auto, reference=reference, fresh=9.0).missed() == missed

    @pytest.mark.parametrize("mode", ["train", "infer"])
    def test_a_changed_import_has_a_bar_too(self, mode: str) -> None:
        row = row_of(mode, same_padded=1.11, same_packed=1.11)
        assert row.missed() == [SAME_PADDED, SAME_PACKED]

    def test_useful_gflop_is_the_designs_count(self) -> None:
        assert row_of("train").gflop() == pytest.approx(2 * 4 * 10 * 60 * (2 * 30 + 3 * 10) / 1e9)
        assert row_of("infer").gflop() == pytest.approx(2 * 4 * 10 * 60 * (30 + 10) / 1e9)

    def test_rates_are_over_the_median(self) -> None:
        row = row_of("train", auto=0.5)
        assert row.gflops()["auto"] == pytest.approx(row.gflop() / 0.5)


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
        for words in ("LSTM train 16, 4, 1, 16", "geometric mean", "torch.mm", "Bars:"):
            assert words in printed

    def test_a_line_holds_all_figures_and_conditions(self, tmp_path: Path) -> None:
        out = tmp_path / "layers.jsonl"
        main([*QUICK, "--kind", "LSTM", "--mode", "train", "--out", str(out)])
        (line,) = self.lines(out)
        conditions = {"benchmark", "date", "commit", "dirty", "machine", "versions", "device"}
        conditions |= {"dtype", "threads", "seconds", "seed"}
        assert set(line) == conditions | set(row_of().figures())
        assert (line["threads"], line["seconds"]) == (1, 0.01)
        size = line["size"]
        assert (size["B"], size["T"], size["I"], size["H"]) == SIZES[0]
        assert 2 * size["B"] <= size["N"] <= 4 * size["B"]
        names = set(NAMES)
        assert set(line["times_ms"]) == set(line["gflops"]) == set(line["repetitions"]) == names
        for spread in [*line["times_ms"].values(), *line["ratios"].values()]:
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]

    def test_saves_nothing_when_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("benchmarks.results.append", lambda *_: pytest.fail("saved"))
        assert main([*QUICK, "--kind", "RNN", "--mode", "infer", "--no-save"]) == 0
        assert "appended" not in capsys.readouterr().out

    @pytest.mark.parametrize(("auto", "status"), [(1.1, 0), (1.2, 1)])
    @pytest.mark.parametrize("check", [True, False])
    def test_check_tells_by_its_status(
        self,
        auto: float,
        status: int,
        check: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(layers, "measure_row", lambda *_: row_of(auto=auto))
        words = [*QUICK, "--kind", "LSTM", "--mode", "train", "--no-save"]
        assert main([*words, *["--check"] * check]) == status * check
        assert f"Missed (!): {status} of 4" in capsys.readouterr().out


class TestOptions:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--kind", "LSTN"], "'LSTN' is none of LSTM, GRU, RNN"),
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
        assert layers._sizes(text) == sizes

    @pytest.mark.parametrize("words", [["--help"], ["layers", "--help"]])
    def test_help(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        assert "layers" in capsys.readouterr().out
