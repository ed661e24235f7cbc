"""``python -m benchmarks engine``: what the training loop costs beside its updates."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from benchmarks import options as shared
from benchmarks import show
from benchmarks.contenders import SEED, TOLERANCE
from benchmarks.goals import GOALS
from benchmarks.measure import Measurement, Quartiles, measure
from benchmarks.peers.training import by_hand, with_optimizer
from benchmarks.record import Record
from benchmarks.watched import Unevaluated, training
from peephole.jobs.table.prepare import prepare
from peephole.jobs.table.settings import TrainSettings, batch_size, resolve
from peephole.ops.cpu import kernels, lstm
from peephole.tasks.protocol import Batching, Task
from peephole.tasks.table.settings import DataSettings, ModelSettings
from peephole.tasks.table.task import SequencesTask
from peephole.tasks.toy import MODELS, Toy
from peephole.train import Settings, fit
from peephole.train.descent import backward

MODEL = MODELS["lstm-variable"]
SEQUENCES = 6000
# Of the Japanese Vowels (Kudo, Toyama & Shimbo 1999), their training part.
VOWELS, SPEAKERS, FEATURES, SHORTEST, LONGEST = 270, 9, 12, 7, 29
BARE = ("optimizer", "by hand", "same calls")

HELP = f"""\
What training costs beside forward, backward and step, float32.

toy: an epoch of the toy's {MODEL.name} ({MODEL.architecture}; {MODEL.batch_size} sequences an
update, plain SGD) with nothing evaluated, logged or saved, by

  fit          the engine
  optimizer    a bare loop with torch.optim.SGD (foreach)
  by hand      the same, but the step is one call of torch._foreach_add_
  same calls   that with the call for the backward pass that the engine has too

on the same batches, made the same way, to the same weights. What is held against the bar is the
ratio to the fastest of the three.

vowels: how long training waits for its batches, as a share of its time without evaluations, with
the defaults of `peephole train table` on {VOWELS} random sequences of {SHORTEST} to {LONGEST} \
steps with {FEATURES} features.

