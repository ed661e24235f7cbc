"""Training."""

from peephole.train.loop import Diverged, Event, Fit, Settings, fit

__all__ = ["Diverged", "Event", "Fit", "Settings", "fit"]
