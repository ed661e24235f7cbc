"""What stands in for a missing value, by a person's choice."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from peephole.data.sequences import Array, Grouping
from peephole.data.tables import Source
from peephole.errors import UserError

Missing = Literal["error", "forward", "mean"]
MISSING = ("error", "forward", "mean")


class Filler:
    """Fills the missing values of a column that comes in pieces.

    "forward" takes the sequence's last good value, and before the first one the default; "mean"
    takes the default: of numbers the training mean, of categories 0 (unknown).

    Args:
        default: what stands in where there is nothing better.
        missing: the choice; under "error" there is nothing to fill.
    """

    def __init__(self, default: float, missing: Missing) -> None:
        self.default, self.missing = default, missing
        # The last good value of the sequence that goes on in the next piece.
        self.last: Any = None

    def fill(self, x: Array, good: Array, begins: Array) -> Array:
        """Fill the next piece.

        Args:
            x: ``[n]``, its values.
            good: ``[n]`` bool, which of them are there.
            begins: ``[n]`` bool, where a sequence begins.
        """
        if self.missing != "forward":
            return x if good.all() else np.where(good, x, self.default)
        steps = np.arange(len(x))
        last: np.ndarray[Any, Any] = np.maximum.accumulate(np.where(good, steps, -1))
        begin = np.maximum.accumulate(np.where(begins, steps, -1))
        earlier = self.default if self.last is None else self.last
        before = np.where(begin < 0, earlier, self.default)
        filled: Array = np.where((last >= 0) & (last >= begin), x[last.clip(0)], before)
        if good[max(begin[-1], 0) :].any():
            self.last = filled[-1]
        elif begin[-1] >= 0:
            self.last = None
        return filled


def refuse_missing(
    name: str,
    floats: Callable[[Any], Array],
    absent: str,
    source: Source,
    grouping: Grouping,
) -> None:
    """Raise UserError where a column has missing or infinite values.

    Args:
        name: of the column.
        floats: its values, or part of them, as float64, NaN where there is none.
        absent: what to say of those.
        source: the table.
        grouping: the sequences that are looked at.
    """
    count, first, what = 0, 0, ""
    for piece in grouping.pieces(source, [name]):
        x = floats(piece.columns[name])
        bad = ~np.isfinite(x)
        if not count and bad.any():
            first = int(bad.argmax())
            what = absent if np.isnan(x[first]) else "is infinite"
            first += piece.begin
        count += int(bad.sum())
    if count:
        more = f" (the first of {count:,})" if count > 1 else ""
        raise UserError(
            f"column {name!r} {what} in {grouping.place(source, first)} of {source.name}{more}; "
            "'forward' takes the sequence's last value before it, 'mean' the training mean",
            "missing",
        )
