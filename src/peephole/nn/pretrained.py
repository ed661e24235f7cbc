"""Layers, cells and ``Recurrent`` as folders: ``config.json`` and ``model.safetensors``.

A folder may come from a stranger. It is read as data, by a closed schema: nothing is unpickled,
nothing is imported by name, and no memory is taken for a model before its weights are known to fit.
"""

import inspect
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from peephole import tensors, untrusted
from peephole.errors import UserError
from peephole.folders import write_atomically
from peephole.nn.exchange import classes, stranger
from peephole.tensors import Form
from peephole.untrusted import one_line, shown

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1
MAX_CONFIG_BYTES = 1 << 20
MAX_WEIGHT_BYTES = 1 << 36
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
# Constructor arguments that are no options: where, of what, and a person's own modules.
NO_OPTIONS = ("self", "device", "dtype", "cell", "reverse")


class Config(NamedTuple):
    """A ``config.json`` that has been checked.

    Attributes:
        made: the class.
        dtype: None for a ``Recurrent``, whose cells bring theirs.
        arguments: its constructor's.
    """

    made: type[nn.Module]
    dtype: torch.dtype | None
    arguments: dict[str, Any]


# Writing


def save(module: nn.Module, directory: str | PathLike[str]) -> None:
    """``module.save_pretrained(directory)``; see there."""
    directory = Path(directory)
    config, state = _described(module), module.state_dict()
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in tensors.NAMES:
            what = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name!r} is {what}, which a folder cannot hold")
        if tensor.is_meta:
            raise ValueError(f"{name!r} is on the meta device: it has no values to save")
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    # Only what can be loaded is written.
    read = _checked(directory / CONFIG, untrusted.parsed(text, directory / CONFIG))
    if read.dtype is not None:
        made = _built(directory / CONFIG, read)
        if why := tensors.difference(_forms(state), _forms(made.state_dict())):
            raise ValueError(
                f"{config['class']} is not what its arguments make: it {why}; if a weight is "
                "pruned or parametrized, make that permanent first (torch.nn.utils.prune.remove, "
                "parametrize.remove_parametrizations)"
            )
    try:
        write_atomically(directory / WEIGHTS, tensors.chunks(state))
        write_atomically(directory / CONFIG, text.encode())
    except OSError as error:
        raise UserError(f"cannot write into {directory}: {error.strerror}") from error


def _described(module: nn.Module) -> dict[str, Any]:
    made, known = type(module), classes()
    if made not in known.values():
        raise TypeError(
            f"save_pretrained writes {', '.join(known)}; this is {stranger(module, known.values())}"
        )
    config: dict[str, Any] = {"format": FORMAT, "class": made.__name__}
    if _takes(made, "dtype"):
        dtypes = {_name(tensor.dtype) for tensor in module.parameters()}
        if len(dtypes) != 1 or not dtypes <= DTYPES.keys():
            raise ValueError(
                f"the parameters are {', '.join(sorted(dtypes))}; a folder holds a layer of one "
                f"dtype, of {', '.join(DTYPES)}"
            )
        config["dtype"] = dtypes.pop()
    arguments = {argument: getattr(module, argument) for argument in _options(made)}
    if callable(arguments.get("initialization")):
        arguments["initialization"] = "torch"
    return config | {"arguments": arguments}


# Reading


def load(
    directory: str | PathLike[str],
    *,
    cell: Any = None,
    reverse: Any = None,
    device: torch.device | str | int | None = None,
) -> Any:
    """Read what ``save_pretrained`` wrote.

    The module is as one freshly made: in training mode (call ``eval()`` before inference), its
    parameters require gradients. No random numbers are drawn. A folder from a stranger runs no
    code.

    Args:
        directory: with ``config.json`` and ``model.safetensors``, plain files, no links.
        cell: for a ``Recurrent`` the cell, or the list of cells, that it was made of: a folder
            cannot hold a person's own code. Weights are loaded into these.
        reverse: its cells of the reverse direction, if it had any.
        device: where to put it; the CPU if None, and with ``cell`` where the cells are.

    Raises:
        UserError: a file that is missing, damaged, or not what it must be; cells that do not go
            with it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}")
    file, weights = directory / CONFIG, directory / WEIGHTS
    text = untrusted.text(directory, CONFIG, MAX_CONFIG_BYTES)
    config = _checked(file, untrusted.parsed(text, file))
    untrusted.opened(directory, WEIGHTS, MAX_WEIGHT_BYTES).close()
    stored = tensors.forms(weights)
    name = config.made.__name__
    given: dict[str, Any] = {"cell": cell, "reverse": reverse}
    if not _takes(config.made, "cell"):
        for option, value in given.items():
            if value is not None:
                raise UserError(f"{file} is of a peephole.{name}, which takes none", option)
        _check_depth(file, config.arguments, weights, len(stored))
        given = {}
    elif cell is None:
        raise UserError(
            f"{file} is of a peephole.{name}: give the cell that it ran, or a list of cells, as in "
            "peephole.load(directory, cell=MyCell(...))",
            "cell",
        )
    module = _built(file, config, **given)
    state = module.state_dict()
    found = tensors.load(weights, _forms(state), CONFIG)
    # A person's cells keep their parameters, which an optimizer may have; on the meta device there
    # is nothing to keep.
    meta = any(tensor.is_meta for tensor in state.values())
    module.load_state_dict(found, assign=meta)
    return module if device is None else module.to(device)


def _check_depth(file: Path, arguments: Mapping[str, Any], weights: Path, tensors: int) -> None:
    """A layer has at least a tensor: a stranger's number of layers is no work for us."""
    widths = arguments.get("hidden_size")
    layers = max(arguments.get("num_layers", 1), len(widths) if isinstance(widths, tuple) else 1)
    if layers > tensors:
        raise UserError(
            f"{weights} does not go with {CONFIG}: it has {tensors} tensors, too few for "
            f"{layers} layers"
        )


