"""A person's table as a task of the training loop."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from peephole.data.batches import Batches
from peephole.data.sequences import Array, shown
from peephole.data.streams import Pieces, Streams
from peephole.ragged import Ragged
from peephole.tasks.protocol import Batching, Loss, Plan
from peephole.tasks.protocol import State as Carried
from peephole.tasks.table.metrics import Scores, score
from peephole.tasks.table.model import SequenceModel, State
from peephole.tasks.table.recipe import Examples, Loaded, Recipe
from peephole.tasks.table.settings import ModelSettings
from peephole.tasks.table.target import Classes

# Of the updates whose data are gathered at a time, about so many: what a call takes is mostly that
# others ran since the last one.
STEPS_GATHERED = 16_384
# Without gradients: sequences at a time, with so many steps at most, and steps of one series.
SEQUENCES_AT_ONCE = 256
STEPS_OF_SEQUENCES = 16_384
STEPS_AT_ONCE = 4096
# How far back a series is read before the part that is evaluated while training.
WARM_UP = 1000


@dataclass
class TableTask:
    """What sequences and one series have in common.

    Attributes:
        recipe: fitted to the training data.
        settings: of the model, resolved.
        train: the training data.
        valid: what the best model is chosen by.
        ids: of the training sequences, as a person knows them; None for a single series.
    """

    recipe: Recipe
    settings: ModelSettings
    train: Examples
    valid: Loaded
    ids: pa.Array | None = None
    monitor: str = "loss"
    goal: Literal["min", "max"] = "min"

    def model(self) -> SequenceModel:
        return SequenceModel(self.recipe, self.settings)

    @abstractmethod
    def plan(self, batching: Batching) -> Plan: ...

    @abstractmethod
    def batches(self, shares: Iterable[Any]) -> Iterator[Any]: ...

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, state: Carried) -> Loss: ...

    @abstractmethod
    def names(self, share: Any) -> list[str]: ...

    def _loss(self, outputs: Tensor, batch: Examples, state: Carried = None) -> Loss:
        scored = batch.scored
        total = total_loss(self.recipe, outputs[scored], batch.targets[scored])
        return Loss(total, int(scored.sum()), state, batch.numbers.values.shape[0])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The loss a target and the model's own metrics on the validation data."""
        assert isinstance(model, SequenceModel)
        valid = self.valid
        scored = valid.examples.scored
        outputs = run(model, valid.examples, self._first_step())
        loss = total_loss(self.recipe, outputs[scored], valid.examples.targets[scored])
        scores = score_outputs(self.recipe, outputs, valid)
        own = {k: v for k, v in scores.metrics.items() if "." not in k and k != "targets"}
        return {"loss": float(loss) / int(scored.sum()), **own}

    def _first_step(self) -> int:
        """Where reading the validation data begins."""
        return 0


@dataclass
class SequencesTask(TableTask):
    """Whole sequences in batches, in random order.

    Sequences without a target, too short to forecast, are left out.
    """

    def __post_init__(self) -> None:
        examples = self.train
        if examples.targets.shape[0] == len(examples.numbers):
            self.indices = examples.scored.nonzero().flatten()
        else:
            begins = examples.numbers.layout.bounds[:-1]
            some = np.logical_or.reduceat(examples.scored.numpy(), begins)
            self.indices = torch.from_numpy(some.nonzero()[0])
        self.lengths: Array = examples.numbers.layout.lengths[self.indices.numpy()]

    def plan(self, batching: Batching) -> Plan:
        return Batches(
            self.lengths,
            batch_size=batching.size,
            batch_steps=batching.steps,
            pool=batching.pool,
            seed=batching.seed,
        )

    def batches(self, shares: Iterable[Array]) -> Iterator[Examples]:
        """The sequences of several updates are gathered at once; a batch is a view of them."""
        for group in self._groups(shares):
            sequences = self.indices[torch.from_numpy(np.concatenate(group))]
            yield from self.train.take(sequences).split([len(share) for share in group])

    def _groups(self, shares: Iterable[Array]) -> Iterator[list[Array]]:
        group, steps = [], 0
        for share in shares:
            group.append(share)
            steps += int(self.lengths[share].sum())
            if steps >= STEPS_GATHERED:
                yield group
                group, steps = [], 0
        if group:
            yield group

    def loss(self, model: nn.Module, batch: Examples, state: Carried) -> Loss:
        return self._loss(model(batch)[0], batch)

    def names(self, share: Array) -> list[str]:
        numbers = self.indices[torch.from_numpy(share)].tolist()
        ids = numbers if self.ids is None else self.ids.take(pa.array(numbers)).to_pylist()
        return [f"sequence {shown(name)}" for name in ids]


