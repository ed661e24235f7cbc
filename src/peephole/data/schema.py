"""JSON to frozen dataclasses and back, with nothing let through that is not declared."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from peephole.errors import UserError

T = TypeVar("T")


def to_json(value: object) -> Any:
    """A dataclass (of dataclasses, tuples, strings, numbers) as what ``json.dumps`` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: object, where: str) -> T:
    """Build a ``kind`` from JSON: every field there, each of its declared type, and no other.

    Types: dataclasses, tuples of any length, ``Literal``, unions, str, int, bool, float (finite)
    and None. Nothing is converted but a whole number to a float.

    Args:
        kind: a dataclass.
        data: what ``json.loads`` gave.
        where: what to call it in errors.

    Raises:
        ValueError: it does not fit; the message says where and what was expected.
    """
    built: T = _build(kind, data, where)
    return built


def check_choices(settings: object) -> None:
    """Raise UserError where a dataclass's field does not have its declared type."""
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        hint = get_type_hints(type(settings))[field.name]
        try:
            _build(hint, to_json(getattr(settings, field.name)), "it")
        except ValueError as error:
            raise UserError(str(error), field.name) from error


def _build(kind: Any, data: object, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, data, where)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _union(get_args(kind), data, where)
    if origin is Literal:
        if not any(data == choice and type(data) is type(choice) for choice in get_args(kind)):
            raise ValueError(f"{where} is {_short(data)}; it is one of {list(get_args(kind))}")
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where} is {_short(data)}, not a list")
        item = get_args(kind)[0]
        return tuple(_build(item, value, f"{where}[{k}]") for k, value in enumerate(data))
    if kind is float and type(data) is int and abs(data) < 2**53:
        data = float(data)
    if type(data) is not kind:
        wanted = "null" if kind is type(None) else kind.__name__
        raise ValueError(f"{where} is {_short(data)}, not {wanted}")
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{where} is {data}, not a finite number")
    return data


def _dataclass(kind: type, data: object, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is {_short(data)}, not an object")
    hints = get_type_hints(kind)
    for name in data:
        if name not in hints:
            raise ValueError(f"{where} has an entry {_short(name)} that does not belong there")
    for name in hints:
        if name not in data:
            raise ValueError(f"{where} lacks the entry {name!r}")
    return kind(**{n: _build(hint, data[n], f"{where}.{n}") for n, hint in hints.items()})


def _union(kinds: tuple[Any, ...], data: object, where: str) -> Any:
    # A whole number is a float too: the exact type goes first.
    failed: dict[bool, ValueError] = {}
    for kind in sorted(kinds, key=lambda kind: kind is not type(data)):
        try:
            return _build(kind, data, where)
        except ValueError as error:
            if dataclasses.is_dataclass(kind) and isinstance(data, Mapping):
                raise
            failed[kind is type(None)] = error
    # That null would have done says less than what else would.
    raise failed[min(failed)]


def _short(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 60 else text[:57] + "..."
