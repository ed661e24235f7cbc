"""The table task: targets, splits, batches and scores."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics
import torch

from peephole import Ragged
from peephole.data import tables
from peephole.jobs.table.prepare import prepare
from peephole.jobs.table.settings import TrainSettings
from peephole.tasks.protocol import Batching
from peephole.tasks.table import metrics
from peephole.tasks.table.model import pool
from peephole.tasks.table.settings import DataSettings, ModelSettings
from peephole.tasks.table.split import cut_series, hold_out
from peephole.tasks.table.target import fit_numbers
from peephole.tasks.table.task import SequencesTask, SeriesTask, TableTask, run


def prepared(tmp_path: Path, columns: dict[str, Any], training: TrainSettings, **data: Any) -> Any:
    tables.write(pa.table(columns), tmp_path / "t.parquet")
    return prepare(
        tmp_path / "t.parquet",
        DataSettings(**data),
        ModelSettings(hidden_size=4),
        training,
        valid=None,
        test=None,
        seed=0,
        say=lambda line: None,
    )


def series(tmp_path: Path, steps: int = 1000, window: int = 16, **data: Any) -> SeriesTask:
    columns = {"x": np.arange(steps, dtype=float), "y": np.sin(np.arange(steps))}
    task = prepared(tmp_path, columns, TrainSettings(window=window), target="y", **data).task
    assert isinstance(task, SeriesTask)
    return task


@pytest.mark.parametrize("classes", [2, 5])
def test_classification_as_in_scikit_learn(classes: int) -> None:
    generator = np.random.default_rng(classes)
    # Class 0 is never true and class 1 never predicted.
    truth = generator.integers(1, classes, 200)
    predicted = np.where(generator.random(200) < 0.5, truth, 0)
    predicted = np.where(predicted == 1, 0, predicted)
    scores = metrics.classification(truth, predicted)
    assert scores["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    wanted = sklearn.metrics.f1_score(truth, predicted, average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(wanted)
    np.testing.assert_array_equal(
        metrics.confusion(truth, predicted, classes),
        sklearn.metrics.confusion_matrix(truth, predicted, labels=range(classes)),
    )


@pytest.mark.parametrize("constant", [False, True])
def test_regression_as_in_scikit_learn(constant: bool) -> None:
    generator = np.random.default_rng(0)
    truth = np.full(50, 2.0) if constant else generator.normal(size=50)
    predicted = truth + generator.normal(size=50)
    scores = metrics.regression(truth, predicted)
    for name, wanted in (
        ("mae", sklearn.metrics.mean_absolute_error(truth, predicted)),
        ("rmse", sklearn.metrics.root_mean_squared_error(truth, predicted)),
        ("r2", sklearn.metrics.r2_score(truth, predicted)),
    ):
        assert scores[name] == pytest.approx(wanted), name
    assert metrics.regression(truth, truth)["r2"] == 1


def test_a_fifth_of_each_class_is_held_out() -> None:
    classes = np.repeat([0, 1, 2, 3], [50, 25, 10, 1])
    for seed in range(20):
        held = hold_out(len(classes), classes, seed)
        counts = np.bincount(classes[held], minlength=4)
        assert (np.abs(counts - [10, 5, 2, 0]) <= 1).all()
        assert counts[3] == 0
    assert (hold_out(86, classes, 0) == hold_out(86, classes, 0)).all()
    assert (hold_out(86, classes, 0) != hold_out(86, classes, 1)).any()


@pytest.mark.parametrize(
    ("classes", "held"), [([0, 1], 0), ([0, 0], 1), ([0, 0, 1], 1), ([0, 1, 2, 3, 3], 1), (None, 1)]
)
def test_few_sequences_always_leave_each_class_for_training(
    classes: list[int] | None, held: int
) -> None:
    labels = None if classes is None else np.array(classes)
    n = 3 if classes is None else len(classes)
    for seed in range(10):
        chosen = hold_out(n, labels, seed)
        assert chosen.sum() == held
        if labels is not None:
            assert set(labels[~chosen]) == set(labels)


def test_a_series_is_cut_near_its_end() -> None:
    assert [cut_series(n) for n in (2, 3, 100, 1000)] == [1, 2, 85, 850]


def in_order(task: TableTask, size: int, number: int) -> list[Any]:
    """An epoch's batches, in one process."""
    epoch = task.plan(Batching(size, None, 1, 0)).epoch(number)
    return list(task.batches(epoch.share(k, 0, 1) for k in range(len(epoch))))


