"""A person's table, from files to predictions."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from peephole.data import tables
from peephole.errors import UserError
from peephole.jobs import table
from peephole.jobs.runs import look
from peephole.jobs.table import ModelSettings, TrainSettings
from peephole.jobs.training import Watch
from peephole.run import Run, state
from peephole.train import Diverged

SMALL = ModelSettings(hidden_size=8)
SHORT = TrainSettings(epochs=2)
Columns = dict[str, list[Any]]


def write(path: Path, columns: Columns) -> Path:
    tables.write(pa.table(columns), path, overwrite=True)
    return path


def shifts(sequences: int = 12, seed: int = 0, lengths: tuple[int, int] = (1, 6)) -> Columns:
    """Sequences whose class is the sign of the sum of x, with rows of all mixed up."""
    generator = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for k in range(sequences):
        x = generator.normal(size=generator.integers(*lengths, endpoint=True)) + (-1) ** k
        label = "up" if k % 2 == 0 else "down"
        words = generator.choice(["p", "q"], len(x)).tolist()
        rows += [
            (f"s{k}", t, float(v), w, label, float(x.sum()), f"{label}{w}")
            for t, (v, w) in enumerate(zip(x, words, strict=True))
        ]
    generator.shuffle(rows)
    names = ("id", "t", "x", "word", "label", "total", "tag")
    return {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def wave(steps: int = 300) -> Columns:
    t = np.arange(steps)
    y = np.sin(t / 4) + 0.05 * np.random.default_rng(0).normal(size=steps)
    return {"t": t.tolist(), "y": y.tolist(), "up": (y > 0).tolist()}


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., table.TableRun]:
    """Train for a moment, with what was said in ``said``."""

    def short(
        columns: Columns | Path,
        said: list[str] | None = None,
        events: list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> Any:
        file = columns if isinstance(columns, Path) else write(tmp_path / "train.csv", columns)
        watch = Watch(
            say=None if said is None else said.append,
            on_event=None if events is None else events.append,
        )
        settings = {"model": SMALL, "training": SHORT, "out": tmp_path / "run"} | options
        return table.train(file, watch=watch, **settings)

    return short


LABEL = {"target": "label", "sequence": "id", "order": "t", "features": ["x", "word"]}


def test_one_class_a_sequence(tmp_path: Path, train: Any) -> None:
    said: list[str] = []
    events: list[dict[str, Any]] = []
    test = write(tmp_path / "test.csv", shifts(7, seed=1) | {})
    run = train(shifts(), said, test=test, events=events, **LABEL)
    assert said == [
        f"{tmp_path}/train.csv: 12 sequences of 1 to 6 steps, {len(shifts()['x'])} in all",
        "predicts 'label' once a sequence",
        "target 'label' is taken as classes (2): it holds text",
        "features: 'x', 'word'",
        "2 of 12 sequences are held out for validation",
    ]
    assert run.path == tmp_path / "run"
    assert len(events) == 2
    assert json.loads((run.path / "metrics.json").read_text()) == run.metrics
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["evaluation", "evaluation", "final"]
    assert run.metrics["valid.targets"] == 2
    assert run.metrics["test.targets"] == 7
    assert run.metrics["test.baseline.accuracy"] in (3 / 7, 4 / 7)
    assert run.scores["test"].confusion.sum() == 7
    config = Run.open(run.path).config
    assert config["task"] == "classify"
    assert config["target-per"] == "sequence"
    assert config["model"]["bidirectional"] is True
    assert config["train"]["epochs"] == 2
    assert config["features"] == ["x", "word"]
    figures = {path.name for path in (run.path / "figures").iterdir()}
    assert figures == {"learning_curve.png", "valid.png", "test.png"}
    assert "macro-F1" in (run.path / "report.html").read_text()


def test_evaluate_and_predict_from_the_folder_as_from_the_run(tmp_path: Path, train: Any) -> None:
    columns = shifts(9, seed=1)
    run = train(shifts(), test=write(tmp_path / "test.csv", columns), **LABEL)
    for model in (run, run.path, str(run.path)):
        scores = table.evaluate(model, tmp_path / "test.csv")
        assert {f"test.{k}": v for k, v in scores.metrics.items()}.items() <= run.metrics.items()
    del columns["label"]
    write(tmp_path / "new.csv", columns)
    predicted = table.predict(run.path, tmp_path / "new.csv", tmp_path / "out.csv")
    assert predicted.column_names == ["id", "prediction", "p_down", "p_up"]
    assert predicted["id"].to_pylist() == list(dict.fromkeys(columns["id"]))
    total = np.add(predicted["p_down"], predicted["p_up"])
    np.testing.assert_allclose(total, 1)
    picked = np.where(np.array(predicted["p_up"]) > 0.5, "up", "down")
    assert predicted["prediction"].to_pylist() == picked.tolist()
    assert tables.read(tmp_path / "out.csv").table["prediction"].to_pylist() == picked.tolist()


def test_the_order_of_rows_and_sequences_does_not_matter(tmp_path: Path, train: Any) -> None:
    run = train(shifts(), **LABEL)
    columns = shifts(6, seed=3)
    order = np.random.default_rng(1).permutation(len(columns["x"]))
    mixed = {name: [values[k] for k in order] for name, values in columns.items()}
    rows = [
        {row["id"]: row["p_up"] for row in table.predict(run, write(path, c)).to_pylist()}
        for path, c in ((tmp_path / "a.csv", columns), (tmp_path / "b.csv", mixed))
    ]
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".tsv"])
def test_other_formats(tmp_path: Path, train: Any, suffix: str) -> None:
    columns = shifts()
    by_csv = train(columns, **LABEL)
    run = train(write(tmp_path / f"t{suffix}", columns), overwrite=True, **LABEL)
    assert run.metrics["valid.accuracy"] == by_csv.metrics["valid.accuracy"]
    out = tmp_path / f"out{suffix}"
    predicted = table.predict(run, tmp_path / f"t{suffix}", out)
    assert tables.read(out).table.column_names == predicted.column_names


def test_a_folder_with_a_sequence_a_file(tmp_path: Path, train: Any) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for k in range(6):
        values = {"x": [float(k), 1.0 - k, 0.5], "label": [k % 2] * 3}
        write(folder / f"m{k}.csv", values)
    run = train(folder, target="label")
    predicted = table.predict(run, folder)
    assert predicted["sequence"].to_pylist() == [f"m{k}" for k in range(6)]
    assert predicted["prediction"].type == pa.int64()


def test_one_number_a_sequence(train: Any) -> None:
    run = train(shifts(), target="total", sequence="id", features=["x"])
    assert set(run.scores["valid"].metrics) == {
        *("targets", "mae", "rmse", "r2"),
        *("baseline.mae", "baseline.rmse", "baseline.r2"),
    }
    assert (run.path / "figures" / "valid.png").exists()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_one_class_a_step(tmp_path: Path, train: Any, cell: Any) -> None:
    columns = shifts()
    run = train(
        columns,
        target="tag",
        sequence="id",
        order="t",
        features=["x", "word"],
        model=replace(SMALL, cell=cell, layers=2),
    )
    predicted = table.predict(run, tmp_path / "train.csv")
    assert predicted.column_names == [
        *("row", "id", "t", "prediction"),
        *("p_downp", "p_downq", "p_upp", "p_upq"),
    ]
    for name in ("id", "t"):
        assert predicted[name].to_pylist() == columns[name]
    assert predicted["row"].to_pylist() == list(range(1, len(columns["t"]) + 1))


def test_one_number_a_step_matches_its_row(tmp_path: Path, train: Any) -> None:
    """Rows of many sequences are mixed; each prediction must be beside its own row."""
    columns = shifts(40)
    columns["y"] = [2 * x for x in columns["x"]]
    settings = TrainSettings(epochs=30, learning_rate=0.02)
    options = {"target": "y", "sequence": "id", "order": "t", "features": ["x"]}
    run = train(columns, training=settings, **options)
    predicted = table.predict(run, tmp_path / "train.csv")
    assert np.corrcoef(predicted["prediction"], columns["y"])[0, 1] > 0.95


def test_target_per_step_although_it_never_varies(train: Any) -> None:
    run = train(shifts(), target_per="step", **LABEL)
    assert run.recipe.per == "step"
    assert run.metrics["valid.targets"] > 2


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1] * 4, [0, 1]),
        ([True, False] * 4, [False, True]),
        ([1, 2, 3, 4, 5, 6, 7, 8], None),
        ([0.5, 1.0] * 4, None),
    ],
)
def test_classes_or_numbers(train: Any, values: list[Any], classes: list[Any] | None) -> None:
    columns = {"id": list(range(8)), "x": [float(k) for k in range(8)], "y": values}
    run = train(columns, target="y", sequence="id")
    found = getattr(run.recipe.values, "values", None)
    assert found == (None if classes is None else tuple(classes))
    other = "regress" if classes else "classify"
    run = train(columns, target="y", sequence="id", task=other, overwrite=True)
    assert hasattr(run.recipe.values, "values") == (classes is None)


def test_a_forecast_of_a_series(tmp_path: Path, train: Any) -> None:
    run = train(wave(), target="y", order="t", ahead=3, features=[])
    assert run.recipe.features.names == ["y"]
    assert run.metrics["valid.targets"] == 45
    assert {"valid.baseline.mae", "valid.last_value.mae"} <= run.metrics.keys()
    assert (run.path / "figures" / "forecast.png").exists()
    predicted = table.predict(run, tmp_path / "train.csv")
    assert predicted.column_names == ["row", "t", "prediction"]
    assert predicted.num_rows == 300
    assert not np.isnan(predicted["prediction"]).any()


def test_a_forecast_of_classes_in_sequences(tmp_path: Path, train: Any) -> None:
    columns = shifts(20, lengths=(1, 5))
    run = train(columns, target="word", sequence="id", order="t", ahead=2, features=["x"])
    assert run.recipe.features.names == ["x", "word"]
    assert "valid.last_value.accuracy" in run.metrics
    assert table.predict(run, tmp_path / "train.csv").num_rows == len(columns["x"])


def test_a_series_without_a_forecast(train: Any) -> None:
    run = train(wave(), target="up", order="t", features=["y"])
    assert run.metrics["valid.targets"] == 45
    assert "valid.last_value.accuracy" not in run.metrics


def test_a_series_with_a_file_to_validate_on(tmp_path: Path, train: Any) -> None:
    valid = write(tmp_path / "valid.csv", wave(50))
    run = train(wave(), target="y", order="t", ahead=1, valid=valid)
    assert run.metrics["valid.targets"] == 49


def test_two_sequences(train: Any) -> None:
    said: list[str] = []
    columns = {"id": [0, 0, 1, 1], "x": [1.0, 2, 3, 5], "y": ["a", "a", "b", "b"]}
    run = train(columns, said, target="y", sequence="id")
    assert said[-1].startswith("too few sequences to hold any out")
    assert run.metrics["valid.targets"] == 2
    columns["y"] = [1.5, 1.5, 2.5, 2.5]
    run = train(columns, target="y", sequence="id", overwrite=True)
    assert run.metrics["valid.targets"] == 1


def test_a_class_with_a_single_example(train: Any) -> None:
    columns = shifts()
    columns["label"] = [
        "odd" if k == "s3" else label
        for k, label in zip(columns["id"], columns["label"], strict=True)
    ]
    run = train(columns, **LABEL)
    assert run.recipe.values.counts[1] == 1


def test_the_same_seed_gives_the_same_run(train: Any) -> None:
    def losses(run: Any) -> list[float]:
        return [event["loss"] for event in Run.open(run.path).events()[:-1]]

    first = train(shifts(), **LABEL)
    expected = losses(first)
    second = train(shifts(), overwrite=True, **LABEL)
    assert {**first.metrics, "seconds": 0} == {**second.metrics, "seconds": 0}
    assert losses(second) == expected
    assert losses(train(shifts(), overwrite=True, seed=1, **LABEL)) != expected


def test_a_cache_changes_nothing_but_where_the_data_are(tmp_path: Path, train: Any) -> None:
    test = write(tmp_path / "test.csv", shifts(5, seed=1))
    valid = write(tmp_path / "valid.csv", shifts(5, seed=2))
    options = LABEL | {"test": test, "valid": valid}
    said: list[str] = []
    plain = train(shifts(), said, **options)
    assert Run.open(plain.path).config["cache"] is None
    for times in range(2):
        lines: list[str] = []
        run = train(shifts(), lines, overwrite=True, cache=tmp_path / "kept", **options)
        converted = [line for line in lines if "is converted once" in line]
        assert len(converted) == (3 if times == 0 else 0)
        assert [line for line in lines if line not in converted] == said
        assert {**run.metrics, "seconds": 0} == {**plain.metrics, "seconds": 0}
        for name, weight in plain.model.state_dict().items():
            assert torch.equal(weight, run.model.state_dict()[name])
    assert len(list((tmp_path / "kept").glob("rows-*"))) == 3
    assert len(list((tmp_path / "kept").glob("examples-*"))) == 3
    assert Run.open(run.path).config["cache"] == str(tmp_path / "kept")


LACKING = {"label": 0, "id": 0, "t": 0, "x": 1}


@pytest.mark.parametrize("option", ["valid", "test"])
@pytest.mark.parametrize(
    ("kind", "lacking"),
    [
        *((kind, lacking) for kind in ("test.csv", "test.parquet") for lacking in LACKING),
        # The files of a folder are its sequences.
        *(("folder", lacking) for lacking in LACKING if lacking != "id"),
    ],
)
def test_a_further_table_that_does_not_fit_is_told_before_the_work(
    tmp_path: Path, train: Any, option: str, kind: str, lacking: str
) -> None:
    columns = {name: values for name, values in shifts(5).items() if name != lacking}
    if kind == "folder":
        (tmp_path / kind).mkdir()
        columns.pop("id")
        write(tmp_path / kind / "s1.csv", columns)
    else:
        write(tmp_path / kind, columns)
    with pytest.raises(UserError, match=f"there is no column '{lacking}' in .*{kind}"):
        train(shifts(), cache=tmp_path / "kept", **LABEL, **{option: tmp_path / kind})
    assert len(list((tmp_path / "kept").glob("rows-*"))) == LACKING[lacking]
    assert not list((tmp_path / "kept").glob("examples-*"))


def test_other_settings_do_not_take_the_examples_of_these(tmp_path: Path, train: Any) -> None:
    for k, change in enumerate(
        ({}, {"seed": 5}, {"features": ["x"]}, {"target": "total", "features": ["x", "word"]})
    ):
        options = LABEL | change
        plain = train(shifts(), overwrite=True, **options)
        run = train(shifts(), overwrite=True, cache=tmp_path / "kept", **options)
        assert {**run.metrics, "seconds": 0} == {**plain.metrics, "seconds": 0}
        # Two each: to train on, and to validate on.
        assert len(list((tmp_path / "kept").glob("examples-*"))) == 2 * k + 2


def test_a_series_in_a_cache(tmp_path: Path, train: Any) -> None:
    plain = train(wave(), target="y", order="t", ahead=3)
    run = train(wave(), overwrite=True, target="y", order="t", ahead=3, cache=tmp_path / "kept")
    assert {**run.metrics, "seconds": 0} == {**plain.metrics, "seconds": 0}


def test_a_large_file_is_converted_beside_the_run(
    tmp_path: Path, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peephole.data.opening.IN_MEMORY", 100)
    monkeypatch.chdir(tmp_path)
    train(shifts(), out="some/run", **LABEL)
    assert len(list((tmp_path / "some" / "cache").glob("rows-*"))) == 1
    train(shifts(), out=None, **LABEL)
    assert len(list((tmp_path / "runs" / "cache").glob("rows-*"))) == 1


def test_an_unknown_category_is_counted(tmp_path: Path, train: Any) -> None:
    columns = shifts(4, seed=1)
    columns["word"][:2] = ["new", "newer"]
    test = write(tmp_path / "test.csv", columns)
    said: list[str] = []
    train(shifts(), said, test=test, **LABEL)
    n = len(columns["x"])
    assert said[-1] == (
        f"{test}: 2 of {n} values of 'word' were never seen in training and are taken as unknown"
    )


def test_categories_that_look_like_numbers_in_another_file(tmp_path: Path, train: Any) -> None:
    columns = shifts()
    columns["word"] = [{"p": "007", "q": "x"}[word] for word in columns["word"]]
    run = train(columns, **LABEL)
    columns["word"] = ["007"] * len(columns["x"])
    said: list[str] = []
    (tmp_path / "n.csv").write_text("id,t,x,word\na,0,1.5,007\na,1,2.5,007\n")
    assert table.predict(run, tmp_path / "n.csv", say=said.append).num_rows == 1
    assert said == []


def test_names_with_markup_and_dollars_show_as_text(train: Any) -> None:
    columns = {
        "<b>id</b>": [k // 2 for k in range(16)],
        "<script>alert(1)</script>": [float(k * 7 % 5) for k in range(16)],
        "$x_1$ {{ 7 * 7 }}": ["<i>a</i>", "$b^2$"] * 8,
        "</table>": ["<img src=x>"] * 8 + ["$\\frac$"] * 8,
    }
    said: list[str] = []
    run = train(columns, said, target="</table>", sequence="<b>id</b>")
    html = (run.path / "report.html").read_text()
    for name in ("<script>alert", "<b>id", "<img src=x", "<i>a", " 49 "):
        assert name not in html
    for name in ("&lt;script&gt;alert(1)", "$x_1$ {{ 7 * 7 }}", "&lt;img src=x&gt;", "$\\frac$"):
        assert name in html


def test_clashing_names_of_predictions(tmp_path: Path, train: Any) -> None:
    columns = shifts()
    columns = {
        "prediction": columns["id"],
        "p_up": columns["t"],
        "x": columns["x"],
        "y": columns["tag"],
    }
    columns["y"] = [tag[:-1] for tag in columns["y"]]
    run = train(columns, target="y", sequence="prediction", order="p_up", target_per="step")
    names = table.predict(run, tmp_path / "train.csv").column_names
    assert names == ["row", "prediction", "p_up", "prediction_", "p_down", "p_up_"]


def bad(option: str | None, message: str, columns: Columns | None = None, **options: Any) -> Any:
    return pytest.param(columns, options, option, message, id=message[:40])


TWO = {"id": [0, 0, 1, 1], "x": [1.0, 2, 3, 4], "y": ["a", "a", "b", "b"]}


@pytest.mark.parametrize(
    ("columns", "options", "option", "message"),
    [
        bad("target", "no column 'labl' in .*did you mean 'label'", target="labl"),
        bad("sequence", "no column 'idd' in .*did you mean 'id'", sequence="idd"),
        bad("order", "no column 'tt' in ", order="tt"),
        bad("features", "no column 'wrd' in .*did you mean 'word'", features=["wrd"]),
        bad("features", "'label' is the target, so it cannot be a feature", features=["label"]),
        bad("sequence", "is the target", sequence="label"),
        bad("target_per", "'t' must be one a sequence, but in sequence 's", target="t",
            order=None, target_per="sequence"),
        bad("target_per", "needs sequences", sequence=None, target_per="sequence"),
        bad("task", "holds text, which has no numbers to regress on", task="regress"),
        bad("ahead", "0 steps ahead; it must be at least 1", ahead=0),
        bad("ahead", "no sequence is longer than 6 steps", ahead=6),
        bad("ahead", "too few to learn from", sequence=None, ahead=400),
        bad("model.bidirectional", "not in forecasting", ahead=1,
            model=replace(SMALL, bidirectional=True)),
        bad("model.bidirectional", "nor in a single series", sequence=None,
            model=replace(SMALL, bidirectional=True)),
        bad("model.peephole", "only the lstm has peepholes", model=replace(
            SMALL, cell="gru", peephole="full")),
        bad("model.hidden_size", "0; it must be from 1", model=replace(SMALL, hidden_size=0)),
        bad("train.learning_rate", "must be more than 0",
            training=replace(SHORT, learning_rate=-1.0)),
        bad("train.epochs", "0; it must be at least 1", training=replace(SHORT, epochs=0)),
        bad("sequence", "has only one sequence, 0; leave out", TWO | {"id": [0] * 4}),
        bad("target", "has only one class of 'y', 'a'", TWO | {"y": ["a"] * 4}),
        bad("target", "no finite value in row 3", TWO | {"y": ["a", "a", None, "b"]}),
        bad("target", "no finite value in row 2 .*of 2", TWO | {"y": [0.5, np.inf, np.inf, 1]}),
        bad("sequence", "'id' in .* has 1 missing value, the first in row 2",
            TWO | {"id": [0, None, 1, 1]}),
        bad("missing", "'x' is missing or NaN in sequence 1, row 3", TWO | {"x": [1, 2, None, 4]}),
        bad(None, "no column left to learn from: left out 'x': it never varies",
            TWO | {"x": [1, 1, 2, 2]}),
        bad("out", "cannot be replaced as a whole", TWO, out="."),
        bad("seed", "is not from 0", TWO, seed=2**32),
        bad("target", "too large to average", TWO | {"y": [1e200, -1e200, 1e200, 0.5]}),
        bad(None, "'x' in .* too large to average", TWO | {"x": [1e200, -1e200, 1e200, 0.5]}),
    ],
)  # fmt: skip
def test_bad_input_is_one_error_and_no_run_folder(
    tmp_path: Path,
    train: Any,
    monkeypatch: pytest.MonkeyPatch,
    columns: Columns | None,
    options: dict[str, Any],
    option: str | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if columns is not None:
        options = {"target": "y", "sequence": "id"} | options
    with pytest.raises(UserError, match=message) as caught:
        train(columns or shifts(), **{**({} if columns else LABEL), **options})
    assert caught.value.option == option
    assert "\n" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


@pytest.mark.parametrize("option", ["valid", "test"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"label": ["sideways"] + ["up"] * 3},
            "row 1 of .* has the class 'sideways'.*'down', 'up'",
        ),
        ({"label": ["up", "down", "up", "up"]}, "must be one a sequence, but in sequence 'a' of"),
        ({"x": None}, "no column 'x' in"),
        ({"x": ["one", "2", "3", "4"]}, "'x' must hold numbers.* row 1 of .* has 'one'"),
        ({"label": None}, "no column 'label' in"),
        ({"x": [1.0, None, 2, 3]}, "'x' is missing or NaN in sequence 'a', step 1, row 2"),
    ],
)
def test_another_file_that_does_not_fit(
    tmp_path: Path, train: Any, option: str, change: dict[str, Any], message: str
) -> None:
    other: dict[str, Any] = {
        "id": ["a", "a", "b", "b"],
        "t": [0, 1, 0, 1],
        "x": [1.0, 2, 3, 4],
        "word": ["p"] * 4,
        "label": ["up"] * 4,
    }
    if change.get("label") == ["sideways"] + ["up"] * 3:
        change = {"label": ["sideways"] * 2 + ["up"] * 2}
    other = {name: values for name, values in (other | change).items() if values is not None}
    path = write(tmp_path / "other.csv", other)
    with pytest.raises(UserError, match=message):
        train(shifts(), **{option: path}, **LABEL)
    assert not (tmp_path / "run").exists()
    run = train(shifts(), **LABEL)
    with pytest.raises(UserError, match=message):
        table.evaluate(run, path)


def test_missing_values_are_filled_on_demand(train: Any) -> None:
    columns = shifts()
    columns["x"] = [None if k % 5 == 0 else x for k, x in enumerate(columns["x"])]
    columns["word"] = [None if k % 7 == 0 else w for k, w in enumerate(columns["word"])]
    for k, missing in enumerate(("forward", "mean")):
        run = train(columns, missing=missing, overwrite=k > 0, **LABEL)
        assert np.isfinite(run.metrics["valid.accuracy"])


def test_a_run_takes_another_choice_for_missing_values(tmp_path: Path, train: Any) -> None:
    run = train(shifts(), **LABEL)
    columns = shifts(seed=1)
    columns["x"][2] = None
    file = write(tmp_path / "new.csv", columns)
    with pytest.raises(UserError, match="'x' is missing"):
        table.evaluate(run, file)
    assert table.evaluate(run, file, missing="mean").metrics["targets"] == 12
    assert table.predict(run.path, file, missing="forward").num_rows == 12


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("option", "word"), [("cell", "lstmm"), ("task", "classification"), ("missing", "ffill")]
)
def test_a_word_that_is_no_choice(train: Any, option: str, word: str) -> None:
    chosen: dict[str, Any] = (
        {"model": ModelSettings(cell=word)} if option == "cell" else {option: word}
    )
    with pytest.raises(UserError, match=f"{option}: it is '{word}'; it is one of"):
        train(shifts(), **LABEL | chosen)


def test_predictions_do_not_replace_a_file_in_silence(tmp_path: Path, train: Any) -> None:
    run = train(shifts(), **LABEL)
    file = write(tmp_path / "new.csv", shifts(seed=1))
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"new.csv exists; .*--overwrite"):
        table.predict(run, file, file)
    assert file.read_bytes() == before
    table.predict(run, file, file, overwrite=True)
    assert tables.read(file).table.column_names[:2] == ["id", "prediction"]


def test_a_class_that_only_begins_sequences_can_be_forecast_from(train: Any) -> None:
    columns = shifts(lengths=(4, 6))
    states = {0: "START"}
    columns["label"] = [
        states.get(t, label) for t, label in zip(columns["t"], columns["label"], strict=True)
    ]
    run = train(columns, target="label", sequence="id", order="t", ahead=1)
    assert run.recipe.values.values == ("START", "down", "up")
    assert run.recipe.values.counts[0] == 0


def test_one_sequence_long_enough_to_forecast_is_trained_on(train: Any) -> None:
    said: list[str] = []
    columns = {"id": [0, 1, 1, 1, 1], "x": [1.0, 2, 3, 5, 8]}
    run = train(columns, said, target="x", sequence="id", ahead=2)
    assert any("too few sequences to hold any out" in line for line in said)
    assert run.metrics["valid.targets"] == 2


def test_a_name_of_one_feature_is_a_list_of_one(train: Any) -> None:
    run = train(shifts(), **LABEL | {"features": "word"})
    assert run.recipe.features.names == ["word"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "gr\u00f6\u00dfe,y\n1,2\n".encode("latin-1"), "is not UTF-8"),
        ("t.jsonl", b'{"id": 1, "x": 1, "y": [1]}\n{"id": 2, "x": 1, "y": [2]}\n', "holds list"),
    ],
)
def test_a_file_of_another_kind(
    tmp_path: Path, train: Any, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        train(tmp_path / name, target="y", sequence="id")


def test_a_folder_with_one_file(tmp_path: Path, train: Any) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.csv", wave())
    with pytest.raises(UserError, match=r"holds one file, a.csv.*name the file itself"):
        train(tmp_path / "folder", target="y")


def test_a_training_that_diverges_can_be_looked_at(tmp_path: Path, train: Any) -> None:
    columns = shifts()
    columns["x"] = [x * 1e30 for x in columns["x"]]
    columns["total"] = [1e38 * t for t in columns["total"]]
    with pytest.raises(Diverged) as caught:
        train(
            columns,
            target="total",
            sequence="id",
            features=["x"],
            training=TrainSettings(epochs=5, learning_rate=1e30, clip=1e30),
        )
    run = tmp_path / "run"
    assert (state(run), look(run).state) == ("interrupted", "diverged")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["what"]) == ("diverged", caught.value.what)


def test_a_run_that_exists(train: Any) -> None:
    train(shifts(), **LABEL)
    with pytest.raises(UserError, match="overwrite") as caught:
        train(shifts(), **LABEL)
    assert caught.value.option == "out"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("task",), "toy", "config.json.task is 'toy'; it is one of"),
        (("recipe", "per"), "day", "config.json.recipe.per is 'day'"),
        (("recipe", "features", "numbers", 0, "sd"), 0.0, "sd"),
        (("recipe", "features", "numbers", 0, "mean"), "x", "mean is 'x', not float"),
        (("recipe", "target"), 5, "target is 5, not str"),
        (("recipe", "values", "counts"), [1], "counts"),
        (("recipe", "ahead"), -1, "ahead"),
        (("settings", "cell"), "os.system", "cell is 'os.system'; it is one of"),
        (
            ("settings", "hidden_size"),
            9,
            r"does not go with the model's settings: it has '.*32, 5\]",
        ),
        (("settings", "hidden_size"), 10**9, "hidden_size"),
        (("settings", "hidden_size"), -1, "hidden_size"),
        (("settings", "layers"), 10**6, "layers"),
        (("settings", "bidirectional"), None, "must be settled"),
        (("recipe", "features", "numbers", 0, "mean"), 10**400, "the number '1000.* is too large"),
        (("extra",), 1, "an entry 'extra' that does not belong there"),
    ],
)
def test_a_strangers_run_is_checked(
    tmp_path: Path, train: Any, path: tuple[Any, ...], value: Any, message: str
) -> None:
    run = train(shifts(), **LABEL)
    file = run.path / "model" / "config.json"
    config = json.loads(file.read_text())
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        table.evaluate(run.path, tmp_path / "train.csv")
    assert "\n" not in caught.value.message
    assert str(run.path) in caught.value.message


def test_weights_are_read_back_exactly(train: Any) -> None:
    run = train(shifts(), **LABEL)
    _, model = table.open_run(run.path)
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


def test_a_table_from_python_as_from_a_file(tmp_path: Path, train: Any) -> None:
    columns, others = pa.table(shifts()), pa.table(shifts(5, seed=1))
    run = train(shifts(), test=write(tmp_path / "test.csv", shifts(5, seed=1)), **LABEL)
    own = table.train(
        columns, test=others, model=SMALL, training=SHORT, out=tmp_path / "own", **LABEL
    )
    assert {**own.metrics, "seconds": 0} == {**run.metrics, "seconds": 0}
    config = Run.open(own.path).config
    assert (config["file"], config["valid"], config["test"]) == ("the Table", None, "the Table")
    by_table, by_file = table.evaluate(own, others), table.evaluate(run, tmp_path / "test.csv")
    assert by_table.metrics == by_file.metrics
    predicted = table.predict(own, others.drop_columns(["label"]))
    assert predicted.equals(table.predict(run, tmp_path / "test.csv"))


def test_tensors_are_trained_on(tmp_path: Path) -> None:
    tensors = [torch.randn(1 + k % 4, 3) + (-1) ** k for k in range(12)]
    made = table.from_tensors(tensors, ["up", "down"] * 6)
    run = table.train(
        made,
        target="target",
        sequence="sequence",
        model=SMALL,
        training=SHORT,
        out=tmp_path / "run",
    )
    assert run.recipe.features.names == ["x1", "x2", "x3"]
    assert run.recipe.per == "sequence"
