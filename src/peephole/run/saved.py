"""Checkpoints in a run folder: what can be read of one without its tensors.

A checkpoint is a folder, ``checkpoints/update-000001234``:

    tensors.safetensors
    state.json            numbers and text; the updates done; which checkpoint is best
    SHA256SUMS            of these two, as ``sha256sum -c`` reads it

Others of these names with a dot before and an ending are being made, replaced or removed.
"""

import hashlib
import json
import math
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peephole import untrusted
from peephole.errors import UserError
from peephole.run.names import CHECKPOINTS
from peephole.untrusted import shown

TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"
MAKING, OLD, REMOVED = "making", "old", "removed"
FORMAT = 1

MAX_STATE_BYTES = 1 << 24
MAX_SUMS_BYTES = 1 << 10
MAX_TENSOR_BYTES = 1 << 36
# More would not fit a number of 64 bits.
MAX_DIGITS = 18
MAX_DEPTH = 100

# JSON has no such numbers. They are written as an object with this one name.
NOT_FINITE = "not-finite"
NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Damaged(UserError):
    """A checkpoint is not as it was written."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint but for its tensors.

    Attributes:
        path: the folder.
        update: after how many updates it was written.
        best: after how many updates the best model so far was there; None for none.
        state: as its writer gave it, not checked further.
        tensors_digest: the SHA-256 that its tensors' file must have.
    """

    path: Path
    update: int
    best: int | None
    state: Any
    tensors_digest: str


def place(run: Path, update: int) -> Path:
    """Where a checkpoint stands."""
    return run / CHECKPOINTS / f"update-{update:09d}"


def hidden(run: Path, update: int, what: str) -> Path:
    """Where it is made, or waits to be replaced or removed."""
    path = place(run, update)
    return path.with_name(f".{path.name}.{what}")


def found(run: Path) -> dict[int, Path]:
    """The checkpoints of a run, oldest first; none is opened.

    One that was to be replaced counts until the other is in its place.

    Raises:
        UserError: ``checkpoints`` is no folder.
    """
    there: dict[int, Path] = {}
    waiting: dict[int, Path] = {}
    for path in _entries(run):
        if match := re.fullmatch(
            rf"(\.?)update-([0-9]{{9,{MAX_DIGITS}}})((?:\.{OLD})?)", path.name
        ):
            update = int(match[2])
            if path == place(run, update):
                there[update] = path
            elif path == hidden(run, update, OLD):
                waiting[update] = path
    return dict(sorted((waiting | there).items()))


def left_over(run: Path) -> dict[Path, int]:
    """What a process left hidden when it was killed, and of which update that is."""
    pattern = rf"\.update-([0-9]{{9,{MAX_DIGITS}}})\.({MAKING}|{OLD}|{REMOVED})"
    matches = {path: re.fullmatch(pattern, path.name) for path in _entries(run)}
    return {path: int(match[1]) for path, match in matches.items() if match}


def _entries(run: Path) -> list[Path]:
    folder = run / CHECKPOINTS
    try:
        mode = folder.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise UserError(f"{folder} is {_kind(mode)}; it must be a plain folder")
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def _kind(mode: int) -> str:
    return "a link" if stat.S_ISLNK(mode) else "no folder"


