"""Recurrences as functions over a ragged batch. Their equations are in ``ops/reference``."""

from peephole.ops import reference
from peephole.ops.compiled import run_compiled
from peephole.ops.direction import (
    RECURRENCES,
    Found,
    Recurrence,
    choose,
    is_training,
    run,
    step,
)
from peephole.ops.dispatch import BACKENDS, FEW, cpu_cannot, in_transform, torch_cannot
from peephole.ops.gru import gru
from peephole.ops.lstm import lstm
from peephole.ops.reference.scan import scan
from peephole.ops.rnn import rnn

__all__ = [
    "BACKENDS",
    "FEW",
    "RECURRENCES",
    "Found",
    "Recurrence",
    "choose",
    "cpu_cannot",
    "gru",
    "in_transform",
    "is_training",
    "lstm",
    "reference",
    "rnn",
    "run",
    "run_compiled",
    "scan",
    "step",
    "torch_cannot",
]
