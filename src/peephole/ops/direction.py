"""One direction of one layer over a ragged batch, input product included, on any backend."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops import torch as torch_backend
from peephole.ops.dispatch import BACKENDS, torch_cannot, torch_form

Options = Mapping[str, Any]


class Found(NamedTuple):
    """What one direction of a layer computes.

    Attributes:
        y: the output ``[N, P]``.
        final: the state at each sequence's end, h ``[B, P]`` and whatever else it has.
        gates: ``[N, G * H]`` after their nonlinearities, when asked for and there are.
        cells: ``[N, H]``, likewise.
    """

    y: Tensor
    final: tuple[Tensor, ...]
    gates: Tensor | None = None
    cells: Tensor | None = None


# (x [N, I], layout, tensors by name, options by name) -> Found
Recurrence = Callable[[Tensor, Layout, Mapping[str, Tensor], Options], Found]
# By name, so that a graph can hold a recurrence as text; the modules that have one add it.
RECURRENCES: dict[str, Recurrence] = {}


def choose(
    backend: str,
    kind: str,
    x: Tensor,
    waste: float,
    tensors: Mapping[str, Tensor],
    training: bool,
) -> str:
    """The way that a layer which ``torch.nn`` has takes with this batch.

    Args:
        backend: "auto" or "torch".
        kind: the recurrence's name.
        x: ``[N, I]``.
        waste: how many steps a padded batch has for each that exists.
        tensors: the weights, by name.
        training: whether gradients will be asked for.

    Returns:
        "reference", "padded" or "packed", the latter two on torch's operators.

    Raises:
        ValueError: "torch" was asked for, and cannot serve.
    """
    if not x.shape[0]:
        # There is nothing to compute, and torch's operators refuse to.
        return "reference"
    if why := torch_cannot(x):
        if backend == "torch":
            raise ValueError(f"backend='torch' cannot serve: {why}; backend='reference' can")
        return "reference"
    form = torch_form(
        kind,
        x,
        waste,
        hidden_size=tensors["weight_hh"].shape[1],
        projected="weight_hr" in tensors,
        training=training,
    )
    return form or ("packed" if backend == "torch" else "reference")


def run(
    kind: str, x: Tensor, layout: Layout, tensors: Mapping[str, Tensor], options: Options
) -> Found:
    """Compute one direction.

    Args:
        kind: the recurrence, by its name in ``RECURRENCES``.
        x: ``[N, I]``.
        layout: of the batch.
        tensors: weights, masks and initial states, by name.
        options: the recurrence's own, and ``reverse``, ``return_states``, ``training``, and
            ``way``: a backend, or where ``torch.nn`` has the layer also "padded" or "packed",
            "torch" for the faster of these two, or "auto" for the fastest of all.
    """
    way = options["way"]
    if way in ("auto", "torch"):
        way = choose(way, kind, x, layout.waste, tensors, options["training"])
    if way in BACKENDS:
        return RECURRENCES[kind](x, layout, tensors, {**options, "way": way})
    y, final = torch_backend.direction(
        (kind, options.get("nonlinearity")),
        way,
        x,
        layout,
        tensors,
        tuple(tensors[name] for name in ("h0", "c0") if name in tensors),
        reverse=options["reverse"],
        training=options["training"],
    )
    return Found(y, final)


def cell_operator(kind: str, options: Options, x: Tensor) -> Any | None:
    """Torch's operator for one step of a cell; None where it cannot serve.

    Args:
        kind: the recurrence's name; it is one that ``torch.nn`` has.
        options: the recurrence's.
        x: ``[B, I]``.
    """
    if not torch.compiler.is_compiling() and torch_cannot(x):
        return None
    return torch_backend.CELLS[kind, options.get("nonlinearity")]


def is_training(x: Tensor, weights: Sequence[Mapping[str, Tensor]], *state: Tensor) -> bool:
    """Whether autograd records what is computed from these."""
    if not torch.is_grad_enabled():
        return False
    if x.requires_grad or any(s.requires_grad for s in state):
        return True
    for each in weights:
        for weight in each.values():
            if weight.requires_grad:
                return True
    return False
