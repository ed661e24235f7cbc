"""Scores of predictions, and of the baselines beside them."""

from dataclasses import dataclass

import numpy as np

from peephole.data.sequences import Array
from peephole.tasks.table.recipe import Loaded, Recipe
from peephole.tasks.table.target import Classes


@dataclass(frozen=True)
class Scores:
    """How good predictions are.

    Attributes:
        metrics: ``targets`` (how many), then ``accuracy`` and ``macro_f1``, or ``mae``, ``rmse``
            and ``r2`` in the target's own units; the same as ``baseline.accuracy`` and so on for
            the training data's majority class or mean, and in forecasting as
            ``last_value.accuracy`` for the value that the target has now.
        confusion: ``[K, K]`` counts, true classes in rows, predicted ones in columns; None for
            numbers.
        classes: their K names.
        truth: ``[n]`` the targets: classes from 0, or numbers.
        predicted: ``[n]`` the predictions, likewise.
    """

    metrics: dict[str, float]
    confusion: Array | None
    classes: list[str]
    truth: Array
    predicted: Array


def score(recipe: Recipe, predicted: Array, loaded: Loaded, scored: Array) -> Scores:
    """Compare predictions with the truth.

    Args:
        recipe: the model's.
        predicted: what ``recipe.predicted`` gave, ``[M, K]`` or ``[M]``.
        loaded: a table with targets.
        scored: ``[M]`` bool, which of them to compare; at least one.
    """
    assert loaded.truth is not None
    truth, predicted = loaded.truth[scored], predicted[scored]
    now = None if loaded.now is None else loaded.now[scored]
    if isinstance(recipe.values, Classes):
        K = len(recipe.values.values)
        chosen = predicted.argmax(1)
        rivals = {"baseline": np.full_like(chosen, int(np.argmax(recipe.values.counts)))}
        if now is not None:
            rivals["last_value"] = now
        own = classification(truth, chosen)
        others = {name: classification(truth, rival) for name, rival in rivals.items()}
        return Scores(
            _flat(len(truth), own, others),
            confusion(truth, chosen, K),
            recipe.values.names,
            truth,
            chosen,
        )
    rivals = {"baseline": np.full_like(truth, recipe.values.baseline)}
    if now is not None:
        rivals["last_value"] = now
    own = regression(truth, predicted)
    others = {name: regression(truth, rival) for name, rival in rivals.items()}
    return Scores(_flat(len(truth), own, others), None, [], truth, predicted)


def _flat(
    targets: int, own: dict[str, float], others: dict[str, dict[str, float]]
) -> dict[str, float]:
    flat = {"targets": targets, **own}
    for name, metrics in others.items():
        flat |= {f"{name}.{key}": value for key, value in metrics.items()}
    return flat


def classification(truth: Array, predicted: Array) -> dict[str, float]:
    """Accuracy, and F1 averaged over the classes that occur in the truth or the predictions."""
    counts = confusion(truth, predicted, int(max(truth.max(), predicted.max())) + 1)
    right = counts.diagonal()
    both = counts.sum(0) + counts.sum(1)
    occurs = both > 0
    return {
        "accuracy": float(right.sum() / counts.sum()),
        "macro_f1": float((2 * right[occurs] / both[occurs]).mean()),
    }


def confusion(truth: Array, predicted: Array, classes: int) -> Array:
    """Counts ``[K, K]``, true classes in rows."""
    pairs = truth.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def regression(truth: Array, predicted: Array) -> dict[str, float]:
    """Mean absolute error, root mean squared error and coefficient of determination.

    R2 is 0 where the truth does not vary, unless every prediction is right (1).
    """
    error = predicted - truth
    spread = float(np.square(truth - truth.mean()).sum())
    squared = float(np.square(error).sum())
    r2 = 1 - squared / spread if spread > 0 else float(squared == 0)
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(squared / len(error))),
        "r2": r2,
    }
