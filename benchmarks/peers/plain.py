"""A character model as most people write it: on torch.nn.LSTM, over dense windows."""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from peephole import Ragged
from peephole.tasks.protocol import Batching
from peephole.tasks.text.model import State, TextModel
from peephole.tasks.text.settings import Network
from peephole.tasks.text.task import TextTask, Window

Weight = TypeVar("Weight", bound=Tensor)

STREAMS, WINDOW = 32, 128
RATE, CLIP = 2e-3, 1.0


class Plain(TextModel):
    """``TextModel`` with all its layers in one ``torch.nn.LSTM``.

    Weights begin as torch.nn's modules draw them, but tied embeddings as ``TextModel``'s.

    Args:
        size: of the alphabet, A.
        network: an lstm without any option of ours.

    Raises:
        ValueError: it has one.
    """

    def __init__(self, size: int, network: Network) -> None:
        super().__init__(size, network)
        form = (network.hidden_size, network.layers, network.embedding_size, network.tied)
        if network != Network("lstm", *form):
            raise ValueError(f"torch.nn.LSTM cannot compute {network}")
        # Ours are not to be among the parameters.
        self.layers = nn.ModuleList()
        self.lstm = nn.LSTM(network.embedding_size, network.hidden_size, network.layers)
        if not network.tied:
            head = nn.Linear(network.hidden_size, size)
            self.output, self.output_bias = head.parameters()

    def dense(
        self, inputs: Int64[Tensor, "W S"], state: State | None = None
    ) -> tuple[Float[Tensor, "W S A"], State]:
        """Run over S streams, each as far as the others, time first: as torch.nn has it fastest.

        Args:
            inputs: for each step the id of the character before the one that is predicted.
            state: h and c of each stream at its beginning; zeros if None.

        Returns:
            The logits, and the state of each stream at its end.
        """
        x = F.embedding(inputs, self.inputs)
        hidden, state = self.lstm(x, state)
        return F.linear(hidden, self.output_weight, self.output_bias), state

    def forward(
        self,
        inputs: Int64[Tensor, "N"],
        offsets: Int64[Tensor, "P_plus_1"],
        state: State | None = None,
    ) -> tuple[Float[Tensor, "N A"], State]:
        """What ``TextModel`` takes and gives, so that both are scored by the same code."""
        packed = Ragged(F.embedding(inputs, self.inputs), offsets).to_packed()
        hidden, state = self.lstm(packed, state)
        values = Ragged.from_packed(hidden).values
        return F.linear(values, self.output_weight, self.output_bias), state

    def load_ours(self, model: TextModel) -> None:
        """Take the weights of a ``TextModel`` of the same form."""
        self.load_state_dict(renamed(model.state_dict()))


def renamed(ours: Mapping[str, Weight]) -> dict[str, Weight]:
    """What is there for each weight of a ``TextModel``, by ``Plain``'s names."""
    return {re.sub(r"^layers\.(\d+)\.(\w+)_l0$", r"lstm.\2_l\1", n): w for n, w in ours.items()}


class Dense(NamedTuple):
    """What streams read in an update: ``[W, S]``, time first."""

    inputs: Int64[Tensor, "W S"]
    targets: Int64[Tensor, "W S"]


def dense(window: Window) -> Dense:
    """The same steps; every stream must have as many."""
    streams = window.streams
    return Dense(*(x.view(streams, -1).t().contiguous() for x in (window.inputs, window.targets)))


def dense_loss(model: Plain, batch: Dense, state: State | None) -> tuple[Tensor, State]:
    """Nats a character, and the state that the next window begins from."""
    logits, state = model.dense(batch.inputs, state)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    return loss, tuple(s.detach() for s in state)


class Trained(NamedTuple):
    """A model that was trained for some time.

    Attributes:
        model: in evaluation mode.
        updates: how many there were.
        characters: how many it read.
    """

    model: Plain
    updates: int
    characters: int


def train_for(
    task: TextTask,
    seconds: float,
    *,
    seed: int,
    clock: Callable[[], float] = time.monotonic,
    on_share: Callable[[float], None] = lambda share: None,
) -> Trained:
    """Train as most people would, for some wall time: Adam, its rate falling to 0 along a cosine.

    Documents stand one after the other in an order drawn anew each epoch, each begun by the id
    that stands for nothing known. Streams carry their state through all of them: a dense window
    cannot begin anew in its middle.

    Args:
        task: the text, the network and the window.
        seconds: above 0.
        seed: of weights and order.
        clock: gives seconds; for tests.
        on_share: takes, before each update, the share of the time that is over.
    """
    torch.manual_seed(seed)
    model = Plain(task.corpus.alphabet.size, task.network)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    updates = characters = 0
    state: Any = None
    begin = clock()
    for batch, is_first in _windows(task, seed):
        share = (clock() - begin) / seconds
        if share >= 1:
            break
        on_share(share)
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * share))
        optimizer.zero_grad()
        loss, state = dense_loss(model, batch, None if is_first else state)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        updates += 1
        characters += batch.inputs.numel()
    return Trained(model.eval(), updates, characters)


def _windows(task: TextTask, seed: int) -> Iterator[tuple[Dense, bool]]:
    """Window after window, without end, and whether an epoch begins there."""
    plan = task.plan(Batching(STREAMS, None, 1, seed))
    for number in itertools.count():
        epoch = plan.epoch(number)
        shares = (epoch.share(k, 0, 1) for k in range(len(epoch)))
        for k, window in enumerate(task.batches(shares)):
            # The last one is not dense where some stretches are a step longer than others.
            if len(window.inputs) % window.streams == 0:
                yield dense(window), k == 0
