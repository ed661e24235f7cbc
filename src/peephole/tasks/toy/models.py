"""The models of the toy's published table, with their settings."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peephole.nn import GRU, LSTM, RNN
from peephole.ragged import Ragged


class Mlp(nn.Module):
    """A sequence of a fixed number of steps as one vector, through sigmoid layers."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        # Looking modules and parameters up takes as long as the arithmetic of such a network.
        self.weights = [(layer.weight, layer.bias) for layer in layers]
        self.steps = sizes[0]

    def forward(self, input: Ragged) -> Tensor:
        """One prediction a sequence, ``[B, 1]``."""
        first, *others = self.weights
        x = F.linear(input.values.view(-1, self.steps), *first)
        for weight, bias in others:
            x = F.linear(torch.sigmoid(x), weight, bias)
        return x


class Terminal(nn.Module):
    """Each sequence's last state, read by one linear unit."""

    def __init__(self, layer: LSTM | GRU | RNN) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.output_size, 1)

    def forward(self, input: Ragged) -> Tensor:
        """One prediction a sequence, ``[B, 1]``."""
        _, state = self.layer(input)
        h_n = state[0] if isinstance(state, tuple) else state
        output: Tensor = self.head(h_n.squeeze(0))
        return output


class EveryStep(nn.Module):
    """The output at each step, read by one linear unit that all steps share."""

    def __init__(self, layer: LSTM | GRU | RNN) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.output_size, 1)

    def forward(self, input: Ragged) -> Tensor:
        """One prediction a step, ``[N, 1]``."""
        output, _ = self.layer(input)
        prediction: Tensor = self.head(output.values)
        return prediction


@dataclass(frozen=True)
class Published:
    """What the original reported.

    Attributes:
        test_mse: on noisy test data.
        train_mse: on training data, where its logs hold no test error.
        grid_mse: on the noise-free grid.
    """

    test_mse: float | None = None
    train_mse: float | None = None
    grid_mse: float | None = None


@dataclass(frozen=True)
class Model:
    """A row of the table: an architecture and how it is trained, by plain SGD.

    Attributes:
        name: as in the table.
        data: the data set, by name.
        architecture: in words.
        build: makes it.
        parameters: how many numbers it learns.
        batch_size: sequences an update.
        rate: learning rate.
        epochs: at full size.
        quick_epochs: on the smaller data of ``--quick``.
        cost: about how long an update takes, against one of mlp-1; the costliest trainings are
            begun first.
        uniform: initial weights are drawn from U(-uniform, uniform); None for the layers' own.
        reverse: whether the inputs are read from the last to the first.
        evaluations: on the test data, in each epoch.
        published: the original's figures.
    """

    name: str
    data: str
    architecture: str
    build: Callable[[], nn.Module]
    parameters: int
    batch_size: int
    rate: float
    epochs: int
    quick_epochs: int
    cost: float
    uniform: float | None
    reverse: bool = False
    evaluations: int = 10
    published: Published = Published()

    def make(self) -> nn.Module:
        """The model with its initial weights, drawn from torch's global generator."""
        model = self.build()
        if self.uniform is not None:
            for parameter in model.parameters():
                nn.init.uniform_(parameter, -self.uniform, self.uniform)
        return model


def _rnn() -> nn.Module:
    model = Terminal(RNN(1, 26, single_bias=True))
    # The original is one linear map of input and state together, with that map's default.
    bound = 27**-0.5
    for parameter in model.layer.parameters():
        nn.init.uniform_(parameter, -bound, bound)
    return model


def _lstm() -> nn.Module:
    return Terminal(LSTM(1, 16, peephole="full"))


def _gru() -> nn.Module:
    return Terminal(GRU(1, 16))


def _bilstm() -> nn.Module:
    return EveryStep(LSTM(1, 16, bidirectional=True, peephole="full"))


# Of the two models whose speeds are compared: the lstm's error falls within a quarter of an epoch.
CLAIM_EVALUATIONS = 20

_LSTM = "LSTM, 16 units, full peepholes, a bias on each of its 11 linear maps"

MODELS = {
    model.name: model
    for model in (
        Model(
            name="mlp-1",
            data="fixed",
            architecture="3 – 152 sigmoid – 1",
            build=lambda: Mlp(3, 152, 1),
            parameters=761,
            batch_size=20,
            rate=0.05,
            epochs=50,
            quick_epochs=5,
            cost=1,
            uniform=0.1,
            published=Published(test_mse=0.608, grid_mse=0.208),
        ),
        Model(
            name="mlp-1-fail",
            data="fixed",
            architecture="3 – 152 sigmoid – 1",
            build=lambda: Mlp(3, 152, 1),
            parameters=761,
            batch_size=20,
            rate=0.06,
            epochs=50,
            quick_epochs=5,
            cost=1,
            uniform=0.1,
        ),
        Model(
            name="mlp-2",
            data="fixed",
            architecture="3 – 30 – 20 sigmoid – 1",
            build=lambda: Mlp(3, 30, 20, 1),
            parameters=761,
            batch_size=20,
            rate=0.05,
            epochs=50,
            quick_epochs=5,
            cost=1.1,
            uniform=0.1,
            published=Published(test_mse=0.0471, grid_mse=0.00140),
        ),
        Model(
            name="rnn",
            data="fixed",
            architecture="RNN, 26 tanh units, one bias, last state to 1",
            build=_rnn,
            parameters=755,
            batch_size=20,
            rate=0.02,
            epochs=30,
            quick_epochs=6,
            cost=1.5,
            uniform=None,
            evaluations=CLAIM_EVALUATIONS,
            published=Published(test_mse=0.0757, grid_mse=0.0141),
        ),
        Model(
            name="lstm",
            data="fixed",
            architecture=_LSTM,
            build=_lstm,
            parameters=2049,
            batch_size=32,
            rate=0.20,
            epochs=5,
            quick_epochs=5,
            cost=1.9,
            uniform=0.02,
            evaluations=CLAIM_EVALUATIONS,
            published=Published(train_mse=0.0739, grid_mse=0.0157),
        ),
        Model(
            name="lstm-variable",
            data="variable",
            architecture=_LSTM,
            build=_lstm,
            parameters=2049,
            batch_size=16,
            rate=0.10,
            epochs=12,
            quick_epochs=3,
            cost=1.6,
            uniform=0.02,
            published=Published(train_mse=0.0478, grid_mse=0.00285),
        ),
        Model(
            name="lstm-reversed",
            data="variable",
            architecture=_LSTM + ", inputs reversed",
            build=_lstm,
            parameters=2049,
            batch_size=16,
            rate=0.10,
            epochs=5,
            quick_epochs=3,
            cost=1.6,
            uniform=0.02,
            reverse=True,
        ),
        Model(
            name="gru-variable",
            data="variable",
            architecture="GRU, 16 units",
            build=_gru,
            parameters=929,
            batch_size=16,
            rate=0.10,
            epochs=12,
            quick_epochs=3,
            cost=1.5,
            uniform=0.02,
        ),
        Model(
            name="bilstm-direct",
            data="direct",
            architecture="two LSTMs of 16, full peepholes; one linear map of both at every step",
            build=_bilstm,
            parameters=4097,
            batch_size=16,
            rate=0.10,
            epochs=2,
            quick_epochs=2,
            cost=3.2,
            uniform=0.02,
        ),
    )
}
