"""Recurrences as functions over a ragged batch. Their equations are in ``ops/reference``."""

from peephole.ops.gru import gru
from peephole.ops.lstm import lstm
from peephole.ops.rnn import rnn

__all__ = ["gru", "lstm", "rnn"]
