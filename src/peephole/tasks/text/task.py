"""A text as a task of the training loop."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from peephole.data.corpus import Corpus
from peephole.data.streams import Pieces, Streams
from peephole.tasks.protocol import Batching, Loss, Plan
from peephole.tasks.protocol import State as Carried
from peephole.tasks.text import scoring
from peephole.tasks.text.model import State, TextModel
from peephole.tasks.text.sampling import Choice, written
from peephole.tasks.text.settings import Network

# How many characters are scored at an evaluation while a model trains.
SCORED = 65_536
# How many it writes then.
SAMPLE = 200


class Window(NamedTuple):
    """What a process's streams read in one update.

    Attributes:
        inputs: ``[N]``, for each step the id of the character before.
        targets: ``[N]``, the id of the character.
        offsets: ``[P + 1]``, where each piece begins.
        stream: ``[P]``, the number of each piece's stream among this process's.
        continues: ``[P]``, whether a piece begins from the state that its stream carries.
        carries: ``[P]``, whether its stream carries its last state.
        streams: how many streams the process has.
    """

    inputs: Int64[Tensor, "N"]
    targets: Int64[Tensor, "N"]
    offsets: Int64[Tensor, "P_plus_1"]
    stream: Int64[Tensor, "P"]
    continues: Bool[Tensor, "P"]
    carries: Bool[Tensor, "P"]
    streams: int


@dataclass
class TextTask:
    """A language model of a text, in parallel streams with the state carried over.

    A batch is the next window of every stream. The state goes from each window to the next, the
    gradient does not; where a document begins the state is zero.

    Attributes:
        corpus: the text.
        network: checked.
        window: steps in a window.
        on_sample: takes what the model writes, at each evaluation.
        monitor: nats a character of the held-out part.
    """

    corpus: Corpus
    network: Network
    window: int = 64
    on_sample: Callable[[str], None] | None = None
    monitor: str = "loss"
    goal: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        self.documents = np.flatnonzero(~self.corpus.held_out)
        held_out = np.flatnonzero(self.corpus.held_out)
        self.held_out = scoring.whole(self.corpus.bounds, held_out.tolist())

    @property
    def steps(self) -> int:
        """How many characters there are to train on."""
        return int(self.corpus.lengths[self.documents].sum())

    def model(self) -> TextModel:
        return TextModel(self.corpus.alphabet.size, self.network)

    def plan(self, batching: Batching) -> Plan:
        """At most so many streams that each has two windows."""
        streams = max(1, self.steps // (2 * self.window))
        if batching.size is not None:
            streams = min(streams, batching.size)
        if batching.steps is not None:
            streams = min(streams, max(1, batching.steps // self.window))
        lengths = self.corpus.lengths[self.documents]
        return Streams(lengths, streams=streams, window=self.window, seed=batching.seed)

    def batches(self, shares: Iterable[Pieces]) -> Iterator[Window]:
        for pieces in shares:
            inputs, targets = self._read(pieces)
            yield Window(
                torch.from_numpy(inputs),
                torch.from_numpy(targets),
                torch.from_numpy(np.concatenate([[0], pieces.lengths.cumsum()])),
                torch.from_numpy(pieces.stream - pieces.streams.start),
                torch.from_numpy(pieces.continues),
                torch.from_numpy(pieces.carries),
                len(pieces.streams),
            )

    def _read(self, pieces: Pieces) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
        """Inputs and targets."""
        bounds = np.concatenate([[0], pieces.lengths.cumsum()])
        inputs, targets = np.empty((2, bounds[-1]), dtype=np.int64)
        first = self.corpus.bounds[self.documents[pieces.document]]
        begins, ends = (first + pieces.begin).tolist(), (first + pieces.end).tolist()
        known = pieces.continues.tolist()
        for k, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            a, b = bounds[k], bounds[k + 1]
            ids = self.corpus.ids.read(begin - known[k], end)
            targets[a:b] = ids[int(known[k]) :]
            inputs[a] = ids[0] if known[k] else self.corpus.alphabet.size
            inputs[a + 1 : b] = targets[a : b - 1]
        return inputs, targets

    def loss(self, model: nn.Module, batch: Window, state: Carried) -> Loss:
        logits, final = model(batch.inputs, batch.offsets, self._initial(batch, state))
        total = F.cross_entropy(logits, batch.targets, reduction="sum")
        targets = len(batch.targets)
        return Loss(total, targets, self._carried(batch, final), targets)

    def _initial(self, batch: Window, state: Carried) -> State | None:
        """Each piece's initial state, as the model takes it."""
        if state is None:
            return None
        rows = [s[batch.stream] * batch.continues[:, None, None] for s in state]
        return tuple(s.transpose(0, 1).contiguous() for s in rows)

    def _carried(self, batch: Window, final: State) -> Carried:
        """The state of each stream, ``[S, L, H]``."""
        where = batch.stream[batch.carries]
        return tuple(
            s.new_zeros(batch.streams, s.shape[0], s.shape[2]).index_copy(
                0, where, s.detach().transpose(0, 1)[batch.carries]
            )
            for s in final
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Nats a character of the held-out part, or of much of it where it is long."""
        assert isinstance(model, TextModel)
        if self.on_sample is not None:
            self.on_sample(self.sample(model))
        stretches = scoring.spread(self.held_out, SCORED)
        return {"loss": scoring.static(model, self.corpus.ids, stretches).mean}

    def sample(self, model: TextModel) -> str:
        """The beginning of what the model writes, always by the same draws."""
        here = model if model.output_bias.is_cpu else copy.deepcopy(model).cpu()
        text = written(here, self.corpus.alphabet, length=SAMPLE, choice=Choice())
        return "".join(text)

    def names(self, share: Pieces) -> list[str]:
        unit = {"char": "characters", "byte": "bytes"}[self.corpus.alphabet.unit]
        documents = self.documents[share.document].tolist()
        return [
            f"{unit} {begin + 1:,} to {end:,} of {self.corpus.names[document]}"
            for document, begin, end in zip(documents, share.begin, share.end, strict=True)
        ]
