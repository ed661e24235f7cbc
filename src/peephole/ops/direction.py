"""One direction of one layer over a ragged batch, input product included, on any backend."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops import cpu
from peephole.ops import torch as torch_backend
from peephole.ops.dispatch import cpu_cannot, leave_padded, torch_cannot, torch_form

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
# How a direction can be computed: on a backend, or through torch's operators.
WAYS = ("reference", "cpu", "padded", "packed")


def choose(
    backend: str,
    kind: str,
    x: Tensor,
    waste: Callable[[], float],
    tensors: Mapping[str, Tensor],
    *,
    is_torchs: bool,
    training: bool,
    padded: bool = False,
) -> tuple[str, str | None]:
    """The way that a layer takes with this batch.

    Args:
        backend: "auto", or a backend's name.
        kind: the recurrence's name.
        x: ``[N, I]``.
        waste: gives how many steps a padded batch has for each that exists.
        tensors: the weights, by name.
        is_torchs: whether ``torch.nn`` has the layer.
        training: whether gradients will be asked for.
        padded: whether the batch comes padded, with all sequences of one length.

    Returns:
        "cpu", "reference", or on torch's operators "padded" or "packed"; and where "auto" took
        another than the first, why.

    Raises:
        ValueError: the backend that was asked for cannot serve.
    """
    if backend == "reference":
        return backend, None
    why = None
    if backend in ("auto", "cpu"):
        why = cpu_cannot(kind, x, tensors)
        if why is None:
            if backend == "auto" and padded and is_torchs and leave_padded(kind, x, training):
                return "padded", None
            return "cpu", None
        if backend == "cpu":
            raise ValueError(f"backend='cpu' cannot serve: {why}; backend='reference' can")
    if not is_torchs:
        return "reference", why
    if not x.shape[0]:
        # There is nothing to compute, and torch's operators refuse to.
        return "reference", "the batch has no steps"
    if cannot := torch_cannot():
        if backend == "torch":
            raise ValueError(f"backend='torch' cannot serve: {cannot}; backend='reference' can")
        return "reference", cannot
    form = torch_form(
        kind,
        x,
        waste(),
        hidden_size=tensors["weight_hh"].shape[1],
        projected="weight_hr" in tensors,
        training=training,
    )
    if backend == "torch":
        return form or "packed", None
    return form or "reference", why


def run(
    kind: str, x: Tensor, layout: Layout, tensors: Mapping[str, Tensor], options: Options
) -> Found:
    """Compute one direction.

    Args:
        kind: the recurrence, by its name in ``RECURRENCES``.
        x: ``[N, I]``.
        layout: of the batch.
        tensors: weights, masks and initial states, by name.
        options: the recurrence's own, and ``reverse``; ``return_states``; ``training``, whether
            gradients will be asked for; ``is_torchs``, whether ``torch.nn`` has the layer;
            ``zeros``, the widths of initial states that are zeros and not among the tensors; and
            ``way``, one of ``WAYS``, or "torch" or "auto" for the fastest of torch's or of all.
    """
    way = options["way"]
    if way not in WAYS:
        way, _ = choose(
            way,
            kind,
            x,
            lambda: layout.waste,
            tensors,
            is_torchs=options["is_torchs"],
            training=options["training"],
        )
    if way == "cpu":
        return _run_on_cpu(kind, x, layout, tensors, options)
    tensors = {**tensors, **_zeros(x, layout, options)}
    if way == "reference":
        return RECURRENCES[kind](x, layout, tensors, options)
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


def _zeros(x: Tensor, layout: Layout, options: Options) -> dict[str, Tensor]:
    widths: Mapping[str, int] = options.get("zeros", {})
    return {name: x.new_zeros(layout.sequences, width) for name, width in widths.items()}


def _run_on_cpu(
    kind: str, x: Tensor, layout: Layout, tensors: Mapping[str, Tensor], options: Options
) -> Found:
    def again(known: Mapping[str, Tensor | None]) -> cpu.Results:
        there = {name: tensor for name, tensor in known.items() if tensor is not None}
        x = there.pop("x")
        found = RECURRENCES[kind](x, layout, {**_zeros(x, layout, options), **there}, options)
        return found.y, found.final, tuple(s for s in found[2:] if s is not None)

    y, final, states = cpu.run(kind, x, layout, tensors, options, again)
    return Found(y, final, *states)


def step(
    kind: str,
    nonlinearity: str | None,
    x: Tensor,
    state: tuple[Tensor, ...],
    weights: Sequence[Any],
) -> tuple[Tensor, ...] | None:
    """One step of a cell that ``torch.nn`` has; None where only the reference serves.

    Args:
        kind: "lstm", "gru" or "rnn".
        nonlinearity: of the last one, "tanh" or "relu"; else None.
        x: ``[B, I]``.
        state: ``[B, H]`` each.
        weights: ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``; biases may be None.
    """
    if not torch.compiler.is_compiling():
        if torch_cannot():
            return None
        new = cpu.step(kind, nonlinearity, x, state, *weights)
        if new is not None:
            return new
    operator = torch_backend.CELLS[kind, nonlinearity]
    found = operator(x, state if len(state) > 1 else state[0], *weights)
    return found if isinstance(found, tuple) else (found,)


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
