"""Evaluate and predict with a trained model of a table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from peephole.data import tables
from peephole.data.missing import Missing
from peephole.data.schema import check_choices, from_json
from peephole.data.sequences import Array
from peephole.errors import UserError
from peephole.jobs.table.prepare import load
from peephole.jobs.table.train import TableRun
from peephole.run import Run
from peephole.tasks.table import recipe as recipes
from peephole.tasks.table.metrics import Scores
from peephole.tasks.table.model import SequenceModel, check
from peephole.tasks.table.recipe import Loaded, Recipe
from peephole.tasks.table.settings import ModelSettings
from peephole.tasks.table.target import Classes
from peephole.tasks.table.task import run, score_outputs

Say = Callable[[str], None]


@dataclass(frozen=True)
class ModelConfig:
    """The form of a table run's ``model/config.json``."""

    task: Literal["table"]
    version: Literal[1]
    settings: ModelSettings
    recipe: Recipe


def open_run(path: str | Path) -> tuple[Recipe, SequenceModel]:
    """Rebuild a trained model from a run folder, which may come from a stranger.

    Raises:
        UserError: it is no run of a table, or damaged.
    """
    opened = Run.open(path)
    where = f"{opened.path / 'model' / 'config.json'}"
    try:
        config = from_json(ModelConfig, opened.model_config, where)
        recipes.check(config.recipe)
        check(config.settings)
        if config.settings.bidirectional is None:
            raise ValueError("whether the model is bidirectional must be settled")
        with torch.device("meta"):
            model = SequenceModel(config.recipe, config.settings)
    except ValueError as error:
        message = str(error)
        raise UserError(message if where in message else f"{where}: {message}") from error
    opened.load_weights(model)
    return config.recipe, model.eval()


def evaluate(
    run_or_path: TableRun | str | Path,
    file: Any,
    *,
    missing: Missing | None = None,
    say: Say | None = None,
) -> Scores:
    """Score a trained model on a file with targets.

    Args:
        run_or_path: a trained model.
        file: a file or table of the same form as the training data.
        missing: what to do about missing features; as in training if None.
        say: takes each line that a person should read.

    Raises:
        UserError: the run is damaged, or the file does not fit it.
    """
    recipe, model = _model(run_or_path, missing)
    loaded = load(recipe, file, say=say or _quiet)
    return score_outputs(recipe, run(model, loaded.examples), loaded)


def predict(
    run_or_path: TableRun | str | Path,
    file: Any,
    out: str | Path | None = None,
    *,
    missing: Missing | None = None,
    overwrite: bool = False,
    say: Say | None = None,
) -> pa.Table:
    """Predict for each sequence, or for each step, of a file; it needs no target column.

    Args:
        run_or_path: a trained model.
        file: a file or table of the same form as the training data.
        out: a CSV, Parquet or JSON lines file to write.
        missing: what to do about missing features; as in training if None.
        overwrite: whether a file that is there may be replaced.
        say: takes each line that a person should read.

    Returns:
        A row a prediction: for one a sequence its id, in the order of their first rows; for one
        a step the row of the file (from 1), in the file's order, with the sequence's id and the
        order column. Then ``prediction``, and ``p_`` and the class's name for each class.
        Where such a name is taken by the file's columns it gets a ``_`` at its end. In
        forecasting a row's prediction is for so many steps after it.

    Raises:
        UserError: the run is damaged, the file does not fit it, or ``out`` cannot be written.
    """
    if out is not None:
        tables.check_writable(out, overwrite=overwrite)
    recipe, model = _model(run_or_path, missing)
    loaded = load(recipe, file, say=say or _quiet, scored=False)
    predicted = recipe.predicted(run(model, loaded.examples), loaded.now)
    where = _per_sequence(recipe, loaded) if recipe.per == "sequence" else _per_step(recipe, loaded)
    if recipe.per == "step" and loaded.source.rows is not None:
        predicted = predicted[loaded.source.rows.argsort()]
    table = pa.table(where | _columns(recipe, predicted, set(where)))
    if out is not None:
        tables.write(table, out, overwrite=overwrite)
    return table


def _model(
    run_or_path: TableRun | str | Path, missing: Missing | None
) -> tuple[Recipe, SequenceModel]:
    if isinstance(run_or_path, TableRun):
        recipe, model = run_or_path.recipe, run_or_path.model
    else:
        recipe, model = open_run(run_or_path)
    if missing is not None:
        check_choices(recipe := replace(recipe, missing=missing))
    return recipe, model


def _per_sequence(recipe: Recipe, loaded: Loaded) -> dict[str, Any]:
    assert recipe.sequence is not None
    return {recipe.sequence: loaded.grouping.ids}


def _per_step(recipe: Recipe, loaded: Loaded) -> dict[str, Any]:
    names = [name for name in (recipe.sequence, recipe.order) if name is not None]
    table, rows = loaded.source.table.select(names), loaded.source.rows
    if rows is not None:
        table = table.take(pa.array(rows.argsort()))
    kept = {name: table.column(name) for name in names}
    row = _free("row", set(kept))
    return {row: pa.array(np.arange(1, loaded.grouping.steps + 1))} | kept


def _columns(recipe: Recipe, predicted: Array, taken: set[str]) -> dict[str, Any]:
    name = _free("prediction", taken)
    if not isinstance(recipe.values, Classes):
        return {name: pa.array(predicted)}
    columns = {name: recipe.values.array.take(pa.array(predicted.argmax(1)))}
    for k, label in enumerate(recipe.values.names):
        columns[_free(f"p_{label}", taken | set(columns))] = pa.array(predicted[:, k].copy())
    return columns


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _quiet(line: str) -> None:
    del line
