"""The target column: one a sequence or one a step, classes or numbers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peephole.data.features import kind_of, varying_sequence
from peephole.data.sequences import Array, Grouping, plain, shown
from peephole.data.tables import Source
from peephole.errors import UserError, listed
from peephole.tasks.table.settings import DataSettings

Per = Literal["sequence", "step"]
ARROW = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}

# Integers are classes where they take so few values, each so many times on average.
MOST_INTEGER_CLASSES = 20
LEAST_EXAMPLES = 3


@dataclass(frozen=True)
class Classes:
    """A target that is one of several classes.

    Attributes:
        kind: what the column holds.
        values: the classes, in order.
        counts: how many training targets each has; the largest is the baseline.
    """

    kind: Literal["text", "integer", "number", "boolean"]
    values: tuple[str | int | float | bool, ...]
    counts: tuple[int, ...]

    @property
    def array(self) -> pa.Array:
        return pa.array(self.values, ARROW[self.kind])

    @property
    def names(self) -> list[str]:
        names: list[str] = self.array.cast(pa.string()).to_pylist()
        return names


@dataclass(frozen=True)
class Numbers:
    """A target that is a number. The model's output is (y - mean) / sd.

    Attributes:
        mean: of the training targets.
        sd: of the training targets; 1 where they are all equal.
        baseline: the training targets' mean, as numbers of the column.
        change: whether y is the change from the target's value now to its value ahead, which in
            a series that wanders varies less than the value itself.
    """

    mean: float
    sd: float
    baseline: float
    change: bool


Target = Classes | Numbers


@dataclass(frozen=True)
class Kind:
    """What the target column turned out to be; ``lines`` say why."""

    per: Per
    classify: bool
    lines: tuple[str, ...]


def tell(source: Source, grouping: Grouping, settings: DataSettings) -> Kind:
    """Tell one a sequence from one a step, and classes from numbers.

    Text and booleans are classes, and so are integers of at most 20 values that have three
    examples each on average. Other numbers are numbers.

    Raises:
        UserError: the target column is missing, has missing values or cannot be predicted; what
            was asked for contradicts it.
    """
    column = plain(source.table.column(settings.target))
    if kind_of(column.type) in ("time", "other", "nothing"):
        raise UserError(
            f"column {settings.target!r} in {source.name} holds {column.type}; "
            "a target is text, numbers or booleans",
            "target",
        )
    per, why_per = _tell_per(source, grouping, settings)
    check_complete(source, settings.target, "target")
    distinct = len(column.unique())
    targets = len(grouping) if per == "sequence" else len(column)
    classify, why = _tell_classes(column.type, distinct, targets, settings)
    what = f"classes ({distinct})" if classify else "numbers"
    lines = (why_per, f"target {settings.target!r} is taken as {what}: {why}")
    if classify and distinct > max(MOST_INTEGER_CLASSES, targets // 2):
        raise UserError(
            f"column {settings.target!r} in {source.name} has {distinct:,} classes for "
            f"{targets:,} targets: too many to learn",
            "target",
        )
    return Kind(per, classify, lines)


def _tell_per(source: Source, grouping: Grouping, settings: DataSettings) -> tuple[Per, str]:
    name = settings.target
    if settings.ahead is not None:
        if settings.target_per == "sequence":
            raise UserError("ahead forecasts a target at every step, not one a sequence", "ahead")
        steps = f"{settings.ahead} step{'s' * (settings.ahead > 1)}"
        return "step", f"forecasts {name!r} {steps} ahead, at every step"
    if grouping.ids is None:
        if settings.target_per == "sequence":
            raise UserError(
                "one target a sequence needs sequences; name the column of their ids",
                "target_per",
            )
        return "step", f"predicts {name!r} at every step of one series"
    varies = varying_sequence(plain(source.table.column(name)), grouping)
    if settings.target_per == "sequence" or (settings.target_per == "auto" and varies is None):
        check_constant(source, grouping, name, "target_per")
        return "sequence", f"predicts {name!r} once a sequence"
    return "step", f"predicts {name!r} at every step"


def check_constant(source: Source, grouping: Grouping, name: str, option: str | None) -> None:
    """Raise UserError where the target varies within a sequence, or is nothing to compare."""
    if kind_of(source.table.schema.field(name).type) == "other":
        kind = source.table.schema.field(name).type
        raise UserError(
            f"column {name!r} in {source.name} holds {kind}, which is no target", option
        )
    varies = varying_sequence(plain(source.table.column(name)), grouping)
    if varies is None:
        return
    column = source.table.column(name)
    rows = [int(grouping.rows[step]) for step in varies]
    first, second = (shown(column[row].as_py()) for row in rows)
    assert grouping.ids is not None
    b = int(np.searchsorted(grouping.offsets, varies[0], side="right")) - 1
    raise UserError(
        f"{name!r} must be one a sequence, but in sequence {shown(grouping.ids[b].as_py())} of "
        f"{source.name} it is {first} in {source.row(rows[0])} and {second} in "
        f"{source.row(rows[1])}",
        option,
    )


def check_complete(source: Source, name: str, option: str | None) -> None:
    """Raise UserError where the target is missing, NaN or infinite."""
    column = plain(source.table.column(name))
    bad = column.is_null(nan_is_null=pa.types.is_floating(column.type))
    if pa.types.is_floating(column.type):
        bad = pc.or_(bad, pc.is_inf(column).fill_null(False))
    count = pc.sum(bad).as_py() or 0
    if count:
        first = pc.index(bad, True).as_py()
        more = f" (the first of {count:,})" if count > 1 else ""
        raise UserError(
            f"the target {name!r} has no finite value in {source.row(first)} of "
            f"{source.name}{more}",
            option,
        )


def _tell_classes(
    type: pa.DataType, distinct: int, targets: int, settings: DataSettings
) -> tuple[bool, str]:
    if pa.types.is_dictionary(type):
        type = type.value_type
    kind = kind_of(type)
    if settings.task is not None:
        if settings.task == "regress" and kind == "text":
            raise UserError(
                f"column {settings.target!r} holds text, which has no numbers to regress on; "
                "leave it out, or classify",
                "task",
            )
        return settings.task == "classify", f"task={settings.task}"
    if kind != "number":
        return True, f"it holds {'text' if kind == 'text' else 'booleans'}"
    if not pa.types.is_integer(type):
        return False, "it holds numbers with fractions"
    of = f"integers of {distinct:,} value{'s' * (distinct != 1)} in {targets:,} targets"
    few = distinct <= MOST_INTEGER_CLASSES and distinct * LEAST_EXAMPLES <= targets
    return (few or distinct <= 2), f"it holds {of}"


def fit_classes(
    source: Source, name: str, rows: Array, training: Array, now: Array | None
) -> Classes:
    """The classes of a file.

    Args:
        source: the file.
        name: the target column.
        rows: ``[n]``, the row of each target.
        training: ``[n]``, which of them count as training targets.
        now: in forecasting ``[N]``, all rows: the target is a feature there too.

    Raises:
        UserError: only one class in training.
    """
    column = plain(source.table.column(name))
    kind = _class_kind(column.type)
    column = column.cast(ARROW[kind])
    values = column.take(pa.array(rows if now is None else now)).unique()
    values = (
        values.take(pc.sort_indices(values))
        if kind != "boolean"
        else pa.array(sorted(values.to_pylist()))
    )
    codes = pc.index_in(column.take(pa.array(rows)), values).to_numpy(zero_copy_only=False)
    counts = np.bincount(codes[training], minlength=len(values))
    if (counts > 0).sum() < 2:
        raise UserError(
            f"the training part of {source.name} has only one class of {name!r}, "
            f"{shown(values[int(counts.argmax())].as_py())}; there is nothing to tell apart",
            "target",
        )
    return Classes(kind, tuple(values.to_pylist()), tuple(counts.tolist()))


def _class_kind(type: pa.DataType) -> Literal["text", "integer", "number", "boolean"]:
    if pa.types.is_boolean(type):
        return "boolean"
    if kind_of(type) == "text":
        return "text"
    return "integer" if pa.types.is_integer(type) else "number"


def fit_numbers(y: Array, now: Array | None) -> Numbers:
    """Standardise training targets ``y [n]``; ``now [n]`` is the target's value at the time.

    Raises:
        UserError: numbers so large that their mean or deviation is not finite.
    """
    baseline = float(y.mean())
    change = now is not None and float(np.var(y - now)) < float(np.var(y))
    if change:
        y = y - now
    constant = y.min() == y.max()
    with np.errstate(over="ignore", invalid="ignore"):
        mean, sd = float(y.mean()), 1.0 if constant else float(y.std())
    if not np.isfinite([mean, sd, baseline]).all():
        raise UserError("its numbers are too large to average; rescale them", "target")
    return Numbers(mean, sd, baseline, change)


def labels(source: Source, name: str, rows: Array) -> Array:
    """Equal numbers ``[n]`` for equal targets in ``rows [n]``."""
    column = plain(source.table.column(name)).take(pa.array(rows))
    codes: Array = column.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return codes


def class_codes(classes: Classes, source: Source, name: str, option: str | None) -> Array:
    """The class ``[N]`` of each row of a table, int64 from 0.

    Raises:
        UserError: a class that training never saw.
    """
    column = plain(source.table.column(name))
    if kind_of(column.type) in ("time", "other"):
        raise UserError(
            f"column {name!r} in {source.name} holds {column.type}, not classes as in training",
            option,
        )
    values = classes.array
    if kind_of(column.type) in ("text", "boolean") or classes.kind in ("text", "boolean"):
        column, values = column.cast(pa.string()), values.cast(pa.string())
    else:
        column, values = (x.cast(pa.float64(), safe=False) for x in (column, values))
    codes = pc.index_in(column, values)
    if codes.null_count:
        first = pc.index(codes.is_null(), True).as_py()
        raise UserError(
            f"{source.row(first)} of {source.name} has the class "
            f"{shown(source.table.column(name)[first].as_py())}, which training never saw; "
            f"it saw {listed(classes.values)}",
            option,
        )
    coded: Array = codes.to_numpy(zero_copy_only=False).astype(np.int64)
    return coded
