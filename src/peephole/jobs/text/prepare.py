"""From files and settings to a task: all that a person's input can get wrong."""

import time
from dataclasses import dataclass
from pathlib import Path

from peephole.data.cache import Cache, Say
from peephole.data.corpus import Corpus, open_corpus
from peephole.data.decoding import Unit
from peephole.errors import UserError
from peephole.jobs.sizes import check_memory
from peephole.jobs.text import budget as budgets
from peephole.jobs.text.settings import ModelSettings, TrainSettings, as_settings, loop_settings
from peephole.tasks.protocol import Batching
from peephole.tasks.text.task import TextTask
from peephole.train import Settings

NAMES = {"char": "characters", "byte": "bytes"}


@dataclass(frozen=True)
class Prepared:
    """A text ready to be trained on.

    Attributes:
        task: with the text and the network.
        model: the settings, with nothing left open.
        training: likewise.
        loop: the loop's settings.
        updates: how many there will be.
        sources: for the option that named the text, a fingerprint of what it holds.
    """

    task: TextTask
    model: ModelSettings
    training: TrainSettings
    loop: Settings
    updates: int
    sources: dict[str, str]


def prepare(
    path: Path | None,
    unit: Unit,
    budget: str,
    model: ModelSettings,
    training: TrainSettings,
    *,
    seed: int,
    cache: Cache,
    say: Say,
) -> Prepared:
    """Encode the text and settle what to train.

    Args:
        path: a file, a folder, or None for the source of Python's standard library.
        unit: what is predicted.
        budget: wall time, for what is left open.
        model: a person's settings.
        training: likewise.
        seed: of weights, order and dropout.
        cache: where the text goes.
        say: takes each line that a person should read.

    Raises:
        UserError: anything in the files or settings that does not work.
    """
    began = time.monotonic()
    wall = budgets.seconds(budget)
    corpus = open_corpus(path, unit, cache, option="file")
    name = "Python's standard library" if path is None else str(path)
    window = training.window or budgets.WINDOW
    _check_length(corpus, name, window)
    _tell(corpus, name, say)
    network, training, _ = budgets.settle(
        corpus, model, training, wall, began=began, seed=seed, say=say
    )
    task = TextTask(corpus, network, window)
    plan = task.plan(Batching(training.streams, None, 1, seed))
    loop = loop_settings(training, len(plan.epoch(0)), seed)
    check_memory(task, loop)
    assert loop.updates is not None
    sources = {"file": corpus.fingerprint}
    return Prepared(task, as_settings(network), training, loop, loop.updates, sources)


def _check_length(corpus: Corpus, name: str, window: int) -> None:
    unit = NAMES[corpus.alphabet.unit]
    train = int(corpus.lengths[~corpus.held_out].sum())
    if train < window:
        raise UserError(
            f"{name} has {train:,} {unit} to train on, and a window of {window:,} would not fit; "
            "give more text, or a smaller --train.window",
            "file",
        )


def _tell(corpus: Corpus, name: str, say: Say) -> None:
    unit = NAMES[corpus.alphabet.unit]
    lengths, held = corpus.lengths, corpus.held_out
    total, out = int(lengths.sum()), int(lengths[held].sum())
    documents = "" if len(corpus) <= 2 else f" in {len(corpus):,} documents"
    alphabet = "" if unit == "bytes" else f", {corpus.alphabet.size - 1:,} distinct"
    say(f"{name}: {total:,} {unit}{documents}{alphabet}")
    which = f"{int(held.sum()):,} documents" if documents else "the last tenth"
    say(f"held out: {which}, {out:,} {unit}")
