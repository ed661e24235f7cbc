"""The run folder: a trained model, how it was trained and what it scored.

A folder holds ``config.yaml`` (every setting, keys with hyphens), ``metrics.jsonl`` (a line an
event), ``metrics.json`` (flat, the final figures), ``model/config.json`` and
``model/model.safetensors``, ``figures/`` and ``report.html``. It may come from a stranger: it is
read as data, and nothing in it is unpickled, imported by name or followed out of it.
"""

import contextlib
import json
import math
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from peephole.errors import UserError
from peephole.folders import check_free, lacking, made_whole, write_atomically

CONFIG, METRICS, EVENTS = "config.yaml", "metrics.json", "metrics.jsonl"
MODEL_CONFIG, WEIGHTS = "model/config.json", "model/model.safetensors"
FILES = (CONFIG, METRICS, EVENTS, MODEL_CONFIG, WEIGHTS)

MAX_TEXT_BYTES = 1 << 26
MAX_WEIGHT_BYTES = 1 << 34


@dataclass(frozen=True)
class Run:
    """A finished run folder, read and checked.

    Attributes:
        path: the folder.
        config: the settings it was made with.
        metrics: the final figures by name.
        model_config: what the task needs to rebuild the model, as JSON. Its form is for the task
            to check.
    """

    path: Path
    config: dict[str, Any]
    metrics: dict[str, float]
    model_config: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Read a run folder.

        Raises:
            UserError: no such folder, not a run, or a file in it that is missing or damaged.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"there is no run {path}")
        if missing := lacking(path, FILES):
            raise UserError(f"{path} is not a run folder: it lacks {', '.join(missing)}")
        return cls(
            path,
            _object(path, CONFIG, _yaml(path)),
            _metrics(path),
            _object(path, MODEL_CONFIG, _json(path, MODEL_CONFIG)),
        )

    def events(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        lines = _text(self.path, EVENTS).splitlines()
        return [_object(self.path, EVENTS, _parsed(self.path, EVENTS, line)) for line in lines]

    def load_weights(self, model: nn.Module) -> None:
        """Put the run's weights into a model built from its config.

        The model may be on torch's meta device, so that nothing is allocated for what a
        stranger's settings ask for before the weights are known to fit; its parameters become
        the file's tensors.

        Raises:
            UserError: the file is damaged, or holds other names, shapes or types than the model.
        """
        file = _inside(self.path, WEIGHTS, MAX_WEIGHT_BYTES)
        _check_shapes(file, _shapes(file), model)
        try:
            weights = load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"cannot read {file}: {_one_line(error)}") from error
        _check_types(file, weights, model)
        model.load_state_dict(weights, assign=True)


class Draft:
    """A run folder in the making, beside its place and hidden; see ``create``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def event(self, event: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(event), ensure_ascii=False) + "\n")

    def finish(
        self,
        config: Mapping[str, Any],
        metrics: Mapping[str, float],
        model_config: Mapping[str, Any],
        model: nn.Module,
    ) -> None:
        """Write everything but the events, the figures and the report."""
        text = yaml.safe_dump(_hyphens(config), sort_keys=False, allow_unicode=True)
        write_atomically(self.path / CONFIG, text.encode())
        write_atomically(self.path / METRICS, _dumped(_plain(metrics)))
        write_atomically(self.path / MODEL_CONFIG, _dumped(model_config))
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        write_atomically(self.path / WEIGHTS, save(state))
        (self.path / EVENTS).touch()


def check_out(path: str | Path | None, overwrite: bool) -> None:
    """Raise UserError unless a run can be put there.

    Only a run folder or an empty folder is ever overwritten.
    """
    if path is not None:
        check_free(Path(path), FILES, overwrite=overwrite)


@contextlib.contextmanager
def create(
    path: str | Path | None, *, name: str = "run", overwrite: bool = False
) -> Iterator[tuple[Draft, Path]]:
    """Make a run folder, whole or not at all: see ``folders.made_whole``.

    Args:
        path: where; a new folder in ``runs/``, from ``name`` and the time, if None.
        name: what the run is of.
        overwrite: whether a run that is there may be replaced.

    Yields:
        The draft, and the path it will have.

    Raises:
        UserError: the path is taken.
    """
    target = _fresh(name) if path is None else Path(path)
    with made_whole(target, FILES, overwrite=overwrite) as hidden:
        yield Draft(hidden), target


def _fresh(name: str) -> Path:
    # Runs that are started side by side must not meet.
    return Path("runs", f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")


def _inside(run: Path, name: str, most: int) -> Path:
    """A file of the run, which no link leads out of, of at most so many bytes."""
    file = run / name
    if not file.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{file} leads out of the run folder")
    if not file.is_file():
        raise UserError(f"{run} is damaged: it lacks {name}")
    if (size := file.stat().st_size) > most:
        raise UserError(f"{file} has {size:,} bytes; at most {most:,} are read")
    return file


def _text(run: Path, name: str) -> str:
    file = _inside(run, name, MAX_TEXT_BYTES)
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"cannot read {file}: {_one_line(error)}") from error


def _yaml(run: Path) -> object:
    text = _text(run, CONFIG)
    # An alias can make a few bytes into gigabytes, and we never write one.
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError(f"{run / CONFIG} has an alias, which a run's settings never do")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{run / CONFIG} is not YAML: {_one_line(error)}") from error


def _json(run: Path, name: str) -> object:
    return _parsed(run, name, _text(run, name))


def _parsed(run: Path, name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{run / name} is not JSON: {_one_line(error)}") from error


def _object(run: Path, name: str, data: object) -> dict[str, Any]:
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{run / name} must hold names and values")
    return data


def _metrics(run: Path) -> dict[str, float]:
    metrics = _object(run, METRICS, _json(run, METRICS))
    for name, value in metrics.items():
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise UserError(f"{run / METRICS}: {name!r} is not a finite number")
    return metrics


def _shapes(file: Path) -> dict[str, list[int]]:
    """Names and shapes, which stand at the file's beginning, without the rest of it."""
    try:
        with safe_open(file, framework="pt") as stored:
            names = list(stored.keys())
            return {name: stored.get_slice(name).get_shape() for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {file}: {_one_line(error)}") from error


def _check_shapes(file: Path, shapes: Mapping[str, list[int]], model: nn.Module) -> None:
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ shapes.keys()):
        which = "lacks" if name in wanted else "has, and the model has not,"
        raise UserError(f"{file} does not fit the model's settings: it {which} {name!r}")
    for name, tensor in wanted.items():
        if list(tensor.shape) != shapes[name]:
            raise UserError(
                f"{file} does not fit the model's settings: {name!r} is {shapes[name]}, "
                f"not {list(tensor.shape)}"
            )


def _check_types(file: Path, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if weights[name].dtype != tensor.dtype:
            raise UserError(
                f"{file} does not fit the model's settings: {name!r} is {weights[name].dtype}, "
                f"not {tensor.dtype}"
            )


def _plain(event: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they become null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in event.items()
    }


def _dumped(data: object) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _hyphens(value: Any) -> Any:
    """Names of settings as they are typed; what they hold stays as it is."""
    if isinstance(value, Mapping):
        return {key.replace("_", "-"): _hyphens(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
