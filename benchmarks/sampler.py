"""``python -m benchmarks sampler``: what planning batches takes, and what similar lengths bring."""

import argparse
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

import peephole
from benchmarks import buckets, show
from benchmarks import options as shared
from benchmarks.buckets import FORMS, ORDERS, POOL, SHORTEST
from benchmarks.contenders import SEED
from benchmarks.goals import GOALS, SAMPLED
from benchmarks.measure import Measurement, Quartiles, measure
from benchmarks.record import Record
from benchmarks.sizes import SIZES
from peephole import Ragged
from peephole.data.batches import Batches

LIMITS = {"batch_size": 16, "batch_steps": 4096}
TOY = SIZES[0]
PROCESSES = 2
# Updates and shares that are timed at once: what plans an epoch has emptied the caches before.
IN_A_ROW = 20

HELP = f"""\
First the time it takes to decide which sequences make an update, as a share of the training. An
epoch of sequences of 2 to {TOY.T} steps is planned and all its batches are asked for, in turn. An
update is forward, backward and the weights' step of the toy's LSTM with {TOY.H} units on one such
batch and nothing else; a real one takes longer. With a pool, the sequences of {POOL} batches are
sorted by length together. A share of a batch is what one of {PROCESSES} processes asks for. The
bar is for the toy as it is trained: without a pool, {LIMITS["batch_size"]} sequences an update.

Then whether sorting is worth it: a training step, forward and backward with respect to the
weights, float32, on {buckets.SIZE.B} sequences of {SHORTEST} to {buckets.SIZE.T} steps with \
{buckets.SIZE.I} features and {buckets.SIZE.H} units,
random ones against similar ones from pools of {POOL} batches. Times are for each step that exists.

  peephole   peephole.LSTM on a Ragged made anew at each call
  padded     torch.nn.LSTM on a padded tensor        packed   the same on a PackedSequence
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.add_argument(
        "--sequences",
        type=shared.count,
        default=SAMPLED,
        metavar="B",
        help=f"of an epoch (default: {SAMPLED})",
    )
    shared.add_backend(parser, "of our layers")
    shared.add_timing(parser, "a limit and pool; on similar lengths five times as many")
    shared.add_threads(parser)
    shared.add_results(parser, "sampler", "a row of the first table, and one for the second")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save.

    Returns:
        1 where a bar is missed and ``--check`` was given, else 0.
    """
    record = Record("sampler", options)
    plan = [(limit, pool) for limit in LIMITS for pool in (1, POOL)]
    found = []
    with show.Bar(record.out, len(plan) + 1) as bar:

        def timed(name: str, calls: dict[str, Callable[[], object]], seconds: float) -> Measurement:
            on_round = bar.start(name)
            measured = measure(
                calls, seconds, seed=SEED, min_rounds=options.rounds, on_round=on_round
            )
            bar.finish()
            return measured

        for limit, pool in plan:
            name = f"{limit} {LIMITS[limit]}" + (f", pool {pool}" if pool > 1 else "")
            calls, updates = epoch_calls(options.sequences, limit, pool, options.backend)
            figures = epoch_figures(timed(name, calls, options.seconds), updates)
            size = {"B": options.sequences}
            found.append({"kind": name, "size": size, **figures})
            record.save({"seconds": options.seconds, **found[-1]})
        calls = buckets.calls(buckets.contenders(options.backend))
        similar = buckets.figures(timed("similar lengths", calls, 5 * options.seconds))
        record.save({"seconds": 5 * options.seconds, **similar})
    show_epochs(record, found)
    show_buckets(record, similar)
    return record.finish(GOALS)


