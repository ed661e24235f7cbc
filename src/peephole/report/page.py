"""One self-contained HTML page from tables, figures and text."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Table:
    """Rows of cells. A cell that is no text is a number: it stands to the right.

    ``None`` shows as a dash.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Figure:
    """A PNG file, taken into the page."""

    path: Path
    caption: str = ""
    kind: str = field(default="figure", init=False)

    @property
    def data(self) -> str:
        return base64.b64encode(self.path.read_bytes()).decode()


Block = Text | Table | Figure


@dataclass
class Page:
    """A page that needs no other file. All text in it is shown as text, whatever it holds.

    Attributes:
        title: the heading.
        subtitle: a line under it.
        sections: (heading, blocks), in order. Figures that follow each other share a row.
    """

    title: str
    subtitle: str = ""
    sections: list[tuple[str, list[Block]]] = field(default_factory=list)

    def add(self, heading: str, *blocks: Block) -> None:
        self.sections.append((heading, list(blocks)))

    def write(self, path: Path) -> None:
        environment = Environment(
            loader=PackageLoader("peephole.report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["show"] = show
        environment.filters["runs"] = _runs
        html = environment.get_template("page.html").render(page=self)
        # A file's name may be no text.
        path.write_text(html, encoding="utf-8", errors="backslashreplace")


def _runs(blocks: list[Block]) -> list[tuple[bool, list[Block]]]:
    """Neighbours that are all figures, or all not."""
    runs = groupby(blocks, key=lambda block: isinstance(block, Figure))
    return [(figures, list(run)) for figures, run in runs]


def show(cell: object) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1e4 else f"{cell:,.0f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)
