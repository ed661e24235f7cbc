"""From a table to examples, and from a model's outputs to predictions."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from peephole.data import features as columns
from peephole.data import tables
from peephole.data.features import Features
from peephole.data.missing import Missing
from peephole.data.sequences import Array, Grouping, group
from peephole.data.tables import Source
from peephole.errors import UserError
from peephole.ragged import Ragged
from peephole.tasks.table import target as targets
from peephole.tasks.table.target import Classes, Numbers, Per


class Examples(NamedTuple):
    """Sequences as a model takes them.

    Attributes:
        numbers: the features that are numbers, values ``[N, F]`` float32.
        codes: those that are categories, values ``[N, C]`` int64, on the same offsets.
        targets: ``[M]``, with M = B for one a sequence and M = N for one a step: int64 classes,
            or float32 standardised numbers.
        scored: ``[M]``, which of them count. The others are undefined.
    """

    numbers: Ragged
    codes: Ragged
    targets: Int64[Tensor, "M"] | Float[Tensor, "M"]
    scored: Bool[Tensor, "M"]

    def take(self, sequences: Int64[Tensor, "b"]) -> "Examples":
        """The examples of some sequences, in that order."""
        numbers = self.numbers[sequences]
        if self.targets.shape[0] == len(self.numbers):
            picked, scored = self.targets[sequences], self.scored[sequences]
        else:
            picked = self.numbers.with_values(self.targets)[sequences].values
            scored = self.numbers.with_values(self.scored)[sequences].values
        return Examples(numbers, self.codes[sequences], picked, scored)


@dataclass(frozen=True)
class Loaded:
    """A table as examples, and what leads back to it.

    Attributes:
        source: the table.
        grouping: its sequences.
        examples: what the model takes.
        truth: ``[M]``: classes, or float64 in the target's own units; None without a target.
        now: ``[N]``, in forecasting the target at each step, as ``truth``; None otherwise.
        unknown: for each column of text, how many steps hold a value never seen in training.
    """

    source: Source
    grouping: Grouping
    examples: Examples
    truth: Array | None
    now: Array | None
    unknown: dict[str, int]


@dataclass(frozen=True)
class Recipe:
    """All that is fitted to data but the weights. It is kept with them.

    Attributes:
        target: the target column.
        sequence: the column of the sequences' ids; None for one series.
        order: the column that orders the steps.
        per: whether the target is one a sequence or one a step.
        ahead: how many steps ahead the target is.
        missing: what stands in for missing features.
        features: the input columns and their encoders.
        values: the target's classes or scale.
    """

    target: str
    sequence: str | None
    order: str | None
    per: Per
    ahead: int | None
    missing: Missing
    features: Features
    values: Classes | Numbers

    @property
    def outputs(self) -> int:
        return len(self.values.values) if isinstance(self.values, Classes) else 1

    def text_columns(self) -> Collection[str]:
        """Columns to read as text, whatever they look like in another file."""
        names = {category.name for category in self.features.categories}
        if isinstance(self.values, Classes) and self.values.kind == "text":
            names.add(self.target)
        return names

    def read(self, path: str | Path, option: str | None = None) -> Source:
        """Read a file of the same form as the training data."""
        return tables.read(path, sequence=self.sequence, text=self.text_columns(), option=option)

    def load(self, source: Source, *, scored: bool, option: str | None = None) -> Loaded:
        """A table as examples.

        Args:
            source: a table of the same form as the training data.
            scored: whether its targets are needed; else they are not looked at, unless
                forecasting takes them as features.
            option: the option that named the file, for errors.

        Raises:
            UserError: columns, values or classes that do not fit the training data.
        """
        for name, needed in (
            (self.sequence, "sequence"),
            (self.order, "order"),
            (self.target if scored or self.ahead else None, "target"),
        ):
            if name is not None:
                source.need(name, option or needed)
        return self.load_grouped(
            source, group(source, self.sequence, self.order), scored=scored, option=option
        )

    def load_grouped(
        self, source: Source, grouping: Grouping, *, scored: bool, option: str | None = None
    ) -> Loaded:
        """As ``load``, with the sequences found already."""
        value = self._target(source, grouping, option) if scored or self.ahead else None
        encoded = columns.encode(self.features, source, grouping, self.missing)
        offsets = torch.from_numpy(grouping.offsets)
        values, here = target_values(value, grouping, self.per, self.ahead)
        now = value if self.ahead else None
        examples = Examples(
            Ragged(torch.from_numpy(encoded.numbers), offsets),
            Ragged(torch.from_numpy(encoded.codes), offsets),
            torch.from_numpy(self._standardised(values, now)),
            torch.from_numpy(here),
        )
        truth = values if scored else None
        return Loaded(source, grouping, examples, truth, now, encoded.unknown)

    def _target(self, source: Source, grouping: Grouping, option: str | None) -> Array:
        """The target at each step ``[N]``, in the order of ``grouping``."""
        targets.check_complete(source, self.target, option)
        if self.per == "sequence":
            targets.check_constant(source, grouping, self.target, option)
        if isinstance(self.values, Classes):
            value = targets.class_codes(self.values, source, self.target, option)
        else:
            value = columns.floats(source, self.target)
        ordered: Array = value[grouping.rows]
        return ordered

    def _standardised(self, values: Array, now: Array | None) -> Array:
        if isinstance(self.values, Classes):
            return values.astype(np.int64)
        if self.values.change and now is not None:
            values = values - now
        scaled: Array = ((values - self.values.mean) / self.values.sd).astype(np.float32)
        return scaled

    def predicted(self, outputs: Float[Tensor, "M K"], now: Array | None) -> Array:
        """A model's outputs as predictions.

        Returns:
            Probabilities of the classes ``[M, K]``, or numbers ``[M]`` in the target's units.
        """
        if isinstance(self.values, Classes):
            probabilities: Array = outputs.double().softmax(1).numpy()
            return probabilities
        y: Array = outputs[:, 0].double().numpy() * self.values.sd + self.values.mean
        return y + now if self.values.change and now is not None else y


def target_values(
    value: Array | None, grouping: Grouping, per: Per, ahead: int | None
) -> tuple[Array, Array]:
    """The target of each example, and whether it has one.

    Args:
        value: the target column ``[N]`` in the order of ``grouping``; None if unknown.
        grouping: the sequences.
        per: one a sequence or one a step.
        ahead: how many steps ahead.

    Returns:
        ``[M]`` targets (0 where there is none), ``[M]`` bool.
    """
    N = len(grouping.rows)
    if value is None:
        M = len(grouping) if per == "sequence" else N
        return np.zeros(M), np.zeros(M, dtype=bool)
    if per == "sequence":
        first = grouping.offsets[:-1]
        return value[first], np.ones(len(first), dtype=bool)
    if not ahead:
        return value, np.ones(N, dtype=bool)
    later = np.arange(N) + ahead
    here = later < grouping.offsets[1:].repeat(grouping.lengths)
    return np.where(here, value[later.clip(max=N - 1)], 0), here


def check(recipe: Recipe) -> None:
    """Raise ValueError where a recipe from a file contradicts itself."""
    values = recipe.values
    scales = {number.name: number.sd for number in recipe.features.numbers}
    if isinstance(values, Numbers):
        scales[recipe.target] = values.sd
    for name, sd in scales.items():
        if not sd > 0:
            raise ValueError(f"the sd of {name!r} is {sd}; it must be more than 0")
    for category in recipe.features.categories:
        if len(category.values) > columns.MAX_CATEGORIES:
            raise ValueError(f"{category.name!r} has {len(category.values):,} categories")
    if len(set(recipe.features.names)) != len(recipe.features.names) or not recipe.features.names:
        raise ValueError("the features are none, or one of them is there twice")
    check_ahead(recipe.ahead)
    if recipe.per == "sequence" and (recipe.sequence is None or recipe.ahead is not None):
        raise ValueError("a target a sequence needs sequences, and cannot be ahead")
    if isinstance(values, Classes):
        kind = {"text": str, "integer": int, "number": float, "boolean": bool}[values.kind]
        if len(values.values) != len(values.counts) or len(set(values.values)) < 2:
            raise ValueError("the classes and their counts do not fit together")
        if any(type(value) is not kind for value in values.values) or min(values.counts) < 0:
            raise ValueError(f"the classes are not all {values.kind}, or a count is negative")
        try:
            _ = values.names
        except (OverflowError, UnicodeError) as error:
            raise ValueError(f"the classes cannot be {values.kind}: {error}") from error


def check_ahead(ahead: int | None) -> None:
    """Raise UserError unless ``ahead`` is None or at least one step."""
    if ahead is not None and ahead < 1:
        raise UserError(f"{ahead} steps ahead; it must be at least 1", "ahead")