Of both: the steps that the kernels are told to compute, forward and backward, for each that the
sequences of the updates have.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.add_argument(
        "--sequences",
        type=shared.count,
        default=SEQUENCES,
        metavar="B",
        help=f"of the toy, seven tenths of which train (default: {SEQUENCES})",
    )
    shared.add_timing(parser, "the toy's; the vowels are trained on once a round", 20.0)
    shared.add_threads(parser)
    shared.add_results(parser, "engine", "a task")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save.

    Returns:
        1 where a bar is missed and ``--check`` was given, else 0.
    """
    record = Record("engine", options)
    with show.Bar(record.out, 2) as bar:
        on_round = bar.start("toy")
        task = Toy(MODEL, options.sequences, SEED)
        measured = measure(
            loops(task), options.seconds, seed=SEED, min_rounds=options.rounds, on_round=on_round
        )
        toy = toy_figures(task, measured)
        record.save({"seconds": options.seconds, **toy})
        bar.finish()
        on_round = bar.start("vowels")
        vowels = vowels_figures(options.rounds, on_round)
        record.save(vowels)
        bar.finish()
    show_loops(record, toy)
    table = show.table(
        "Waiting for data", "", "an update, ms", "waiting, %", "steps computed / that exist"
    )
    table.add_row(
        "vowels",
        show.spread(Quartiles(**vowels["update_ms"])),
        show.spread(Quartiles(**vowels["waiting"]).scaled(100)),
        show.number(vowels["steps"]["ratio"]),
    )
    record.out.print()
    record.out.print(table)
    return record.finish(GOALS)


def loops(task: Toy) -> dict[str, Callable[[], nn.Module]]:
    """What is timed, by name: an epoch from the same weights, which gives the model.

    Raises:
        ValueError: they do not end at the same weights.
    """
    batching = toy_settings().batching

    def bare(train: Callable[..., None], **changes: Any) -> nn.Module:
        torch.manual_seed(SEED)
        model = task.model()
        epoch = task.plan(batching).epoch(0)
        batches = task.batches(epoch.share(k, 0, 1) for k in range(len(epoch)))
        train(model, batches, MODEL.rate, **changes)
        return model

    calls: dict[str, Callable[[], nn.Module]] = {
        "fit": lambda: fit(Unevaluated(task), toy_settings()).model,
        "optimizer": lambda: bare(with_optimizer),
        "by hand": lambda: bare(by_hand),
        "same calls": lambda: bare(by_hand, backward=backward),
    }
    ends = {name: _weights(call()) for name, call in calls.items()}
    for name, end in ends.items():
        error = float((end - ends["optimizer"]).norm() / ends["optimizer"].norm())
        if not error < TOLERANCE:
            raise ValueError(f"{name} trains to other weights: they are off by {error:.2g}")
    return calls


def toy_settings() -> Settings:
    return Settings(epochs=1, batch_size=MODEL.batch_size, learning_rate=MODEL.rate, seed=SEED)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@dataclass
class Told:
    """What the LSTM's kernels were told to compute.

    Attributes:
        forward: the steps of each call.
        backward: likewise.
    """

    forward: list[int] = field(default_factory=list)
    backward: list[int] = field(default_factory=list)


@contextmanager
def steps_told() -> Iterator[Told]:
    """Listen to what the compiled kernels are told, until the block ends."""
    told, plain = Told(), kernels.call

    def call(name: str, dtype: torch.dtype) -> Callable[..., None]:
        kernel = plain(name, dtype)

        def listening(sequences: int, steps: int, *others: Any) -> None:
            (told.forward if name == "lstm_forward" else told.backward).append(steps)
            kernel(sequences, steps, *others)

        return listening

    with mock.patch.object(lstm, "call", call):
        yield told


def steps_figures(task: Task, settings: Settings, exist: int) -> dict[str, float]:
    """Steps that are computed in an epoch, for each that exists.

    They count once, however many layers and directions read them, forward and backward.

    Args:
        task: its layers are LSTMs on the compiled kernels, which its loss runs all the same often.
        settings: of the training.
        exist: the steps of its training data.
    """
    one = replace(settings, epochs=1, updates=None)
    updates = len(task.plan(one.batching).epoch(0))
    with steps_told() as told:
        fit(Unevaluated(task), one)
    computed = (sum(told.forward) + sum(told.backward)) / (len(told.forward) + len(told.backward))
    return {"exist": exist, "computed": computed * updates, "ratio": computed * updates / exist}


def toy_figures(task: Toy, measured: Measurement) -> dict[str, Any]:
    """All of the toy, for JSON."""
    updates = len(task.plan(toy_settings().batching).epoch(0))
    return {
        "kind": "toy",
        "mode": "train",
        "size": {"B": MODEL.batch_size, "H": 16, "updates": updates},
        "rounds": measured.rounds,
        "times_us": {
            name: measured.times(name).scaled(1e6 / updates)._asdict() for name in measured.seconds
        },
        "ratios": {f"fit / {name}": measured.ratio("fit", name)._asdict() for name in BARE},
        "fastest": measured.fastest(BARE),
        "steps": steps_figures(task, toy_settings(), len(task.train.inputs.values)),
    }


def vowels() -> tuple[SequencesTask, Settings]:
    """Random sequences of their form, and how a person who sets nothing trains on them."""
    draw = np.random.default_rng(SEED)
    lengths = draw.integers(SHORTEST, LONGEST + 1, VOWELS)
    columns: dict[str, Any] = {
        "utterance": np.arange(VOWELS).repeat(lengths),
        "speaker": (np.arange(VOWELS) % SPEAKERS).repeat(lengths),
        **{f"x{k}": draw.normal(size=lengths.sum()) for k in range(FEATURES)},
    }
    chosen = TrainSettings()
    task = prepare(
        pa.table(columns),
        DataSettings(target="speaker", sequence="utterance", task="classify"),
        ModelSettings(),
        chosen,
        valid=None,
        test=None,
        seed=SEED,
        say=lambda line: None,
    ).task
    assert isinstance(task, SequencesTask)
    size = batch_size(chosen, len(task.train.numbers))
    updates = len(task.plan(Batching(size, None, 1, SEED)).epoch(0))
    return task, resolve(chosen, size, updates, SEED)


def vowels_figures(rounds: int, on_round: Callable[[float], None]) -> dict[str, Any]:
    """All of the vowels, for JSON; each round trains anew."""
    task, settings = vowels()
    found = []
    for k in range(rounds):
        found.append(training(task, settings))
        on_round((k + 1) / rounds)
    return {
        "kind": "vowels",
        "mode": "train",
        "size": {"B": settings.batch_size, "H": task.settings.hidden_size},
        "rounds": rounds,
        **{name: Quartiles.of([each[name] for each in found])._asdict() for name in found[0]},
        "steps": steps_figures(task, settings, len(task.train.numbers.values)),
    }


def show_loops(record: Record, found: dict[str, Any]) -> None:
    """The toy's table."""
    table = show.table(
        f"The toy, {found['size']['updates']} updates: median (quartiles)",
        "",
        "an update, us",
        "fit / this",
        "steps computed / that exist",
    )
    for name, times in found["times_us"].items():
        ratio = found["ratios"].get(f"fit / {name}")
        table.add_row(
            name,
            show.spread(Quartiles(**times)),
            "" if ratio is None else show.spread(Quartiles(**ratio)),
            "" if ratio else show.number(found["steps"]["ratio"]),
        )
    record.out.print(table)
