"""The page of a run on a table."""

from typing import Any

from peephole import __version__
from peephole.data.schema import to_json
from peephole.jobs.table import figures
from peephole.jobs.table.config import Config
from peephole.jobs.table.prepare import Prepared
from peephole.report import Figure, Page, Table, Text
from peephole.run import LiveRun
from peephole.tasks.table.metrics import Scores
from peephole.train import Fit

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R2",
}
RIVALS = {"": "model", "baseline.": "majority class", "last_value.": "last value"}
WIDEST_MATRIX = 20


def write(
    live: LiveRun,
    prepared: Prepared,
    fitted: Fit,
    scores: dict[str, Scores],
    config: Config,
) -> None:
    """Draw a run's figures and write its ``report.html``."""
    data, recipe = prepared.data, prepared.task.recipe
    page = Page(
        f"{data.target} of {config.file}",
        f"peephole {__version__}, best model of {fitted.seconds:.0f} s of training",
    )
    page.add("Scores", *(score_table(name, s) for name, s in scores.items()))
    curve = live.figures / "learning_curve.png"
    figures.learning_curve(curve, live.evaluations(), fitted.best["update"])
    drawn = [Figure(curve, "Loss of a target by update; the kept model is marked.")]
    for name, s in scores.items():
        path = live.figures / f"{name}.png"
        if s.confusion is not None:
            figures.confusion(path, s)
            drawn.append(Figure(path, f"Share of each true class by predicted class, {name}."))
        else:
            figures.predicted_over_true(path, s, data.target)
            drawn.append(Figure(path, f"Predicted over true, {name}."))
    if recipe.ahead is not None and not scores["valid"].classes:
        path = live.figures / "forecast.png"
        figures.forecast(path, prepared.task.valid, scores["valid"], recipe)
        drawn.append(Figure(path, "The end of the validation data with its forecasts."))
    page.add("Figures", *drawn)
    for name, s in scores.items():
        if s.confusion is not None and len(s.classes) <= WIDEST_MATRIX:
            page.add(f"Confusion, {name}", confusion_table(s))
    page.add("Data", *(Text(note) for note in live.about.notes))
    page.add("Settings", Table(("setting", "value"), _flat(to_json(config))))
    page.write(live.path / "report.html")


def score_table(name: str, scores: Scores) -> Table:
    """A row for each metric: the model's beside the baselines'."""
    own = [key for key in TITLES if key in scores.metrics]
    rivals = {
        prefix: "mean" if prefix == "baseline." and scores.confusion is None else title
        for prefix, title in RIVALS.items()
        if prefix + own[0] in scores.metrics
    }
    return Table(
        (name, *rivals.values()),
        [(TITLES[key], *(scores.metrics[prefix + key] for prefix in rivals)) for key in own],
        f"{scores.metrics['targets']:,} targets",
    )


def confusion_table(scores: Scores) -> Table:
    """How often each true class was predicted as each class."""
    assert scores.confusion is not None
    return Table(
        ("true, predicted", *scores.classes),
        [
            (label, *row)
            for label, row in zip(scores.classes, scores.confusion.tolist(), strict=True)
        ],
    )


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        name = prefix + key.replace("_", "-")
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(map(str, value))))
        elif value is not None:
            rows.append((name, str(value)))
    return rows
