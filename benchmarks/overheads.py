"""``python -m benchmarks overheads``: what surrounds the arithmetic of a small batch."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import peephole
from benchmarks import options as shared
from benchmarks import show
from benchmarks.contenders import SEED, batch, contenders
from benchmarks.measure import Measurement, measure
from benchmarks.record import Record
from benchmarks.sizes import EPILOG, Size

HELP = """\
Time of an LSTM on a ragged batch and of its parts, so that one sees where a small batch's time
goes: forward and backward with respect to the weights (train) or forward in inference mode
(infer), float32.

  nothing    an autograd.Function with the op's inputs and outputs that computes nothing
  op         peephole.ops.lstm
  linear     the input's product, alone
  frame      linear and nothing: what any layer costs that is made of these
  layer      peephole.LSTM on the same Ragged at each call
  fresh      the same on a Ragged made anew at each call
  padded     torch.nn.LSTM on a padded tensor

There is no bar for these.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = HELP
    parser.epilog = EPILOG
    shared.add_mode(parser)
    shared.add_sizes(parser, "1")
    shared.add_backend(parser, "of op and layer")
    shared.add_timing(parser, "a mode and size")
    shared.add_threads(parser)
    shared.add_results(parser, "overheads", "a mode and size")


def run(options: argparse.Namespace) -> int:
    """Measure, show and save.

    Returns:
        0; there is no bar.
    """
    record = Record("overheads", options)
    plan = [(mode, size) for mode in options.mode for size in options.sizes]
    lines = []
    with show.Bar(record.out, len(plan)) as bar:
        for mode, size in plan:
            measured = measure(
                parts(mode, size, options.backend),
                options.seconds,
                seed=SEED,
                min_rounds=options.rounds,
                on_round=bar.start(f"{mode} {size}"),
            )
            bar.finish()
            record.save({"seconds": options.seconds, **figures(mode, size, measured)})
            lines.append((f"{mode}  {size}", measured))
    names = list(lines[0][1].seconds)
    table = show.table("us, median (quartiles)", "B, T, I, H", *names, "layer / frame")
    for label, measured in lines:
        in_us = (measured.times(name).scaled(1e6) for name in names)
        frames = show.spread(measured.ratio("layer", "frame"))
        table.add_row(label, *map(show.spread, in_us), frames)
    record.out.print(table)
    return record.finish([])


class Nothing(torch.autograd.Function):
    """An op that takes what the LSTM's takes, gives what it gives, and computes nothing."""

    @staticmethod
    def forward(gates_x: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, ...]:
        """Numbers that nobody wrote, ``y [N, H]``, ``h_n [B, H]`` and ``c_n [B, H]``."""
        y = gates_x.new_empty(gates_x.shape[0], weight_hh.shape[1])
        return y, torch.empty_like(h0), torch.empty_like(c0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the LSTM's would."""
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx: Any, *d_output: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients that nobody wrote either."""
        saved = ctx.saved_tensors
        return tuple(
            torch.empty_like(each) if needed else None
            for each, needed in zip(saved, ctx.needs_input_grad, strict=False)
        )


def parts(mode: str, size: Size, backend: str) -> dict[str, Callable[[], object]]:
    """What is timed, by name.

    Args:
        mode: "train" or "infer".
        size: of batch and layer.
        backend: of op and layer.
    """
    x, H = batch(size), size.H
    torch.manual_seed(SEED)
    weight_ih = torch.randn(4 * H, size.I, requires_grad=True)
    weight_hh = torch.randn(4 * H, H, requires_grad=True)
    biases = [torch.randn(4 * H, requires_grad=True) for _ in range(2)]
    gates_x = torch.randn(len(x.values), 4 * H, requires_grad=True)
    zeros = torch.zeros(size.B, H)
    upstream = torch.randn(len(x.values), H)

    def linear() -> Tensor:
        return F.linear(x.values, weight_ih, biases[0] + biases[1])

    def op(gates: Tensor) -> Tensor:
        y: Tensor = peephole.ops.lstm(gates, x.offsets, weight_hh, backend=backend)[0]
        return y

    def nothing(gates: Tensor) -> Tensor:
        y: Tensor = Nothing.apply(gates, weight_hh, zeros, zeros)[0]  # type: ignore[no-untyped-call]
        return y

    inputs = [weight_ih, *biases]
    forwards: dict[str, tuple[Callable[[], Tensor], list[Tensor], Tensor]] = {
        "nothing": (lambda: nothing(gates_x), [gates_x, weight_hh], upstream),
        "op": (lambda: op(gates_x), [gates_x, weight_hh], upstream),
        "linear": (linear, inputs, gates_x.detach()),
        "frame": (lambda: nothing(linear()), [*inputs, weight_hh], upstream),
    }
    calls: dict[str, Callable[[], object]] = {
        name: _call(mode, *part) for name, part in forwards.items()
    }
    layers = contenders("LSTM", size, ["auto", "fresh", "padded"], backend=backend)
    for name, contender in layers.items():
        calls["layer" if name == "auto" else name] = contender.call(mode)
    return calls


def _call(
    mode: str, forward: Callable[[], Tensor], inputs: list[Tensor], upstream: Tensor
) -> Callable[[], object]:
    def train() -> object:
        return torch.autograd.grad(forward(), inputs, upstream)

    def infer() -> object:
        with torch.inference_mode():
            return forward()

    return train if mode == "train" else infer


def figures(mode: str, size: Size, measured: Measurement) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "kind": "LSTM",
        "mode": mode,
        "size": size._asdict(),
        "rounds": measured.rounds,
        "times_us": {name: measured.times(name).scaled(1e6)._asdict() for name in measured.seconds},
        "layer / frame": measured.ratio("layer", "frame")._asdict(),
    }
