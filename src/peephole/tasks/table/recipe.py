"""From a table to examples, and from a model's outputs to predictions."""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from peephole.data import features as columns
from peephole.data.arrays import Keep, Part, in_memory
from peephole.data.features import Features
from peephole.data.missing import Missing
from peephole.data.schema import to_json
from peephole.data.sequences import PIECE, Array, Grouping
from peephole.data.tables import Source
from peephole.errors import UserError
from peephole.ragged import Ragged
from peephole.tasks.table import target as targets
from peephole.tasks.table.target import Classes, Numbers, Per

# Of what ``Recipe.load`` makes from a table.
VERSION = 1


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
        rows = self.numbers.rows(sequences)
        per_sequence = self.targets.shape[0] == len(self.numbers)
        targets = sequences if per_sequence else rows.values
        return Examples(
            rows.with_values(self.numbers.values.index_select(0, rows.values)),
            rows.with_values(self.codes.values.index_select(0, rows.values)),
            self.targets.index_select(0, targets),
            self.scored.index_select(0, targets),
        )

    def split(self, sizes: list[int]) -> Iterator["Examples"]:
        """Those of the first so many sequences, of the next, and so on; views, nothing copied."""
        numbers = list(self.numbers.split(sizes))
        steps = [part.values.shape[0] for part in numbers]
        targets = sizes if self.targets.shape[0] == len(self.numbers) else steps
        others = (
            torch.split(self.codes.values, steps),
            torch.split(self.targets, targets),
            torch.split(self.scored, targets),
        )
        for part, codes, own, scored in zip(numbers, *others, strict=True):
            yield Examples(part, part.with_values(codes), own, scored)


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

    def check_columns(self, source: Source, *, scored: bool, option: str | None) -> None:
        """Raise UserError where a column that a table needs is not there."""
        for name, needed in (
            (self.sequence, "sequence"),
            (self.order, "order"),
            (self.target if scored or self.ahead else None, "target"),
        ):
            if name is not None:
                source.need(name, option or needed)

    def load(
        self,
        source: Source,
        grouping: Grouping,
        *,
        scored: bool,
        option: str | None = None,
        keep: Keep = in_memory,
    ) -> Loaded:
        """A table as examples.

        Args:
            source: a table of the same form as the training data.
            grouping: the sequences of it that are wanted.
            scored: whether its targets are needed; else they are not looked at, unless
                forecasting takes them as features.
            option: the option that named the file, for errors.
            keep: where the arrays are kept.

        Raises:
            UserError: columns, values or classes that do not fit the training data.
        """
        plan = _Plan(self, source, grouping, scored, option)
        arrays = keep(plan.key(), plan.parts())
        offsets = torch.from_numpy(grouping.offsets)
        truth, now = arrays["truth"], arrays.get("now")
        examples = Examples(
            Ragged(torch.from_numpy(arrays["numbers"]), offsets),
            Ragged(torch.from_numpy(arrays["codes"]), offsets),
            torch.from_numpy(arrays.get("targets", truth)),
            torch.from_numpy(arrays["scored"]),
        )
        names = [category.name for category in self.features.categories]
        unknown = dict(zip(names, arrays["unknown"].tolist(), strict=True))
        return Loaded(source, grouping, examples, truth if scored else None, now, unknown)

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


class _Plan:
    """The arrays that a table becomes; see ``Recipe.load``."""

    def __init__(
        self, recipe: Recipe, source: Source, grouping: Grouping, scored: bool, option: str | None
    ) -> None:
        self.recipe, self.source, self.grouping = recipe, source, grouping
        self.scored, self.option = scored, option
        self.has_target = scored or recipe.ahead is not None
        # M.
        self.examples = len(grouping) if recipe.per == "sequence" else grouping.steps
        self.unknown: dict[str, int] = {}

    def key(self) -> str:
        """What they follow from, besides the table."""
        grouping = self.grouping
        digest = hashlib.sha256(json.dumps([VERSION, to_json(self.recipe), self.scored]).encode())
        for array in (grouping.starts, grouping.offsets):
            digest.update(array.astype(np.int64).tobytes())
        return digest.hexdigest()

    def parts(self) -> dict[str, Part]:
        """In the order in which they are to be made."""
        recipe, N, M = self.recipe, self.grouping.steps, self.examples
        numbers, codes = recipe.features.numbers, recipe.features.categories
        is_classes = isinstance(recipe.values, Classes)
        parts = {
            "truth": Part("int64" if is_classes else "float64", (M,), self._truth),
            "scored": Part("bool", (M,), self._here),
            "numbers": Part("float32", (N, len(numbers)), self._numbers),
            "codes": Part("int64", (N, len(codes)), self._codes),
            "unknown": Part(
                "int64", (len(codes),), lambda: [np.array(list(self.unknown.values()))]
            ),
        }
        if not is_classes:
            parts["targets"] = Part("float32", (M,), self._targets)
        if recipe.ahead:
            parts["now"] = Part(parts["truth"].dtype, (N,), self._now)
        return parts

    @cached_property
    def _coder(self) -> targets.Coder:
        recipe = self.recipe
        return targets.Coder(recipe.values, self.source, recipe.target, self.option)

    def _coded(self) -> Iterator[tuple[Array, Array | None]]:
        """The target of each example, 0 where it has none, and in forecasting its value now."""
        recipe, code = self.recipe, self._coder.code
        for piece in targets.target_pieces(
            self.source, self.grouping, recipe.target, recipe.per, recipe.ahead
        ):
            now = None if piece.now is None else code(piece.now)
            yield np.where(piece.here, code(piece.values), 0), now

    def _truth(self) -> Iterator[Array]:
        recipe = self.recipe
        if not self.has_target:
            yield np.zeros(self.examples)
            return
        targets.check_complete(self.source, recipe.target, self.option)
        if recipe.per == "sequence":
            targets.check_constant(self.source, self.grouping, recipe.target, self.option)
        for truth, _ in self._coded():
            yield truth

    def _here(self) -> Iterator[Array]:
        recipe = self.recipe
        for begin in range(0, self.examples, PIECE):
            end = min(begin + PIECE, self.examples)
            if not self.has_target or recipe.per == "sequence":
                yield np.full(end - begin, self.has_target)
            else:
                yield targets.have_target(self.grouping, recipe.ahead or 0, begin, end)

    def _targets(self) -> Iterator[Array]:
        """Standardised."""
        scale = self.recipe.values
        assert isinstance(scale, Numbers)
        if not self.has_target:
            yield np.full(self.examples, -scale.mean / scale.sd)
            return
        for truth, now in self._coded():
            value = truth - now if scale.change and now is not None else truth
            yield (value - scale.mean) / scale.sd

    def _now(self) -> Iterator[Array]:
        for _, now in self._coded():
            assert now is not None
            yield now

    def _numbers(self) -> Iterator[Array]:
        recipe = self.recipe
        return columns.encode_numbers(recipe.features, self.source, self.grouping, recipe.missing)

    def _codes(self) -> Iterator[Array]:
        recipe = self.recipe
        return columns.encode_categories(
            recipe.features, self.source, self.grouping, recipe.missing, self.unknown
        )


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
