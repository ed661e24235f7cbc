"""Columns to features: which of them, and the encoders that training data fits."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peephole.data.missing import Missing, fill_categories, fill_numbers
from peephole.data.sequences import Array, Grouping, plain
from peephole.data.tables import Source
from peephole.errors import UserError, listed

Kind = Literal["number", "boolean", "text", "time", "nothing", "other"]
MAX_CATEGORIES = 1000


@dataclass(frozen=True)
class Number:
    """A column of numbers or booleans, encoded as (x - mean) / sd."""

    name: str
    mean: float
    sd: float


@dataclass(frozen=True)
class Category:
    """A column of text: ``values[k]`` has code k + 1, and 0 is a value never seen in training."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Features:
    """The encoders of a model's input, fitted to training data."""

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.numbers] + [c.name for c in self.categories]


@dataclass(frozen=True)
class Encoded:
    """Features of N steps, in the order of a grouping.

    Attributes:
        numbers: ``[N, F]`` float32, standardised.
        codes: ``[N, C]`` int64.
        unknown: for each column of text, how many steps hold a value never seen in training.
    """

    numbers: Array
    codes: Array
    unknown: dict[str, int]


@dataclass(frozen=True)
class Chosen:
    """Which columns are features.

    Attributes:
        numbers: columns of numbers and booleans.
        categories: columns of text.
        lines: what a person should know about the choice.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    lines: tuple[str, ...]


def kind_of(type: pa.DataType) -> Kind:
    """What a column of this Arrow type is to a model."""
    if pa.types.is_dictionary(type):
        return kind_of(type.value_type)
    if pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type):
        return "number"
    if pa.types.is_boolean(type):
        return "boolean"
    if is_text(type):
        return "text"
    if pa.types.is_temporal(type):
        return "time"
    return "nothing" if pa.types.is_null(type) else "other"


def is_text(type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type)
    )


def choose(
    source: Source,
    grouping: Grouping,
    *,
    named: Sequence[str] | None,
    exclude: Collection[str],
    always: Collection[str] = (),
) -> Chosen:
    """Choose the feature columns of a table.

    Left out, each with a line: times, nested and binary columns, columns without a name or
    without values, and columns that never vary within a sequence (of two or more steps).

    Args:
        source: the table.
        grouping: its sequences.
        named: the columns a person asked for; all others than ``exclude`` if None.
        exclude: columns that are no features: the target, the sequence's id, the order.
        always: columns that are features in any case.

    Raises:
        UserError: a column asked for that is not there or cannot be one; none left.
    """
    chosen: dict[str, list[str]] = {"number": [], "text": []}
    lines = []
    for name in [*always, *_candidates(source, named, exclude, always)]:
        kind = kind_of(source.table.schema.field(name).type)
        why = _unfit(source, name, kind)
        if why is not None and (named is not None or name in always):
            raise UserError(f"column {name!r} in {source.name} {why}", "features")
        if why is None and named is None and name not in always:
            why = _constant(source, grouping, name)
        if why is not None:
            lines.append(f"left out {name!r}: it {why}")
        else:
            chosen["text" if kind == "text" else "number"].append(name)
    if not any(chosen.values()):
        raise UserError(
            f"{source.name} has no column left to learn from: {'; '.join(lines) or 'no other'}",
            "features" if named is not None else None,
        )
    return Chosen(tuple(chosen["number"]), tuple(chosen["text"]), tuple(lines))


def _candidates(
    source: Source,
    named: Sequence[str] | None,
    exclude: Collection[str],
    always: Collection[str],
) -> list[str]:
    if named is None:
        return [n for n in source.table.column_names if n not in exclude and n not in always]
    for name in named:
        source.need(name, "features")
    return [name for name in dict.fromkeys(named) if name not in always]


def _unfit(source: Source, name: str, kind: Kind) -> str | None:
    """Why a column cannot be a feature."""
    if not name:
        return "has no name (an index?)"
    if kind == "time":
        return "holds times"
    if kind == "nothing":
        return "has no values"
    if kind == "other":
        return f"holds {source.table.schema.field(name).type}"
    return None


def _constant(source: Source, grouping: Grouping, name: str) -> str | None:
    if not (grouping.lengths >= 2).any():
        return None
    if varying_sequence(plain(source.table.column(name)), grouping) is not None:
        return None
    return "never varies" + ("" if grouping.ids is None else " within a sequence")


def varying_sequence(column: pa.Array, grouping: Grouping) -> tuple[int, int] | None:
    """Two steps (places in ``grouping.rows``) of one sequence where a column differs."""
    codes = _codes(column)[grouping.rows]
    sequence = grouping.sequence()
    changes = (codes[1:] != codes[:-1]) & (sequence[1:] == sequence[:-1])
    if not changes.any():
        return None
    later = int(changes.argmax()) + 1
    return later - 1, later


def _codes(column: pa.Array) -> Array:
    """Equal numbers for equal values; missing ones are equal to each other."""
    encoded = column.dictionary_encode(null_encoding="encode")
    codes: Array = encoded.indices.to_numpy(zero_copy_only=False)
    return codes


def fit(source: Source, rows: Array, chosen: Chosen) -> tuple[Features, list[str]]:
    """Fit encoders to the training rows of a table, ``rows [n]``.

    Returns:
        The encoders, and lines about columns of text that a person should know.
    """
    lines: list[str] = []
    numbers = []
    for name in chosen.numbers:
        x = floats(source, name)[rows]
        x = x[np.isfinite(x)]
        constant = not len(x) or x.min() == x.max()
        with np.errstate(over="ignore", invalid="ignore"):
            mean, sd = float(x.mean()) if len(x) else 0.0, 1.0 if constant else float(x.std())
        if not np.isfinite([mean, sd]).all():
            raise UserError(
                f"the numbers of column {name!r} in {source.name} are too large to average; "
                "rescale them, or leave the column out"
            )
        numbers.append(Number(name, mean, sd))
    categories = []
    for name in chosen.categories:
        column = texts(source, name).take(pa.array(rows))
        counts = pc.value_counts(column.drop_null())
        values, often = counts.field("values"), counts.field("counts").to_numpy()
        if len(values) > MAX_CATEGORIES:
            lines.append(
                f"{name!r} has {len(values):,} categories; the {MAX_CATEGORIES:,} most frequent "
                "are kept, the others are one"
            )
        kept = (-often).argsort(kind="stable")[:MAX_CATEGORIES]
        values = values.take(pa.array(kept))
        categories.append(Category(name, tuple(sorted(values.to_pylist()))))
        lines.extend(_nearly_numbers(source, name))
    return Features(tuple(numbers), tuple(categories)), lines


def _nearly_numbers(source: Source, name: str) -> list[str]:
    """A line about a column of text that a few fields keep from being one of numbers."""
    column = texts(source, name)
    is_number = pc.match_substring_regex(column, r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$")
    share = pc.mean(is_number).as_py() or 0.0
    if not 0.5 < share < 1:
        return []
    first = pc.index(is_number, False).as_py()
    return [
        f"{name!r} is read as text, though {share:.0%} of its values are numbers: "
        f"{source.row(first)} has {column[first].as_py()!r}"
    ]


def encode(features: Features, source: Source, grouping: Grouping, missing: Missing) -> Encoded:
    """Encode a table's steps, in the order of ``grouping``.

    Raises:
        UserError: columns that are not there or hold something else than in training; missing
            or infinite values under ``missing="error"``.
    """
    _need_all(features, source)
    N = len(grouping.rows)
    numbers = np.empty((N, len(features.numbers)), dtype=np.float32)
    for k, number in enumerate(features.numbers):
        x = floats(source, number.name)[grouping.rows]
        x = fill_numbers(x, number.name, number.mean, source, grouping, missing)
        numbers[:, k] = (x - number.mean) / number.sd
    codes = np.empty((N, len(features.categories)), dtype=np.int64)
    unknown = {}
    for k, category in enumerate(features.categories):
        column = texts(source, category.name).take(pa.array(grouping.rows))
        found = pc.index_in(column, pa.array(category.values, column.type))
        present = column.is_valid().to_numpy(zero_copy_only=False)
        code = found.fill_null(-1).to_numpy(zero_copy_only=False) + 1
        unknown[category.name] = int((present & (code == 0)).sum())
        codes[:, k] = fill_categories(code, present, category.name, source, grouping, missing)
    return Encoded(numbers, codes, unknown)


def _need_all(features: Features, source: Source) -> None:
    names = source.table.column_names
    lacking = [name for name in features.names if name not in names]
    if len(lacking) == 1:
        source.need(lacking[0], None)
    if lacking:
        raise UserError(
            f"{source.name} lacks columns that the model was trained on: {listed(lacking)}; "
            f"it has: {listed(names)}"
        )


def floats(source: Source, name: str) -> Array:
    """A column of numbers or booleans as float64 ``[N]`` in the table's order, NaN if missing.

    Raises:
        UserError: it holds something else.
    """
    column = plain(source.table.column(name))
    kind = kind_of(column.type)
    if kind == "text":
        bad = next((k for k, text in enumerate(column.to_pylist()) if not _is_float(text)), 0)
        raise UserError(
            f"column {name!r} must hold numbers, as in training, and {source.row(bad)} of "
            f"{source.name} has {column[bad].as_py()!r}"
        )
    if kind not in ("number", "boolean", "nothing"):
        raise UserError(
            f"column {name!r} must hold numbers, as in training, and in {source.name} it holds "
            f"{column.type}"
        )
    if kind == "boolean":
        column = column.cast(pa.int8())
    x: Array = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return x


def _is_float(text: str | None) -> bool:
    if text is None:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def texts(source: Source, name: str) -> pa.Array:
    """A column as text ``[N]`` in the table's order, null if missing.

    Raises:
        UserError: it holds something that has no plain text.
    """
    column = plain(source.table.column(name))
    if kind_of(column.type) not in ("text", "number", "boolean", "nothing"):
        raise UserError(
            f"column {name!r} must hold text, as in training, and in {source.name} it holds "
            f"{column.type}"
        )
    return column.cast(pa.string())
