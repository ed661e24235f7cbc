"""The kernels' calls: everything is checked here, and then only addresses are left."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from peephole.offsets import Layout
from peephole.ops.cpu.extension import CALLS, tensor_addresses

# Of other types nobody knows where their numbers are.
PLAIN = (Tensor, torch.nn.Parameter)
PEEPHOLES = {None: 0, "diagonal": 1, "full": 2}
Zoneout = Tensor | float | None


class Sizes(NamedTuple):
    """What the shapes of a call follow from.

    Attributes:
        B: sequences.
        N: steps.
        H: hidden units.
        dtype: of all numbers.
    """

    B: int
    N: int
    H: int
    dtype: torch.dtype


def _refuse(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise ValueError for a tensor that ``address`` is not given for."""
    if (
        type(tensor) in PLAIN
        and tensor.shape == shape
        and tensor.dtype is dtype
        and tensor.is_contiguous()
        and tensor.is_cpu
        and not tensor.is_neg()
    ):
        held = tensor.untyped_storage().nbytes() - tensor.storage_offset() * dtype.itemsize
        raise ValueError(f"{name} is {list(shape)}, but its memory holds {max(held, 0)} bytes only")
    raise ValueError(
        f"{name} must be a plain tensor {list(shape)}, {dtype}, contiguous and on the CPU, got "
        f"a {type(tensor).__name__} {list(tensor.shape)}, {tensor.dtype}, strides "
        f"{tensor.stride()}, on {tensor.device}"
    )


# (name, tensor, shape, dtype) -> where a tensor's numbers lie; 0 for None. ValueError: it has not
# this shape or dtype, gaps, or no memory of its own on the CPU.
address = tensor_addresses(PLAIN, _refuse)


def own_address(tensor: Tensor | None) -> int:
    """Where the numbers of a tensor that was just made lie, of which nothing has to be checked."""
    return 0 if tensor is None else tensor.data_ptr()


def zoneout_addresses(name: str, zoneout: Zoneout, sizes: Sizes) -> tuple[int, int, float]:
    """A mask's address, shares' address, one share for all: at most one of them is not 0."""
    if not isinstance(zoneout, Tensor):
        return 0, 0, zoneout or 0.0
    shape = (sizes.N, sizes.H)
    if zoneout.dtype is torch.bool:
        return address(name, zoneout, shape, torch.bool), 0, 0.0
    return 0, address(name, zoneout, shape, sizes.dtype), 0.0


def batch(layout: Layout, sizes: Sizes, reverse: bool) -> tuple[Tensor, tuple[Any, ...]]:
    """The offsets, which must live as long as the call, and what a call says of the batch.

    That the offsets cut N rows into sequences is checked within the call.
    """
    offsets = layout.offsets
    if offsets.dtype is not torch.int64 or not offsets.is_contiguous() or not offsets.is_cpu:
        offsets = torch.from_numpy(np.ascontiguousarray(layout.bounds))
    at = address("offsets", offsets, (sizes.B + 1,), torch.int64)
    return offsets, (sizes.B, sizes.N, at, bool(reverse), sizes.H)


def input_addresses(
    x: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    sizes: Sizes,
    width: int,
) -> tuple[int, ...]:
    """What the gates' input part ``[N, width]`` is computed from, and where it is.

    Either is 0: without ``weight_ih`` x is that part.
    """
    dtype = sizes.dtype
    if weight_ih is None:
        return 0, 0, 0, 0, 0, address("gates_x", x, (sizes.N, width), dtype)
    inputs = x.shape[1]
    return (
        address("x", x, (sizes.N, inputs), dtype),
        inputs,
        address("weight_ih", weight_ih, (width, inputs), dtype),
        address("bias_ih", bias_ih, (width,), dtype),
        address("bias_hh", bias_hh, (width,), dtype),
        0,
    )


def evaluate(name: str, x: Tensor) -> Tensor:
    """One of the kernels' own "exp", "tanh" and "sigmoid" of a tensor, for the tests."""
    y = torch.empty_like(x)
    CALLS[x.dtype].evaluate(
        ("exp", "tanh", "sigmoid").index(name),
        address("x", x, tuple(x.shape), x.dtype),
        y.data_ptr(),
        x.numel(),
    )
    return y


def call(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel by its name and the dtype of its numbers."""
    kernel: Callable[..., None] = getattr(CALLS[dtype], name)
    return kernel
