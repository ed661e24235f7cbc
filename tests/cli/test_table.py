"""A person's own table, from the command line: the whole way, and what can go wrong on it."""

import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from peephole.cli import main
from peephole.cli.table import train_options
from peephole.jobs import table

Row = dict[str, Any]


def rows_of(sequences: int = 12, steps: int = 4, seed: int = 0) -> list[Row]:
    """Sequences whose label tells whether x is high or low: id, step, x, kind, label."""
    random_ = random.Random(seed)
    return [
        {
            "id": f"s{k}",
            "step": t,
            "x": (k % 2) + random_.gauss(0, 0.2),
            "kind": random_.choice("ab"),
            "label": "up" if k % 2 else "down",
        }
        for k in range(sequences)
        for t in range(steps + k % 3)
    ]


def write(path: Path, rows: list[Row]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


FAST = ["--train.epochs", "2", "--model.hidden-size", "4"]
COLUMNS = ["--target", "label", "--sequence", "id", "--order", "step"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write(tmp_path / "data.csv", rows_of())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    data, test = (write(folder / f"{seed}.csv", rows_of(seed=seed)) for seed in (0, 1))
    words = ["train", "table", data, *COLUMNS, "--features", "x", "kind", "--test", test]
    assert main([*words, *FAST, "--out", str(folder / "run")]) == 0
    return folder


def test_training_prints_what_it_does_and_scores_beside_a_baseline(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "table", data, *COLUMNS, *FAST, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for part in ("features:", "held out", "'label'", "majority class", "accuracy", "macro-F1"):
        assert part in captured.out
    assert captured.out.splitlines()[-1].startswith(str(tmp_path / "run" / "report.html"))


def test_a_run_folder_holds_what_the_design_says(trained: Path) -> None:
    run = trained / "run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["features"] == ["x", "kind"]
    assert config["model"]["hidden-size"] == 4
    assert config["train"]["epochs"] == 2
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"valid.accuracy", "test.accuracy", "test.baseline.accuracy"} <= metrics.keys()
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["evaluation", "evaluation", "final"]
    assert (run / "model" / "config.json").is_file()
    assert (run / "model" / "model.safetensors").is_file()
    assert list((run / "figures").glob("*.png"))


def test_a_runs_config_makes_the_same_run(trained: Path, tmp_path: Path) -> None:
    words = ["train", "table", "--config", str(trained / "run" / "config.yaml")]
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    first, again = (
        json.loads((run / "metrics.json").read_text())
        for run in (trained / "run", tmp_path / "again")
    )
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in first.items() if k != "seconds"
    }


def test_evaluate_repeats_the_tests_scores(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained / "run"), str(trained / "1.csv")]) == 0
    accuracy = json.loads((trained / "run" / "metrics.json").read_text())["test.accuracy"]
    line = next(s for s in capsys.readouterr().out.splitlines() if s.startswith("accuracy"))
    assert float(line.split()[1]) == pytest.approx(accuracy, abs=5e-4)


