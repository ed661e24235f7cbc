"""States as a person has them, ``torch.nn``'s, and as each direction of a layer takes them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from peephole.nn.forms import Batch

State = tuple[Tensor, ...]
# For each state a tensor [L * D, B, width], or with a width for each layer a tensor for each.
Joined = tuple[Tensor | tuple[Tensor, ...], ...]


def as_tuple(hx: Any, names: Sequence[str], layer: str) -> tuple[Any, ...]:
    """The states that were given, one for each name.

    Raises:
        ValueError: too many or too few.
    """
    if len(names) == 1:
        return (hx,)
    wanted = f"the initial state of {layer} must be ({', '.join(names)})"
    if isinstance(hx, Tensor):
        raise ValueError(f"{wanted}, got one tensor")
    if not isinstance(hx, tuple | list):
        raise TypeError(f"{wanted}, got {type(hx).__name__}")
    if len(hx) != len(names):
        raise ValueError(f"{wanted}, got {len(hx)}")
    return tuple(hx)


def apart(
    hx: tuple[Any, ...],
    sizes: Sequence[tuple[int, ...]],
    batch: Batch,
    by_layer: int | None,
    cast: torch.dtype | None,
) -> list[State]:
    """What each direction begins from.

    Args:
        hx: the states as they were given.
        sizes: for each direction the widths of its states.
        batch: what they go with.
        by_layer: as in ``joined``.
        cast: the dtype that autocast wants; None for that of the input.

    Raises:
        ValueError: a state that does not fit.
        TypeError: a state that is no tensor.
    """
    B = batch.layout.sequences
    found = []
    for k, state in enumerate(hx):
        widths = [each[k] for each in sizes]
        if by_layer is None:
            tensors = [_checked(state, len(sizes), B, widths[0], batch, cast)]
        else:
            each_layer = _one_for_each(state, len(widths) // by_layer)
            tensors = [
                _checked(tensor, by_layer, B, width, batch, cast)
                for tensor, width in zip(each_layer, widths[::by_layer], strict=True)
            ]
        found.append([part for tensor in tensors for part in tensor.unbind(0)])
    return list(zip(*found, strict=True))


def _one_for_each(state: Any, layers: int) -> Sequence[Any]:
    if isinstance(state, tuple | list) and len(state) == layers:
        return state
    given = len(state) if isinstance(state, tuple | list) else "one tensor"
    raise ValueError(
        "with a width for each layer, a state is a tuple with a tensor [D, B, width] for each of "
        f"the {layers} layers, got {given}"
    )


def _checked(
    state: Any, rows: int, sequences: int, width: int, batch: Batch, cast: torch.dtype | None
) -> Tensor:
    """``[rows, B, width]``; raise unless it is that, or without B for a single sequence."""
    if not isinstance(state, Tensor):
        raise TypeError(f"the initial state must be tensors, got {type(state).__name__}")
    wanted = [rows, sequences, width] if batch.batched else [rows, width]
    if list(state.shape) != wanted:
        names = (
            "layers * directions, sequences, width"
            if batch.batched
            else ("layers * directions, width: the input is one sequence, without a batch")
        )
        raise ValueError(f"the initial state must be {wanted} ({names}), got {list(state.shape)}")
    if state.device != batch.values.device:
        raise ValueError(
            f"the initial state has device {state.device}, but the input has {batch.values.device}"
        )
    if cast is None and state.dtype != batch.values.dtype:
        raise ValueError(
            f"the initial state has dtype {state.dtype}, but the input has {batch.values.dtype}"
        )
    state = state if cast is None else state.to(cast)
    checked: Tensor = state if batch.batched else state.unsqueeze(1)
    return checked


def joined(found: Sequence[State], by_layer: int | None) -> Joined:
    """The final states of all directions, each kind of state joined.

    Args:
        found: for each direction its states ``[B, width]``.
        by_layer: None for one tensor; else the directions of a layer, for a tensor for each layer.
    """
    if by_layer is None and len(found) == 1:
        return tuple(s.unsqueeze(0) for s in found[0])
    states = [list(parts) for parts in zip(*found, strict=True)]
    if by_layer is None:
        return tuple(torch.stack(parts) for parts in states)
    return tuple(
        tuple(torch.stack(parts[k : k + by_layer]) for k in range(0, len(parts), by_layer))
        for parts in states
    )


def as_given(states: Joined, batch: Batch) -> Any:
    """What a person gets: one state by itself, several as a tuple; without B if it had none."""
    if not batch.batched:
        states = tuple(
            s.squeeze(1) if isinstance(s, Tensor) else tuple(part.squeeze(1) for part in s)
            for s in states
        )
    return states[0] if len(states) == 1 else states
