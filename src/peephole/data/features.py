"""Columns to features: which of them, and the encoders that training data fits."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peephole.data.missing import Filler, Missing, refuse_missing
from peephole.data.moments import moments
from peephole.data.sequences import Array, Grouping, flagged
from peephole.data.tables import Source
from peephole.errors import UserError, listed

Kind = Literal["number", "boolean", "text", "time", "nothing", "other"]
MAX_CATEGORIES = 1000
NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


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
    if not (grouping.lengths >= 2).any() or varying_sequence(source, grouping, name) is not None:
        return None
    return "never varies" + ("" if grouping.ids is None else " within a sequence")


def varying_sequence(source: Source, grouping: Grouping, name: str) -> tuple[int, int] | None:
    """Two steps, one after the other, of one sequence where a column differs; None if none do."""
    last = None
    for piece in grouping.pieces(source, [name]):
        column, begin = piece.columns[name], piece.begin
        if last is not None:
            column, begin = pa.concat_arrays([last, column]), begin - 1
        codes = _codes(column)
        changes = (codes[1:] != codes[:-1]) & ~grouping.begins(begin + 1, piece.end)
        if changes.any():
            earlier = begin + int(changes.argmax())
            return earlier, earlier + 1
        last = column[-1:]
    return None


def _codes(column: pa.Array) -> Array:
    """Equal numbers for equal values; missing ones are equal to each other."""
    encoded = column.dictionary_encode(null_encoding="encode")
    codes: Array = encoded.indices.to_numpy(zero_copy_only=False)
    return codes


def fit(
    source: Source, grouping: Grouping, training: Array, chosen: Chosen
) -> tuple[Features, list[str]]:
    """Fit encoders to the training steps of a table.

    Args:
        source: the table.
        grouping: its sequences.
        training: ``[N]`` bool, which steps are those.
        chosen: the columns.

    Returns:
        The encoders, and lines about columns of text that a person should know.
    """
    lines: list[str] = []
    numbers = [_fit_number(source, grouping, training, name) for name in chosen.numbers]
    categories = []
    for name in chosen.categories:
        counts = _counts(source, grouping, name, training)
        values, often = counts.column("values"), counts.column("counts").to_numpy()
        if len(values) > MAX_CATEGORIES:
            lines.append(
                f"{name!r} has {len(values):,} categories; the {MAX_CATEGORIES:,} most frequent "
                "are kept, the others are one"
            )
        kept = (-often).argsort(kind="stable")[:MAX_CATEGORIES]
        categories.append(Category(name, tuple(sorted(values.take(pa.array(kept)).to_pylist()))))
        lines.extend(_nearly_numbers(source, grouping, name))
    return Features(tuple(numbers), tuple(categories)), lines


def _fit_number(source: Source, grouping: Grouping, training: Array, name: str) -> Number:
    def values() -> Iterator[Array]:
        for piece in grouping.pieces(source, [name]):
            x = floats(piece.columns[name])[training[piece.begin : piece.end]]
            yield x[np.isfinite(x)]

    found = moments(values)
    if not np.isfinite([found.mean, found.sd]).all():
        raise UserError(
            f"the numbers of column {name!r} in {source.name} are too large to average; "
            "rescale them, or leave the column out"
        )
    return Number(name, found.mean, found.sd)


def _counts(source: Source, grouping: Grouping, name: str, among: Array | None = None) -> pa.Table:
    """The ``values`` of a column of text, in the order in which they come first, and ``counts``.

    Args:
        source: the table.
        grouping: its sequences.
        name: of the column.
        among: ``[N]`` bool, the steps that count; all if None.
    """
    whole = pa.table({"values": pa.array([], pa.string()), "counts": pa.array([], pa.int64())})
    for piece in grouping.pieces(source, [name]):
        column = texts(piece.columns[name])
        if among is not None:
            column = column.filter(pa.array(among[piece.begin : piece.end]))
        part = pa.Table.from_struct_array(pc.value_counts(column.drop_null()))
        grouped = pa.concat_tables([whole, part]).group_by("values", use_threads=False)
        whole = grouped.aggregate([("counts", "sum")]).rename_columns(["values", "counts"])
    return whole


def _nearly_numbers(source: Source, grouping: Grouping, name: str) -> list[str]:
    """A line about a column of text that a few fields keep from being one of numbers."""
    counts = _counts(source, grouping, name)
    is_number = pc.match_substring_regex(counts.column("values"), NUMBER)
    numbers = pc.sum(counts.column("counts").filter(is_number)).as_py() or 0
    share = numbers / max(1, pc.sum(counts.column("counts")).as_py() or 0)
    if not 0.5 < share < 1:
        return []
    return [
        f"{name!r} is read as text, though {share:.0%} of its values are numbers: "
        "{} has {!r}".format(*_first(source, name, _is_word))
    ]


def _is_word(column: pa.Array) -> pa.Array:
    return pc.invert(pc.match_substring_regex(texts(column), NUMBER))


def _first(source: Source, name: str, flag: Callable[[pa.Array], pa.Array]) -> tuple[str, object]:
    """Where the first value of a kind is, in words, and what it is."""
    _, row = flagged(source, name, flag)
    row = row or 0
    return source.row(row), source.table.column(name)[row].as_py()


def encode_numbers(
    features: Features, source: Source, grouping: Grouping, missing: Missing
) -> Iterator[Array]:
    """The features that are numbers, standardised, in pieces ``[n, F]`` float32.

    Raises:
        UserError: columns that are not there or hold something else than in training; missing
            or infinite values under ``missing="error"``.
    """
    check(features, source)
    names = [number.name for number in features.numbers]
    if missing == "error":
        for name in names:
            refuse_missing(name, floats, "is missing or NaN", source, grouping)
    fillers = [Filler(number.mean, missing) for number in features.numbers]
    for piece in grouping.pieces(source, names):
        begins = grouping.begins(piece.begin, piece.end)
        numbers = np.empty((len(begins), len(names)), dtype=np.float32)
        for k, number in enumerate(features.numbers):
            x = floats(piece.columns[number.name])
            x = fillers[k].fill(x, np.isfinite(x), begins)
            numbers[:, k] = (x - number.mean) / number.sd
        yield numbers


def encode_categories(
    features: Features,
    source: Source,
    grouping: Grouping,
    missing: Missing,
    unknown: dict[str, int],
) -> Iterator[Array]:
    """The features that are categories as codes, in pieces ``[n, C]`` int64.

    Args:
        features: the encoders.
        source: the table.
        grouping: its sequences.
        missing: what stands in for what is missing.
        unknown: gets for each column how many steps hold a value never seen in training.

    Raises:
        UserError: as ``encode_numbers``.
    """
    check(features, source)
    names = [category.name for category in features.categories]
    unknown.update(dict.fromkeys(names, 0))
    if missing == "error":
        for name in names:
            refuse_missing(name, _presence, "is missing", source, grouping)
    fillers = [Filler(0, missing) for _ in names]
    for piece in grouping.pieces(source, names):
        begins = grouping.begins(piece.begin, piece.end)
        codes = np.empty((len(begins), len(names)), dtype=np.int64)
        for k, category in enumerate(features.categories):
            column = texts(piece.columns[category.name])
            found = pc.index_in(column, pa.array(category.values, column.type))
            present = column.is_valid().to_numpy(zero_copy_only=False)
            code = found.fill_null(-1).to_numpy(zero_copy_only=False) + 1
            unknown[category.name] += int((present & (code == 0)).sum())
            codes[:, k] = fillers[k].fill(code, present, begins)
        yield codes


def check(features: Features, source: Source) -> None:
    """Raise UserError where a table lacks one of the columns, or one holds something else."""
    check_there(features.names, source)
    for number in features.numbers:
        check_numbers(source, number.name)
    for category in features.categories:
        type = source.table.schema.field(category.name).type
        if kind_of(type) not in ("text", "number", "boolean", "nothing"):
            raise UserError(
                f"column {category.name!r} must hold text, as in training, and in {source.name} "
                f"it holds {type}"
            )


def check_there(wanted: Sequence[str], source: Source) -> None:
    """Raise UserError where a table lacks one of the columns."""
    names = source.table.column_names
    lacking = [name for name in wanted if name not in names]
    if len(lacking) == 1:
        source.need(lacking[0], None)
    if lacking:
        raise UserError(
            f"{source.name} lacks columns that the model was trained on: {listed(lacking)}; "
            f"it has: {listed(names)}"
        )


def check_numbers(source: Source, name: str) -> None:
    """Raise UserError unless a column holds numbers or booleans."""
    type = source.table.schema.field(name).type
    kind = kind_of(type)
    if kind == "text":
        where, word = _first(source, name, _are_no_numbers)
        raise UserError(
            f"column {name!r} must hold numbers, as in training, and {where} of {source.name} has "
            f"{word!r}"
        )
    if kind not in ("number", "boolean", "nothing"):
        raise UserError(
            f"column {name!r} must hold numbers, as in training, and in {source.name} it holds "
            f"{type}"
        )


def _are_no_numbers(column: pa.Array) -> pa.Array:
    def is_none(text: str | None) -> bool:
        try:
            float(0 if text is None else text)
        except ValueError:
            return True
        return False

    return pa.array([is_none(text) for text in column.to_pylist()])


def floats(column: pa.Array) -> Array:
    """Numbers or booleans as float64, NaN if missing."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    x: Array = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return x


def _presence(column: pa.Array) -> Array:
    """0 where there is a value, NaN where there is none."""
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), 0.0, np.nan)


def texts(column: pa.Array) -> pa.Array:
    """Text, numbers or booleans as text, null if missing."""
    return column.cast(pa.string())
