"""The compiled extension: whether there is one, and the threads it works with."""

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import torch

NAME = "peephole.ops.cpu._kernels"
_kernels: Any = None
try:
    _kernels = importlib.import_module(NAME)
except ModuleNotFoundError as error:
    if error.name != NAME:
        raise


def _use_threads_of_torch() -> None:
    """Give the extension PyTorch's own threads: two pools would spin against each other."""
    # A C interface that libtorch_cpu, which this library depends on, exports since 2.10.
    library = ctypes.CDLL(torch._C.__file__)
    functions = (library.torch_parallel_for, library.torch_get_num_threads)
    _kernels.use_threads_of_torch(*(ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions))


if _kernels is not None:
    _use_threads_of_torch()

# The kernels' calls by the dtype of their numbers. Those for bfloat16 need a processor that
# multiplies such numbers.
CALLS: dict[torch.dtype, Any] = {
    dtype: getattr(_kernels, name)
    for dtype, name in (
        (torch.float32, "float32"),
        (torch.float64, "float64"),
        (torch.bfloat16, "bfloat16"),
    )
    if hasattr(_kernels, name)
}


def tensor_addresses(classes: tuple[type, ...], refuse: Callable[..., None]) -> Callable[..., int]:
    """What gives the addresses of tensors; ``tensor.h`` has the arguments."""
    if _kernels is None:
        # Never called: without kernels nobody needs an address.
        return lambda *given: 0
    # torch 2.10 may not have it yet.
    functions = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    _kernels.use_tensors(classes, refuse, functions)
    address: Callable[..., int] = _kernels.address
    return address


def instruction_set() -> str:
    """The instruction set whose kernels run; ``PEEPHOLE_CPU`` chooses another when it is loaded.

    Raises:
        RuntimeError: the extension is missing.
    """
    _require()
    name: str = _kernels.instruction_set()
    return name


def instruction_sets() -> tuple[str, ...]:
    """Those that this build has and this processor runs, best first.

    Raises:
        RuntimeError: the extension is missing.
    """
    _require()
    names: tuple[str, ...] = _kernels.instruction_sets()
    return names


def _require() -> None:
    if _kernels is None:
        raise RuntimeError(MISSING)


MISSING = (
    "the compiled extension peephole.ops.cpu._kernels is missing; install peephole from a wheel, "
    "or from its sources where there is a C++ compiler"
)
