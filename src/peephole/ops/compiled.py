"""One direction of one layer as a single operation of a compiled or exported graph.

What a recurrence does depends on numbers in its offsets, which a graph cannot hold. So a graph
holds ``peephole::recurrence``, which runs what an eager call runs, and its derivative
``peephole::recurrence_backward``, which runs it again and asks autograd: training takes the
forward pass twice. Offsets and lengths are checked when the graph runs. A graph that was exported
and saved is loaded after ``import peephole.nn``, which defines these operations.
"""

import ast
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from peephole.offsets import (
    Layout,
    check_offsets,
    checked_lengths,
    may_keep,
    numbers,
    offsets_from_lengths,
    packed_rows,
)
from peephole.ops.direction import Found, run

SCHEMA = (
    "str kind, str options, float[] floats, Tensor values, Tensor offsets, Tensor? lengths, "
    "Tensor[] tensors"
)
# The operations read numbers from the device, which a CUDA graph cannot.
TAGS = (torch.Tag.cudagraph_unsafe,)


class Call(NamedTuple):
    """What ``SCHEMA`` says, the arguments of ``peephole::recurrence``.

    Attributes:
        kind: the recurrence, by its name.
        options: of ``run_compiled``, as text: all but floats, and the names of these
            (``floats``) and of the tensors (``names``), ``sizes`` and ``gates``.
        floats: the options that are floats. A graph may take one as an input, and then there is
            no text for it.
        values: ``[N, I]``; with ``lengths`` a whole padded input ``[B * T, I]``.
        offsets: ``[B + 1]``.
        lengths: ``[B]``, or None where all of ``values`` are steps.
        tensors: weights, masks and initial states.
    """

    kind: str
    options: str
    floats: list[float]
    values: Tensor
    offsets: Tensor
    lengths: Tensor | None
    tensors: list[Tensor]


def run_compiled(
    kind: str,
    x: Tensor,
    offsets: Tensor,
    lengths: Tensor | None,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    sizes: Sequence[int],
    gates: int,
) -> Found:
    """Compute one direction, as ``peephole.ops.direction.run``, within a graph.

    Args:
        kind: the recurrence, by its name.
        x: ``[N, I]``; with ``lengths`` a whole padded input ``[B * T, I]``.
        offsets: ``[B + 1]``.
        lengths: ``[B]``, or None where all of ``x`` are steps. What is computed for steps that do
            not exist is zero.
        tensors: weights, masks and initial states, by name.
        options: as there; numbers, texts, booleans and None.
        sizes: widths of the states.
        gates: width of all gates together, or 0 where they are not asked for.
    """
    floats = {name: value for name, value in options.items() if isinstance(value, float)}
    told = {name: value for name, value in options.items() if name not in floats}
    told |= {"floats": list(floats), "names": list(tensors), "sizes": list(sizes), "gates": gates}
    y, *found = torch.ops.peephole.recurrence(
        *Call(kind, repr(told), list(floats.values()), x, offsets, lengths, list(tensors.values()))
    )
    return Found(y, tuple(found[: len(sizes)]), *found[len(sizes) :])


def packed_rows_compiled(
    batch_sizes: Tensor, unsorted: Tensor | None, data: Tensor
) -> tuple[Tensor, Layout]:
    """``peephole.offsets.packed_rows`` within a graph.

    Raises:
        ValueError: ``unsorted`` is None; then the number of sequences is a number in a tensor.
    """
    if unsorted is None:
        raise ValueError(
            "a PackedSequence in a compiled graph needs unsorted_indices, which tell how many "
            "sequences there are: pack with enforce_sorted=False, or give a peephole.Ragged"
        )
    rows, offsets = torch.ops.peephole.packed_rows(batch_sizes, unsorted, data)
    return rows, Layout(offsets)


@lru_cache(maxsize=256)
def _told(options: str) -> dict[str, Any]:
    told: dict[str, Any] = ast.literal_eval(options)
    return told