def test_windows_follow_each_other_in_each_stream(tmp_path: Path) -> None:
    task = series(tmp_path)
    scale = task.recipe.features.numbers[0]
    seen = []
    for epoch in range(3):
        parts: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: [], 3: []}
        for window in in_order(task, 4, epoch):
            pieces = window.examples.numbers.with_values(
                window.examples.numbers.values[:, :1] * scale.sd + scale.mean
            )
            for stream, piece in zip(window.stream.tolist(), pieces, strict=True):
                parts[stream].append(piece[:, 0])
        streams = [torch.cat(part) for part in parts.values()]
        for stream in streams:
            np.testing.assert_allclose(stream.diff(), 1, atol=1e-3)
        assert max(float(stream[-1]) for stream in streams) < 850
        seen.append(round(float(streams[0][0])))
    assert len(set(seen)) > 1


def test_a_forecast_never_trains_on_a_held_out_target(tmp_path: Path) -> None:
    task = series(tmp_path, ahead=7)
    assert task.steps == 850 - 7
    scored = task.valid.examples.scored.nonzero().flatten()
    assert (int(scored[0]), int(scored[-1])) == (850 - 7, 1000 - 7 - 1)
    np.testing.assert_allclose(task.valid.truth[850 - 7], np.sin(850))


def test_a_series_in_parts_is_the_series_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    task = series(tmp_path, steps=300)
    model = task.model()
    whole = run(model, task.train)
    monkeypatch.setattr("peephole.tasks.table.task.STEPS_AT_ONCE", 37)
    torch.testing.assert_close(run(model, task.train), whole)
    late = run(model, task.train, first=290)
    assert late.shape == whole.shape
    assert not late[:290].any()


@pytest.mark.parametrize(("sequences", "steps"), [(7, 1000), (100, 20), (3, 5), (1, 1)])
def test_sequences_in_groups_come_back_in_order(
    tmp_path: Path, monkeypatch: Any, sequences: int, steps: int
) -> None:
    generator = np.random.default_rng(0)
    ids = np.arange(30).repeat(generator.integers(1, 9, 30))
    columns = {
        "id": ids,
        "x": generator.normal(size=len(ids)),
        "y": generator.normal(size=len(ids)),
    }
    monkeypatch.setattr("peephole.tasks.table.task.SEQUENCES_AT_ONCE", sequences)
    monkeypatch.setattr("peephole.tasks.table.task.STEPS_OF_SEQUENCES", steps)
    task = prepared(tmp_path, columns, TrainSettings(), target="y", sequence="id").task
    assert isinstance(task, SequencesTask)
    model = task.model().eval()
    outputs = run(model, task.train)
    with torch.no_grad():
        alone = [
            model(task.train.take(torch.tensor([k])))[0] for k in range(len(task.train.numbers))
        ]
    torch.testing.assert_close(outputs, torch.cat(alone))


