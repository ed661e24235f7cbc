"""Terms that several recurrences have in their equations."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def hidden_term(
    weight: Tensor, weight_ln: Tensor | None
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """How a sum takes in the hidden state: x + W_h (m h), or x + alpha LN(W_h (m h)).

    Args:
        weight: W_h, ``[K, P]``.
        weight_ln: alpha of Ba et al. 2016, equation 20, ``[K]``; its beta is among the biases,
            in x.

    Returns:
        A function of x ``[n, K]`` (or anything that can be added to it), h ``[n, P]`` and m,
        recurrent dropout's mask or None.
    """
    W_h = weight.t()

    def plain(x: Tensor, h: Tensor, m: Tensor | None) -> Tensor:
        return torch.addmm(x, h if m is None else m * h, W_h)

    def normalized(x: Tensor, h: Tensor, m: Tensor | None) -> Tensor:
        return x + F.layer_norm((h if m is None else m * h) @ W_h, weight.shape[:1], weight_ln)

    return plain if weight_ln is None else normalized


def zoneout(old: Tensor, new: Tensor, share: Tensor | float | None) -> Tensor:
    """Krueger et al. 2017: units that keep their old state; in evaluation, its expectation."""
    if share is None:
        return new
    if isinstance(share, Tensor) and share.dtype == torch.bool:
        return torch.where(share, old, new)
    return torch.lerp(new, old, share)
