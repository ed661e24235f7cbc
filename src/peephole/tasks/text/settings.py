"""What a language model of characters is made of."""

from dataclasses import dataclass
from typing import Literal

from peephole.errors import UserError

Cell = Literal["lstm", "gru", "rnn"]
Peephole = Literal["diagonal", "full"]
LayerNorm = Literal["none", "output", "gates"]

MAX_UNITS = 16_384
MAX_LAYERS = 64


@dataclass(frozen=True)
class Network:
    """The network.

    Attributes:
        cell: lstm, gru or rnn (tanh).
        hidden_size: hidden units in each layer.
        layers: recurrent layers, one on top of the other.
        embedding_size: how many numbers stand for a character.
        tied: whether a character's embedding is also its row of the output matrix (Press & Wolf
            2017). Embedding and hidden size must be the same.
        peephole: None, diagonal or full: how the gates of an lstm look into its cell.
        layer_norm: where numbers are normalized (Ba et al. 2016): "output", what each layer gives
            to the next; "gates", within each step, which the compiled kernels do not have; "none".
        dropout: share of the numbers dropped in training, between layers and before the output.
        recurrent_dropout: share of the units that the gates do not see while training, the same
            over a window (Gal & Ghahramani 2016).
    """

    cell: Cell = "lstm"
    hidden_size: int = 256
    layers: int = 2
    embedding_size: int = 256
    tied: bool = True
    peephole: Peephole | None = None
    layer_norm: LayerNorm = "none"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0

    @property
    def states(self) -> int:
        """How many tensors the state of a layer is: h, and the lstm's c."""
        return 2 if self.cell == "lstm" else 1


def check(network: Network) -> None:
    """Raise UserError where an option is out of range or contradicts another."""
    for name, value, low, high in (
        ("hidden_size", network.hidden_size, 1, MAX_UNITS),
        ("layers", network.layers, 1, MAX_LAYERS),
        ("embedding_size", network.embedding_size, 1, MAX_UNITS),
        ("dropout", network.dropout, 0.0, 0.95),
        ("recurrent_dropout", network.recurrent_dropout, 0.0, 0.95),
    ):
        if not low <= value <= high:
            raise UserError(f"{value}; it must be from {low} to {high:,}", f"model.{name}")
    if network.tied and network.embedding_size != network.hidden_size:
        raise UserError(
            f"an embedding of {network.embedding_size} cannot be the output matrix of "
            f"{network.hidden_size} hidden units; make them the same, or do not tie them",
            "model.tied",
        )
    if network.cell != "lstm" and network.peephole is not None:
        raise UserError(
            f"only the lstm has peepholes, and the cell is {network.cell}", "model.peephole"
        )
