"""The run folder: how a model was trained, what it scored, and the model.

A folder holds from its start ``config.yaml`` (every setting, names with hyphens) and ``run.json``
(what it is and when it began); as it goes on ``metrics.jsonl`` (a line an event),
``checkpoints/`` (what resuming needs) and, if they are asked for, ``tensorboard/`` and
``profile/``; at its end ``model/config.json`` and ``model/model.safetensors``, ``figures/`` and
``report.html``, and last ``metrics.json`` (flat, the final figures), with which it is finished.
While a process trains in it, it is locked.

It may come from a stranger: it is read as data, and nothing in it is unpickled, imported by name
or followed out of it. Nothing here loads torch before there are weights to read or write.
"""

from peephole.run.about import About
from peephole.run.board import Board
from peephole.run.config import read as read_config
from peephole.run.finished import Run, State, state
from peephole.run.live import LiveRun, resume, start
from peephole.run.names import FILES
from peephole.run.writing import check_out, is_interrupted

__all__ = [
    "FILES",
    "About",
    "Board",
    "LiveRun",
    "Run",
    "State",
    "check_out",
    "is_interrupted",
    "read_config",
    "resume",
    "start",
    "state",
]