@pytest.mark.parametrize("gathered", [1, 40, 10**6])
@pytest.mark.parametrize(
    "data", [{"target": "total"}, {"target": "y"}, {"target": "y", "ahead": 2}], ids=str
)
def test_batches_gathered_together_are_those_one_by_one(
    tmp_path: Path, monkeypatch: Any, gathered: int, data: dict[str, Any]
) -> None:
    generator = np.random.default_rng(0)
    ids = np.arange(30).repeat(generator.integers(1, 9, 30))
    columns = {
        "id": ids,
        "total": ids * 1.5,
        "tag": generator.choice(["a", "b", "c"], len(ids)),
        "y": generator.normal(size=len(ids)),
    }
    monkeypatch.setattr("peephole.tasks.table.task.STEPS_GATHERED", gathered)
    task = prepared(tmp_path, columns, TrainSettings(), sequence="id", **data).task
    epoch = task.plan(Batching(4, None, 1, 0)).epoch(0)
    # Some of eight processes have nothing to read.
    shares = [epoch.share(k, 6, 8 if k % 2 else 7) for k in range(len(epoch))]
    shares += [epoch.share(k, 0, 1) for k in range(len(epoch))]
    assert {len(share) for share in shares} >= {0, 4}
    found = list(task.batches(shares))
    assert len(found) == len(shares)
    for batch, share in zip(found, shares, strict=True):
        alone = task.train.take(task.indices[torch.from_numpy(share)])
        for part, wanted in zip(batch[:2], alone[:2], strict=True):
            assert torch.equal(part.values, wanted.values)
            assert torch.equal(part.offsets, wanted.offsets)
        assert torch.equal(batch.targets, alone.targets)
        assert torch.equal(batch.scored, alone.scored)


def test_sequences_without_a_target_are_not_trained_on(tmp_path: Path) -> None:
    columns = {"id": [0, 1, 1, 2, 2, 2, 3, 3, 3], "y": np.arange(9.0)}
    task = prepared(tmp_path, columns, TrainSettings(), target="y", sequence="id", ahead=1).task
    batches = in_order(task, 1, 0)
    assert len(batches) == 2
    assert all(batch.scored.any() for batch in batches)


def test_a_wandering_target_is_forecast_as_a_change() -> None:
    walk = np.random.default_rng(0).normal(size=500).cumsum()
    assert fit_numbers(lambda: [(walk[1:], walk[:-1])]).change
    noise = np.random.default_rng(0).normal(size=500)
    assert not fit_numbers(lambda: [(noise[1:], noise[:-1])]).change
    assert not fit_numbers(lambda: [(noise, None)]).change


@pytest.mark.parametrize("how", ["mean", "max"])
def test_pooling_against_each_sequence(how: str) -> None:
    y = Ragged(torch.randn(11, 3, dtype=torch.float64), torch.tensor([0, 1, 8, 11]))
    wanted = [part.mean(0) if how == "mean" else part.amax(0) for part in y]
    torch.testing.assert_close(pool(y, how), torch.stack(wanted))


def test_scores_of_one_target_are_numbers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = metrics.regression(np.array([1.0]), np.array([2.0]))
    assert scores == {"mae": 1.0, "rmse": 1.0, "r2": 0.0}


@pytest.mark.parametrize(
    "data",
    [
        {"target": "label", "sequence": "id"},
        {"target": "total", "sequence": "id"},
        {"target": "tag", "sequence": "id"},
        {"target": "y", "sequence": "id", "ahead": 2},
        {"target": "tag", "sequence": "id", "ahead": 2},
        {"target": "y", "ahead": 5},
    ],
    ids=str,
)
def test_examples_do_not_depend_on_the_pieces_they_were_made_in(
    tmp_path: Path, data: dict[str, Any]
) -> None:
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 12, 100)
    columns = {
        "id": ids,
        "label": ids % 3 == 0,
        "total": ids * 1.5,
        "tag": generator.choice(["a", "b"], 100),
        "y": generator.normal(size=100),
    }
    found = []
    for size in (1, 13, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("peephole.data.sequences.PIECE", size)
            patch.setattr("peephole.tasks.table.recipe.PIECE", size)
            task = prepared(tmp_path, columns, TrainSettings(), **data).task
        (tmp_path / "t.parquet").unlink()
        found.append(task)
    whole = found[-1]
    for task in found:
        for part, wanted in (
            (task.train, whole.train),
            (task.valid.examples, whole.valid.examples),
        ):
            torch.testing.assert_close(part.numbers.values, wanted.numbers.values)
            assert torch.equal(part.codes.values, wanted.codes.values)
            assert torch.equal(part.scored, wanted.scored)
            torch.testing.assert_close(part.targets, wanted.targets)
        np.testing.assert_array_equal(task.valid.truth, whole.valid.truth)
