"""The network: characters embedded, recurrent layers, an output for each character."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from peephole.nn import GRU, LSTM, RNN
from peephole.ragged import Ragged
from peephole.tasks.text.settings import Network

FORGET_BIAS = 1.0

# For each of the cell's states, h and for the lstm c: [L, P, H].
State = tuple[Float[Tensor, "L P H"], ...]


class TextModel(nn.Module):
    """Predicts each character from those before it.

    Args:
        size: of the alphabet, A. One more embedding, of id A, stands where nothing is known of
            what came before.
        network: checked.
    """

    def __init__(self, size: int, network: Network) -> None:
        super().__init__()
        self.size, self.network = size, network
        self.embedding = nn.Embedding(size + 1, network.embedding_size)
        widths = [network.embedding_size] + [network.hidden_size] * network.layers
        self.layers = nn.ModuleList(_layer(width, network) for width in widths[:-1])
        normalized = network.layers if network.layer_norm == "output" else 0
        self.norms = nn.ModuleList(nn.LayerNorm(network.hidden_size) for _ in range(normalized))
        self.output_bias = nn.Parameter(torch.zeros(size))
        self.output = None if network.tied else nn.Parameter(torch.empty(size, network.hidden_size))
        # As an input a number is to be about 1, as an output's weight much less: an embedding
        # that is both is scaled where it goes in (Vaswani et al. 2017, section 3.4).
        self.scale = network.embedding_size**0.5 if network.tied else 1.0
        with torch.no_grad():
            self.embedding.weight.normal_(0, 1 / self.scale)
            if self.output is not None:
                self.output.normal_(0, network.hidden_size**-0.5)

    @property
    def inputs(self) -> Float[Tensor, "A_plus_1 E"]:
        """What goes into the first layer, for each id."""
        weight = self.embedding.weight
        return weight if self.scale == 1 else weight * self.scale

    @property
    def start(self) -> int:
        """The id that stands where nothing is known of what came before."""
        return self.size

    @property
    def output_weight(self) -> Float[Tensor, "A H"]:
        return self.embedding.weight[: self.size] if self.output is None else self.output

    def initial_state(self, sequences: int) -> State:
        """Zeros."""
        H = self.network.hidden_size
        zeros = self.output_bias.new_zeros(self.network.layers, sequences, H)
        return (zeros,) * self.network.states

    def forward(
        self,
        inputs: Int64[Tensor, "N"],
        offsets: Int64[Tensor, "P_plus_1"],
        state: State | None = None,
    ) -> tuple[Float[Tensor, "N A"], State]:
        """Run over P sequences.

        Args:
            inputs: for each step the id of the character before the one that is predicted.
            offsets: where the sequences begin.
            state: of each sequence at its beginning; zeros if None.

        Returns:
            The logits, and the state of each sequence at its end.
        """
        ragged = Ragged(inputs, offsets)
        if state is None:
            state = self.initial_state(len(offsets) - 1)
        ends = []
        for k, layer in enumerate(self.layers):
            before = tuple(s[k : k + 1] for s in state)
            told = {} if k else {"embedding": self.inputs}
            ragged, end = layer(ragged, before if len(before) > 1 else before[0], **told)
            ends.append(end if isinstance(end, tuple) else (end,))
            values = self.norms[k](ragged.values) if self.norms else ragged.values
            ragged = ragged.with_values(self._dropped(values))
        logits = F.linear(ragged.values, self.output_weight, self.output_bias)
        return logits, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.network.dropout, self.training)


def _layer(width: int, network: Network) -> LSTM | GRU | RNN:
    options: dict[str, Any] = {
        "recurrent_dropout": network.recurrent_dropout,
        "layer_norm": network.layer_norm == "gates",
    }
    if network.cell == "gru":
        return GRU(width, network.hidden_size, **options)
    if network.cell == "rnn":
        return RNN(width, network.hidden_size, **options)
    return LSTM(
        width,
        network.hidden_size,
        peephole=network.peephole,
        forget_bias=FORGET_BIAS,
        **options,
    )
