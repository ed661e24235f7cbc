"""A finished run folder, to read."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peephole import untrusted
from peephole.errors import UserError
from peephole.folders import lacking
from peephole.run import config, events, lock
from peephole.run.names import (
    ABOUT,
    FILES,
    MAX_TEXT_BYTES,
    MAX_WEIGHT_BYTES,
    METRICS,
    MODEL_CONFIG,
    WEIGHTS,
)
from peephole.untrusted import shown

if TYPE_CHECKING:
    from torch import nn

State = Literal["finished", "running", "interrupted"]


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
            UserError: no such folder, not a run, not finished, or a file in it that is missing or
                damaged.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"there is no run {path}")
        if missing := lacking(path, FILES):
            if METRICS in missing and (path / ABOUT).is_file():
                now = state(path)
                what = "is still running" if now == "running" else "was interrupted; resume it"
                raise UserError(f"{path} is not finished: it {what}")
            raise UserError(f"{path} is not a run folder: it lacks {', '.join(missing)}")
        return cls(path, config.load(path), read_metrics(path), _object(path, MODEL_CONFIG))

    def events(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return [events.parsed(self.path, line) for line in events.lines(self.path)]

    def load_weights(self, model: "nn.Module") -> None:
        """Put the run's weights into a model built from its config.

        The model may be on torch's meta device, so that nothing is allocated for what a
        stranger's settings ask for before the weights are known to fit; its parameters become
        the file's tensors.

        Raises:
            UserError: the file is damaged, or holds other names, shapes or types than the model.
        """
        from peephole import tensors

        wanted = {name: tensors.Form.of(tensor) for name, tensor in model.state_dict().items()}
        with untrusted.opened(self.path, WEIGHTS, MAX_WEIGHT_BYTES):
            weights = tensors.load(self.path / WEIGHTS, wanted, "the model's settings")
        model.load_state_dict(weights, assign=True)


def state(run: Path) -> State:
    """Whether a run is finished, running in some process, or interrupted."""
    if (run / METRICS).exists():
        return "finished"
    return "interrupted" if lock.holder(run) is None else "running"


def read_metrics(run: Path) -> dict[str, float]:
    """The final figures of a run, each a finite number.

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    metrics = _object(run, METRICS)
    for name, value in metrics.items():
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise UserError(f"{run / METRICS}: {shown(name)} is {shown(value)}, not a number")
    return metrics


def _object(run: Path, name: str) -> dict[str, Any]:
    where = run / name
    data = untrusted.parsed(untrusted.text(run, name, MAX_TEXT_BYTES), where)
    if not isinstance(data, dict):
        raise UserError(f"{where} must hold names and values, got {shown(data)}")
    return data