# Forward, reverse and all layers of a model come with the same offsets.
@lru_cache(maxsize=4)
def _layout(bounds: bytes, steps: int, device: torch.device) -> Layout:
    """Of offsets, given as their memory, that must cut so many steps into sequences."""
    with torch.inference_mode(False):
        given = np.frombuffer(bounds, dtype=np.int64).copy()
        check_offsets(torch.from_numpy(given), torch.empty(steps, 0))
        return Layout.of_numbers(given, device)


def _layout_of(bounds: NDArray[np.int64], steps: int, device: torch.device) -> Layout:
    make = _layout if may_keep() else _layout.__wrapped__
    return make(bounds.tobytes(), steps, device)


def _refuse_forward_mode() -> None:
    """Raise where forward-mode derivatives are asked for: torch would take them for zero."""
    if forward_ad._current_level >= 0:
        raise RuntimeError(
            "forward-mode derivatives (torch.func.jvp) do not pass through a compiled or exported "
            "peephole layer; call it eagerly, where backend='reference' has them"
        )


def _compute(call: Call) -> list[Tensor]:
    """What an eager call computes: y, final states, and where they are asked for gates, cells."""
    values, told = call.values, _told(call.options)
    told = told | dict(zip(told["floats"], call.floats, strict=True))
    tensors = dict(zip(told["names"], call.tensors, strict=True))
    if call.lengths is None:
        layout = _layout_of(numbers(call.offsets), values.shape[0], values.device)
        y, final, *states = run(call.kind, values, layout, tensors, told)
        return [y, *final, *_asked(states)]
    B = call.offsets.shape[0] - 1
    T = values.shape[0] // max(B, 1)
    bounds = numbers(offsets_from_lengths(checked_lengths(call.lengths.cpu(), B, T)))
    layout = _layout_of(bounds, int(bounds[-1]), values.device)
    rows = layout.padded_rows(batch_first=True, longest=T)
    # A mask with a row for each step loses those that do not exist.
    tensors |= {
        name: mask.index_select(0, rows)
        for name, mask in tensors.items()
        if name.startswith("zoneout_")
    }
    # The padding is never read: whatever it holds, no value and no gradient knows of it.
    y, final, *states = run(call.kind, values.index_select(0, rows), layout, tensors, told)

    def fill(part: Tensor) -> Tensor:
        return part.new_zeros(values.shape[0], part.shape[1]).index_copy(0, rows, part)

    return [fill(y), *final, *map(fill, _asked(states))]


def _asked(states: Sequence[Tensor | None]) -> list[Tensor]:
    return [state for state in states if state is not None]


