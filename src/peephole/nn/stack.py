"""Layers and directions, for every kind of recurrence and for a person's own cell."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from peephole.ops import Found

Run = Callable[[Tensor], Found]


def stack(
    layers: Sequence[Sequence[Run]], values: Tensor, drop: Callable[[Tensor], Tensor], *, skip: bool
) -> tuple[Tensor, list[Found]]:
    """Run layers one on top of the other.

    Args:
        layers: for each layer its directions, from values ``[N, I]`` to what they find.
        values: the first layer's input ``[N, I]``.
        drop: what happens to a layer's output on its way to the next one.
        skip: as Graves 2013 stacks them (equations 1 to 3): the input goes to every layer, and
            every layer's output, side by side, to the output.

    Returns:
        The output ``[N, C]``, directions side by side, and what was found, directions within
        layers.
    """
    outputs: list[Tensor] = []
    found: list[Found] = []
    for directions in layers:
        below = drop(outputs[-1]) if outputs else values
        if outputs and skip:
            below = torch.cat([values, below], 1)
        here = [run(below) for run in directions]
        outputs.append(_side_by_side([each.y for each in here]))
        found += here
    return _side_by_side(outputs) if skip else outputs[-1], found


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]
