"""A run folder that comes into being when it is finished, whole or not at all."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peephole.folders import made_whole, write_atomically
from peephole.run import config as configs
from peephole.run import writing
from peephole.run.events import Events
from peephole.run.names import ALL, CONFIG, EVENTS, FIGURES

if TYPE_CHECKING:
    from torch import nn


class Draft:
    """A run folder in the making, beside its place and hidden; see ``create``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def figures(self) -> Path:
        return self.path / FIGURES

    def event(self, event: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        events = Events(self.path)
        events.append(event)
        events.close()

    def finish(
        self,
        config: Mapping[str, Any],
        metrics: Mapping[str, float],
        model_config: Mapping[str, Any],
        model: "nn.Module",
    ) -> None:
        """Write everything but the events, the figures and the report."""
        write_atomically(self.path / CONFIG, configs.text(_hyphens(config)).encode())
        writing.write_model(self.path, model_config, model)
        writing.write_metrics(self.path, metrics)
        (self.path / EVENTS).touch()


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
    target = writing.fresh(name) if path is None else Path(path)
    files = writing.expected(target)
    with made_whole(target, files, more=ALL, overwrite=overwrite) as hidden:
        yield Draft(hidden), target


def _hyphens(value: Any) -> Any:
    """Names of settings as they are typed; what they hold stays as it is."""
    if isinstance(value, Mapping):
        return {key.replace("_", "-"): _hyphens(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
