"""Training."""

from peephole.train.interrupts import Interrupted
from peephole.train.loop import Diverged, Fit, Progress, fit
from peephole.train.settings import Settings
from peephole.train.training import Event, Position

__all__ = ["Diverged", "Event", "Fit", "Interrupted", "Position", "Progress", "Settings", "fit"]
