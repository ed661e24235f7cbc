"""Recurrent layers and cells as modules."""

from peephole.nn.exchange import from_torch
from peephole.nn.gru import GRU, GRUCell
from peephole.nn.layer import Layer
from peephole.nn.lstm import LSTM, LSTMCell
from peephole.nn.pretrained import load
from peephole.nn.recurrent import Recurrent
from peephole.nn.rnn import RNN, RNNCell
from peephole.nn.steps import Steps

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Layer",
    "RNNCell",
    "Recurrent",
    "Steps",
    "from_torch",
    "load",
]
