"""The input's part of the gates' sums, which is no part of the recurrence."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def input_term(
    x: Tensor, weight: Tensor, bias: Tensor | None, weight_ln: Tensor | None, sizes: list[int]
) -> Tensor:
    """W_x x + b, or with layer normalization alpha LN(W_x x) + b (Ba et al. 2016, equation 20).

    Args:
        x: ``[N, I]``.
        weight: W_x ``[K, I]``.
        bias: all biases ``[K]``; with layer normalization they are its beta.
        weight_ln: alpha ``[K]``, or None for no normalization.
        sizes: which of the K are normalized together, K in all.
    """
    if weight_ln is None:
        return F.linear(x, weight, bias)
    parts = torch.split(F.linear(x, weight), sizes, 1)
    biases = [None] * len(sizes) if bias is None else torch.split(bias, sizes)
    normal = zip(parts, torch.split(weight_ln, sizes), biases, strict=True)
    return torch.cat([F.layer_norm(part, a.shape, a, b) for part, a, b in normal], 1)


def without_input(tensors: Mapping[str, Tensor], *biases: str) -> Mapping[str, Tensor]:
    """What is left of a direction's tensors once the input's part of the gates is there.

    Args:
        tensors: by name.
        biases: those that are in that part, besides ``bias_ih``.
    """
    gone = {"weight_ih", "bias_ih", "weight_ln_ih", *biases}
    return {name: tensor for name, tensor in tensors.items() if name not in gone}


def total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Their sum, where None is nothing."""
    if a is None or b is None:
        return b if a is None else a
    return a + b
