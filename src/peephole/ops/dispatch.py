"""Which backend computes a recurrence."""

from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from peephole.ops import reference

BACKENDS: dict[str, ModuleType] = {"reference": reference}


def pick(backend: str) -> ModuleType:
    """The module whose ``lstm``, ``gru`` and ``rnn`` serve; "auto" is the fastest that can.

    Raises:
        ValueError: there is no backend of that name, or it serves whole layers only.
    """
    if backend == "auto":
        return reference
    if backend == "torch":
        raise ValueError(
            "backend='torch' serves peephole.LSTM, GRU and RNN: torch's operators take a layer's "
            f"input and not gates_x; here there are {', '.join(['auto', *BACKENDS])}"
        )
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}; there are {', '.join(['auto', *BACKENDS])}")
    return BACKENDS[backend]


def torch_cannot(x: Tensor) -> str | None:
    """Why torch's operators cannot run on this batch now; None if they can."""
    if x.shape[0] == 0:
        return "the batch has no steps"
    if forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func and forward-mode derivatives do not reach into torch's operators"
    return None


def torch_form(
    kind: str, x: Tensor, waste: float, *, hidden_size: int, projected: bool, training: bool
) -> str | None:
    """How a ragged batch goes through torch's operators fastest.

    Measured on a CPU (``python -m benchmarks layers``).

    Returns:
        "padded" or "packed"; None where the reference, which splits the batch by steps, is
        faster than either.
    """
    if x.device.type == "cuda":
        return "packed"
    if x.device.type != "cpu":
        return "padded"
    one_dnn = (
        kind == "lstm"
        and not projected
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.enabled
    )
    if not training:
        return "padded" if one_dnn and waste < 2 else "packed"
    if one_dnn:
        most = 7.0 if hidden_size < 64 else 2.0
        return "padded" if waste < most else None
    if hidden_size >= 64:
        return None
    return "padded" if waste < 2 else "packed"
