"""The recurrences as their equations: plain PyTorch, any dtype and device, any derivative."""

from peephole.ops.reference.gru import gru
from peephole.ops.reference.lstm import lstm
from peephole.ops.reference.rnn import rnn

__all__ = ["gru", "lstm", "rnn"]
