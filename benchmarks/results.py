"""Results as JSON lines: one measured row a line, only ever appended."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
DIGITS = 6


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line; the file and its folder are made where they are missing.

    Args:
        path: the file.
        row: what JSON can hold; floats are kept to 6 digits.

    Raises:
        ValueError: a number is infinite or not a number.
        OSError: the file cannot be written.
    """
    line = json.dumps(_rounded(row), allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
