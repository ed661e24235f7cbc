"""The figures of a run on a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peephole.report.figures import figure
from peephole.tasks.text.scoring import Cost


def learning_curve(path: Path, evaluations: Sequence[dict[str, Any]], unit: str) -> None:
    """Nats a character or byte by update, of the text that was read and of the held-out part."""
    updates = [event["update"] for event in evaluations]
    with figure(path) as drawn:
        axes = drawn.subplots()
        for key, label in (("train_loss", "training"), ("loss", "held out")):
            axes.plot(updates, [event[key] for event in evaluations], ".-", label=label)
        axes.set(xlabel="update", ylabel=f"nats a {unit}")
        axes.legend()


def by_position(path: Path, cost: Cost, unit: str) -> None:
    """Nats a character or byte by its position in a document, in powers of two."""
    places = cost.positions()
    with figure(path) as drawn:
        axes = drawn.subplots()
        axes.plot([place for place, _ in places], [nats for _, nats in places], ".-")
        axes.set(xscale="log", xlabel="position in the document", ylabel=f"nats a {unit}")
