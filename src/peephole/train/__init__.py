"""Training."""

from peephole.train.engine import Engine
from peephole.train.loop import fit
from peephole.train.outcome import Diverged, Fit, Journal, Progress
from peephole.train.settings import Settings
from peephole.train.training import Event, Position

__all__ = [
    "Diverged",
    "Engine",
    "Event",
    "Fit",
    "Journal",
    "Position",
    "Progress",
    "Settings",
    "fit",
]
