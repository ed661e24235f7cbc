"""Recurrent layers as modules."""

from peephole.nn.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
