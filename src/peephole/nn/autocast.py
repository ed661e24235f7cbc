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
    device = values.device.type
    if not torch.is_autocast_enabled(device) or values.dtype == torch.float64:
        return None, nullcontext()
    return torch.get_autocast_dtype(device), torch.autocast(device, enabled=False)
