"""From ``torch.nn``'s modules to ours and back, with their weights."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from peephole.nn.kind import Kind

# Constructor arguments that torch.nn's classes share with ours, where they have them.
TORCH_ARGUMENTS = (
    "input_size",
    "hidden_size",
    "num_layers",
    "nonlinearity",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
)
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def classes() -> dict[str, type[nn.Module]]:
    """The modules of ``peephole`` by their names: layers, cells and ``Recurrent``."""
    # Not at the top, since all of them import this.
    from peephole import nn as ours

    found = {name: getattr(ours, name) for name in ours.__all__}
    # A kind without a recurrence is a base of others.
    return {
        name: each
        for name, each in found.items()
        if each is ours.Recurrent or hasattr(each, "recurrence")
    }


def from_torch(module: nn.Module) -> Any:
    """Make the layer or cell of ``peephole`` that computes what one of ``torch.nn`` does.

    Weights are copied; two names for one parameter stay two names for one. Device, dtype, training
    mode and each parameter's ``requires_grad`` are kept. Gradients and what hangs on a parameter
    (its hooks) are not, as in ``copy.deepcopy``. No random numbers are drawn.

    Args:
        module: a ``torch.nn.LSTM``, ``GRU``, ``RNN``, ``LSTMCell``, ``GRUCell`` or ``RNNCell``.

    Raises:
        TypeError: anything else; also a subclass, and a module that computes something else than
            its class because it has hooks, parametrizations or pruned weights.
    """
    partners = {theirs: each for each in classes().values() if (theirs := _torch_class(each))}
    theirs = type(module)
    if theirs not in partners:
        allowed = ", ".join(f"torch.nn.{each.__name__}" for each in partners)
        raise TypeError(f"from_torch takes {allowed}; got {stranger(module, partners)}")
    ours = partners[theirs](**_arguments(module), device="meta")
    if why := _changed(module, ours):
        raise TypeError(f"from_torch cannot take this torch.nn.{theirs.__name__}: {why}")
    return _with_weights(ours, module)


def to_torch(module: "Kind") -> nn.Module:
    """``module.to_torch()``; see there."""
    ours, known = type(module), list(classes().values())
    if ours.torch_name is not None and ours not in known:
        raise ValueError(
            f"to_torch knows peephole's own classes; this is {stranger(module, known)}"
        )
    if lacking := _beyond_torch(module):
        raise ValueError(f"torch.nn has no {lacking}")
    theirs = _torch_class(ours)
    assert theirs is not None
    made = theirs(**_arguments(module), device="meta")
    if why := _changed(module, made):
        raise ValueError(f"torch.nn has no such {ours.__name__}: {why}")
    _with_weights(made, module)
    if isinstance(made, nn.RNNBase):
        # For cuDNN, in one piece of memory.
        made.flatten_parameters()
    return made


def stranger(module: nn.Module, known: Iterable[type[nn.Module]]) -> str:
    """What a module is that is none of these classes, and what is to be done."""
    made = type(module)
    name = f"{made.__module__}.{made.__name__}"
    if parametrize.is_parametrized(module):
        return (
            f"{name}, whose parametrizations would be lost: take them off first, with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    if isinstance(module, tuple(known)):
        return f"{name}, a subclass, which may compute something else"
    return name


def _torch_class(ours: Any) -> type[nn.Module] | None:
    from peephole.nn.cell import Cell

    name = getattr(ours, "torch_name", None)
    if name is None:
        return None
    theirs: type[nn.Module] = getattr(nn, name + ("Cell" if issubclass(ours, Cell) else ""))
    return theirs


def _arguments(module: nn.Module) -> dict[str, Any]:
    found = {name: getattr(module, name) for name in TORCH_ARGUMENTS if hasattr(module, name)}
    # torch.nn.GRU and RNN know no such argument, whatever its value.
    if not found.get("proj_size"):
        found.pop("proj_size", None)
    if isinstance(widths := found["hidden_size"], tuple):
        found["hidden_size"] = widths[0]
    return found


def _beyond_torch(module: "Kind") -> str:
    """What torch.nn does not have of the options, of the parameters and of how layers stack."""
    found = [] if module.is_torchs() else [module.beyond_torch()]
    others = ("skip", "learn_initial_state", "single_bias")
    found += [f"{name}=True" for name in others if getattr(module, name, False)]
    if len(set(getattr(module, "widths", ()))) > 1:
        found.append(f"hidden_size={module.hidden_size}")
    return ", ".join(found)


def _changed(module: nn.Module, plain: nn.Module) -> str | None:
    """Why a copy of its parameters would not compute the same; None if it would."""
    given, wanted = _shapes(module), _shapes(plain)
    if name := next((n for n in [*given, *wanted] if given.get(n) != wanted.get(n)), None):
        return (
            f"{name!r} is {_told(given, name)}, in such a layer {_told(wanted, name)}; if a weight "
            "is pruned or normalized, make that permanent first (torch.nn.utils.prune.remove, "
            "parametrize.remove_parametrizations)"
        )
    if any(getattr(module, hooks) for hooks in HOOKS) or "forward" in vars(module):
        return "it has hooks, which would be lost; take them off first and put them on the new one"
    return None


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def _told(shapes: Mapping[str, list[int]], name: str) -> str:
    return str(shapes[name]) if name in shapes else "nothing"


def _with_weights(made: nn.Module, source: nn.Module) -> nn.Module:
    """Replace its parameters by copies of the other's."""
    copies: dict[nn.Parameter, nn.Parameter] = {}
    for name, parameter in source.named_parameters(remove_duplicate=False):
        if parameter not in copies:
            copied = parameter.detach().clone()
            copies[parameter] = nn.Parameter(copied, requires_grad=parameter.requires_grad)
        setattr(made, name, copies[parameter])
    return made.train(source.training)
