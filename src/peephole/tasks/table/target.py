"""The target column: one a sequence or one a step, classes or numbers."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peephole.data.features import check_numbers, floats, kind_of, varying_sequence
from peephole.data.moments import moments
from peephole.data.sequences import Array, Grouping, flagged, shown
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
# More distinct values than these are not counted: they would take memory for no use.
MOST_COUNTED = 1_000_000


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
    type = source.table.schema.field(settings.target).type
    if kind_of(type) in ("time", "other", "nothing"):
        raise UserError(
            f"column {settings.target!r} in {source.name} holds {type}; "
            "a target is text, numbers or booleans",
            "target",
        )
    type = type.value_type if pa.types.is_dictionary(type) else type
    per, why_per = _tell_per(source, grouping, settings)
    check_complete(source, settings.target, "target")
    targets = len(grouping) if per == "sequence" else grouping.steps
    distinct = 0
    if settings.task == "classify" or kind_of(type) != "number" or pa.types.is_integer(type):
        distinct = _distinct(source, grouping, settings.target)
    counted = f"more than {MOST_COUNTED:,}" if distinct > MOST_COUNTED else f"{distinct:,}"
    classify, why = _tell_classes(type, distinct, counted, targets, settings)
    what = f"classes ({counted})" if classify else "numbers"
    lines = (why_per, f"target {settings.target!r} is taken as {what}: {why}")
    if classify and distinct > min(MOST_COUNTED, max(MOST_INTEGER_CLASSES, targets // 2)):
        raise UserError(
            f"column {settings.target!r} in {source.name} has {counted} classes for "
            f"{targets:,} targets: too many to learn",
            "target",
        )
    return Kind(per, classify, lines)


def _distinct(source: Source, grouping: Grouping, name: str) -> int:
    """How many different values a column has; ``MOST_COUNTED`` and something if more."""
    found: pa.Array | None = None
    for piece in grouping.pieces(source, [name]):
        values = piece.columns[name].unique()
        found = values if found is None else pa.concat_arrays([found, values]).unique()
        if len(found) > MOST_COUNTED:
            break
    return 0 if found is None else len(found)


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
    varies = varying_sequence(source, grouping, name)
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
    varies = varying_sequence(source, grouping, name)
    if varies is None:
        return
    column = source.table.column(name)
    rows = [int(grouping.rows(step, step + 1)[0]) for step in varies]
    first, second = (shown(column[row].as_py()) for row in rows)
    assert grouping.ids is not None
    b = int(grouping.sequence(varies[0], varies[1])[0])
    raise UserError(
        f"{name!r} must be one a sequence, but in sequence {shown(grouping.ids[b].as_py())} of "
        f"{source.name} it is {first} in {source.row(rows[0])} and {second} in "
        f"{source.row(rows[1])}",
        option,
    )


def check_complete(source: Source, name: str, option: str | None) -> None:
    """Raise UserError where the target is missing, NaN or infinite."""
    type = source.table.schema.field(name).type

    def bad(column: pa.Array) -> pa.Array:
        flags = column.is_null(nan_is_null=pa.types.is_floating(type))
        if pa.types.is_floating(type):
            flags = pc.or_(flags, pc.is_inf(column).fill_null(False))
        return flags

    count, first = flagged(source, name, bad)
    if first is not None:
        more = f" (the first of {count:,})" if count > 1 else ""
        raise UserError(
            f"the target {name!r} has no finite value in {source.row(first)} of "
            f"{source.name}{more}",
            option,
        )


def _tell_classes(
    type: pa.DataType, distinct: int, counted: str, targets: int, settings: DataSettings
) -> tuple[bool, str]:
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
    of = f"integers of {counted} value{'s' * (distinct != 1)} in {targets:,} targets"
    few = distinct <= MOST_INTEGER_CLASSES and distinct * LEAST_EXAMPLES <= targets
    return (few or distinct <= 2), f"it holds {of}"


class TargetPiece(NamedTuple):
    """The targets of some consecutive examples.

    Attributes:
        begin: the first of these m examples.
        values: ``[m]`` of the target column; arbitrary where not ``here``.
        here: ``[m]`` bool, which examples have a target.
        now: ``[m]``, in forecasting the target column at the examples' own steps; None otherwise.
    """

    begin: int
    values: pa.Array
    here: Array
    now: pa.Array | None


def target_pieces(
    source: Source, grouping: Grouping, name: str, per: Per, ahead: int | None
) -> Iterator[TargetPiece]:
    """The target column at each example: M = B of one a sequence, M = N of one a step."""
    examples = 0
    for begin, end, columns in grouping.pieces(source, [name], beyond=ahead or 0):
        column, now = columns[name], None
        if per == "sequence":
            column = column.filter(pa.array(grouping.begins(begin, end)))
            here = np.ones(len(column), dtype=bool)
        else:
            here = have_target(grouping, ahead or 0, begin, end)
        if ahead:
            later = (np.arange(end - begin) + ahead).clip(max=len(column) - 1)
            column, now = column.take(pa.array(later)), column[: end - begin]
        yield TargetPiece(examples, column, here, now)
        examples += len(column)


def have_target(grouping: Grouping, ahead: int, begin: int, end: int) -> Array:
    """Which of these steps have, so many steps later, another one of their sequence."""
    here: Array = (
        np.arange(begin, end) + ahead < grouping.offsets[1:][grouping.sequence(begin, end)]
    )
    return here


Pieces = Callable[[], Iterable[TargetPiece]]


def fit_classes(
    source: Source, name: str, pieces: Pieces, training: Array, everywhere: Iterable[pa.Array]
) -> Classes:
    """The classes of a file.

    Args:
        source: the file.
        name: the target column.
        pieces: gives its targets.
        training: ``[M]`` bool, which examples count for training.
        everywhere: in forecasting the column at every step, in parts: the target is a feature
            there too. Nothing otherwise.

    Raises:
        UserError: only one class in training.
    """
    kind = _class_kind(source.table.schema.field(name).type)
    values = pa.array([], ARROW[kind])
    targets = (piece.values.filter(pa.array(piece.here)) for piece in pieces())
    for column in (*targets, *everywhere):
        values = pa.concat_arrays([values, column.unique().cast(ARROW[kind])]).unique()
    values = (
        values.take(pc.sort_indices(values))
        if kind != "boolean"
        else pa.array(sorted(values.to_pylist()))
    )
    counts = np.zeros(len(values), dtype=np.int64)
    for begin, column, here, _ in pieces():
        used = column.filter(pa.array(here & training[begin : begin + len(here)]))
        codes = pc.index_in(used.cast(ARROW[kind]), values).to_numpy(zero_copy_only=False)
        counts += np.bincount(codes, minlength=len(values))
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


def fit_numbers(pieces: Callable[[], Iterable[tuple[Array, Array | None]]]) -> Numbers:
    """Standardise training targets.

    Args:
        pieces: gives them, float64, and in forecasting with each its value at the time.

    Raises:
        UserError: numbers so large that their mean or deviation is not finite.
    """
    own = moments(lambda: (y for y, _ in pieces()))
    changes = moments(lambda: (y - now for y, now in pieces() if now is not None))
    change = changes.n > 0 and changes.variance < own.variance
    used = changes if change else own
    if not np.isfinite([used.mean, used.sd, own.mean]).all():
        raise UserError("its numbers are too large to average; rescale them", "target")
    return Numbers(used.mean, used.sd, own.mean, change)


def labels(source: Source, grouping: Grouping, name: str) -> Array:
    """Equal numbers ``[B]`` for sequences with equal targets."""
    pieces = target_pieces(source, grouping, name, "sequence", None)
    column = pa.chunked_array([piece.values for piece in pieces]).combine_chunks()
    codes: Array = column.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return codes


class Coder:
    """Targets as the numbers that a model learns: classes from 0, or the values themselves.

    Args:
        values: the target's classes or scale.
        source: a table.
        name: the target column.
        option: the option that named the table, for errors.

    Raises:
        UserError: the table's column does not hold what it held in training, or has a class that
            training never saw.
    """

    def __init__(
        self, values: Classes | Numbers, source: Source, name: str, option: str | None
    ) -> None:
        self.values = values
        if not isinstance(values, Classes):
            check_numbers(source, name)
            self.dtype = "float64"
            return
        self.dtype = "int64"
        type = source.table.schema.field(name).type
        if kind_of(type) in ("time", "other"):
            raise UserError(
                f"column {name!r} in {source.name} holds {type}, not classes as in training",
                option,
            )
        is_text = "text" in (kind_of(type), values.kind) or "boolean" in (
            kind_of(type),
            values.kind,
        )
        self.type = pa.string() if is_text else pa.float64()
        self.classes = values.array.cast(self.type, safe=False)
        _, unknown = flagged(source, name, lambda column: self._found(column).is_null())
        if unknown is not None:
            raise UserError(
                f"{source.row(unknown)} of {source.name} has the class "
                f"{shown(source.table.column(name)[unknown].as_py())}, which training never saw; "
                f"it saw {listed(values.values)}",
                option,
            )

    def code(self, column: pa.Array) -> Array:
        """Part of the column as int64 classes or float64 numbers."""
        if not isinstance(self.values, Classes):
            return floats(column)
        codes: Array = self._found(column).to_numpy(zero_copy_only=False).astype(np.int64)
        return codes

    def _found(self, column: pa.Array) -> pa.Array:
        return pc.index_in(column.cast(self.type, safe=False), self.classes)
