"""The seed experiment's table, figures and page, from its results."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import torch

from peephole.jobs.toy_training import Grid, Result
from peephole.jobs.workers import cores
from peephole.report import Figure, Page, Table, Text
from peephole.report.figures import figure
from peephole.tasks.toy import DATA_SETS, MODELS
from peephole.tasks.toy import figures as draw
from peephole.tasks.toy.models import CLAIM_EVALUATIONS

THRESHOLDS = (0.2, 0.15, 0.12)


def summary(results: Sequence[Result], columns: Sequence[str] | None = None) -> Table:
    """A row for each model; with several seeds, medians over them.

    Args:
        results: what ``reproduce`` gives.
        columns: the names of those to show; all if None.
    """
    groups = _by_name(results)
    rows = [_summary_row(name, group) for name, group in groups.items()]
    header = list(rows[0]) if columns is None else list(columns)
    seeds = len({result["seed"] for result in results})
    caption = (
        "Errors are mean squared; 'largest on grid' is in units of z. The rates are constant, so "
        "the test error wanders to the end: 'last epoch' is the median of that epoch's "
        "evaluations. 'Best possible' is the error of the posterior mean on the same test data, "
        "'mean's error' that of always answering the training targets' mean. 'Published' is the "
        "original's test error, or its training error for lstm and lstm-variable, whose logs hold "
        "no other; its lengths were 3 and 4 where ours are 2, 3 and 4."
        + (f" Medians over {seeds} seeds." if seeds > 1 else "")
    )
    return Table(header, [[row[name] for name in header] for row in rows], caption)


def _summary_row(name: str, group: Sequence[Result]) -> dict[str, object]:
    published = MODELS[name].published
    return {
        "model": name,
        "data": group[0]["data"],
        "parameters": group[0]["parameters"],
        "epochs": group[0]["epochs"],
        "updates": group[0]["updates"],
        "train error": _median(group, "train_mse"),
        "test error": _median(group, "test_mse"),
        "last epoch": _middle([_last_epoch(result) for result in group]),
        "best possible": _median(group, "bayes_mse"),
        "mean's error": _median(group, "mean_mse"),
        "published": published.test_mse or published.train_mse,
        "grid error": _median(group, "grid_mse"),
        "published grid": published.grid_mse,
        "largest on grid": _median(group, "grid_max_error"),
        "seconds": round(median(result["seconds"] for result in group)),
    }


def draw_figures(folder: Path, results: Sequence[Result], grids: Mapping[str, Grid]) -> None:
    """Write the figures as PNG files; where there are several seeds, of the first."""
    with figure(folder / "function.png") as drawn:
        draw.draw_function(drawn)
    with figure(folder / "similarity.png", 6.4, 5.4) as drawn:
        draw.draw_similarity(drawn)
    first = {result["name"]: result for result in results if result["seed"] == 0}
    with figure(folder / "learning-curves.png", 7.6, 4.4) as drawn:
        draw.draw_learning_curves(
            drawn,
            {name: result["curve"] for name, result in first.items()},
            {result["data"]: result["bayes_mse"] for result in first.values()},
        )
    for name, grid in grids.items():
        with figure(folder / f"prediction-{name}.png", 3.6, 3.2) as drawn:
            draw.draw_prediction(drawn, name, *grid, first[name]["grid_mse"])


def write_page(out: Path, results: Sequence[Result], seconds: float) -> None:
    """Write ``report.html`` beside the ``figures`` that it takes in."""
    figures = out / "figures"
    names = list(_by_name(results))
    page = Page(
        "Inverting a noisy wavy function",
        "Recurrent networks and the MLPs they are measured against, each beside the best error "
        "that any model could reach",
    )
    page.add("Results", summary(results), *_by_length(results))
    page.add("Does the LSTM converge nearly twice as fast as the RNN?", *_claim(results))
    page.add("Learning curves", Figure(figures / "learning-curves.png", "Test error as it fell"))
    page.add(
        "Predictions",
        Text(
            "200 noise-free sequences of three inputs: the prediction in orange over the true "
            "inverse in black."
        ),
        *(Figure(figures / f"prediction-{name}.png", MODELS[name].architecture) for name in names),
    )
    page.add(
        "The problem",
        Text(
            "A target z is drawn from U(0, 10). The inputs are f(z), f(z − 1), f(z − 2), ..., each "
            "plus normal noise, with f(x) = 2 + 0.5 sin(x/2 − 1) + sin(x) + sin(2x + 2) + "
            "sin(x/4 + 1). One input leaves many targets possible; a sequence tells them apart."
        ),
        Figure(figures / "function.png", "The function"),
        Figure(figures / "similarity.png", "How alike two targets look; dark is alike"),
    )
    page.add("Settings", _settings(results), _data_sets(results))
    page.add(
        "Where this ran",
        Text(
            f"{seconds:.0f} s of wall time on {cores()} cores; "
            f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}."
        ),
    )
    page.write(out / "report.html")


def _by_name(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["name"], []).append(result)
    return groups


def _median(group: Sequence[Result], key: str) -> float | None:
    return _middle([result[key] for result in group])


def _middle(numbers: Sequence[float | None]) -> float | None:
    """The median of those there are: a training that diverged has none."""
    known = [number for number in numbers if number is not None]
    return median(known) if known else None


def _last_epoch(result: Result) -> float | None:
    evaluations = MODELS[result["name"]].evaluations
    return _middle([point["test_mse"] for point in result["curve"][-evaluations:]])


def _by_length(results: Sequence[Result]) -> list[Table]:
    groups = {
        name: group for name, group in _by_name(results).items() if "test_mse_by_length" in group[0]
    }
    if not groups:
        return []
    lengths = list(next(iter(groups.values()))[0]["test_mse_by_length"])
    rows = []
    for name, group in groups.items():
        errors = [
            _middle([result[key][T] for result in group])
            for T in lengths
            for key in ("test_mse_by_length", "bayes_mse_by_length")
        ]
        rows.append([name, *errors])
    header = ["model"]
    for T in lengths:
        header += [f"length {T}", "best possible"]
    return [Table(header, rows, "Test error by length of the sequence.")]


def _claim(results: Sequence[Result]) -> list[Text | Table]:
    groups = _by_name(results)
    if not {"lstm", "rnn"} <= groups.keys():
        return [Text("Both rnn and lstm must have been trained to judge this.")]
    rows, ratios = [], []
    for threshold in THRESHOLDS:
        row: list[object] = [f"{threshold:g}"]
        for unit in ("update", "sequences"):
            rnn, lstm = (_reached(groups[name], threshold, unit) for name in ("rnn", "lstm"))
            ratio = rnn / lstm if rnn and lstm else None
            row += [rnn or "not reached", lstm or "not reached", ratio]
            ratios.append(ratio)
        rows.append(row)
    table = Table(
        (
            "test error",
            "rnn, updates",
            "lstm, updates",
            "rnn / lstm",
            "rnn, sequences",
            "lstm, sequences",
            "rnn / lstm",
        ),
        rows,
        "First evaluation at which the test error was at most this, of "
        f"{CLAIM_EVALUATIONS} in each epoch"
        + ("; medians over the seeds." if len(groups["rnn"]) > 1 else "."),
    )
    return [Text(_verdict(ratios)), table]


def _reached(group: Sequence[Result], threshold: float, unit: str) -> int | None:
    """When the test error first was at most ``threshold``; None if a seed never got there."""
    firsts: list[int] = []
    for result in group:
        there = [
            point[unit]
            for point in result["curve"]
            if point["test_mse"] is not None and point["test_mse"] <= threshold
        ]
        if not there:
            return None
        firsts.append(there[0])
    return round(median(firsts))


def _verdict(ratios: Sequence[float | None]) -> str:
    known = [ratio for ratio in ratios if ratio is not None]
    if len(known) < len(ratios):
        return "Not to be judged here: one of the two did not reach every one of these errors."
    span = f"{min(known):.1f} to {max(known):.1f} times"
    measured = f"The RNN needed {span} as many updates or sequences as the LSTM"
    if min(known) >= 1.7:
        return f"Yes. {measured}, at each of these errors."
    if max(known) <= 1.2:
        return f"No. {measured}."
    return f"In part. {measured}: the answer depends on the error and on what is counted."


def _settings(results: Sequence[Result]) -> Table:
    rows = []
    for name, group in _by_name(results).items():
        model = MODELS[name]
        weights = (
            "layers' own" if model.uniform is None else f"U(−{model.uniform}, {model.uniform})"
        )
        rows.append(
            (
                name,
                model.architecture,
                group[0]["data"],
                str(model.batch_size),
                f"{model.rate:g}",
                str(group[0]["epochs"]),
                weights,
            )
        )
    return Table(
        ("model", "architecture", "data", "batch", "rate", "epochs", "initial weights"),
        rows,
        "Plain SGD on the mean squared error: no momentum, no decay.",
    )


def _data_sets(results: Sequence[Result]) -> Table:
    rows = []
    for name, trained_on in {result["data"]: result["sequences"] for result in results}.items():
        data = DATA_SETS[name]
        targets = "z − t at each step t" if data.every_step else "z"
        lengths = ", ".join(map(str, data.lengths))
        rows.append((name, trained_on, lengths, f"{data.sd:g}", targets))
    return Table(
        ("data", "training sequences", "lengths", "noise, sd", "targets"),
        rows,
        "The first 70% of the sequences train, the others test. Inputs are normalised by one mean "
        "and one standard deviation of the training steps; targets are raw.",
    )
