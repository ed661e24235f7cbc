"""Autocast, at the door of a layer."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_off(values: Tensor) -> tuple[torch.dtype | None, AbstractContextManager[object]]:
    """What autocast wants, and a context without it: a layer casts once, at its door.

    Returns:
        The dtype for inputs, states and weights, None where autocast is off or leaves them alone,
        as it does float64; and the context to compute in.
    """
    if not is_cast(values):
        return None, nullcontext()
    device = values.device.type
    return torch.get_autocast_dtype(device), torch.autocast(device, enabled=False)


def is_cast(values: Tensor) -> bool:
    """Whether autocast wants another dtype; it leaves float64 alone and knows no meta device."""
    if values.is_meta or values.dtype == torch.float64:
        return False
    return torch.is_autocast_enabled(values.device.type)
