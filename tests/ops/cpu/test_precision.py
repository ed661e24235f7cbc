"""The kernels' rounding errors beside the reference's in the same dtype, both against float64.

The root of the mean square over at least 10,000 numbers, pooled over seeds, is at most twice the
reference's: for each output and each gradient.
"""

import copy
import math
from collections import defaultdict

import pytest
import torch
from torch import Tensor

import peephole
from tests.helpers.kernels import KINDS, draw, draw_upstream, outcome
from tests.helpers.recurrences import Recurrence, Tensors, gru, leaves, lstm, rnn

LEAST = 10_000
BACKENDS = ("cpu", "reference")

# Without clips, whose derivatives jump.
RECURRENCES = dict(KINDS) | {
    "lstm-diagonal-dropped": lstm(
        "diagonal", recurrent_mask=True, zoneout_h=0.1, zoneout_c="float"
    ),
    "gru-dropped": gru(bias_hn=True, recurrent_mask=True, zoneout_h="float"),
    "rnn-dropped": rnn(recurrent_mask=True, zoneout_h=0.1),
}


def widened(tensors: Tensors) -> Tensors:
    """The same numbers in float64."""
    return {
        name: t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t
        for name, t in tensors.items()
    }


def squared_errors(
    recurrence: Recurrence, size: int, dtype: torch.dtype
) -> dict[str, tuple[int, float, float]]:
    """Numbers, and the sum of squared errors of the kernels and of the reference, by name."""
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    while not found or min(count for count, *_ in found.values()) < LEAST:
        tensors = draw(recurrence, [5, 9, 0, 7, 2, 1, 8, 6], size, dtype)
        upstream = draw_upstream(recurrence, tensors)
        truth = outcome(
            recurrence,
            widened(tensors),
            {name: d.double() for name, d in upstream.items()},
            "reference",
        )
        for which, backend in enumerate(("cpu", "reference"), 1):
            given = outcome(recurrence, tensors, upstream, backend)
            for name, exact in truth.items():
                found[name][which] += float((given[name].double() - exact).square().sum())
        for name, exact in truth.items():
            found[name][0] += exact.numel()
    return {name: tuple(sums) for name, sums in found.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("recurrence", RECURRENCES.values(), ids=RECURRENCES)
def test_errors_are_at_most_twice_the_reference(recurrence: Recurrence, dtype: torch.dtype) -> None:
    # So wide that 10,000 elements of a bias take few seeds.
    errors = squared_errors(recurrence, 161, dtype)
    assert set(errors) >= {f"d_{name}" for name in leaves(draw(recurrence, [1]))} | {"y", "h_n"}
    for name, (count, ours, theirs) in errors.items():
        ratio = math.sqrt(ours / theirs)
        assert ratio <= 2, f"{name}: {ratio:.2f} times the reference's error"
        assert count >= LEAST


@pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
def test_sums_over_many_steps(kind: type[torch.nn.Module]) -> None:
    """A bias, and a diagonal peephole, get a sum over all rows: here 6,400 of them."""
    options = {"peephole": "diagonal"} if kind is peephole.LSTM else {}
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    counts: dict[str, int] = defaultdict(int)
    for seed in range(6):
        torch.manual_seed(seed)
        layers = {backend: kind(4, 161, backend=backend, **options) for backend in BACKENDS}
        for layer in layers.values():
            layer.load_state_dict(layers["cpu"].state_dict())
        x, d_y = torch.randn(200, 32, 4), torch.randn(200, 32, 161)
        truth = gradients(copy.deepcopy(layers["reference"]).double(), x.double(), d_y.double())
        for which, layer in enumerate(layers.values()):
            for name, found in gradients(layer, x, d_y).items():
                sums[name][which] += float((found.double() - truth[name]).square().sum())
                counts[name] += found.numel()
    for name, (ours, theirs) in sums.items():
        assert counts[name] // 2 >= 900
        ratio = math.sqrt(ours / theirs)
        assert ratio <= 2, f"{name}: {ratio:.2f} times the reference's error"


def gradients(layer: torch.nn.Module, x: Tensor, d_y: Tensor) -> dict[str, Tensor]:
    """Those of the biases and of the peepholes."""
    named = {n: p for n, p in layer.named_parameters() if n.startswith(("bias", "weight_ch"))}
    return dict(
        zip(named, torch.autograd.grad(layer(x)[0], list(named.values()), d_y), strict=True)
    )
