"""What layers and cells check of their sizes, with the errors of ``torch.nn``."""

import math
import numbers
import warnings
from typing import Any

from torch import Tensor

from peephole.nn.autocast import is_cast
from peephole.ops import BACKENDS


def check_size(name: str, size: Any) -> None:
    """Raise unless it is a whole number of at least 1."""
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
    if size < 1:
        raise ValueError(f"{name}={size}; it must be at least 1")


def checked_widths(hidden_size: Any, num_layers: Any) -> tuple[int, ...]:
    """The hidden units of each layer."""
    check_size("num_layers", num_layers)
    if not isinstance(hidden_size, list | tuple):
        check_size("hidden_size", hidden_size)
        same: tuple[int, ...] = (hidden_size,) * num_layers
        return same
    for k, width in enumerate(hidden_size):
        check_size(f"hidden_size[{k}]", width)
    # 1 is what num_layers is when nothing is said.
    if num_layers not in (1, len(hidden_size)) or not hidden_size:
        raise ValueError(
            f"hidden_size={list(hidden_size)} has a width for each of {len(hidden_size)} layers, "
            f"but num_layers={num_layers}"
        )
    widths: tuple[int, ...] = tuple(hidden_size)
    return widths


def check_dropout(dropout: Any, num_layers: int) -> float:
    """Give it back; warn, as ``torch.nn``, where it has no place."""
    number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    if not number or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element "
            f"being zeroed, got {dropout!r}"
        )
    if dropout and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
            f"expects num_layers greater than 1, but got dropout={dropout} and num_layers=1",
            UserWarning,
            stacklevel=4,
        )
    return float(dropout)


def check_projection(proj_size: Any, widths: tuple[int, ...], *, projects: bool) -> int:
    """Give it back; raise unless it is 0, or narrower than every layer of a kind that projects."""
    if not isinstance(proj_size, int) or isinstance(proj_size, bool):
        raise TypeError(f"proj_size should be of type int, got: {type(proj_size).__name__}")
    if proj_size and not projects:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    if not 0 <= proj_size < min(widths):
        raise ValueError(
            f"proj_size={proj_size}; it must be from 0, for none, up to, not including, "
            f"hidden_size, {min(widths)}"
        )
    return proj_size


def check_backend(backend: Any) -> str:
    """Give it back; raise ValueError unless there is one of that name."""
    if backend not in (names := ("auto", "torch", *BACKENDS)):
        raise ValueError(f"backend={backend!r}; there are {', '.join(names)}")
    name: str = backend
    return name


def check_input(values: Tensor, input_size: int, weight: Tensor) -> None:
    """Raise ValueError unless the values ``[N, I]`` go with the layer that has this weight."""
    if values.dim() != 2:
        raise ValueError(
            f"the input's values must be [N, {input_size}] for input_size={input_size}, got "
            f"{list(values.shape)}"
        )
    if values.shape[1] != input_size:
        raise ValueError(
            f"input.size(-1) must be equal to input_size. Expected {input_size}, got "
            f"{values.shape[1]}"
        )
    check_like("the input", values, weight)


def check_like(what: str, values: Tensor, weight: Tensor) -> None:
    """Raise ValueError unless device and dtype are those of a layer's weight."""
    if values.device != weight.device:
        raise ValueError(f"{what} has device {values.device}, but the layer has {weight.device}")
    if values.dtype != weight.dtype and not is_cast(values):
        raise ValueError(f"{what} has dtype {values.dtype}, but the layer has {weight.dtype}")


def torch_lacks(what: str) -> str:
    return f"backend='torch' cannot serve: torch.nn has no {what}; backend='reference' can"


def check_share(name: str, share: Any, *, below_one: bool = False) -> None:
    """Raise ValueError unless it is a number from 0 to 1, or up to 1."""
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 <= share <= 1 or (below_one and share == 1):
        allowed = "a number from 0 up to, not including, 1" if below_one else "a number from 0 to 1"
        raise ValueError(f"{name}={share!r}; it must be {allowed}")


def check_flag(name: str, flag: Any) -> bool:
    """Give it back; raise TypeError unless it is True or False."""
    if not isinstance(flag, bool):
        raise TypeError(f"{name} should be of type bool, got: {type(flag).__name__}")
    return flag


def check_number(name: str, number: Any, *, above: float = -math.inf) -> float:
    """Give it back as a float; raise ValueError unless it is a finite number above another."""
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise ValueError(f"{name}={number!r}; it must be a number")
    if not above < number < math.inf:
        bound = "" if above == -math.inf else f" of more than {above:g}"
        raise ValueError(f"{name}={number!r}; it must be a finite number{bound}")
    return float(number)
