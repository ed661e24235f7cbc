"""From files and settings to a task: all that a person's input can get wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peephole.data import features as columns
from peephole.data.arrays import kept
from peephole.data.cache import Cache
from peephole.data.features import Chosen
from peephole.data.frames import is_path
from peephole.data.opening import columns_of, open_table
from peephole.data.reading import FOLDER_COLUMN, Form
from peephole.data.sequences import Array, Grouping, shown
from peephole.data.tables import Source
from peephole.errors import UserError, listed
from peephole.jobs.table.settings import TrainSettings
from peephole.tasks.table import target as targets
from peephole.tasks.table.model import resolve
from peephole.tasks.table.recipe import Loaded, Recipe, check_ahead
from peephole.tasks.table.settings import DataSettings, ModelSettings
from peephole.tasks.table.split import cut_series, hold_out
from peephole.tasks.table.target import Classes, Kind, Numbers, TargetPiece
from peephole.tasks.table.task import SequencesTask, SeriesTask, TableTask, scored_between

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """Data ready to be trained on.

    Attributes:
        task: with its recipe, the training and the validation data.
        data: the settings, with what the data told filled in.
        test: the test data, if there is any.
        sources: for the option that named each of the data, a fingerprint of what they hold.
    """

    task: TableTask
    data: DataSettings
    test: Loaded | None
    sources: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """A training file and what it was found to hold."""

    source: Source
    grouping: Grouping
    data: DataSettings
    kind: Kind
    chosen: Chosen
    model: ModelSettings


def prepare(
    file: Any,
    data: DataSettings,
    model: ModelSettings,
    training: TrainSettings,
    *,
    valid: Any,
    test: Any,
    seed: int,
    say: Say,
    cache: Cache | None = None,
) -> Prepared:
    """Read the files and settle what to train on.

    Args:
        file: to train on; as ``valid`` and ``test`` a path, or a table from Python.
        data: a person's settings.
        model: likewise.
        training: likewise.
        valid: a file to choose the best model by; a part of ``file`` is held out if None.
        test: a file to score the final model on.
        seed: of which sequences are held out.
        say: takes each line that a person should read.
        cache: where large tables go; None to take them into memory.

    Raises:
        UserError: anything in the files or settings that does not work.
    """
    others = {"valid": valid, "test": test}
    others = {option: given for option, given in others.items() if given is not None}
    opened = _open(file, data, model, say, cache, lambda data: _check_others(others, data))
    _check_others(others, opened.data, (*opened.chosen.numbers, *opened.chosen.categories))
    task: TableTask
    if opened.data.sequence is None:
        task = _series(opened, valid, training.window, say, cache)
    else:
        task = _sequences(opened, valid, seed, say, cache)
    recipe = task.recipe
    loaded = None if test is None else load(recipe, test, option="test", say=say, cache=cache)
    # Arrow keeps what it was given for reading, which does not go on: some 100 MB of a large table.
    pa.default_memory_pool().release_unused()
    sources = {
        "file": opened.source,
        "valid": None if valid is None else task.valid.source,
        "test": None if loaded is None else loaded.source,
    }
    return Prepared(
        task,
        replace(
            opened.data,
            features=tuple(recipe.features.names),
            task="classify" if opened.kind.classify else "regress",
            target_per=opened.kind.per,
        ),
        loaded,
        {name: s.fingerprint for name, s in sources.items() if s is not None and s.fingerprint},
    )


def load(
    recipe: Recipe,
    given: Any,
    *,
    say: Say,
    scored: bool = True,
    option: str | None = None,
    cache: Cache | None = None,
) -> Loaded:
    """Read a further file of the training data's form.

    Args:
        recipe: fitted to the training data.
        given: the file, or a table from Python.
        say: takes each line that a person should read.
        scored: whether it must have targets.
        option: the option that named the file, for errors.
        cache: where a large table goes; None to take it into memory.

    Raises:
        UserError: it does not fit, or has no targets where ``scored`` asks for them.
    """
    source, grouping = open_table(
        given,
        Form(recipe.sequence, recipe.order, tuple(sorted(recipe.text_columns()))),
        option=option,
        check=lambda columns: recipe.check_columns(columns, scored=scored, option=option),
        cache=cache,
    )
    loaded = recipe.load(source, grouping, scored=scored, option=option, keep=kept(source, cache))
    if scored and not bool(loaded.examples.scored.any()):
        raise UserError(f"{source.name} has no target: {_too_short(recipe.ahead)}", option)
    for name, count in loaded.unknown.items():
        if count:
            say(
                f"{source.name}: {count:,} of {grouping.steps:,} values of {name!r} "
                "were never seen in training and are taken as unknown"
            )
    return loaded


def _open(
    file: Any,
    data: DataSettings,
    model: ModelSettings,
    say: Say,
    cache: Cache | None,
    check_others: Callable[[DataSettings], None],
) -> Opened:
    check_ahead(data.ahead)
    if is_path(file) and Path(file).is_dir() and data.sequence is None:
        data = replace(data, sequence=FOLDER_COLUMN)

    def check(columns: Source) -> None:
        _check_roles(columns, data)
        check_others(data)

    form = Form(data.sequence, data.order)
    source, grouping = open_table(file, form, check=check, cache=cache)
    if source.starts and len(grouping) < 2:
        raise UserError(
            f"the folder {source.name} holds one file, {source.starts[0][0]}, and so one sequence; "
            "name the file itself for one series that is split by time"
        )
    if grouping.ids is not None and len(grouping) < 2:
        raise UserError(
            f"{source.name} has only one sequence, {shown(grouping.ids[0].as_py())}; leave out "
            "the sequence column for one series that is split by time",
            "sequence",
        )
    say(_size(source, grouping))
    kind = targets.tell(source, grouping, data)
    exclude = {data.target, data.sequence or data.target, data.order or data.target}
    chosen = columns.choose(
        source,
        grouping,
        named=data.features,
        exclude=exclude,
        always=() if data.ahead is None else (data.target,),
    )
    for line in (*kind.lines, *chosen.lines):
        say(line)
    causal = data.sequence is None or data.ahead is not None
    return Opened(source, grouping, data, kind, chosen, resolve(model, causal))


def _check_roles(source: Source, data: DataSettings) -> None:
    """Every column named is there, and none has two roles that exclude each other."""
    for option in ("target", "sequence", "order"):
        if (name := getattr(data, option)) is not None:
            source.need(name, option)
    for option, name in (("sequence", data.sequence), ("order", data.order)):
        if name == data.target:
            raise UserError(f"column {name!r} is the target, so it cannot be this as well", option)
    if data.sequence is not None and data.order == data.sequence:
        raise UserError(f"column {data.order!r} is the sequences' id", "order")
    for name in data.features or ():
        if name == data.target and data.ahead is None:
            raise UserError(f"column {name!r} is the target, so it cannot be a feature", "features")
        if name == data.sequence:
            raise UserError(f"column {name!r} is the sequences' id", "features")


def _check_others(
    others: Mapping[str, Any], data: DataSettings, features: Sequence[str] = ()
) -> None:
    """See, before much time is spent on the training data, that further ones have their columns."""
    for option, given in others.items():
        if (found := columns_of(given, data.sequence, option)) is None:
            continue
        for name in (data.sequence, data.order, data.target):
            if name is not None:
                found.need(name, option)
        columns.check_there(features, found)


def _size(source: Source, grouping: Grouping) -> str:
    N, lengths = grouping.steps, grouping.lengths
    if grouping.ids is None:
        return f"{source.name}: one series of {N:,} steps"
    return (
        f"{source.name}: {len(grouping):,} sequences of {lengths.min():,} to {lengths.max():,} "
        f"steps, {N:,} in all"
    )


def _sequences(
    opened: Opened, valid: Any, seed: int, say: Say, cache: Cache | None
) -> SequencesTask:
    grouping, data, kind = opened.grouping, opened.data, opened.kind
    eligible = grouping.lengths > (data.ahead or 0)
    if not eligible.any():
        raise UserError(f"{opened.source.name}: {_too_short(data.ahead)}", "ahead")
    held = np.zeros(len(grouping), dtype=bool)
    if valid is None and eligible.sum() > 1:
        stratified = kind.per == "sequence" and kind.classify
        labels = targets.labels(opened.source, grouping, data.target) if stratified else None
        held[eligible] = hold_out(
            int(eligible.sum()), None if labels is None else labels[eligible], seed
        )
    steps = ~held.repeat(grouping.lengths)
    recipe = _fit(opened, steps, ~held if kind.per == "sequence" else steps, say)
    keep = kept(opened.source, cache)
    training = grouping.take(~held)
    train = recipe.load(opened.source, training, scored=True, keep=keep)
    if valid is not None:
        validation = load(recipe, valid, option="valid", say=say, cache=cache)
        return SequencesTask(recipe, opened.model, train.examples, validation, training.ids)
    if not held.any():
        say("too few sequences to hold any out: the validation scores are those of training")
        return SequencesTask(recipe, opened.model, train.examples, train, training.ids)
    say(f"{held.sum():,} of {len(held):,} sequences are held out for validation")
    validation = recipe.load(opened.source, grouping.take(held), scored=True, keep=keep)
    return SequencesTask(recipe, opened.model, train.examples, validation, training.ids)


def _series(opened: Opened, valid: Any, window: int, say: Say, cache: Cache | None) -> SeriesTask:
    N, ahead = opened.grouping.steps, opened.data.ahead or 0
    cut = N if valid is not None else cut_series(N)
    if cut - ahead < 2:
        raise UserError(
            f"{opened.source.name} has {N:,} steps, too few to learn from"
            + (f" with a target {ahead} steps ahead" if ahead else ""),
            "ahead" if ahead else None,
        )
    # A target in the validation part is never trained on, though the step it is ahead of is.
    recipe = _fit(opened, np.arange(N) < cut, np.arange(N) + ahead < cut, say)
    keep = kept(opened.source, cache)
    whole = recipe.load(opened.source, opened.grouping, scored=True, keep=keep)
    if valid is not None:
        validation = load(recipe, valid, option="valid", say=say, cache=cache)
    else:
        say(f"the last {N - cut:,} of {N:,} steps are held out for validation")
        scored = scored_between(whole, ahead, cut, N)
        validation = replace(whole, examples=whole.examples._replace(scored=scored))
    return SeriesTask(
        recipe,
        opened.model,
        whole.examples,
        validation,
        steps=cut - ahead,
        window=window,
        own_valid=valid is not None,
    )


def _fit(opened: Opened, steps: Array, training: Array, say: Say) -> Recipe:
    """Fit encoders to the training part: ``steps [N]`` and targets ``training [M]``."""
    source, grouping, data, kind = opened.source, opened.grouping, opened.data, opened.kind
    features, lines = columns.fit(source, grouping, steps, opened.chosen)
    for line in lines:
        say(line)
    say(f"features: {listed(features.names, 40)}")
    return Recipe(
        target=data.target,
        sequence=data.sequence,
        order=data.order,
        per=kind.per,
        ahead=data.ahead,
        missing=data.missing,
        features=features,
        values=_fit_values(source, grouping, data, kind, training),
    )


def _fit_values(
    source: Source, grouping: Grouping, data: DataSettings, kind: Kind, training: Array
) -> Classes | Numbers:
    def pieces() -> Iterator[TargetPiece]:
        return targets.target_pieces(source, grouping, data.target, kind.per, data.ahead)

    if kind.classify:
        parts = grouping.pieces(source, [data.target]) if data.ahead else ()
        everywhere = (part.columns[data.target] for part in parts)
        return targets.fit_classes(source, data.target, pieces, training, everywhere)

    def numbers() -> Iterator[tuple[Array, Array | None]]:
        for begin, values, here, now in pieces():
            used = here & training[begin : begin + len(here)]
            y = columns.floats(values)[used]
            yield y, None if now is None else columns.floats(now)[used]

    columns.check_numbers(source, data.target)
    return targets.fit_numbers(numbers)


def _too_short(ahead: int | None) -> str:
    return f"no sequence is longer than {ahead} steps, and the target is that far ahead"
