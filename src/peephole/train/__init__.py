"""Training."""

from peephole.train.engine import Engine
from peephole.train.loop import Diverged, Fit, Progress, fit
from peephole.train.settings import Settings
from peephole.train.training import Event, Position

__all__ = ["Diverged", "Engine", "Event", "Fit", "Position", "Progress", "Settings", "fit"]
