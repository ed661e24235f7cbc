"""Bars are judged rightly, from made-up lines."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.goals import GOALS, KEPT, ROWS
from benchmarks.sizes import SIZES, Size
from benchmarks.verdict import Found, Goal, newest

BY_NAME = {goal.what: goal for goal in (*GOALS, *KEPT)}


def goal(begin: str) -> Goal:
    (found,) = (g for what, g in BY_NAME.items() if what.startswith(begin))
    return found


def layers(
    ratios: dict[str, float], kind: str = "LSTM", mode: str = "train", size: Size = SIZES[0]
) -> dict[str, Any]:
    """A line of ``layers`` with these medians; ceilings are twice as high."""
    return {
        "benchmark": "layers",
        "kind": kind,
        "mode": mode,
        "size": size._asdict() | {"N": 47},
        "ratios": {name: {"low": 0.0, "median": m, "high": 99.0} for name, m in ratios.items()},
        "ceilings": {
            name: 2 * m for name, m in ratios.items() if name.endswith(("auto", "lengths"))
        },
        "gflops": {"auto": 90.0},
        "mm_gflops": 120.0,
        "shares_of_mm": {"auto": 0.86},
    }


def memory(auto: float, padded: float, size: Size = SIZES[3]) -> dict[str, Any]:
    return {
        "benchmark": "memory",
        "kind": "LSTM",
        "mode": "train",
        "size": size._asdict(),
        "peaks_mb": {"auto": {"median": auto}, "padded": {"median": padded}},
        "ratios": {"auto / padded": auto / padded},
    }


def sampler(share: float, kind: str = "batch_size 16", **changes: Any) -> dict[str, Any]:
    return {
        "benchmark": "sampler",
        "kind": kind,
        "updates": 62500,
        "size": {"B": 1_000_000},
        "of_training": {"median": share},
        **changes,
    }


def engine(kind: str, **changes: Any) -> dict[str, Any]:
    own: dict[str, Any] = {
        "toy": {
            "ratios": {
                "fit / optimizer": {"low": 0.8, "median": 0.9, "high": 1.0},
                "fit / by hand": {"low": 1.0, "median": 1.125, "high": 1.25},
            },
            "fastest": "by hand",
            "steps": {"exist": 6300, "ratio": 1.0},
        },
        "vowels": {
            "rounds": 5,
            "waiting": {"median": 0.012},
            "steps": {"exist": 3900, "ratio": 1.25},
        },
    }[kind]
    return {"benchmark": "engine", "kind": kind, "size": {"B": 16}, **own, **changes}


def text(kind: str, ratio: float = 1.3) -> dict[str, Any]:
    if kind == "sampling":
        own: dict[str, Any] = {
            "size": {"L": 2, "H": 512},
            "trained": True,
            "characters_a_second": {"median": 3456.7},
        }
    else:
        own = {
            "size": {"H": 128},
            "ratio": {"median": ratio},
            "ceiling": 2.0,
            "characters_a_second": {"peephole": 65_000.0, "torch.nn": 50_000.0},
        }
    return {"benchmark": "text", "kind": kind, **own}


class TestFound:
    def test_a_mean_is_geometric_and_over_the_sizes(self) -> None:
        lines = [layers({"best / auto": m}, size=s) for m, s in zip((1, 4), SIZES, strict=False)]
        found = goal("LSTM training").find(lines)
        assert found is not None
        assert (found.value, found.ceiling) == pytest.approx((2.0, 4.0))
        assert found.detail == "2 of 6 measured, 1 to 4"
        assert list(found.lines) == lines

    def test_each_size_is_as_good_as_the_worst(self) -> None:
        lines = [layers({"best / auto": m}, size=s) for m, s in zip((4, 1.5), SIZES, strict=False)]
        found = goal("the same, each size").find(lines)
        assert found is not None
        assert (found.value, found.ceiling) == (1.5, 3.0)
        assert found.detail.endswith("worst LSTM train 32, 100, 8, 32")

    def test_the_worst_time_is_the_longest_of_all_kinds_and_modes(self) -> None:
        name = "same_padded / padded"
        lines = [layers({name: 1.2}, "RNN", "infer"), layers({name: 1.05}), layers({}, "GRU")]
        found = goal("the same padded input").find(lines)
        assert found is not None
        assert found.value == 1.2
        assert found.detail == "2 of 36 measured, worst RNN infer 16, 4, 1, 16"

    def test_kinds_of_one_mean_are_told_apart(self) -> None:
        lines = [layers({"best / auto": 2}, "GRU"), layers({"best / auto": 8}, "RNN")]
        found = goal("GRU and RNN").find(lines)
        assert found is not None
        assert found.value == pytest.approx(4.0)
        assert found.detail == "2 of 12 measured, 2 to 8, GRU 2, RNN 8"

    @pytest.mark.parametrize(
        ("begin", "line"),
        [
            ("LSTM training", layers({"best / auto": 1}, mode="infer")),
            ("LSTM training", layers({"best / auto": 1}, kind="GRU")),
            ("LSTM training", layers({"packed / auto": 1})),
            ("LSTM inference", layers({"best / auto": 1})),
            ("diagonal peepholes against none", layers({"diagonal / none": 1}, mode="infer")),
            ("useful GFLOP/s", layers({}, size=SIZES[3])),
            ("peak memory", memory(1.0, 15.0)),
            ("`peephole reproduce`", {"benchmark": "reproduce", "quick": True}),
        ],
    )
    def test_other_lines_say_nothing(self, begin: str, line: dict[str, Any]) -> None:
        assert goal(begin).find([line]) is None
        assert goal(begin).verdict(None) == "not measured"

    def test_every_bar_is_about_something(self) -> None:
        size = SIZES[4]
        names = ("best / auto", "packed / auto", "best / lengths", "reference / packed")
        names += ("same_padded / padded", "same_packed / packed")
        every = [
            layers(dict.fromkeys(names, 2.0), kind, mode, size)
            for kind in ("LSTM", "GRU", "RNN")
            for mode in ("train", "infer")
        ]
        every += [
            layers({"loop / auto": 4.5}, "diagonal"),
            layers({"diagonal / none": 1.0, "full / none": 1.1}, "peepholes"),
            memory(40, 100),
            {
                "benchmark": "steps",
                "size": {"I": 128, "H": 128},
                "best": {"torch": "nn.LSTM", "peephole": "LSTM"},
                "ratio": {"median": 1.25},
            },
            {
                "benchmark": "reproduce",
                "quick": False,
                "elapsed_s": 200.0,
                "machine": {"cores": 2},
            },
            sampler(0.004),
            engine("toy"),
            engine("vowels"),
            text("char-rnn"),
            text("default"),
            text("sampling"),
            {
                "benchmark": "tables",
                "kind": "csv",
                "size": {"rows": ROWS},
                "convert_s": 12.0,
                "waiting": 0.01,
                "converting_mb": {"resident": 800.0},
                "training_mb": {"resident": 700.0},
            },
        ]
        found = {what: g.find(every) for what, g in BY_NAME.items()}
        assert None not in found.values()
        values = {what: f.value for what, f in found.items() if f is not None}
        assert values[goal("useful").what] == 0.86
        assert values[goal("peak").what] == 0.4
        assert values[goal("one sequence").what] == 1.25
        assert values[goal("`peephole").what] == 200.0
        assert values[goal("diagonal peepholes against `bench").what] == pytest.approx(4.5)
        assert values[goal("full").what] == pytest.approx(1.1)

    def test_memory_is_as_good_as_the_worst_size(self) -> None:
        lines = [memory(30, 100), memory(60, 100, SIZES[4]), memory(9, 10, SIZES[0])]
        found = goal("peak memory").find(lines)
        assert found is not None
        assert found.value == 0.6
        assert found.detail == "worst LSTM train 32, 128, 512, 512: 60 of 100 MB"

    def test_the_sampler_is_judged_on_the_toy(self) -> None:
        others = [sampler(0.5, "batch_steps 4096"), sampler(0.5, size={"B": 300})]
        assert goal("deciding").find(others) is None
        found = goal("deciding").find([*others, sampler(0.008)])
        assert found is not None
        assert (found.value, found.detail) == (0.008, "62,500 updates")

    def test_the_engine_is_held_against_the_fastest_bare_loop(self) -> None:
        found = goal("training by the engine").find([engine("vowels"), engine("toy")])
        assert found is not None
        assert (found.value, found.detail) == (1.125, "fit / by hand, quartiles 1 to 1.25")
        assert goal("training by the engine").find([engine("vowels")]) is None

    def test_waiting_is_that_of_the_vowels(self) -> None:
        found = goal("share of the time that training on seq").find([engine("vowels")])
        assert found is not None
        assert (found.value, found.detail) == (0.012, "5 trainings")

    def test_steps_are_those_of_the_worse_task_and_of_both(self) -> None:
        steps = goal("steps computed")
        assert steps.find([engine("toy")]) is None
        found = steps.find([engine("toy"), engine("vowels")])
        assert found is not None
        assert (found.value, found.detail) == (1.25, "3,900 of vowels")
        assert steps.verdict(found) == "missed"

    def test_a_character_model_is_judged_for_each_kind(self) -> None:
        lines = [text("char-rnn", 1.1), text("char-rnn", 1.3), text("default", 1.6)]
        found = goal("training a character model").find(lines)
        assert found is not None
        assert (found.value, found.ceiling) == (1.3, 2.0)
        assert found.detail == "65,000 of 50,000 characters/s"
        default = goal("the same, 2 x 256")
        assert default.verdict(default.find(lines)) == "aim"
        assert default.find(lines[:2]) is None

    def test_sampling_is_by_the_model_that_wrote_last(self) -> None:
        sampling = goal("sampling one stream")
        other = text("sampling") | {"size": {"L": 1, "H": 1024}}
        found = sampling.find([other, text("sampling")])
        assert found is not None
        assert found.detail == "2 layers of 512, a run"
        assert list(found.lines) == [text("sampling")]
        assert sampling.told(found.value) == "3457 characters/s"
        assert sampling.find([text("default")]) is None

    def test_the_last_line_counts(self) -> None:
        first, last = layers({"best / auto": 1.0}), layers({"best / auto": 3.0})
        assert newest([first, last]) == [last]
        found = goal("LSTM training").find([first, last, layers({"reference / packed": 1.0})])
        assert found is not None
        assert found.value == pytest.approx(3.0)

    def test_more_than_the_ceiling_is_told_to_be_a_fault_of_the_yardstick(self) -> None:
        assert Found(1.05, "38 of 36", [], 1.0).over.startswith("38 of 36; above its ceiling")
        assert Found(1.0, "36 of 36", [], 1.0).over == "36 of 36"
        assert Found(1.0, "no ceiling", []).over == "no ceiling"


class TestVerdict:
    @pytest.mark.parametrize(
        ("begin", "values", "verdict"),
        [
            ("LSTM training", (1.899, 1.0), "missed"),
            ("LSTM training", (1.9, 2.299), "met"),
            ("LSTM training", (2.3, 9.0), "aim"),
            ("diagonal peepholes against none", (1.031, 9.0), "missed"),
            ("diagonal peepholes against none", (1.03, 1.011), "met"),
            ("diagonal peepholes against none", (1.01, 0.9), "aim"),
            ("the same padded input", (1.11,), "missed"),
            ("the same padded input", (1.1, 0.5), "met"),
        ],
    )
    def test_of_values(self, begin: str, values: Sequence[float], verdict: str) -> None:
        for value in values:
            assert goal(begin).verdict(Found(value, "", [])) == verdict

    @pytest.mark.parametrize(
        ("begin", "value", "told"),
        [
            ("LSTM training", 2.0, "2.00 x"),
            ("LSTM training", 1.8996, "1.8996 x"),
            ("diagonal peepholes against none", 1.0304, "1.0304 x"),
            ("diagonal peepholes against none", 1.0204, "1.02 x"),
            ("useful", 0.8496, "84.96%"),
            ("useful", 0.88, "88%"),
            ("`peephole", 200.4, "200 s"),
            ("`peephole", 240.4, "240.4 s"),
        ],
    )
    def test_values_are_told_on_the_right_side_of_the_bar(
        self, begin: str, value: float, told: str
    ) -> None:
        assert goal(begin).told(value) == told

    def test_limits_are_told_as_the_table_has_them(self) -> None:
        told = {what[:12]: (g.limit(g.bar), g.limit(g.aim)) for what, g in BY_NAME.items()}
        assert told["LSTM trainin"] == ("1.9 x", "2.3 x")
        assert told["useful GFLOP"] == ("85%", "92%")
        assert told["peak memory "] == ("at most 0.5 x", "0.35 x")
        assert told["`peephole re"] == ("at most 240 s", "150 s")
        assert told["the same pad"] == ("at most 1.1 x", "–")
