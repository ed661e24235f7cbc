"""The generated data set, its best score, and real data by default settings."""

from pathlib import Path

import numpy as np
import pytest

from peephole.data import tables
from peephole.errors import UserError
from peephole.jobs import example, table

VOWELS = Path(__file__).parents[3] / "shared" / "data" / "japanese_vowels"
ROLES = {"target": "fault", "sequence": "shift", "order": "minute"}


def test_the_file_is_what_it_says(tmp_path: Path) -> None:
    written = example.table(tmp_path / "e.csv", sequences=400, seed=3)
    data = tables.read(tmp_path / "e.csv").table
    assert data.num_rows == written.steps
    assert len(data["shift"].unique()) == written.sequences == 400
    assert set(data["fault"].to_pylist()) == set(example.CLASSES)
    assert not data["activity"].null_count
    again = example.table(tmp_path / "f.csv", sequences=400, seed=3)
    assert (tmp_path / "e.csv").read_bytes() == (tmp_path / "f.csv").read_bytes()
    assert again.best_accuracy == written.best_accuracy


def test_the_best_score_is_what_the_posterior_expects(tmp_path: Path) -> None:
    written = example.table(tmp_path / "e.csv", sequences=1000)
    sd = np.sqrt(0.05 * 0.95 / 1000)
    assert abs(written.best_accuracy - written.expected_accuracy) < 4 * sd
    assert written.majority_accuracy < 0.4 < written.best_accuracy < 1 - example.WRONG + 4 * sd


def test_too_few_sequences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        example.table(tmp_path / "e.csv", sequences=1)


@pytest.mark.slow
def test_the_default_model_comes_near_the_best_score(tmp_path: Path) -> None:
    example.table(tmp_path / "train.csv")
    other = example.table(tmp_path / "test.csv", seed=1)
    run = table.train(
        tmp_path / "train.csv", test=tmp_path / "test.csv", out=tmp_path / "run", **ROLES
    )
    assert run.metrics["test.accuracy"] > other.best_accuracy - 0.02


@pytest.mark.slow
@pytest.mark.skipif(not VOWELS.is_dir(), reason=f"needs {VOWELS}, which is not distributed")
def test_the_default_model_of_the_vowels(tmp_path: Path) -> None:
    runs = [
        table.train(
            VOWELS / "train.csv",
            target="label",
            sequence="sequence",
            order="step",
            test=VOWELS / "test.csv",
            out=tmp_path / str(seed),
            seed=seed,
        )
        for seed in range(3)
    ]
    assert np.mean([run.metrics["test.accuracy"] for run in runs]) >= 0.96
