"""What the compiled kernels serve: a recurrence with its input product, or alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.cpu import gru, lstm, rnn
from peephole.ops.cpu.extension import CALLS, MISSING
from peephole.ops.cpu.kernels import PLAIN

Tensors = Mapping[str, Tensor | None]
Options = Mapping[str, Any]
# y [N, H]; the final states [B, H]; gates [N, G * H] and cells [N, H], where they are asked for.
Results = tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]
# (tensors by name) -> results, in plain PyTorch.
Reference = Callable[[Tensors], Results]

# Tensors that may have gradients, in the order of the autograd functions' arguments.
INPUTS = {
    "lstm": (
        "x",
        "weight_ih",
        "bias_ih",
        "bias_hh",
        "bias_ch",
        "weight_hh",
        "weight_ch",
        "h0",
        "c0",
    ),
    "gru": ("x", "weight_ih", "bias_ih", "bias_hh", "weight_hh", "h0"),
    "rnn": ("x", "weight_ih", "bias_ih", "bias_hh", "weight_hh", "h0"),
}
LACKING = {
    "weight_hr": "projection",
    "weight_ln_hh": "layer normalization",
    "weight_ln_ih": "layer normalization",
    "weight_ln_c": "layer normalization",
}
# Where there are no kernels for them, they are computed in float32, and rounded at the end.
NARROW = (torch.bfloat16, torch.float16)
MASKS = ("recurrent_mask", "zoneout_h", "zoneout_c")


def cannot(kind: str, x: Tensor, tensors: Tensors) -> str | None:
    """Why the kernels cannot compute this; None if they can.

    Args:
        kind: the recurrence's name.
        x: the input ``[N, I]``, or ``gates_x``.
        tensors: weights, masks and initial states by name, None where there is none.
    """
    if kind not in INPUTS:
        return f"the compiled kernels have no {kind}"
    if not CALLS:
        return MISSING
    if torch._C._len_torch_dispatch_stack():
        return "a mode watches torch's operations, and would not see the compiled kernels"
    if not x.is_cpu:
        return f"the compiled kernels are for the CPU, and the input is on {x.device}"
    if x.dtype not in CALLS and x.dtype not in NARROW:
        dtypes = ", ".join(map(str, dict.fromkeys((*CALLS, *NARROW))))
        return f"the compiled kernels take {dtypes}, and the input is {x.dtype}"
    for name, tensor in (("the input", x), *tensors.items()):
        if tensor is None:
            continue
        if name in LACKING:
            return f"the compiled kernels have no {LACKING[name]}"
        # Others may have their numbers elsewhere, or none.
        if type(tensor) not in PLAIN or tensor.layout is not torch.strided:
            return f"the compiled kernels take plain dense tensors, {name} is {_described(tensor)}"
        if name in MASKS and tensor.requires_grad:
            return f"the compiled kernels have no gradient of {name}"
    return None


def _described(tensor: Tensor) -> str:
    if tensor.layout is not torch.strided:
        return f"a tensor with the layout {tensor.layout}"
    return f"a {type(tensor).__name__}"


def run(
    kind: str,
    x: Tensor,
    layout: Layout,
    tensors: Tensors,
    options: Options,
    reference: Reference,
) -> Results:
    """Compute a recurrence.

    Args:
        kind: "lstm", "gru" or "rnn".
        x: ``[N, I]``, or ``gates_x`` where there is no ``weight_ih``.
        layout: of the batch.
        tensors: weights, masks and initial states, by name; initial ones of None are zeros. For
            ``gates_x`` a GRU's ``bias_hh`` is ``bias_hn`` alone.
        options: of the recurrence; ``reverse`` and ``return_states``; and numbers for zoneout.
        reference: computes the same from these tensors, and from x under that name.
    """
    if x.dtype not in CALLS:
        return _widened(kind, x, layout, tensors, options, reference)
    names = INPUTS[kind]

    def again(given: Sequence[Tensor | None]) -> Sequence[Tensor]:
        known = {name: t for name, t in zip(names, given, strict=True) if t is not None}
        y, final, kept = reference({**tensors, **known})
        return (y, *final, *kept)

    mask = _contiguous(tensors.get("recurrent_mask"))
    zoneout_h = _zoneout(tensors, options, "zoneout_h")
    reverse, states = options["reverse"], options["return_states"]
    given: list[Any] = [_contiguous(x), *(_contiguous(tensors.get(name)) for name in names[1:])]
    records = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    found: Any
    if kind == "lstm":
        weight_ch, coupled = tensors.get("weight_ch"), options["coupled"]
        peephole = None
        if weight_ch is not None:
            peephole = "diagonal" if weight_ch.shape[0] == (2 if coupled else 3) else "full"
        zoneout_c = _zoneout(tensors, options, "zoneout_c")
        clip = options["cell_clip"]
        call = lstm.Call(
            layout, peephole, coupled, clip, mask, zoneout_h, zoneout_c, reverse, states, again
        )
        found = _apply(lstm.Lstm, call, given) if records else lstm.lstm(call, states, *given)
        return found[0], found[1:3], found[3:] if states else ()
    if kind == "gru":
        gru_call = gru.Call(layout, mask, zoneout_h, reverse, states, again)
        found = _apply(gru.Gru, gru_call, given) if records else gru.gru(gru_call, states, *given)
        return found[0], found[1:2], found[2:3] if states else ()
    rnn_call = rnn.Call(layout, options["nonlinearity"], mask, zoneout_h, reverse, again)
    found = _apply(rnn.Rnn, rnn_call, given) if records else rnn.rnn(rnn_call, False, *given)
    return found[0], found[1:2], ()


def _widened(
    kind: str,
    x: Tensor,
    layout: Layout,
    tensors: Tensors,
    options: Options,
    reference: Reference,
) -> Results:
    """In float32, from and to a narrower dtype."""
    wide = {
        name: t.float() if t is not None and t.dtype in NARROW else t for name, t in tensors.items()
    }
    y, final, kept = run(kind, x.float(), layout, wide, options, reference)
    dtype = x.dtype
    return y.to(dtype), tuple(s.to(dtype) for s in final), tuple(s.to(dtype) for s in kept)


def _apply(function: type[torch.autograd.Function], call: Any, given: list[Any]) -> Any:
    return function.apply(call, *given)  # type: ignore[no-untyped-call]


def _zoneout(tensors: Tensors, options: Options, name: str) -> Tensor | float | None:
    mask = tensors.get(name)
    return options.get(name) if mask is None else mask.contiguous()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or (tensor.is_contiguous() and not tensor.is_neg()):
        return tensor
    return tensor.resolve_neg().contiguous()
