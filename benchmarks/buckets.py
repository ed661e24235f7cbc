"""A training step on batches at random and on batches of similar length."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

import peephole
from benchmarks.contenders import (
    SEED,
    Contender,
    check_agreement,
    on_packed,
    on_padded,
    on_ragged,
)
from benchmarks.measure import Measurement
from benchmarks.sizes import Size
from peephole import Ragged
from peephole.data.batches import Batches

SIZE = Size(64, 200, 64, 128)
SHORTEST = 25
POOL = 50
# Batches' worth in a pool, for each order.
ORDERS = {"random": 1, "similar": POOL}
# At equal distances by their steps, they stand for all the batches of a pool.
TAKEN = 5
FORMS = ("peephole", "padded", "packed")


def batches(order: str) -> list[Ragged]:
    """Some batches of an epoch, normal numbers; ``order`` is a key of ``ORDERS``."""
    lengths = np.random.default_rng(SEED).integers(SHORTEST, SIZE.T + 1, POOL * SIZE.B)
    epoch = Batches(lengths, batch_size=SIZE.B, pool=ORDERS[order], seed=SEED).epoch(0)
    every = sorted((lengths[epoch.batch(k)] for k in range(len(epoch))), key=np.sum)
    torch.manual_seed(SEED)
    return [
        Ragged.from_list([torch.randn(n, SIZE.I) for n in own.tolist()])
        for own in every[POOL // TAKEN // 2 :: POOL // TAKEN]
    ]


def contenders(backend: str) -> dict[str, dict[str, list[Contender]]]:
    """By form and order a contender for each batch, all with the same weights.

    Args:
        backend: of our layer.

    Raises:
        ValueError: there is no such backend, or the forms do not compute the same.
    """
    torch.manual_seed(SEED)
    theirs = nn.LSTM(SIZE.I, SIZE.H)
    ours = peephole.LSTM(SIZE.I, SIZE.H, backend=backend)
    ours.load_state_dict(theirs.state_dict())
    found: dict[str, dict[str, list[Contender]]] = {
        form: {order: [] for order in ORDERS} for form in FORMS
    }
    for order in ORDERS:
        for x in batches(order):
            by_form = in_each_form(x, ours, theirs)
            check_agreement(by_form, "train")
            for form, contender in by_form.items():
                found[form][order].append(contender)
    return found


def in_each_form(x: Ragged, ours: nn.Module, theirs: nn.Module) -> dict[str, Contender]:
    """What takes part, on one batch, with one upstream gradient."""
    upstream = x.with_values(torch.randn(len(x.values), SIZE.H))
    truth = on_packed(theirs, x, upstream)
    # Made anew at each call, as a loop over a data set has it.
    fresh = on_ragged(ours, upstream, lambda: Ragged._trusted(x.values, x.offsets))
    made = (fresh, on_padded(theirs, x, upstream), truth)
    return {
        form: replace(contender, truth=lambda: truth)
        for form, contender in zip(FORMS, made, strict=True)
    }


def calls(all: dict[str, dict[str, list[Contender]]]) -> dict[str, Callable[[], object]]:
    """What is timed, by ``"form order"``: all batches, one after the other."""

    def call(each: Sequence[Contender]) -> Callable[[], object]:
        return lambda: [contender.train() for contender in each]

    return {f"{form} {order}": call(all[form][order]) for form in FORMS for order in ORDERS}


def figures(measured: Measurement) -> dict[str, Any]:
    """All of it, for JSON: us for each step that exists, and how many times as fast similar is."""
    steps = {order: sum(len(x.values) for x in batches(order)) for order in ORDERS}
    waste = {
        order: sum(len(x) * x.max_length for x in batches(order)) / steps[order] for order in ORDERS
    }
    found: dict[str, Any] = {
        "kind": "similar lengths",
        "mode": "train",
        "size": SIZE._asdict(),
        "rounds": measured.rounds,
        "steps": steps,
        "padded_steps": waste,
        "times_us": {},
        "ratios": {},
    }
    for form in FORMS:
        names = {order: f"{form} {order}" for order in ORDERS}
        found["times_us"][form] = {
            order: measured.times(name).scaled(1e6 / steps[order])._asdict()
            for order, name in names.items()
        }
        gain = measured.ratio(names["random"], names["similar"])
        per_step = steps["similar"] / steps["random"]
        found["ratios"][form] = gain.scaled(per_step)._asdict()
    return found
