"""The page of a run on a text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peephole import __version__
from peephole.jobs.text import figures
from peephole.report import Figure, Page, Table, Text
from peephole.run import LiveRun
from peephole.run.events import lines, parsed
from peephole.run.names import REPORT
from peephole.tasks.text.scoring import Cost
from peephole.train import Fit

# How many samples the page shows, from the first to the last.
MOST_SAMPLES = 6
UNITS = {"char": "character", "byte": "byte"}


def write(live: LiveRun, fitted: Fit, cost: Cost, config: Mapping[str, Any]) -> None:
    """Draw a run's figures and write its ``report.html``."""
    events = [parsed(live.path, line) for line in lines(live.path)]
    evaluations = [event for event in events if event.get("event") == "evaluation"]
    page = Page(
        f"A model of {config['file'] or 'the standard library'}",
        f"peephole {__version__}, {fitted.seconds:.0f} s of training",
    )
    unit = UNITS[config["unit"]]
    page.add("Scores", score_table("held-out part", unit, cost))
    page.add("Figures", *_drawn(live.figures, evaluations, unit, cost))
    page.add("What it wrote, over time", *_samples(events))
    page.add("Data", *(Text(note) for note in live.about.notes))
    page.add("Settings", Table(("setting", "value"), list(_flat(config))))
    page.write(live.path / REPORT)


def score_table(name: str, unit: str, cost: Cost) -> Table:
    """A row for each measure."""
    return Table(
        (name, "model"),
        [
            (f"nats a {unit}", cost.mean),
            (f"bits a {unit}", cost.bits),
            ("perplexity", cost.perplexity),
        ],
        f"{cost.targets:,} {unit}s",
    )


def _drawn(folder: Path, evaluations: list[dict[str, Any]], unit: str, cost: Cost) -> list[Figure]:
    curve, positions = folder / "learning_curve.png", folder / "position.png"
    figures.learning_curve(curve, evaluations, unit)
    figures.by_position(positions, cost, unit)
    return [
        Figure(curve, f"Nats a {unit} by update."),
        Figure(positions, f"Nats a {unit} by its position in a held-out document."),
    ]


def _samples(events: list[dict[str, Any]]) -> list[Table]:
    """Samples at equal distances, the last one among them."""
    found: list[tuple[str, str]] = []
    text = ""
    for event in events:
        if event.get("event") == "sample":
            text = str(event.get("text"))
        elif event.get("event") == "evaluation":
            found.append((f"{event['update']:,}", text))
    step = max(1, -(-len(found) // MOST_SAMPLES))
    return [Table(("after update", "text"), found[::-1][::step][::-1])]


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            rows.append((prefix + name, str(value)))
    return rows
