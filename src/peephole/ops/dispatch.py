"""Which backend computes a recurrence."""

import functools
import logging
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from peephole.ops import cpu, reference

log = logging.getLogger("peephole")

BACKENDS: dict[str, ModuleType] = {"reference": reference, "cpu": cpu}


def pick(backend: str, kind: str, gates_x: Tensor, tensors: Mapping[str, Tensor | None]) -> str:
    """The backend that computes a recurrence alone; "auto" is the fastest that can.

    Args:
        backend: its name, or "auto".
        kind: the recurrence's name.
        gates_x: the input's part of the gates.
        tensors: weights, masks and initial states, by name.

    Raises:
        ValueError: there is no backend of that name, it serves whole layers only, or it cannot
            serve this.
    """
    if backend == "torch":
        raise ValueError(
            "backend='torch' serves peephole.LSTM, GRU and RNN: torch's operators take a layer's "
            f"input and not gates_x; here there are {', '.join(['auto', *BACKENDS])}"
        )
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend={backend!r}; there are {', '.join(['auto', *BACKENDS])}")
    if backend == "reference":
        return backend
    why = cpu_cannot(kind, gates_x, tensors)
    if why is None:
        return "cpu"
    if backend == "cpu":
        raise ValueError(f"backend='cpu' cannot serve: {why}; backend='reference' can")
    _log_choice(kind, why)
    return "reference"


@functools.cache
def _log_choice(kind: str, why: str) -> None:
    log.info("peephole.ops.%s runs on the reference backend: %s", kind, why)


def cpu_cannot(kind: str, x: Tensor, tensors: Mapping[str, Tensor | None]) -> str | None:
    """Why the compiled kernels cannot compute this now; None if they can.

    Args:
        kind: the recurrence's name.
        x: the input ``[N, I]``, or ``gates_x``.
        tensors: weights, masks and initial states, by name.
    """
    if in_transform():
        return "torch.func and forward-mode derivatives do not reach into compiled kernels"
    return cpu.cannot(kind, x, tensors)


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation is at work."""
    return forward_ad._current_level >= 0 or (
        torch._C._functorch.peek_interpreter_stack() is not None
    )


def torch_cannot() -> str | None:
    """Why torch's operators cannot run now; None if they can."""
    if in_transform():
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


def leave_padded(kind: str, x: Tensor, training: bool) -> bool:
    """Whether a padded batch that wastes nothing goes through torch's operators about as fast.

    Then it goes there without being turned into a ragged one and back.
    """
    steps = x.shape[:-1].numel()
    if training:
        return kind == "rnn" and steps < FEW
    return steps < FEW or (kind == "lstm" and _has_one_dnn(x.dtype))


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
