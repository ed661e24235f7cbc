"""The first values of parameters."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peephole.nn.checks import check_number

if TYPE_CHECKING:
    from peephole.nn.kind import Kind

# "torch", "orthogonal", ("chrono", T_max), or a function of a parameter's name and itself.
Initialization = str | tuple[str, float] | Callable[[str, nn.Parameter], Any]
Parameters = Mapping[str, nn.Parameter]


def check_initialization(kind: "Kind", how: Any) -> Initialization:
    """Give it back; raise ValueError unless it is one, and one that the kind can have."""
    if how in ("torch", "orthogonal") or callable(how):
        valid: Initialization = how
        return valid
    if not (isinstance(how, tuple | list) and len(how) == 2 and how[0] == "chrono"):
        raise ValueError(
            f"initialization={how!r}; it is 'torch', 'orthogonal', ('chrono', T_max) or a function "
            "of a parameter's name and the parameter"
        )
    if not kind.retention:
        raise ValueError(
            f"chrono initialization sets biases of gates, and {type(kind).__name__} has none"
        )
    if not kind.bias:
        raise ValueError("chrono initialization sets biases, and bias=False leaves none")
    return ("chrono", check_number("T_max", how[1], above=2))


@torch.no_grad()
def initialize(kind: "Kind", directions: list[tuple[Parameters, int]]) -> None:
    """Draw every parameter anew.

    Args:
        kind: the layer or cell.
        directions: parameters of each direction, by their names there, and its hidden units.
    """
    # All that torch.nn has, then the rest: the same seed draws the same weights.
    for ours in (False, True):
        for parameters, hidden_size in directions:
            extra = kind.extra_shapes(hidden_size)
            for name, parameter in parameters.items():
                if (name in extra) == ours:
                    _as_torch(name, parameter, hidden_size)
    how = kind.initialization
    for parameters, hidden_size in directions:
        if how == "orthogonal":
            _orthogonal(parameters, hidden_size)
        elif isinstance(how, tuple):
            _chrono(kind, parameters, how[1])
        elif callable(how):
            for name, parameter in parameters.items():
                how(name, parameter)
        forget_bias = getattr(kind, "forget_bias", None)
        if forget_bias is None and how == "orthogonal" and kind.name == "lstm" and kind.bias:
            forget_bias = 1.0
        if forget_bias is not None:
            # f, or where it is 1 - i, i the other way about.
            gate, sign = ("f", 1) if "f" in kind.gates else ("i", -1)
            _set_bias(kind, parameters, gate, torch.tensor(sign * forget_bias))


def _as_torch(name: str, parameter: nn.Parameter, hidden_size: int) -> None:
    """U(-1 / sqrt(H), 1 / sqrt(H)); norms begin as the identity, initial states as zeros."""
    if name.startswith("weight_ln"):
        nn.init.ones_(parameter)
    elif name.startswith("bias_ln") or name.endswith("_0"):
        nn.init.zeros_(parameter)
    else:
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(parameter, -bound, bound)


def _orthogonal(parameters: Parameters, hidden_size: int) -> None:
    """Each gate's recurrent matrix orthogonal (Saxe et al. 2014), input's Glorot, biases 0."""
    for name, parameter in parameters.items():
        if name == "weight_ih":
            for block in torch.split(parameter, hidden_size):
                nn.init.xavier_uniform_(block)
        elif name in ("weight_hh", "weight_hr"):
            for block in torch.split(parameter, hidden_size):
                # torch finds no orthogonal matrices in half precision.
                block.copy_(nn.init.orthogonal_(torch.empty_like(block, dtype=_exact(block))))
        elif name.startswith("bias_") and not name.startswith("bias_ln"):
            nn.init.zeros_(parameter)


def _chrono(kind: "Kind", parameters: Parameters, longest: float) -> None:
    """Tallec & Ollivier 2018: gates that forget over 1 to T_max - 1 steps.

    b_f = log(U(1, T_max - 1)), b_i = -b_f; for the GRU, whose z keeps, b_z likewise.
    """
    parameter = parameters["bias_ih"]
    time = torch.empty(parameter.shape[0] // len(kind.gates), dtype=_exact(parameter))
    bias = time.uniform_(1, longest - 1).log_().to(parameter.device)
    for gate, sign in kind.retention.items():
        _set_bias(kind, parameters, gate, sign * bias)


def _exact(parameter: Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _set_bias(kind: "Kind", parameters: Parameters, gate: str, value: Tensor) -> None:
    """Make the sum of a gate's biases this."""
    k = kind.gates.index(gate)
    for name in ("bias_ih", "bias_hh", "bias_ch"):
        if name not in parameters:
            continue
        gates = kind.gates
        if name == "bias_ch":
            gates = tuple(each for each in gates if each != "g")
            k = gates.index(gate)
        block = parameters[name].chunk(len(gates))[k]
        block.copy_(value) if name == "bias_ih" else block.zero_()