def read(run: Path, update: int, path: Path) -> Saved:
    """Read a checkpoint's small files.

    Args:
        run: the run folder.
        update: which one.
        path: where ``found`` saw it.

    Raises:
        Damaged: a file of it is missing, or is not as it was written.
        UserError: it is whole, and another version's.
    """
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise Damaged(f"{path} is damaged: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise Damaged(f"{path} is damaged: it is {_kind(mode)}")
    digests = _digests(path, _bytes(path, SUMS, MAX_SUMS_BYTES))
    data = _bytes(path, STATE, MAX_STATE_BYTES)
    check_digest(path, STATE, hashlib.sha256(data).hexdigest(), digests)
    try:
        held = _decoded(untrusted.parsed(data.decode("utf-8"), STATE))
    except UserError as error:
        raise Damaged(f"{path} is damaged: {error.message}") from error
    except ValueError as error:
        raise Damaged(f"{path} is damaged: {untrusted.one_line(error)}") from error
    version = held.get("format") if isinstance(held, dict) else None
    if type(version) is not int or version != FORMAT:
        raise UserError(f"{path / STATE}: format is {shown(version)}; this reads {FORMAT}")
    if held.keys() != {"format", "update", "best", "state"}:
        raise Damaged(
            f"{path} is damaged: {STATE} has other names than format, update, best, state"
        )
    if type(held["update"]) is not int or held["update"] != update:
        raise Damaged(f"{path} is damaged: {STATE} is of update {shown(held['update'])}")
    best = held["best"]
    if best is not None and (type(best) is not int or not 0 <= best <= update):
        raise Damaged(f"{path} is damaged: {STATE} names {shown(best)} as the best update")
    return Saved(path, update, best, held["state"], digests[TENSORS])


def _bytes(path: Path, name: str, most: int) -> bytes:
    try:
        return untrusted.read(path, name, most)
    except UserError as error:
        raise Damaged(f"{path} is damaged: {error.message}") from error


def _digests(path: Path, sums: bytes) -> dict[str, str]:
    lines = rb"([0-9a-f]{64})  %b\n" * 2 % (re.escape(TENSORS.encode()), re.escape(STATE.encode()))
    match = re.fullmatch(lines, sums)
    if match is None:
        raise Damaged(
            f"{path} is damaged: {SUMS} does not hold the digests of {TENSORS} and {STATE}"
        )
    return {TENSORS: match[1].decode(), STATE: match[2].decode()}


def check_digest(path: Path, name: str, digest: str, wanted: dict[str, str]) -> None:
    """Raise Damaged unless a file has the digest that was written down for it."""
    if digest != wanted[name]:
        raise Damaged(f"{path} is damaged: {name} is not what {SUMS} says")


def sums(tensors: str, state: str) -> bytes:
    """What ``SHA256SUMS`` holds, from the digests."""
    return f"{tensors}  {TENSORS}\n{state}  {STATE}\n".encode()


def written(update: int, best: int | None, state: Any) -> bytes:
    """What ``state.json`` holds.

    Args:
        update: updates done.
        best: of the best model so far.
        state: objects, lists, text, numbers of at most 64 bits, true, false and null; floats are
            kept to the bit, NaN and infinities as ``{"not-finite": "nan"}``.

    Raises:
        ValueError: it holds anything else.
    """
    held = {"format": FORMAT, "update": update, "best": best, "state": state}
    text = json.dumps(_encoded(held), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Only what can be read is written.
    if _encoded(_decoded(untrusted.parsed(text, "the state"))) != _encoded(held):
        raise ValueError("the state is not what JSON gives back: its keys must be text")
    data = text.encode()
    if len(data) > MAX_STATE_BYTES:
        raise ValueError(f"the state has {len(data):,} bytes as JSON; at most {MAX_STATE_BYTES:,}")
    return data


def _encoded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {NOT_FINITE: str(value)}
    if isinstance(value, dict):
        if NOT_FINITE in value:
            raise ValueError(f"the state has the name {NOT_FINITE!r}, which stands for a number")
        return {name: _encoded(item) for name, item in value.items()}
    return [_encoded(item) for item in value] if isinstance(value, list) else value


def _decoded(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        if NOT_FINITE in value:
            number = value[NOT_FINITE]
            if len(value) > 1 or not isinstance(number, str) or number not in NUMBERS:
                raise ValueError(f"{shown(value)} is no number")
            return NUMBERS[number]
        return {name: _decoded(item, depth + 1) for name, item in value.items()}
    return [_decoded(item, depth + 1) for item in value] if isinstance(value, list) else value
