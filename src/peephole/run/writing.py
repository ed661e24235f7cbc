"""What is written into a run folder, and where a run folder may be put."""

import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peephole.errors import UserError
from peephole.folders import Part, check_free, write_atomically
from peephole.run import lock
from peephole.run.events import plain
from peephole.run.names import ALL, CONFIG, METRICS, MODEL_CONFIG, STARTED, WEIGHTS

if TYPE_CHECKING:
    from torch import nn


def fresh(name: str) -> Path:
    """A folder in ``runs/`` that no other run has."""
    # Runs that are started side by side must not meet.
    return Path("runs", f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")


def check_out(path: str | Path | None, overwrite: bool) -> None:
    """Raise UserError unless a run can be put there.

    Only a run, finished or interrupted, or an empty folder is ever overwritten; never a run in
    which a process trains.
    """
    if path is None:
        return
    path = Path(path)
    if (path / CONFIG).exists() and (user := lock.holder(path)):
        raise UserError(f"{path} is in use: {user} trains in it", "out")
    try:
        check_free(path, STARTED, more=ALL, overwrite=overwrite)
    except UserError as error:
        if not overwrite and is_interrupted(path):
            raise UserError(
                f"{path} is a run that was interrupted; resume it (--resume), overwrite it "
                "(--overwrite), or choose another",
                "out",
            ) from error
        raise


def is_interrupted(path: Path) -> bool:
    """Whether a folder is a run that was begun and neither finished nor goes on."""
    begun = all((path / name).is_file() for name in STARTED)
    return begun and not (path / METRICS).exists() and lock.holder(path) is None


def write_model(run: Path, config: Mapping[str, Any], model: "nn.Module") -> None:
    """Write a model: what rebuilds it, and its weights.

    Raises:
        UserError: it cannot be written.
    """
    from peephole.tensors import chunks

    _write(run / MODEL_CONFIG, dumped(config))
    _write(run / WEIGHTS, chunks(model.state_dict()))


def write_metrics(run: Path, metrics: Mapping[str, float]) -> None:
    """Write the final figures. With them a run is finished.

    Raises:
        UserError: they cannot be written.
    """
    _write(run / METRICS, dumped(plain(metrics)))


def folder(run: Path, name: str) -> Path:
    """A folder of a run, made where it is missing.

    Raises:
        UserError: something else is there, or it cannot be made.
    """
    path = run / name
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {path}: {error.strerror}") from error
    if path.is_symlink():
        raise UserError(f"{path} is a link; it must be a plain folder")
    return path


def _write(path: Path, parts: bytes | Iterable[Part]) -> None:
    try:
        write_atomically(path, parts)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def dumped(data: object) -> bytes:
    """JSON to be read by people too."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file's name may be no text; what cannot be encoded becomes JSON's own escape.
    return text.encode(errors="backslashreplace")
