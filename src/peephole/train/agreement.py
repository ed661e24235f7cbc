"""What the processes of a job agree on, so that all of them do the same next."""

import signal
from typing import NamedTuple

from peephole.train.engine import Engine


class Agreed(NamedTuple):
    """What all processes know after an update.

    Attributes:
        total: the loss, summed over its targets.
        targets: how many.
        stop: the signal by which to stop, if one came to any of them; else 0.
        save: whether it is time for a checkpoint.
    """

    total: float
    targets: int
    stop: int
    save: bool

    @classmethod
    def of(
        cls, engine: Engine, total: float, targets: int, signal_here: int, due: bool
    ) -> "Agreed":
        if engine.world == 1:
            return cls(total, targets, signal_here, due)
        numbers = (
            total,
            targets,
            signal_here == signal.SIGTERM,
            signal_here == signal.SIGINT,
            due and engine.rank == 0,
        )
        total, count, term, interrupt, save = engine.sums(numbers)
        stop = signal.SIGTERM if term else signal.SIGINT if interrupt else 0
        return cls(total, int(count), int(stop), bool(save))
