"""JSON to frozen dataclasses and back, with nothing let through that is not declared."""

import dataclasses
import math
import types
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from peephole.errors import UserError
from peephole.untrusted import SHOWN, shown

T = TypeVar("T")


def to_json(value: object, *, hyphens: bool = False) -> Any:
    """A dataclass (of dataclasses, tuples, dicts, text, numbers) as what ``json.dumps`` takes.

    Args:
        value: the dataclass.
        hyphens: whether the names of fields get hyphens for underscores.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            _spelled(f.name, hyphens): to_json(getattr(value, f.name), hyphens=hyphens)
            for f in dataclasses.fields(value)
        }
    if isinstance(value, tuple | list):
        return [to_json(item, hyphens=hyphens) for item in value]
    if isinstance(value, Mapping):
        return {name: to_json(item, hyphens=hyphens) for name, item in value.items()}
    return value


def from_json(
    kind: type[T], data: object, where: str, *, finite: bool = True, hyphens: bool = False
) -> T:
    """Build a ``kind`` from JSON: every field there, each of its declared type, and no other.

    Types: dataclasses, tuples of any length, lists, dicts with text as keys, ``Literal``, unions,
    str, int, bool, float and None. Nothing is converted but a whole number to a float.

    Args:
        kind: a dataclass.
        data: what ``json.loads`` gave.
        where: what to call it in errors.
        finite: whether a float must be.
        hyphens: whether the names of fields have hyphens in the data for underscores.

    Raises:
        ValueError: it does not fit; the message says where and what was expected.
    """
    built: T = _Builder(finite, hyphens).build(kind, data, where)
    return built


def check_choices(settings: object) -> None:
    """Raise UserError where a dataclass's field does not have its declared type."""
    builder = _Builder(finite=True, hyphens=False)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        hint = get_type_hints(type(settings))[field.name]
        try:
            builder.build(hint, to_json(getattr(settings, field.name)), "it")
        except ValueError as error:
            raise UserError(str(error), field.name) from error


class _Builder:
    """See ``from_json``."""

    def __init__(self, finite: bool, hyphens: bool) -> None:
        self.finite, self.hyphens = finite, hyphens

    def build(self, kind: Any, data: object, where: str) -> Any:
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return self.of_fields(kind, data, where)
        origin = get_origin(kind)
        if origin in (Union, types.UnionType):
            return self.of_union(get_args(kind), data, where)
        if origin is Literal:
            if not any(data == choice and type(data) is type(choice) for choice in get_args(kind)):
                raise ValueError(f"{where} is {shown(data)}; it is one of {list(get_args(kind))}")
            return data
        if origin in (tuple, list):
            if not isinstance(data, list):
                raise ValueError(f"{where} is {shown(data)}, not a list")
            item = get_args(kind)[0]
            return origin(self.build(item, value, f"{where}[{k}]") for k, value in enumerate(data))
        if origin is dict:
            return self.of_entries(get_args(kind)[1], data, where)
        if kind is float and type(data) is int and abs(data) < 2**53:
            data = float(data)
        if type(data) is not kind:
            wanted = "null" if kind is type(None) else kind.__name__
            raise ValueError(f"{where} is {shown(data)}, not {wanted}")
        if self.finite and isinstance(data, float) and not math.isfinite(data):
            raise ValueError(f"{where} is {data}, not a finite number")
        return data

    def of_fields(self, kind: type, data: object, where: str) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError(f"{where} is {shown(data)}, not an object")
        hints = {self.spelled(name): hint for name, hint in get_type_hints(kind).items()}
        for name in data:
            if name not in hints:
                raise ValueError(
                    f"{where} has an entry {shown(name)} that does not belong there"
                    + _near(name, list(hints))
                )
        for name in hints:
            if name not in data:
                raise ValueError(f"{where} lacks the entry {name!r}")
        return kind(
            **{
                name: self.build(hint, data[self.spelled(name)], f"{where}.{self.spelled(name)}")
                for name, hint in get_type_hints(kind).items()
            }
        )

    def of_entries(self, kind: Any, data: object, where: str) -> Any:
        if not isinstance(data, Mapping) or not all(type(name) is str for name in data):
            raise ValueError(f"{where} is {shown(data)}, not an object")
        return {
            name: self.build(kind, item, f"{where}[{shown(name)}]") for name, item in data.items()
        }

    def of_union(self, kinds: tuple[Any, ...], data: object, where: str) -> Any:
        # A whole number is a float too: the exact type goes first.
        failed: dict[bool, ValueError] = {}
        for kind in sorted(kinds, key=lambda kind: kind is not type(data)):
            try:
                return self.build(kind, data, where)
            except ValueError as error:
                if dataclasses.is_dataclass(kind) and isinstance(data, Mapping):
                    raise
                failed[kind is type(None)] = error
        # That null would have done says less than what else would.
        raise failed[min(failed)]

    def spelled(self, name: str) -> str:
        return _spelled(name, self.hyphens)


def _spelled(name: str, hyphens: bool) -> str:
    return name.replace("_", "-") if hyphens else name


def _near(name: object, names: list[str]) -> str:
    # What is looked for is short; a stranger's name may be of any length.
    near = get_close_matches(name[:SHOWN], names, n=1) if isinstance(name, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""
