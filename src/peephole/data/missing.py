"""What stands in for a missing value, by a person's choice."""

from typing import Any, Literal

import numpy as np

from peephole.data.sequences import Array, Grouping
from peephole.data.tables import Source
from peephole.errors import UserError

Missing = Literal["error", "forward", "mean"]
MISSING = ("error", "forward", "mean")


def fill_numbers(
    x: Array, name: str, mean: float, source: Source, grouping: Grouping, missing: Missing
) -> Array:
    """Numbers ``[N]`` in the order of ``grouping``, with the missing and infinite ones filled.

    "forward" takes the sequence's last good value, and before the first one the training mean;
    "mean" takes the training mean.

    Raises:
        UserError: there are any and ``missing`` is "error".
    """
    good = np.isfinite(x)
    if good.all():
        return x
    if missing == "error":
        first = int((~good).argmax())
        what = "is missing or NaN" if np.isnan(x[first]) else "is infinite"
        raise _refuse(name, what, int((~good).sum()), first, source, grouping)
    filled = np.where(good, x, mean)
    if missing == "forward":
        last = _last_good(good, grouping)
        filled = np.where(last >= 0, x[last.clip(0)], mean)
    return filled


def fill_categories(
    codes: Array, present: Array, name: str, source: Source, grouping: Grouping, missing: Missing
) -> Array:
    """Codes ``[N]`` in the order of ``grouping``, with those not ``present`` filled.

    "forward" takes the sequence's last one, and before the first 0 (unknown); "mean" takes 0.

    Raises:
        UserError: there are any and ``missing`` is "error".
    """
    if present.all():
        return codes
    if missing == "error":
        first = int((~present).argmax())
        count = int((~present).sum())
        raise _refuse(name, "is missing", count, first, source, grouping)
    if missing == "mean":
        return np.where(present, codes, 0)
    last = _last_good(present, grouping)
    return np.where(last >= 0, codes[last.clip(0)], 0)


def _last_good(good: Array, grouping: Grouping) -> Array:
    """At each step the place of its sequence's last good step so far, -1 before the first."""
    steps = np.arange(len(good))
    last: np.ndarray[Any, Any] = np.maximum.accumulate(np.where(good, steps, -1))
    begin = grouping.offsets[:-1].repeat(grouping.lengths)
    return np.where(last >= begin, last, -1)


def _refuse(
    name: str, what: str, count: int, first: int, source: Source, grouping: Grouping
) -> UserError:
    more = f" (the first of {count:,})" if count > 1 else ""
    return UserError(
        f"column {name!r} {what} in {grouping.place(source, first)} of {source.name}{more}; "
        "'forward' takes the sequence's last value before it, 'mean' the training mean",
        "missing",
    )
