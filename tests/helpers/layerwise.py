"""Layers, directions and input products in plain numpy, around the steps of ``equations``.

A truth for ``peephole.LSTM``, ``GRU`` and ``RNN``, and for their cells: it reads the parameters by
their names and nothing else. What the options are, the caller says.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from peephole import Ragged
from peephole.nn.kind import Kind
from tests.helpers import equations
from tests.helpers.batches import offsets_of
from tests.helpers.equations import Array, Run, scaled

Masks = dict[str, Tensor]
Options = Mapping[str, Any]


class Expected(NamedTuple):
    """What one direction of a layer, or a whole layer, must give.

    Attributes:
        y: the output ``[N, C]``.
        finals: for each direction of each layer its states ``[B, width]``.
        steps: likewise what it held at each step, (gates ``[N, G * H]``, cells ``[N, H]``), or
            fewer.
    """

    y: Tensor
    finals: list[tuple[Tensor, ...]]
    steps: list[tuple[Tensor, ...]]

    def states(self) -> tuple[Tensor, ...]:
        """``h_n [L * D, B, P]``, ``c_n [L * D, B, H]``, for layers of one width."""
        return tuple(torch.stack(state) for state in zip(*self.finals, strict=True))


def random_batch(lengths: Sequence[int], features: int) -> Ragged:
    return Ragged(torch.randn(sum(lengths), features, dtype=torch.float64), offsets_of(lengths))


def randomized(module: nn.Module, scale: float = 0.7) -> Any:
    """The module in float64 with random parameters, all of them: no zeros, no ones."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, scale)
    return module


def spy_on_masks(monkeypatch: pytest.MonkeyPatch, method: str = "draw") -> list[Masks]:
    """A list that gets the masks of each direction as they are drawn.

    A cell, whose mask of recurrent dropout is given, draws those of ``draw_zoneout`` at each step.
    """
    drawn: list[Masks] = []
    draw = getattr(Kind, method)

    def spied(self: Kind, *args: Any) -> Any:
        masks, numbers = draw(self, *args)
        drawn.append(dict(masks))
        return masks, numbers

    monkeypatch.setattr(Kind, method, spied)
    return drawn


def run_layer(
    layer: nn.Module,
    x: Ragged,
    options: Options,
    masks: Sequence[Masks] | None = None,
    hx: Sequence[Sequence[Tensor]] | None = None,
) -> Expected:
    """Run a layer by its equations.

    Args:
        layer: a ``peephole.LSTM``, ``GRU`` or ``RNN`` in float64.
        x: the batch.
        options: with which the layer was made.
        masks: of each direction, while training; None for evaluation.
        hx: for each direction its states ``[B, width]``; if None, zeros or what was learned.
    """
    D = 1 + options.get("bidirectional", False)
    L = sum(name.startswith("weight_hh_l") for name, _ in layer.named_parameters()) // D
    outputs: list[Tensor] = []
    found = []
    for k in range(L):
        below = outputs[-1] if outputs else x.values.detach()
        if outputs and options.get("skip"):
            below = torch.cat([x.values.detach(), below], 1)
        for d in range(D):
            each = run_direction(
                type(layer).__name__,
                parameters_of(layer, f"_l{k}" + ("_reverse" if d else "")),
                x.with_values(below),
                options,
                None if masks is None else masks[k * D + d],
                None if hx is None else hx[k * D + d],
                reverse=d == 1,
            )
            found.append(each)
        outputs.append(torch.cat([each.y for each in found[-D:]], 1))
    y = torch.cat(outputs, 1) if options.get("skip") else outputs[-1]
    return Expected(y, [f for e in found for f in e.finals], [s for e in found for s in e.steps])


def parameters_of(module: nn.Module, suffix: str = "") -> dict[str, Array]:
    """Those of one direction by their names without the suffix; of a cell, all."""
    named = {name: p.detach().numpy() for name, p in module.named_parameters()}
    return {name.removesuffix(suffix): p for name, p in named.items() if name.endswith(suffix)}