def _owned(results: Sequence[Tensor], inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Results that share memory with nothing: an operation of a graph may not give views."""
    taken = {t.untyped_storage().data_ptr() for t in inputs if t is not None}
    owned = []
    for result in results:
        result = result.detach()
        storage = result.untyped_storage()
        if (
            not result.is_contiguous()
            or storage.nbytes() != result.nbytes
            or (storage.data_ptr() and storage.data_ptr() in taken)
        ):
            result = result.clone(memory_format=torch.contiguous_format)
        taken.add(result.untyped_storage().data_ptr())
        owned.append(result)
    return owned


@torch.library.custom_op(
    "peephole::recurrence", mutates_args=(), schema=f"({SCHEMA}) -> Tensor[]", tags=TAGS
)
def _recurrence(*given: Any) -> list[Tensor]:
    _refuse_forward_mode()
    call = Call(*given)
    with torch.no_grad(), torch.autocast(call.values.device.type, enabled=False):
        results = _compute(call)
    return _owned(results, [call.values, call.offsets, call.lengths, *call.tensors])


@_recurrence.register_fake
def _(*given: Any) -> list[Tensor]:
    _refuse_forward_mode()
    call = Call(*given)
    told = _told(call.options)
    N, B = call.values.shape[0], call.offsets.shape[0] - 1
    shapes = [(N, told["sizes"][0]), *((B, size) for size in told["sizes"])]
    if told["gates"]:
        shapes.append((N, told["gates"]))
        shapes += [(N, size) for size in told["sizes"][1:]]
    return [call.values.new_empty(shape) for shape in shapes]


@torch.library.custom_op(
    "peephole::recurrence_backward",
    mutates_args=(),
    schema=f"(Tensor?[] d_results, bool[] needed, {SCHEMA}) -> Tensor[]",
    tags=TAGS,
)
def _recurrence_backward(
    d_results: list[Tensor | None], needed: list[bool], *given: Any
) -> list[Tensor]:
    """Gradients of those of values and tensors that are needed, in their order."""
    call = Call(*given)
    inputs = [
        tensor.detach().requires_grad_(need)
        for tensor, need in zip([call.values, *call.tensors], needed, strict=True)
    ]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    # Within an operation autograd is shut off, and enable_grad alone would record nothing.
    keys = torch._C.DispatchKey
    with (
        torch._C._SetExcludeDispatchKeyGuard(keys.AutogradFunctionality, False),
        torch._C._SetExcludeDispatchKeyGuard(keys.ADInplaceOrView, False),
        torch.enable_grad(),
        torch.autocast(call.values.device.type, enabled=False),
    ):
        results = _compute(call._replace(values=inputs[0], tensors=inputs[1:]))
        pairs = [
            (result, d_result)
            for result, d_result in zip(results, d_results, strict=True)
            if d_result is not None and result.requires_grad
        ]
        if pairs:
            ours, theirs = zip(*pairs, strict=True)
            found = torch.autograd.grad(ours, wanted, theirs, materialize_grads=True)
        else:
            found = tuple(torch.zeros_like(tensor) for tensor in wanted)
    return _owned(found, [*d_results, call.values, call.offsets, call.lengths, *call.tensors])


@_recurrence_backward.register_fake
def _(d_results: list[Tensor | None], needed: list[bool], *given: Any) -> list[Tensor]:
    call = Call(*given)
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor, need in zip([call.values, *call.tensors], needed, strict=True)
        if need
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    call = Call(*inputs)
    ctx.kind, ctx.options, ctx.floats = call.kind, call.options, call.floats
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(call.values, call.offsets, call.lengths, *call.tensors)


def _backward(ctx: Any, d_results: list[Tensor | None]) -> tuple[Any, ...]:
    values, offsets, lengths, *tensors = ctx.saved_tensors
    call = Call(ctx.kind, ctx.options, ctx.floats, values, offsets, lengths, tensors)
    asked = Call(*ctx.needs_input_grad)
    needed: list[Any] = [asked.values, *asked.tensors]
    found = iter(torch.ops.peephole.recurrence_backward(d_results, needed, *call))
    d_values, *d_tensors = (next(found) if need else None for need in needed)
    # torch takes an empty list for one of tensors.
    d_floats: list[None] | None = None if call.floats else []
    return None, None, d_floats, d_values, None, None, d_tensors


def _refuse(ctx: Any, *d_found: Any) -> None:
    raise RuntimeError(
        "a compiled or exported peephole layer has first derivatives only; for second ones call "
        "the layer outside of torch.compile, with backend='reference'"
    )


_recurrence.register_autograd(_backward, setup_context=_setup)
_recurrence_backward.register_autograd(_refuse)


@torch.library.custom_op(
    "peephole::packed_rows",
    mutates_args=(),
    schema="(Tensor batch_sizes, Tensor unsorted, Tensor data) -> (Tensor, Tensor)",
    tags=TAGS,
)
def _packed_rows(batch_sizes: Tensor, unsorted: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    rows, layout = packed_rows(batch_sizes, unsorted, data.device)
    return rows, layout.offsets


@_packed_rows.register_fake
def _(batch_sizes: Tensor, unsorted: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    B = unsorted.shape[0]
    return unsorted.new_empty(data.shape[0]), unsorted.new_empty(B + 1)
