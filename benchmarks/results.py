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


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines of all files of a folder, within each file the oldest first.

    Raises:
        ValueError: a line is no JSON.
    """
    lines = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return lines


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