def _built(file: Path, config: Config, **given: Any) -> nn.Module:
    """A module from its config; on the meta device, which takes no memory and draws nothing.

    Cells that are given stay where they are.
    """
    more = given if config.dtype is None else {"dtype": config.dtype}
    try:
        with torch.device("meta"):
            return config.made(**more, **config.arguments)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{file}: no such {config.made.__name__} can be made: {one_line(error)}"
        ) from error


def _checked(file: Path, data: Any) -> Config:
    """The config, if it is one that ``save`` writes."""
    if not isinstance(data, dict):
        raise UserError(f"{file} must hold names and values, got {shown(data)}")
    # The format first: another one may have other names.
    if type(data.get("format")) is not int or data["format"] != FORMAT:
        raise UserError(f"{file}: format is {shown(data.get('format'))}; this reads {FORMAT}")
    known = classes()
    made = known.get(data["class"]) if isinstance(data.get("class"), str) else None
    if made is None:
        raise UserError(
            f"{file}: class is {shown(data.get('class'))}; it is one of {', '.join(known)}"
        )
    has_dtype = _takes(made, "dtype")
    wanted = ["format", "class", *(["dtype"] if has_dtype else []), "arguments"]
    _check_names(f"{file}", data, wanted)
    dtype, arguments = None, data["arguments"]
    if has_dtype:
        dtype = DTYPES.get(data["dtype"]) if isinstance(data["dtype"], str) else None
        if dtype is None:
            found = shown(data["dtype"])
            raise UserError(f"{file}: dtype is {found}; it is one of {', '.join(DTYPES)}")
    if not isinstance(arguments, dict):
        raise UserError(f"{file}: arguments must be names and values, got {shown(arguments)}")
    options = _options(made)
    _check_names(f"{file}: arguments", arguments, list(options))
    for option, hint in options.items():
        if not _fits(arguments[option], hint):
            raise UserError(
                f"{file}: {option} is {shown(arguments[option])}; it must be "
                f"{' or '.join(_words(hint))}"
            )
    return Config(
        made,
        dtype,
        {n: tuple(v) if isinstance(v, list) else v for n, v in arguments.items()},
    )


def _check_names(where: str, given: Mapping[str, Any], wanted: list[str]) -> None:
    if lacking := [name for name in wanted if name not in given]:
        raise UserError(f"{where} lacks {lacking[0]!r}")
    if unknown := [name for name in given if name not in wanted]:
        raise UserError(f"{where} has {shown(unknown[0])}; there are {', '.join(wanted)}")


# What a class takes, as its constructor says it


def _takes(made: type[nn.Module], argument: str) -> bool:
    return argument in inspect.signature(made.__init__).parameters


def _options(made: type[nn.Module]) -> dict[str, Any]:
    """The arguments that a config holds, by name, with their annotations."""
    hints = get_type_hints(made.__init__)
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(made.__init__).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            (typed_dict,) = get_args(hints[name])
            found |= get_type_hints(typed_dict)
        elif name not in NO_OPTIONS:
            found[name] = hints[name]
    return found


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is what an argument takes; a list is a tuple there."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin in (list, tuple):
        if not isinstance(value, list):
            return False
        if origin is list or args[1:] == (...,):
            return all(_fits(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    # True is no number, though Python has it as 1.
    return type(value) in ((int, float) if hint is float else (hint,))


def _words(hint: Any) -> list[str]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        # Each once, in order.
        return list(dict.fromkeys(word for each in args for word in _words(each)))
    if origin in (list, tuple):
        items = dict.fromkeys(word for each in args if each is not ... for word in _words(each))
        return [f"a list (of {', '.join(items)})"]
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return [words[hint]] if hint in words else ["null"] if hint is NoneType else []


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _forms(state: Mapping[str, Tensor]) -> dict[str, Form]:
    return {name: Form.of(tensor) for name, tensor in state.items()}
