"""The same call on two backends: its outputs and gradients by name, and whether they agree."""

import math
from collections.abc import Iterable, Mapping

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers.recurrences import Recurrence, Tensors, gru, leaves, lstm, rnn

F32, F64 = torch.float32, torch.float64

# Without options, but for those that choose other equations.
KINDS = {
    "lstm": lstm(),
    "lstm-diagonal": lstm("diagonal"),
    "lstm-full": lstm("full"),
    "lstm-coupled": lstm(coupled=True),
    "lstm-coupled-diagonal": lstm("diagonal", coupled=True),
    "lstm-coupled-full": lstm("full", coupled=True),
    "gru": gru(),
    "gru-bias_hn": gru(bias_hn=True),
    "rnn-tanh": rnn("tanh"),
    "rnn-relu": rnn("relu"),
}

# One of each kind with all of its options at once.
LADEN = {
    "lstm": lstm(recurrent_mask=True, zoneout_h="float", zoneout_c="bool", cell_clip=0.5),
    "lstm-diagonal": lstm("diagonal", recurrent_mask=True, zoneout_h="bool", zoneout_c=0.2),
    "lstm-full": lstm("full", recurrent_mask=True, zoneout_h=0.3, zoneout_c="float", cell_clip=0.5),
    "lstm-coupled-diagonal": lstm(
        "diagonal", coupled=True, recurrent_mask=True, zoneout_c="float", cell_clip=0.5
    ),
    "lstm-coupled-full": lstm(
        "full", coupled=True, recurrent_mask=True, zoneout_h="float", zoneout_c="bool"
    ),
    "gru": gru(bias_hn=True, recurrent_mask=True, zoneout_h="bool"),
    "rnn-tanh": rnn("tanh", recurrent_mask=True, zoneout_h="float"),
    "rnn-relu": rnn("relu", recurrent_mask=True, zoneout_h="bool"),
}


def draw(
    recurrence: Recurrence,
    lengths: Iterable[int],
    hidden_size: int = 17,
    dtype: torch.dtype = F64,
    initial: bool = True,
) -> Tensors:
    """``Recurrence.draw`` with matrices that keep states of any width from exploding.

    Zoneout masks that are not booleans get shares from 0 to 1, both ends among them.
    """
    tensors = recurrence.draw(list(lengths), hidden_size, F64, initial)
    for name in ("weight_hh", "weight_ch"):
        if name in tensors and len(tensors[name]) > 3:
            tensors[name] = tensors[name].detach() / math.sqrt(hidden_size)
    for name in ("zoneout_h", "zoneout_c"):
        if recurrence.masks.get(name) is False:
            tensors[name] = torch.rand_like(tensors[name]).mul(1.4).sub(0.2).clamp(0, 1)
    return {
        name: t.detach().to(dtype).requires_grad_(name not in recurrence.masks)
        if t.is_floating_point()
        else t
        for name, t in tensors.items()
    }


def output_names(recurrence: Recurrence, return_states: bool = False) -> tuple[str, ...]:
    """What the recurrence gives, in its order."""
    finals = tuple(name[0] + "_n" for name in recurrence.states)
    if not return_states or recurrence.gates == 1:
        return "y", *finals
    return "y", *finals, "gates", *(["cells"] if "c0" in recurrence.states else [])


def draw_upstream(
    recurrence: Recurrence, tensors: Tensors, names: Iterable[str] | None = None
) -> Tensors:
    """Random gradients with respect to outputs: to those named, or to all."""
    x, H = tensors["gates_x"], tensors["weight_hh"].shape[1]
    final = (tensors["offsets"].shape[0] - 1, H)
    shapes = {"gates": x.shape, "y": (len(x), H), "cells": (len(x), H), "h_n": final, "c_n": final}
    return {
        name: torch.randn(shapes[name], dtype=F64).to(x.dtype)
        for name in names or output_names(recurrence)
    }


def outcome(
    recurrence: Recurrence,
    tensors: Tensors,
    upstream: Mapping[str, Tensor],
    backend: str = "cpu",
    **options: object,
) -> Tensors:
    """Outputs, and as ``d_...`` the gradients of every leaf, by name.

    A leaf that gets no gradient, not even of zeros, is an error.
    """
    found = recurrence(tensors, backend=backend, **options)
    names = output_names(recurrence, bool(options.get("return_states")))
    outputs = dict(zip(names, found, strict=True))
    inputs = leaves(tensors)
    gradients = torch.autograd.grad(
        [outputs[name] for name in upstream], list(inputs.values()), list(upstream.values())
    )
    values = {name: output.detach() for name, output in outputs.items()}
    return values | {f"d_{name}": d for name, d in zip(inputs, gradients, strict=True)}


def assert_same(
    given: Tensors, wanted: Tensors, tolerance: float = 1e-10, what: object = ""
) -> None:
    """Assert that they differ by less than so much of the largest number, or of 1."""
    assert given.keys() == wanted.keys(), what
    for name, theirs in wanted.items():
        ours = given[name]
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), f"{what} {name}"
        if not theirs.numel():
            continue
        error = (ours - theirs).detach().abs().max().item()
        # Written so that NaN fails.
        assert error <= tolerance * max(1.0, float(theirs.abs().max())), f"{what} {name}: {error}"


def assert_agrees_with_reference(
    recurrence: Recurrence,
    tensors: Tensors,
    upstream: Mapping[str, Tensor] | None = None,
    what: object = "",
    **options: object,
) -> None:
    """Assert that the compiled kernels give what the reference gives, every gradient included."""
    upstream = draw_upstream(recurrence, tensors) if upstream is None else upstream
    given = outcome(recurrence, tensors, upstream, "cpu", **options)
    wanted = outcome(recurrence, tensors, upstream, "reference", **options)
    assert_same(given, wanted, what=what)


def assert_same_bits(given: Tensors, wanted: Tensors, what: object = "") -> None:
    """Assert that every number is the same, to the last bit; NaN is NaN."""
    assert given.keys() == wanted.keys(), what
    for name, theirs in wanted.items():
        assert torch.equal(given[name].nan_to_num(7e7), theirs.nan_to_num(7e7)), f"{what} {name}"


_ZONEOUTS = st.sampled_from([None, None, "bool", "float", 0.0, 0.3, 0.8, 1.0])


@st.composite
def recurrences(pick: st.DrawFn) -> Recurrence:
    """Any recurrence that the kernels serve, with any of its options."""
    dropped = {"recurrent_mask": pick(st.booleans()), "zoneout_h": pick(_ZONEOUTS)}
    kind = pick(st.sampled_from(["lstm", "lstm", "lstm", "gru", "rnn"]))
    if kind == "gru":
        return gru(bias_hn=pick(st.booleans()), **dropped)
    if kind == "rnn":
        return rnn(pick(st.sampled_from(["tanh", "relu"])), **dropped)
    return lstm(
        pick(st.sampled_from(["none", "diagonal", "full"])),
        coupled=pick(st.booleans()),
        cell_clip=pick(st.sampled_from([None, None, 0.3, 0.8])),
        zoneout_c=pick(_ZONEOUTS),
        **dropped,
    )


def emptied(tensor: Tensor) -> Tensor:
    """A tensor that says it is as large as ever, and has no memory."""
    tensor = tensor.detach().clone()
    tensor.untyped_storage().resize_(0)
    return tensor
