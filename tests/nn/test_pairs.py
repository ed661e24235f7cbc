"""Every option of a layer with every other one: right by the equations, or refused.

On the backend that "auto" takes, and on the reference.
"""

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peephole
from peephole import Ragged
from peephole.nn.kind import Kind
from tests.helpers.layerwise import random_batch, randomized, run_layer, spy_on_masks

LENGTHS = [2, 0, 3]

COMMON: dict[str, dict[str, Any]] = {
    "no bias": {"bias": False},
    "single_bias": {"single_bias": True},
    "batch_first": {"batch_first": True},
    "dropout": {"dropout": 0.5},
    "one way": {"bidirectional": False},
    "widths": {"hidden_size": [4, 3]},
    "zoneout": {"zoneout": 0.3},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "layer_norm": {"layer_norm": True},
    "learn_initial_state": {"learn_initial_state": True},
    "skip": {"skip": True},
    "orthogonal": {"initialization": "orthogonal"},
    "chrono": {"initialization": ("chrono", 30)},
    "function": {"initialization": lambda name, parameter: None},
    "reference": {"backend": "reference"},
    "torch": {"backend": "torch"},
    "cpu": {"backend": "cpu"},
}
LSTM = {
    **COMMON,
    "proj_size": {"proj_size": 2},
    "diagonal": {"peephole": "diagonal"},
    "full": {"peephole": "full"},
    "coupled": {"coupled": True},
    "cell_clip": {"cell_clip": 0.5},
    "forget_bias": {"forget_bias": 2.0},
    "zoneout of two": {"zoneout": (0.1, 0.6)},
}
RNN = {
    **{name: option for name, option in COMMON.items() if name != "chrono"},
    "relu": {"nonlinearity": "relu"},
}
OPTIONS = {peephole.LSTM: LSTM, peephole.GRU: COMMON, peephole.RNN: RNN}
BEYOND_TORCH = {
    "zoneout",
    "zoneout of two",
    "recurrent_dropout",
    "layer_norm",
    "diagonal",
    "full",
    "coupled",
    "cell_clip",
}
# What contradicts what, and why.
REFUSED = {
    frozenset(pair): reason
    for *pair, reason in [
        ("no bias", "single_bias", "single_bias=True asks for a bias and bias=False for none"),
        ("no bias", "chrono", "chrono initialization sets biases, and bias=False leaves none"),
        ("no bias", "forget_bias", "forget_bias sets a bias, and bias=False leaves none"),
        ("chrono", "forget_bias", "forget_bias and chrono initialization both set"),
        *(
            ("torch", name, "backend='torch' cannot serve: torch.nn has no")
            for name in BEYOND_TORCH
        ),
    ]
}
# What a layer refuses when it is called.
LACKING = {
    frozenset(("cpu", "layer_norm")): "the compiled kernels have no layer normalization",
    frozenset(("cpu", "proj_size")): "the compiled kernels have no projection",
}
# Two values of the same argument are no pair.
PAIRS = [
    (kind, a, b)
    for kind, options in OPTIONS.items()
    for a, b in combinations(options, 2)
    if not set(options[a]) & set(options[b])
]


@pytest.mark.parametrize(
    ("kind", "a", "b"), PAIRS, ids=[f"{kind.__name__}-{a}-{b}" for kind, a, b in PAIRS]
)
def test_every_pair(kind: type[nn.Module], a: str, b: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"hidden_size": 4, "bidirectional": True}
    options |= OPTIONS[kind][a] | OPTIONS[kind][b]
    if isinstance(options["hidden_size"], int):
        options["num_layers"] = 2
    reason = REFUSED.get(frozenset([a, b]))
    if reason is not None:
        with pytest.raises(ValueError, match=reason):
            kind(3, **options)
        return
    layer = randomized(kind(3, **options))
    x = random_batch(LENGTHS, 3)
    x.values.requires_grad_()
    lacking = LACKING.get(frozenset([a, b]))
    if lacking is not None:
        with pytest.raises(ValueError, match=lacking):
            layer(x)
        return
    masks = spy_on_masks(monkeypatch)
    for training in (False, True):
        layer.train(training)
        masks.clear()
        torch.manual_seed(1)
        y, final = layer(x)
        states = final if kind is peephole.LSTM else (final,)
        if not (training and "dropout" in options):
            drawn = masks if training and any(masks) else None
            # Masks change what training computes; without any it is what evaluation computes.
            by_hand = run_layer(layer, x, options, drawn)
            torch.testing.assert_close(y.values, by_hand.y, rtol=1e-10, atol=1e-10)
            for given, wanted in zip(states, zip(*by_hand.finals, strict=True), strict=True):
                ends = [end for part in given for end in (part if part.dim() == 3 else [part])]
                for end, hand in zip(ends, wanted, strict=True):
                    torch.testing.assert_close(end, hand, rtol=1e-10, atol=1e-10)
        inputs = [x.values, *layer.parameters()]
        ends = [part for state in states for part in state]
        outputs = [y.values, *ends]
        upstream = [torch.randn_like(part) for part in outputs]
        gradients = torch.autograd.grad(outputs, inputs, upstream)
        for gradient in gradients:
            assert bool(gradient.isfinite().all())
            # Units of a relu network may all be off.
            assert gradient.abs().max() > 0 or "nonlinearity" in options
        if layer.backend_used != "reference":
            found = on_the_reference(layer, x, inputs, upstream)
            torch.testing.assert_close([*outputs, *gradients], found, rtol=1e-10, atol=1e-10)


def on_the_reference(
    layer: Any, x: Ragged, inputs: list[Tensor], upstream: list[Tensor]
) -> list[Tensor]:
    """Outputs and gradients, with the masks that seed 1 draws."""
    backend, layer.backend = layer.backend, "reference"
    torch.manual_seed(1)
    y, final = layer(x)
    assert layer.backend_used == "reference"
    layer.backend = backend
    outputs = [y.values]
    for state in final if isinstance(layer, peephole.LSTM) else (final,):
        outputs += list(state)
    return [*outputs, *torch.autograd.grad(outputs, inputs, upstream)]


def test_covers_every_option_that_there_is() -> None:
    for kind, options in OPTIONS.items():
        covered = {argument for option in options.values() for argument in option}
        known = {**kind.own_options, **Kind.common_options, **kind.layer_options}
        missing = set(known) - covered - {"num_layers"}
        # GRU and RNN refuse a projection, as torch.nn does.
        assert missing == (set() if kind is peephole.LSTM else {"proj_size"})


@pytest.mark.parametrize("kind", [peephole.GRU, peephole.RNN])
def test_projection_is_the_lstm_s_alone(kind: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
        kind(3, 4, proj_size=2)


def test_chrono_is_refused_without_gates() -> None:
    with pytest.raises(ValueError, match="sets biases of gates, and RNN has none"):
        peephole.RNN(3, 4, initialization=("chrono", 30))
