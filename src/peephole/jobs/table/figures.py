"""The figures of a run on a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from peephole.report.figures import figure
from peephole.tasks.table.metrics import Scores
from peephole.tasks.table.recipe import Loaded, Recipe
from peephole.train import Event

MOST_POINTS = 5000
MOST_STEPS = 300
MOST_LABELS = 30
WIDEST_NUMBERS = 12


def learning_curve(path: Path, evaluations: Sequence[Event], best: int) -> None:
    """Training and validation loss by update; ``best`` is the update of the kept model."""
    updates = [event["update"] for event in evaluations]
    with figure(path) as drawn:
        axes = drawn.subplots()
        for key, label in (("train_loss", "training"), ("loss", "validation")):
            axes.plot(updates, [event[key] for event in evaluations], label=label)
        axes.axvline(best, color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlabel="update", ylabel="loss")
        axes.legend()


def confusion(path: Path, scores: Scores) -> None:
    """The share of each true class that was predicted as each class."""
    assert scores.confusion is not None
    counts, K = scores.confusion, len(scores.classes)
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    side = min(8.0, 2.2 + 0.35 * K)
    with figure(path, side + 0.8, side) as drawn:
        axes = drawn.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        axes.set(xlabel="predicted", ylabel="true")
        axes.grid(False)
        if K <= MOST_LABELS:
            names = [name if len(name) <= 20 else name[:19] + "…" for name in scores.classes]
            axes.set_xticks(
                range(K), names, rotation=0 if K <= 10 and max(map(len, names)) < 4 else 90
            )
            axes.set_yticks(range(K), names)
        if K <= WIDEST_NUMBERS:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    color = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
        drawn.colorbar(image, label="share of the true class")


def predicted_over_true(path: Path, scores: Scores, target: str) -> None:
    """A point a prediction, with the diagonal on which they would all be right."""
    pick = np.linspace(0, len(scores.truth) - 1, min(MOST_POINTS, len(scores.truth))).astype(int)
    truth, predicted = scores.truth[pick], scores.predicted[pick]
    low, high = float(truth.min()), float(truth.max())
    with figure(path, 3.8, 3.4) as drawn:
        axes = drawn.subplots()
        axes.plot([low, high], [low, high], color="black", linewidth=0.8)
        axes.plot(truth, predicted, ".", color="tab:orange", markersize=3, alpha=0.6)
        axes.set(xlabel=f"true {target}", ylabel="predicted")


def forecast(path: Path, valid: Loaded, scores: Scores, recipe: Recipe) -> None:
    """The last forecasts of one sequence beside what came."""
    grouping, scored = valid.grouping, valid.examples.scored.numpy()
    sequence = grouping.sequence()[scored]
    last = np.flatnonzero(sequence == sequence[-1])[-MOST_STEPS:]
    steps = (np.flatnonzero(scored)[last] - grouping.offsets[sequence[-1]]) + (recipe.ahead or 0)
    with figure(path, 7.5, 3.0) as drawn:
        axes = drawn.subplots()
        axes.plot(steps, scores.truth[last], color="black", linewidth=1, label="true")
        label = f"forecast {recipe.ahead} ahead"
        axes.plot(steps, scores.predicted[last], color="tab:orange", linewidth=1, label=label)
        axes.set(xlabel="step", ylabel=recipe.target)
        axes.legend()
