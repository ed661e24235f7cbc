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
    """Why torch's operators cannot run on this input now; None if they can."""
    if forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func and forward-mode derivatives do not reach into torch's operators"
    return None


def torch_form(
    kind: str, x: Tensor, waste: float, *, hidden_size: int, projected: bool, training: bool
) -> str | None:
    """How a ragged batch goes through torch's operators fastest.

    On a CPU by what was measured with two cores and AVX-512 (``python -m benchmarks layers``).

    Args:
        kind: the recurrence's name.
        x: ``[N, I]``.
        waste: how many steps a padded batch has for each that exists.
        hidden_size: width of h.
        projected: whether h is projected.
        training: whether gradients will be asked for.

    Returns:
        "padded" or "packed"; None where the reference, which splits the batch by steps, is
        faster than either.
    """
    if x.device.type == "cuda":
        return "packed"
    if x.device.type != "cpu":
        return "padded"
    one_dnn = kind == "lstm" and not projected and _has_one_dnn(x.dtype)
    if waste <= _most_waste(x.shape[0], hidden_size, one_dnn=one_dnn, training=training):
        return "padded"
    if not training or (kind == "gru" and x.shape[0] < FEW):
        return "packed"
    return None


# Of so few steps overheads are most of the time.
FEW = 128


def _most_waste(steps: int, hidden_size: int, *, one_dnn: bool, training: bool) -> float:
    """Up to how many padded steps for each that exists a padded batch is the fastest."""
    if one_dnn and training:
        # What it keeps for the way back falls out of the caches.
        size = steps * hidden_size
        return 1.55 if size > 1.5e6 else 2.0 if size > 3e5 else 3.5
    if one_dnn:
        return 1.15 if steps < FEW else 2.0 if hidden_size < 1024 else 1.7
    if training:
        return 1.4 if hidden_size < 256 else 1.15
    return 1.2 if hidden_size < 256 else 1.05


def _has_one_dnn(dtype: torch.dtype) -> bool:
    mkldnn = torch.backends.mkldnn
    there = mkldnn.is_available() and mkldnn.enabled  # type: ignore[no-untyped-call]
    return bool(there) and dtype in (torch.float32, torch.bfloat16)