def test_predict_writes_a_row_for_each_prediction(trained: Path, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "label"} for row in rows_of(7, seed=5)]
    new = write(tmp_path / "new.csv", rows)
    out = tmp_path / "predictions.csv"
    assert main(["predict", str(trained / "run"), new, "--out", str(out)]) == 0
    with out.open() as file:
        written = list(csv.DictReader(file))
    assert [row["id"] for row in written] == [f"s{k}" for k in range(7)]
    for row in written:
        shares = {name: float(row[f"p_{name}"]) for name in ("up", "down")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == max(shares, key=lambda name: shares[name])


def test_example_table_says_what_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shifts.csv"
    assert main(["example", "table", "--out", str(out), "--sequences", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "40 sequences" in lines[0]
    assert "best possible accuracy" in lines[1]
    command = lines[-1].partition("peephole ")[2].split()
    assert main([*command, *FAST, "--out", str(tmp_path / "run")]) == 0


def edited(change: Callable[[list[Row]], object]) -> list[Row]:
    rows = rows_of()
    change(rows)
    return rows


@pytest.fixture
def fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[list[str]], str]]:
    """Run a command that must end with status 2, one line, and no run folder."""

    def run(words: list[str]) -> str:
        before = sorted(tmp_path.iterdir())
        capsys.readouterr()
        out = [] if "--out" in words else ["--out", str(tmp_path / "run")]
        assert main([*words, *FAST, *out]) == 2
        captured = capsys.readouterr()
        assert len(captured.err.splitlines()) == 1
        assert "Traceback" not in captured.err
        assert sorted(tmp_path.iterdir()) == before
        return captured.err.strip()

    return run


def test_a_missing_file(fails: Callable[[list[str]], str]) -> None:
    assert "nowhere.csv" in fails(["train", "table", "nowhere.csv", *COLUMNS])


def test_a_missing_column(fails: Callable[[list[str]], str], data: str) -> None:
    line = fails(["train", "table", data, "--target", "labl", "--sequence", "id"])
    assert line.startswith("peephole train table: --target: there is no column 'labl'")
    assert "did you mean 'label'" in line


def test_an_empty_file(fails: Callable[[list[str]], str], tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    assert "empty.csv" in fails(["train", "table", str(tmp_path / "empty.csv"), *COLUMNS])


def test_one_sequence(fails: Callable[[list[str]], str], tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", rows_of(1))
    assert "--sequence" in fails(["train", "table", one, *COLUMNS])


def test_a_target_that_varies(fails: Callable[[list[str]], str], tmp_path: Path) -> None:
    rows = edited(lambda rows: rows[0].update(label="up"))
    line = fails(
        ["train", "table", write(tmp_path / "v.csv", rows), *COLUMNS, "--target-per", "sequence"]
    )
    assert "'s0'" in line


@pytest.mark.parametrize("value", ["", "nan", "inf", "-inf"])
def test_a_feature_that_is_no_number(
    fails: Callable[[list[str]], str], tmp_path: Path, value: str
) -> None:
    rows = edited(lambda rows: rows[6].update(x=value))
    file = write(tmp_path / "missing.csv", rows)
    line = fails(["train", "table", file, *COLUMNS])
    assert line.startswith("peephole train table: --missing: ")
    for part in ("'x'", "'s1'", "forward", "mean"):
        assert part in line
    for fill in ("forward", "mean"):
        words = ["train", "table", file, *COLUMNS, "--missing", fill, *FAST]
        assert main([*words, "--out", str(tmp_path / fill)]) == 0


def test_a_class_that_training_never_saw(
    fails: Callable[[list[str]], str], data: str, tmp_path: Path
) -> None:
    rows = edited(lambda rows: [row.update(label="sideways") for row in rows if row["id"] == "s3"])
    test = write(tmp_path / "test.csv", rows)
    line = fails(["train", "table", data, *COLUMNS, "--test", test])
    assert "'sideways'" in line
    assert "test.csv" in line


def test_a_run_folder_that_exists(
    fails: Callable[[list[str]], str], data: str, trained: Path
) -> None:
    run = trained / "run"
    before = (run / "metrics.json").read_text()
    line = fails(["train", "table", data, *COLUMNS, "--out", str(run)])
    assert line.startswith("peephole train table: --out: ")
    assert "--overwrite" in line
    assert (run / "metrics.json").read_text() == before


def test_a_flag_that_does_not_exist(fails: Callable[[list[str]], str], data: str) -> None:
    line = fails(["train", "table", data, *COLUMNS, "--model.hiden-size", "3"])
    assert line == (
        "peephole train table: --model.hiden-size: there is no such option; "
        "did you mean --model.hidden-size?"
    )


def test_a_setting_of_the_wrong_kind_of_model(fails: Callable[[list[str]], str], data: str) -> None:
    words = ["train", "table", data, *COLUMNS, "--model.cell", "gru"]
    assert "--model.peephole: " in fails([*words, "--model.peephole", "full"])


def test_a_column_with_markup_shows_as_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>$x$"
    rows = [{**row, evil: row["x"], "[bold]b": row["x"]} for row in rows_of()]
    file = write(tmp_path / "data.csv", rows)
    assert main(["train", "table", file, *COLUMNS, *FAST, "--out", str(tmp_path / "run")]) == 0
    html = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x$" in html


def test_a_run_meets_a_missing_value(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write(tmp_path / "new.csv", edited(lambda rows: rows[6].update(x="")))
    run, out = str(trained / "run"), str(tmp_path / "p.csv")
    assert main(["predict", run, new, "--out", out]) == 2
    assert capsys.readouterr().err.startswith("peephole predict: --missing: column 'x' is missing")
    assert main(["predict", run, new, "--out", out, "--missing", "mean"]) == 0
    assert main(["predict", run, new, "--out", out, "--missing", "mean"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["predict", run, new, "--out", out, "--missing", "mean", "--overwrite"]) == 0


def test_a_cache_where_it_is_asked_for(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "table", data, *COLUMNS, *FAST, "--out", str(tmp_path / "run"), "--overwrite"]
    cache = tmp_path / "kept"
    for times in range(2):
        assert main([*words, "--cache", str(cache)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert (" is converted once, into " in said) == (times == 0)
    assert len(list(cache.glob("rows-*"))) == 1
    assert main([*words, "--cache", data]) == 2
    line = capsys.readouterr().err
    assert line.startswith("peephole train table: --cache: cannot write to the cache ")
    assert line.count("\n") == 1


def test_an_error_names_no_option_that_the_command_lacks(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{k: v for k, v in row.items() if k != "label"} for row in rows_of()]
    new = write(tmp_path / "new.csv", rows)
    assert main(["evaluate", str(trained / "run"), new]) == 2
    assert capsys.readouterr().err.startswith("peephole evaluate: there is no column 'label' in ")


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_folder_that_is_no_run(
    command: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "p.csv")] if command == "predict" else []
    assert main([command, str(tmp_path), data, *out]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"peephole {command}: ")
    assert "is not a run folder" in line
    assert not (tmp_path / "p.csv").exists()


def test_the_defaults_are_those_of_python() -> None:
    options = train_options("train table", "x").parse_args(["data.csv", "--target", "y"])
    model = dict(vars(options.model))
    assert model.pop("peephole") == "none"
    assert table.ModelSettings(**model) == table.ModelSettings()
    assert table.TrainSettings(**vars(options.train)) == table.TrainSettings()
    settings = {field.name for field in fields(table.DataSettings)}
    chosen = {name: options[name] for name in settings}
    assert table.DataSettings(**chosen) == table.DataSettings(target="y")
