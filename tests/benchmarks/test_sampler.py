"""``python -m benchmarks sampler``: what is planned is trained on, and similar is similar."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import buckets, sampler
from benchmarks.__main__ import main
from benchmarks.contenders import check_agreement
from benchmarks.measure import Measurement
from benchmarks.sizes import Size
from peephole import LSTM

QUICK = ["sampler", "--sequences", "300", "--seconds", "0.01", "--threads", "1"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "SIZE", Size(6, 40, 2, 3))


@pytest.mark.parametrize(("limit", "updates"), [("batch_size", 19), ("batch_steps", 1)])
@pytest.mark.parametrize("pool", [1, 50])
def test_an_epoch_has_its_calls(limit: str, updates: int, pool: int) -> None:
    calls, count = sampler.epoch_calls(300, limit, pool, "auto")
    assert list(calls) == ["plan", "batches", "share", "update"]
    assert count == updates
    epoch = calls["plan"]()
    assert len(epoch) == count
    calls["share"]()


def test_an_update_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LSTM] = []

    def make(*args: int, **options: str) -> LSTM:
        made.append(LSTM(*args, **options))
        return made[0]

    monkeypatch.setattr(sampler.peephole, "LSTM", make)
    update: Callable[[], object] = sampler.toy_updates(np.array([2, 4, 3]), "auto")
    before = [weight.clone() for weight in made[0].parameters()]
    update()
    for weight, old in zip(made[0].parameters(), before, strict=True):
        assert not torch.equal(weight, old)


def test_the_share_is_of_all_updates() -> None:
    seconds = {"plan": [0.3] * 5, "batches": [0.1] * 5, "share": [1e-4] * 5, "update": [0.04] * 5}
    found = sampler.epoch_figures(Measurement(seconds, dict.fromkeys(seconds, 1)), 1000)
    assert found["of_training"]["median"] == pytest.approx(0.2)
    assert found["plan_ms"]["median"] == pytest.approx(300)
    assert found["update_us"]["median"] == pytest.approx(2000)
    assert found["share_us"]["median"] == pytest.approx(5)


def test_similar_batches_are_similar_and_random_ones_are_not() -> None:
    for order, few in (("similar", True), ("random", False)):
        taken = buckets.batches(order)
        assert len(taken) == buckets.TAKEN
        for x in taken:
            assert len(x) == 6
            assert 25 <= int(x.lengths.min()) <= int(x.lengths.max()) <= 40
            assert (int(x.lengths.max() - x.lengths.min()) <= 2) == few


def test_all_forms_compute_the_same() -> None:
    for by_order in buckets.contenders("reference").values():
        assert set(by_order) == set(buckets.ORDERS)
    by_form = buckets.in_each_form(
        buckets.batches("random")[0], LSTM(2, 3, backend="auto"), torch.nn.LSTM(2, 3)
    )
    with pytest.raises(ValueError, match=r"^peephole computes something else"):
        check_agreement(by_form, "train")


def test_the_gain_is_by_steps() -> None:
    steps = {order: sum(len(x.values) for x in buckets.batches(order)) for order in buckets.ORDERS}
    names = [f"{form} {order}" for form in buckets.FORMS for order in buckets.ORDERS]
    seconds = {name: [1e-6 * steps[name.split()[1]]] * 5 for name in names}
    seconds["padded random"] = [2 * second for second in seconds["padded random"]]
    found = buckets.figures(Measurement(seconds, dict.fromkeys(names, 1)))
    assert found["times_us"]["padded"]["random"]["median"] == pytest.approx(2)
    assert [found["ratios"][form]["median"] for form in buckets.FORMS] == pytest.approx([1, 2, 1])
    assert found["padded_steps"]["random"] > found["padded_steps"]["similar"] >= 1


def test_appends_a_line_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sampler.jsonl"
    assert main([*QUICK, "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["kind"] for line in lines] == [
        "batch_size 16",
        "batch_size 16, pool 50",
        "batch_steps 4096",
        "batch_steps 4096, pool 50",
        "similar lengths",
    ]
    printed = capsys.readouterr().out
    assert "An epoch of 300 sequences" in printed
    assert "random / similar" in printed
    # The bar is about a million sequences.
    assert "No bar is about what was measured." in printed