def epoch_calls(
    sequences: int, limit: str, pool: int, backend: str
) -> tuple[dict[str, Callable[[], object]], int]:
    """What is timed of an epoch, by name, and its updates.

    Args:
        sequences: it has.
        limit: a key of ``LIMITS``.
        pool: as ``Batches`` takes it.
        backend: of the layer that is trained.
    """
    lengths = np.random.default_rng(SEED).integers(2, TOY.T + 1, sequences)
    batches = Batches(
        lengths,
        batch_size=LIMITS[limit] if limit == "batch_size" else None,
        batch_steps=LIMITS[limit] if limit == "batch_steps" else None,
        pool=pool,
        seed=SEED,
    )
    epoch = batches.epoch(0)
    turn = cycle(range(len(epoch)))

    def plan() -> object:
        return batches.epoch(1)

    def every_batch() -> None:
        for k in range(len(epoch)):
            epoch.batch(k)

    def shares() -> None:
        for _ in range(IN_A_ROW):
            epoch.share(next(turn), PROCESSES - 1, PROCESSES)

    calls: dict[str, Callable[[], object]] = {
        "plan": plan,
        "batches": every_batch,
        "share": shares,
        "update": toy_updates(lengths[epoch.batch(len(epoch) // 2)], backend),
    }
    return calls, len(epoch)


def toy_updates(lengths: NDArray[np.int64], backend: str) -> Callable[[], object]:
    """Updates of the toy's LSTM, by plain gradient descent, on sequences of these lengths."""
    torch.manual_seed(SEED)
    lstm, head = peephole.LSTM(TOY.I, TOY.H, backend=backend), nn.Linear(TOY.H, 1)
    weights = [*lstm.parameters(), *head.parameters()]
    x = Ragged.from_list([torch.randn(n, TOY.I) for n in lengths.tolist()])
    targets = torch.randn(len(x))

    def update() -> None:
        _, (h, _) = lstm(Ragged._trusted(x.values, x.offsets))
        loss = F.mse_loss(head(h[-1])[:, 0], targets)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(gradient, alpha=1e-6)

    def updates() -> None:
        for _ in range(IN_A_ROW):
            update()

    return updates


def epoch_figures(measured: Measurement, updates: int) -> dict[str, Any]:
    """All of it, for JSON."""
    of_training = [
        (plan + batches) / (updates * several / IN_A_ROW)
        for plan, batches, several in zip(
            *(measured.seconds[name] for name in ("plan", "batches", "update")), strict=True
        )
    ]
    one = 1e6 / IN_A_ROW
    units = {"plan": ("ms", 1e3), "batches": ("ms", 1e3)}
    units |= {"share": ("us", one), "update": ("us", one)}
    return {
        "rounds": measured.rounds,
        "updates": updates,
        **{
            f"{name}_{unit}": measured.times(name).scaled(factor)._asdict()
            for name, (unit, factor) in units.items()
        },
        "of_training": Quartiles.of(of_training)._asdict(),
    }


def show_epochs(record: Record, found: list[dict[str, Any]]) -> None:
    """The first table."""
    columns = {
        "plan_ms": "plan, ms",
        "batches_ms": "all batches, ms",
        "update_us": "update, us",
        "of_training": "of the training, %",
        "share_us": "a share, us",
    }
    table = show.table(
        f"An epoch of {found[0]['size']['B']:,} sequences: median (quartiles)",
        "",
        "updates",
        *columns.values(),
    )
    for line in found:
        values = (
            Quartiles(**line[name]).scaled(100 if name == "of_training" else 1) for name in columns
        )
        table.add_row(line["kind"], f"{line['updates']:,}", *map(show.spread, values))
    record.out.print(table)


def show_buckets(record: Record, found: dict[str, Any]) -> None:
    """The second table."""
    table = show.table(
        "A training step: us for each step that exists, median (quartiles)",
        "",
        *ORDERS,
        "random / similar",
    )
    for form in FORMS:
        times = (Quartiles(**found["times_us"][form][order]) for order in ORDERS)
        ratio = Quartiles(**found["ratios"][form])
        table.add_row(form, *map(show.spread, times), show.spread(ratio))
    padded = (show.number(found["padded_steps"][order]) for order in ORDERS)
    table.add_row("steps of a padded tensor for each", *padded, "")
    record.out.print()
    record.out.print(table)
