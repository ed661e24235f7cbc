"""A file's characters or bytes as numbers, a piece at a time."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from peephole.errors import UserError

Unit = Literal["char", "byte"]
Codes = np.ndarray[Any, np.dtype[Any]]

READ_BYTES = 1 << 20


def decoded(path: Path, unit: Unit, option: str | None = None) -> Iterator[Codes]:
    """A file's code points, or its bytes, in pieces of any length.

    Args:
        path: the file.
        unit: "char" for the code points of UTF-8 (uint32), "byte" for bytes (uint8).
        option: the option that named the file, for errors.

    Raises:
        UserError: it cannot be read; or characters are asked for and it is not text: not UTF-8,
            or with a zero byte, which stands in hardly any text and in most other files.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0
    try:
        with path.open("rb", buffering=0) as file:
            while part := file.read(READ_BYTES):
                if unit == "byte":
                    yield np.frombuffer(part, np.uint8)
                    continue
                whole = len(part)
                part = part.partition(b"\0")[0]
                read += len(part)
                text = decoder.decode(part)
                if len(part) < whole:
                    raise _no_text(path, f"its byte {read + 1:,} is 0x00", option)
                yield _code_points(text)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # The decoder kept the beginning of a character from the piece before.
        place = read - len(error.object) + error.start
        what = f"its byte {place + 1:,} is 0x{error.object[error.start]:02x}, which is not UTF-8"
        raise _no_text(path, what, option) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", option) from error


def _code_points(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _no_text(path: Path, why: str, option: str | None) -> UserError:
    return UserError(
        f"{path} is not text: {why}; a model of bytes (--unit byte) reads any file", option
    )
