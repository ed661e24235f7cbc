"""One look for every figure, and how it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE: dict[str, Any] = {
    "figure.dpi": 160,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "image.cmap": "viridis",
    # A column name may hold a dollar sign; it is a name, not a formula.
    "text.parse_math": False,
}


@contextmanager
def figure(path: Path, width: float = 5.0, height: float = 3.4) -> Iterator[Figure]:
    """Draw on what this gives; leaving the block writes a PNG file to ``path``.

    Args:
        path: the file; its folder is made.
        width: inches.
        height: inches.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # its stubs want literals
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(path)