def run_direction(
    kind: str,
    weights: Mapping[str, Array],
    x: Ragged,
    options: Options,
    masks: Masks | None,
    hx: Sequence[Tensor] | None,
    reverse: bool,
) -> Expected:
    """One direction, one sequence after the other; reversed by flipping it."""
    kind = kind.removesuffix("Cell")
    gates = {"LSTM": 3 if options.get("coupled") else 4, "GRU": 3, "RNN": 1}[kind]
    H, P = weights["weight_hh"].shape[0] // gates, weights["weight_hh"].shape[1]
    widths = {"h": P, "c": H} if kind == "LSTM" else {"h": P}
    flip = slice(None, None, -1 if reverse else 1)
    runs: list[Run] = []
    for b, (begin, end) in enumerate(pairwise(x.offsets.tolist())):
        initial = {name: weights.get(f"{name}_0", np.zeros(w)) for name, w in widths.items()}
        if hx is not None:
            initial = {name: s[b].detach().numpy() for name, s in zip(widths, hx, strict=True)}
        dropped = _dropped(options, masks, b, slice(begin, end), flip, list(widths))
        steps = x.values[begin:end].detach().numpy()[flip]
        run = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[kind]
        runs.append(run(weights, steps, H, options, **initial, **dropped))
    return Expected(
        torch.from_numpy(np.concatenate([run.y[flip] for run in runs])),
        [tuple(_tensor(parts, np.stack) for parts in zip(*(r.final for r in runs), strict=True))],
        [
            tuple(
                _tensor([part[flip] for part in parts], np.concatenate)
                for parts in zip(*(r.steps for r in runs), strict=True)
            )
        ],
    )


def _tensor(parts: Sequence[Array], join: Any) -> Tensor:
    return torch.from_numpy(join(parts))


def _dropped(
    options: Options, masks: Masks | None, b: int, rows: slice, flip: slice, states: list[str]
) -> dict[str, Any]:
    """The papers' z_h, d_h and d_c for one sequence."""
    if masks is not None:
        zones = {f"d_{s}": masks.get(f"zoneout_{s}") for s in states}
        found = {name: z[rows].double().numpy()[flip] for name, z in zones.items() if z is not None}
        if "recurrent_mask" in masks:
            found["z_h"] = masks["recurrent_mask"][b].numpy()
        return found
    zoneout = options.get("zoneout", 0.0)
    both = zoneout if isinstance(zoneout, tuple) else [zoneout] * len(states)
    return {f"d_{s}": share for s, share in zip(states, both, strict=True)}


def _normalized(rows: Array, alpha: Array) -> Array:
    return np.array([scaled(alpha, row) for row in rows]).reshape(rows.shape)


def _bias(weights: Mapping[str, Array], *names: str) -> Any:
    return sum(weights[name] for name in names if name in weights)


def _lstm(
    weights: Mapping[str, Array], x: Array, hidden_size: int, options: Options, **given: Any
) -> equations.Run:
    product = x @ weights["weight_ih"].T
    if "weight_ln_ih" in weights:
        product = _normalized(product, weights["weight_ln_ih"])
    product = product + _bias(weights, "bias_ih", "bias_hh")
    if "bias_ch" in weights:
        # Of i, f, o, or i, o: g looks at no cell.
        *before, o = np.split(weights["bias_ch"], len(weights["bias_ch"]) // hidden_size)
        product = product + np.concatenate([*before, np.zeros(hidden_size), o])
    clip = options.get("cell_clip")
    return equations.lstm(
        product,
        W_h=weights["weight_hh"],
        W_c=weights.get("weight_ch"),
        W_rm=weights.get("weight_hr"),
        alpha_1=weights.get("weight_ln_hh"),
        alpha_3=weights.get("weight_ln_c"),
        beta_3=weights.get("bias_ln_c"),
        clip=np.inf if clip is None else clip,
        coupled=options.get("coupled", False),
        **given,
    )


def _gru(
    weights: Mapping[str, Array], x: Array, hidden_size: int, options: Options, **given: Any
) -> equations.Run:
    product = x @ weights["weight_ih"].T
    if (alpha := weights.get("weight_ln_ih")) is not None:
        # Ba et al. normalize r and z together, n by itself.
        parts = zip(
            np.split(product, [2 * hidden_size], 1), np.split(alpha, [2 * hidden_size]), strict=True
        )
        product = np.concatenate([_normalized(part, scale) for part, scale in parts], 1)
    bias_hh = weights.get("bias_hh", np.zeros(3 * hidden_size))
    product = product + _bias(weights, "bias_ih")
    product[:, : 2 * hidden_size] += bias_hh[: 2 * hidden_size]
    return equations.gru(
        product,
        W_h=weights["weight_hh"],
        b_hn=bias_hh[2 * hidden_size :],
        alpha_1=weights.get("weight_ln_hh"),
        **given,
    )


def _rnn(
    weights: Mapping[str, Array], x: Array, hidden_size: int, options: Options, **given: Any
) -> equations.Run:
    product = x @ weights["weight_ih"].T
    if "weight_ln_ih" in weights:
        product = _normalized(product, weights["weight_ln_ih"])
    return equations.rnn(
        product + _bias(weights, "bias_ih", "bias_hh"),
        W_h=weights["weight_hh"],
        nonlinearity=options.get("nonlinearity", "tanh"),
        alpha_1=weights.get("weight_ln_hh"),
        **given,
    )
