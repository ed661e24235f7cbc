"""``python -m benchmarks steps``: one sequence, one step at a time."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import peephole
from benchmarks import options as shared
from benchmarks import show
from benchmarks.contenders import SEED, TOLERANCE
from benchmarks.goals import GOALS, STEP_HIDDEN
from benchmarks.measure import Measurement, measure
from benchmarks.record import Record
from peephole import Ragged

STEPS = 20
TORCH = ("nn.LSTM", "nn.LSTMCell")
OURS = ("LSTM", "LSTM on a Ragged", "LSTMCell")

HELP = f"""\
Time of a step where one sequence comes step by step, as when a model answers while it listens:
float32, in inference mode, as many features as hidden units. The caller carries the state from
one step to the next, {STEPS} steps in a row.

  nn.LSTM            torch.nn's layer on [1, 1, I]       nn.LSTMCell   its cell on [1, I]
  LSTM               peephole's layer on [1, 1, I]       LSTMCell      its cell on [1, I]
  LSTM on a Ragged   peephole's layer on a Ragged of one sequence with one step

The ratio is the faster of torch's over the faster of ours.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.add_argument(
        "--hidden",
        type=shared.counts,
        default=(16, STEP_HIDDEN, 512),
        metavar="H,...",
        help="hidden units (default: 16,128,512)",
    )
    shared.add_backend(parser, "of our layer")
    shared.add_timing(parser, "a number of hidden units")
    shared.add_threads(parser)
    shared.add_results(parser, "steps", "a number of hidden units")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save.

    Returns:
        1 where a bar is missed and ``--check`` was given, else 0.
    """
    record = Record("steps", options)
    table = show.table(
        "One step: us, median (quartiles)", "H", *TORCH, *OURS, "faster of torch's / of ours"
    )
    with show.Bar(record.out, len(options.hidden)) as bar:
        for H in options.hidden:
            walks = walkers(H, options.backend)
            check_same_end(walks)
            measured = measure(
                {name: inference(walk) for name, walk in walks.items()},
                options.seconds,
                seed=SEED,
                min_rounds=options.rounds,
                on_round=bar.start(f"H = {H}"),
            )
            bar.finish()
            found = figures(H, measured)
            record.save({"seconds": options.seconds, **found})
            per_step = (measured.times(name).scaled(1e6 / STEPS) for name in walks)
            ratio = measured.ratio(found["best"]["torch"], found["best"]["peephole"])
            table.add_row(str(H), *map(show.spread, per_step), show.spread(ratio))
    record.out.print(table)
    return record.finish(GOALS)


def walkers(hidden: int, backend: str) -> dict[str, Callable[[], Tensor]]:
    """For each contender a walk over the same steps with the same weights; it gives the last h.

    Args:
        hidden: units, and features.
        backend: of our layer.
    """
    torch.manual_seed(SEED)
    x = torch.randn(STEPS, 1, 1, hidden)
    layer = nn.LSTM(hidden, hidden)
    weights = layer.state_dict()
    cell_weights = {name.removesuffix("_l0"): weight for name, weight in weights.items()}
    ours = peephole.LSTM(hidden, hidden, backend=backend)
    ours.load_state_dict(weights)
    cells = nn.LSTMCell(hidden, hidden), peephole.LSTMCell(hidden, hidden)
    for cell in cells:
        cell.load_state_dict(cell_weights)
    modules = (layer, ours, *cells)
    for module in modules:
        module.eval()
    rows = list(x.squeeze(1).unbind())
    padded = list(x.unbind())
    one = Ragged(rows[0], torch.tensor([0, 1]))
    ragged = [one.with_values(row) for row in rows]
    zeros = torch.zeros(1, 1, hidden)
    return {
        "nn.LSTM": lambda: _walk_layer(layer, padded, zeros),
        "nn.LSTMCell": lambda: _walk_cell(cells[0], rows, zeros[0]),
        "LSTM": lambda: _walk_layer(ours, padded, zeros),
        "LSTM on a Ragged": lambda: _walk_layer(ours, ragged, zeros),
        "LSTMCell": lambda: _walk_cell(cells[1], rows, zeros[0]),
    }


def _walk_layer(layer: Any, steps: list[Any], zeros: Tensor) -> Tensor:
    state = (zeros, zeros)
    for x in steps:
        _, state = layer(x, state)
    return state[0][0]


def _walk_cell(cell: Any, steps: list[Tensor], zeros: Tensor) -> Tensor:
    state = (zeros, zeros)
    for x in steps:
        state = cell(x, state)
    return state[0]


def inference(walk: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The walk in inference mode, which is entered once for all its steps."""

    def walked() -> Tensor:
        with torch.inference_mode():
            return walk()

    return walked


def check_same_end(walks: dict[str, Callable[[], Tensor]]) -> None:
    """Raise ValueError unless all walks end in the same h."""
    wanted = inference(walks["nn.LSTM"])()
    for name, walk in walks.items():
        error = float((inference(walk)() - wanted).norm() / wanted.norm())
        if not error < TOLERANCE:
            raise ValueError(f"{name} ends elsewhere than nn.LSTM: h is off by {error:.2g}")


def figures(hidden: int, measured: Measurement) -> dict[str, Any]:
    """All of it, for JSON."""
    best = {"torch": measured.fastest(TORCH), "peephole": measured.fastest(OURS)}
    return {
        "size": {"I": hidden, "H": hidden},
        "rounds": measured.rounds,
        "steps": STEPS,
        "times_us": {
            name: measured.times(name).scaled(1e6 / STEPS)._asdict() for name in measured.seconds
        },
        "best": best,
        "ratio": measured.ratio(best["torch"], best["peephole"])._asdict(),
    }
