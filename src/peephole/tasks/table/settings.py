"""What a person can choose about a model of their table."""

from dataclasses import dataclass
from typing import Literal

from peephole.data.missing import Missing

Cell = Literal["lstm", "gru", "rnn"]
Peephole = Literal["diagonal", "full"]
Readout = Literal["last", "mean", "max"]


@dataclass(frozen=True)
class ModelSettings:
    """The network.

    Attributes:
        cell: lstm, gru or rnn (tanh).
        hidden_size: hidden units in each layer and direction.
        layers: recurrent layers, one on top of the other.
        peephole: None, diagonal or full: how the gates of an lstm look into its cell.
        bidirectional: whether each layer also runs from the last step to the first; None for
            wherever the whole sequence is known: not in forecasting or in a single series.
        readout: what a target of a whole sequence is read from: the last state of each direction,
            or each unit's mean or largest output over the steps. Without effect for a target at
            each step.
        dropout: share of the units dropped in training, between layers and before the output.
    """

    cell: Cell = "lstm"
    hidden_size: int = 64
    layers: int = 1
    peephole: Peephole | None = None
    bidirectional: bool | None = None
    readout: Readout = "max"
    dropout: float = 0.3


@dataclass(frozen=True)
class DataSettings:
    """The columns, and what to make of them.

    Attributes:
        target: the column to predict.
        sequence: the column with each sequence's id; None for one series in the order of time.
        order: the column that orders a sequence's steps; None for the file's order.
        features: the columns to predict from; None for all others that vary.
        task: classify or regress; None to tell by the target.
        target_per: whether the target is one a sequence or one a step; "auto" to tell by whether
            it varies within sequences.
        ahead: forecast the target so many steps later, at every step.
        missing: what to do about missing and infinite features: stop with an error, take the
            sequence's last value before it, or the training mean.
    """

    target: str
    sequence: str | None = None
    order: str | None = None
    features: tuple[str, ...] | None = None
    task: Literal["classify", "regress"] | None = None
    target_per: Literal["auto", "sequence", "step"] = "auto"
    ahead: int | None = None
    missing: Missing = "error"
