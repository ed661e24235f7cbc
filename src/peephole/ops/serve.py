"""A recurrence alone, on the backend that was asked for."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops import cpu, reference
from peephole.ops.dispatch import pick

# The width of each initial state, P and H, by its name.
Widths = Mapping[str, int]


def serve(
    kind: str,
    backend: str,
    gates_x: Tensor,
    layout: Layout,
    tensors: Mapping[str, Tensor | None],
    widths: Widths,
    **options: Any,
) -> cpu.Results:
    """Compute a recurrence.

    Args:
        kind: "lstm", "gru" or "rnn".
        backend: "auto", or a backend's name.
        gates_x: ``[N, G * H]``.
        layout: of the batch.
        tensors: weights, masks and initial states, by the names of the recurrence's arguments.
        widths: of the initial states; those that are None are zeros.
        options: the recurrence's other arguments.

    Raises:
        ValueError: the backend cannot serve.
    """
    masks = {name: option for name, option in options.items() if isinstance(option, Tensor)}

    def plain(gates_x: Tensor, tensors: Mapping[str, Tensor | None]) -> cpu.Results:
        zeros = {
            name: gates_x.new_zeros(layout.sequences, width)
            for name, width in widths.items()
            if tensors[name] is None
        }
        own = {
            name: mask.to(gates_x.dtype) for name, mask in masks.items() if mask.dtype != torch.bool
        }
        told = {**tensors, **zeros, **options, **own}
        y, *found = getattr(reference, kind)(gates_x, layout, **told)
        final = found[0] if isinstance(found[0], tuple) else (found[0],)
        states = found[1] if len(found) > 1 and found[1] is not None else ()
        return y, final, states if isinstance(states, tuple) else (states,)

    if pick(backend, kind, gates_x, {**tensors, **masks}) == "reference":
        return plain(gates_x, tensors)

    def again(known: Mapping[str, Tensor | None]) -> cpu.Results:
        gates_x = known["x"]
        assert gates_x is not None
        return plain(gates_x, {name: known[_CPU_NAMES.get(name, name)] for name in tensors})

    given = {_CPU_NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    told = {"return_states": False, **options}
    return cpu.run(kind, gates_x, layout, {**given, **masks}, told, again)


# The part of a GRU's bias that is not in gates_x is all that is left of bias_hh.
_CPU_NAMES = {"bias_hn": "bias_hh"}
