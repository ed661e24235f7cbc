"""What the kinds' autograd functions share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from peephole.offsets import Layout

# (tensors as the function was given them) -> its outputs that are not None, in plain PyTorch.
Again = Callable[[Sequence[Tensor | None]], Sequence[Tensor]]

# What compiled autograd is told, which would trace a backward pass.
OPAQUE = "a graph would hold what allocates, and not what the compiled kernels compute"
NO_FORWARD_MODE = "backend='cpu' has no forward-mode derivatives; backend='reference' has them"


class Recurrence(torch.autograd.Function):
    """A recurrence whose first argument, ``c.again``, computes the same in plain PyTorch."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(NO_FORWARD_MODE)


def beyond_kernels(d: Sequence[Tensor | None]) -> bool:
    """Whether this backward pass must itself have derivatives, or runs over a batch of gradients.

    The kernels can do neither.

    Args:
        d: the gradients it is given.
    """
    if torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    # is_grads_batched, and torch.autograd.functional's vectorize, still come as these.
    batched = torch._C._functorch.is_legacy_batchedtensor
    return any(each is not None and batched(each) for each in d)


def computed_again(again: Again, given: Sequence[Tensor | None], d: Sequence[Any]) -> list[Any]:
    """Gradients computed in plain PyTorch, which may have gradients themselves.

    Args:
        again: computes the outputs from ``given``.
        given: as the function was given them; those that require gradients get one.
        d: gradients with respect to the outputs, None for zeros.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Of views, which nothing else depends on: one of these may be computed from another.
        own = [t if t is None or not t.requires_grad else t.view_as(t) for t in given]
        outputs = again(own)
    # Those of gates and cells are missing where they are not asked for.
    pairs = [(o, g) for o, g in zip(outputs, d, strict=False) if g is not None]
    wanted = [t for t in own if t is not None and t.requires_grad]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            wanted,
            [g for _, g in pairs],
            create_graph=create_graph,
            materialize_grads=True,
        )
    )
    return [None if t is None or not t.requires_grad else next(found) for t in given]


def held(layout: Layout, *masks: Tensor | float | None) -> list[Tensor]:
    """What a call has besides its inputs: kept with these, so that autograd sees a change."""
    return [layout.offsets, *(mask for mask in masks if isinstance(mask, Tensor))]


def may_overwrite(ctx: Any) -> bool:
    """Whether what was kept for this backward pass is not needed for another one.

    Raises:
        RuntimeError: an earlier pass has overwritten it, and failed before autograd knew.
    """
    if getattr(ctx, "overwritten", False):
        raise RuntimeError(
            "an earlier backward pass through this recurrence failed half-way, and what it needs "
            "is gone: run the forward pass again, or use retain_graph=True"
        )
    ctx.overwritten = not torch._C._autograd._get_current_graph_task_keep_graph()
    return bool(ctx.overwritten)


def for_each_bias(d_bias: Tensor | None, needs: Sequence[bool]) -> list[Tensor | None]:
    """The gradient of two biases that are added: the same numbers, in memory of their own."""
    if d_bias is None or not all(needs):
        return [d_bias if need else None for need in needs]
    return [d_bias, d_bias.clone()]


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """An upstream gradient without gaps: that of ``sum()`` is one number seen many times."""
    return None if tensor is None else tensor.contiguous()