class Window(NamedTuple):
    """What a process's streams read in one update.

    Attributes:
        examples: P pieces, each a sequence.
        stream: ``[P]``, the number of each piece's stream among this process's.
        continues: ``[P]``, whether a piece begins from the state that its stream carries.
        carries: ``[P]``, whether its stream carries its last state.
        streams: how many streams the process has.
    """

    examples: Examples
    stream: Tensor
    continues: Tensor
    carries: Tensor
    streams: int


@dataclass
class SeriesTask(TableTask):
    """One series, cut into streams that are read side by side, a window at a time.

    A batch is the next window of every stream; the state goes from each window to the next, the
    gradient does not.

    Attributes:
        steps: the training part is the first so many steps of ``train``.
        window: steps in a window.
        own_valid: whether ``valid`` is another series, not the rest of this one.
    """

    steps: int = 0
    window: int = 64
    own_valid: bool = False

    def plan(self, batching: Batching) -> Plan:
        most = max(1, self.steps // (2 * self.window))
        streams = most if batching.size is None else min(batching.size, most)
        return Streams([self.steps], streams=streams, window=self.window, seed=batching.seed)

    def batches(self, shares: Iterable[Pieces]) -> Iterator[Window]:
        for pieces in shares:
            offsets = np.concatenate([[0], pieces.lengths.cumsum()])
            starts = (pieces.begin - offsets[:-1]).repeat(pieces.lengths)
            rows = torch.from_numpy(np.arange(offsets[-1]) + starts)
            bounds = torch.from_numpy(offsets)
            train = self.train
            yield Window(
                Examples(
                    Ragged(train.numbers.values[rows], bounds),
                    Ragged(train.codes.values[rows], bounds),
                    train.targets[rows],
                    train.scored[rows],
                ),
                torch.from_numpy(pieces.stream - pieces.streams.start),
                torch.from_numpy(pieces.continues),
                torch.from_numpy(pieces.carries),
                len(pieces.streams),
            )

    def loss(self, model: nn.Module, batch: Window, state: Carried) -> Loss:
        outputs, final = model(batch.examples, self._initial(batch, state))
        return self._loss(outputs, batch.examples, self._carried(batch, final))

    def _initial(self, batch: Window, state: Carried) -> State:
        """Each piece's initial state, as the model takes it."""
        if state is None:
            return None
        rows = [s[batch.stream] * batch.continues[:, None, None] for s in state]
        parts = tuple(s.transpose(0, 1).contiguous() for s in rows)
        return parts if len(parts) > 1 else parts[0]

    def _carried(self, batch: Window, final: State) -> Carried:
        """The state of each stream, ``[S, layers, H]``."""
        parts = final if isinstance(final, tuple) else (final,)
        where = batch.stream[batch.carries]
        return tuple(
            s.new_zeros(batch.streams, s.shape[0], s.shape[2]).index_copy(
                0, where, s.detach().transpose(0, 1)[batch.carries]
            )
            for s in parts
        )

    def names(self, share: Pieces) -> list[str]:
        return [f"steps {begin + 1:,} to {end:,}" for begin, end in zip(*share[1:3], strict=True)]

    def _first_step(self) -> int:
        return 0 if self.own_valid else max(0, self.steps - WARM_UP)


def total_loss(recipe: Recipe, outputs: Float[Tensor, "m K"], targets: Tensor) -> Float[Tensor, ""]:
    """Cross-entropy in nats, or half the squared standardised error, summed over m targets."""
    if isinstance(recipe.values, Classes):
        return F.cross_entropy(outputs, targets, reduction="sum")
    return 0.5 * F.mse_loss(outputs[:, 0], targets, reduction="sum")


def score_outputs(recipe: Recipe, outputs: Tensor, loaded: Loaded) -> Scores:
    """Score a model's outputs on a table with targets; at least one target counts."""
    scored = loaded.examples.scored.numpy()
    return score(recipe, recipe.predicted(outputs, loaded.now), loaded, scored)


@torch.no_grad()
def run(model: SequenceModel, examples: Examples, first: int = 0) -> Float[Tensor, "M K"]:
    """A model's outputs, in evaluation mode, on the CPU.

    Args:
        model: it stays in the mode it was in.
        examples: any number of sequences.
        first: for one series, the step to begin at; outputs before it are 0.
    """
    was_training = model.training
    model.eval()
    if len(examples.numbers) == 1 and model.is_causal:
        outputs = _run_series(model, examples, first)
    else:
        outputs = _run_sequences(model, examples)
    model.train(was_training)
    return outputs


def _run_series(model: SequenceModel, examples: Examples, first: int) -> Tensor:
    N = examples.numbers.values.shape[0]
    state: Any = None
    parts = []
    for begin in range(first, N, STEPS_AT_ONCE):
        part = slice(begin, begin + STEPS_AT_ONCE)
        values = examples.numbers.values[part]
        offsets = torch.tensor([0, values.shape[0]])
        window = Examples(
            Ragged(values, offsets),
            Ragged(examples.codes.values[part], offsets),
            examples.targets[part],
            examples.scored[part],
        )
        output, state = model(_placed(window, model), state)
        parts.append(output.cpu())
    outputs = torch.cat(parts)
    return F.pad(outputs, (0, 0, first, 0))


def _run_sequences(model: SequenceModel, examples: Examples) -> Tensor:
    """Sequences of like lengths together: a batch takes as long as its longest."""
    rows = examples.numbers.with_values(torch.arange(examples.numbers.values.shape[0]))
    parts, places = [], []
    order = examples.numbers.lengths.argsort()
    for index in _batches(order, examples.numbers.lengths[order].numpy()):
        parts.append(model(_placed(examples.take(index), model))[0].cpu())
        places.append(index if model.per_sequence else rows[index].values)
    outputs = torch.cat(parts)
    return torch.empty_like(outputs).index_copy_(0, torch.cat(places), outputs)


def _placed(examples: Examples, model: SequenceModel) -> Examples:
    """Examples where the model is."""
    device = next(model.parameters()).device
    if device.type == "cpu":
        return examples
    placed: Examples = tree_map_only(Tensor, lambda t: t.to(device), examples)
    return placed


def _batches(order: Tensor, lengths: Array) -> Iterator[Tensor]:
    """Consecutive parts of ``order``, of some sequences each that are not too many steps."""
    ends, begin = lengths.cumsum(), 0
    while begin < len(order):
        most = (ends[begin - 1] if begin else 0) + STEPS_OF_SEQUENCES
        end = min(begin + SEQUENCES_AT_ONCE, int(ends.searchsorted(most, side="right")))
        end = max(end, begin + 1)
        yield order[begin:end]
        begin = end


def scored_between(loaded: Loaded, ahead: int, begin: int, end: int) -> Bool[Tensor, "N"]:
    """The steps of a series whose targets, ``ahead`` steps later, are at begin to end - 1."""
    at: Array = np.arange(loaded.grouping.steps) + ahead
    return torch.from_numpy((at >= begin) & (at < end)) & loaded.examples.scored
