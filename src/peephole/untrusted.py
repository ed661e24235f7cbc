"""Files that may come from a stranger: read as data, within bounds, and never waited for."""

import json
import math
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from peephole.errors import UserError

SHOWN = 60


def opened(folder: Path, name: str, most: int) -> BufferedReader:
    """Open a plain file below a folder, to read.

    No link is followed, so that nothing leads out of the folder, and a pipe or a device is not
    waited for.

    Args:
        folder: the folder, which the caller vouches for.
        name: of the file, with the folders between.
        most: bytes that the file may have.

    Raises:
        UserError: it is not there, no plain file, or larger.
    """
    file = check_no_link(folder, name)
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        os.close(handle)
        if stat.S_ISREG(status.st_mode):
            raise UserError(f"{file} has {status.st_size:,} bytes; at most {most:,} are read")
        raise UserError(f"{file} is no file; it must be a plain file")
    return os.fdopen(handle, "rb")


def check_no_link(folder: Path, name: str) -> Path:
    """The path of something below a folder, of which no part is a link.

    Raises:
        UserError: a part is one, or is not there.
    """
    path = folder
    for part in Path(name).parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if stat.S_ISLNK(mode):
            what = "file" if path == folder / name else "folder"
            raise UserError(f"{path} is a link; it must be a plain {what}")
    return path


def read(folder: Path, name: str, most: int) -> bytes:
    """A file's bytes; see ``opened``."""
    with opened(folder, name, most) as file:
        try:
            return file.read(most)
        except OSError as error:
            raise UserError(f"cannot read {folder / name}: {error.strerror}") from error


def text(folder: Path, name: str, most: int) -> str:
    """A file's text; see ``opened``."""
    try:
        return read(folder, name, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {folder / name}: {one_line(error)}") from error


def parsed(data: str, where: object) -> Any:
    """JSON, strictly: no name twice, no NaN, no whole number of more than 64 bits.

    Args:
        data: the text.
        where: what to call it in errors.

    Raises:
        UserError: it is not that.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in items:
            if name in found:
                raise ValueError(f"it has {shown(name)} twice")
            found[name] = value
        return found

    def number(digits: str) -> int | float:
        if re.fullmatch(r"-?\d+", digits):
            # Python itself refuses thousands of digits, in other words.
            whole = int(digits) if len(digits) <= 20 else 1 << 63
            if -(1 << 63) <= whole < 1 << 63:
                return whole
        elif math.isfinite(value := float(digits)):
            return value
        raise ValueError(f"the number {shown(digits)} is too large")

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number of JSON")

    try:
        return json.loads(
            data,
            object_pairs_hook=pairs,
            parse_int=number,
            parse_float=number,
            parse_constant=constant,
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON as peephole writes it: {one_line(error)}") from error


def shown(value: object) -> str:
    """A value on one line, and not more than the beginning of a stranger's text."""
    if isinstance(value, int) and abs(value) >= 1 << 256:
        # Python refuses to write out what has thousands of digits.
        return f"a number of {value.bit_length():,} bits"
    brief = "null" if value is None else repr(value)
    return brief if len(brief) <= SHOWN else brief[: SHOWN - 3] + "..."


def one_line(error: BaseException) -> str:
    """What an error says, on one line, of at most 200 characters that can be printed."""
    return printable(re.sub(r"\s+", " ", str(error)).strip())[:200]


def printable(line: str) -> str:
    """A text without what could steer a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line
    )
