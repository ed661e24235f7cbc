"""Tensors in a safetensors file, which may come from a stranger."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from peephole.errors import UserError
from peephole.untrusted import one_line, shown

# What a file calls a dtype, in the order in which the library puts them there. The format has
# more, which nothing here writes.
DTYPES = {
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "U32": torch.uint32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U16": torch.uint16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Form(NamedTuple):
    """Dtype and shape of a tensor.

    Attributes:
        dtype: as torch calls it (``float32``), or where we write none such, as a file does.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        return cls(_name(tensor.dtype), tuple(tensor.shape))

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, a tensor at a time.

    The library's own writer says neither when the file is synced nor, as a number, what went
    wrong, and its files are readable by their owner alone.

    Args:
        tensors: of any device and layout in memory; they may share it.

    Raises:
        ValueError: before any bytes, where a file cannot hold one of them.
    """
    for name, tensor in tensors.items():
        if name == "__metadata__":
            raise ValueError(f"{name!r} is no tensor's name in a safetensors file")
        if tensor.is_meta or tensor.layout != torch.strided or tensor.dtype not in NAMES:
            what = tensor.layout if tensor.layout != torch.strided else tensor.dtype
            told = "on the meta device" if tensor.is_meta else _name(what)
            raise ValueError(f"{name!r} is {told}, which a safetensors file cannot hold")
    rank = {dtype: k for k, dtype in enumerate(NAMES)}
    order = sorted(tensors, key=lambda name: (rank[tensors[name].dtype], name))
    header, begin = {}, 0
    for name in order:
        tensor = tensors[name]
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        flat = tensors[name].detach().to("cpu").contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def forms(file: Path) -> dict[str, Form]:
    """Names, dtypes and shapes, which stand at a file's beginning, without the rest of it.

    Raises:
        UserError: it is no safetensors file, or shorter or longer than its beginning says.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: Form(_stored(part.get_dtype()), tuple(part.get_shape()))
                for name, part in parts.items()
            }
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from error


def difference(given: Mapping[str, Form], wanted: Mapping[str, Form]) -> str | None:
    """The first one, as what "it" has or lacks; None if there is none."""
    for name in wanted:
        if name not in given:
            return f"lacks {shown(name)}"
    for name in given:
        if name not in wanted:
            return f"has {shown(name)}, which does not belong there"
    for name, form in wanted.items():
        if given[name] != form:
            return f"has {shown(name)} as {given[name]}, which must be {form}"
    return None


def load(file: Path, wanted: Mapping[str, Form], what: str) -> dict[str, Tensor]:
    """A file's tensors, on the CPU.

    Args:
        file: the file.
        wanted: what it must hold; this is compared before memory is taken.
        what: with what it must go, for errors.

    Raises:
        UserError: it is no safetensors file, or holds anything else.
    """
    if why := difference(forms(file), wanted):
        raise UserError(f"{file} does not go with {what}: it {why}")
    try:
        with safe_open(file, framework="pt") as opened:
            # Cloned, so that they do not stand on the file, which may change.
            return {name: opened.get_tensor(name).clone() for name in wanted}
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from error


def _stored(name: str) -> str:
    return _name(DTYPES[name]) if name in DTYPES else name


def _name(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")
