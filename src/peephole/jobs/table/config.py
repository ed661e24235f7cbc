"""The settings of a run on a table, as its ``config.yaml`` holds them."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from peephole.data.frames import name_of
from peephole.data.missing import Missing
from peephole.jobs.table.prepare import Prepared
from peephole.jobs.table.settings import TrainSettings
from peephole.tasks.table.settings import DataSettings, ModelSettings
from peephole.train import Settings


@dataclass(frozen=True)
class Config:
    """Every setting, with what the data told filled in.

    Attributes:
        file: what the training data were called; never followed when a run is resumed.
        valid: likewise.
        test: likewise.
        model: the network.
        train: how it is trained.
        seed: of all that is random.
        cache: where converted tables were kept.

    The others are those of ``DataSettings``.
    """

    file: str
    target: str
    sequence: str | None
    order: str | None
    features: tuple[str, ...] | None
    task: Literal["classify", "regress"] | None
    target_per: Literal["auto", "sequence", "step"]
    ahead: int | None
    missing: Missing
    valid: str | None
    test: str | None
    model: ModelSettings
    train: TrainSettings
    seed: int
    cache: str | None

    @property
    def data(self) -> DataSettings:
        return DataSettings(**{f.name: getattr(self, f.name) for f in fields(DataSettings)})


def of(
    prepared: Prepared,
    training: TrainSettings,
    loop: Settings,
    *,
    file: Any,
    valid: Any,
    test: Any,
    cache: Any,
) -> Config:
    """The settings of a run that begins.

    Args:
        prepared: its data.
        training: a person's settings.
        loop: what they became.
        file: as ``valid``, ``test`` and ``cache``: what a person gave.
    """
    resolved = {"batch_size": loop.batch_size, "epochs": loop.epochs}
    return Config(
        file=name_of(file),
        **asdict(prepared.data),
        valid=None if valid is None else name_of(valid),
        test=None if test is None else name_of(test),
        model=prepared.task.settings,
        train=TrainSettings(**(asdict(training) | resolved)),
        seed=loop.seed,
        cache=None if cache is None else str(cache),
    )
