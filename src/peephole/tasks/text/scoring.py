"""What a text costs a model, in nats: read from its beginning, with the state carried."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from peephole.data.corpus import Ids
from peephole.tasks.text.model import State, TextModel

# Stretches that are read side by side, and steps of each at a time.
ROWS = 32
STEPS = 256
# What a stretch that begins within a document reads before it is scored.
WARM_UP = 512
# Positions in a document are told apart by powers of 2, up to 2 ** 40.
BINS = 41


class Stretch(NamedTuple):
    """A part of a document. All are positions in the ids.

    Attributes:
        document: where its document begins.
        begin: where reading begins, with nothing known of what came before.
        scored: where scoring begins.
        end: the position after its last.
    """

    document: int
    begin: int
    scored: int
    end: int


@dataclass
class Cost:
    """What was scored.

    Attributes:
        nats: in all.
        targets: how many characters.
        by_position: ``[41, 2]``, the same two for those at position 1, 2 to 3, 4 to 7, ... of
            their documents.
    """

    nats: float = 0.0
    targets: int = 0
    by_position: Float[np.ndarray, "41 2"] = field(default_factory=lambda: np.zeros((BINS, 2)))

    @property
    def mean(self) -> float:
        """Nats a character."""
        return self.nats / self.targets

    @property
    def bits(self) -> float:
        """Bits a character."""
        return self.mean / math.log(2)

    @property
    def perplexity(self) -> float:
        """Of a character: among so many that are equally likely a choice is as hard."""
        try:
            return math.exp(self.mean)
        except OverflowError:
            return math.inf

    def positions(self) -> list[tuple[int, float]]:
        """Where each bin of ``by_position`` begins, counted from 1, and its nats a character."""
        return [(1 << k, nats / n) for k, (nats, n) in enumerate(self.by_position.tolist()) if n]

    def add(self, nats: Float[np.ndarray, "n"], position: int) -> None:
        """Take neighbours' costs; the first of them is at ``position`` of its document, from 0."""
        self.nats += float(nats.sum(dtype=np.float64))
        self.targets += len(nats)
        bins = np.frexp(np.arange(position + 1, position + 1 + len(nats)))[1] - 1
        self.by_position[:, 0] += np.bincount(bins, nats, BINS)
        self.by_position[:, 1] += np.bincount(bins, minlength=BINS)


def whole(bounds: Int64[np.ndarray, "D_plus_1"], documents: Sequence[int]) -> list[Stretch]:
    """Each document that holds anything from its beginning to its end."""
    ends = ((int(bounds[d]), int(bounds[d + 1])) for d in documents)
    return [Stretch(begin, begin, begin, end) for begin, end in ends if begin < end]


def spread(stretches: Sequence[Stretch], most: int, warm_up: int = WARM_UP) -> list[Stretch]:
    """Much of the same in little time: long documents cut in parts that are read side by side.

    Each part but a document's first reads what comes before it, so as to know about as much as
    if it had read all.

    Args:
        stretches: whole documents.
        most: score not more than so many characters: parts are left out then, at random but the
            same ones always.
        warm_up: how many characters a part reads before those that are scored.
    """
    total = sum(stretch.end - stretch.scored for stretch in stretches)
    longest = max(1, min(total, most) // ROWS)
    parts = [
        Stretch(s.document, max(s.document, begin - warm_up), begin, min(begin + longest, s.end))
        for s in stretches
        for begin in range(s.scored, s.end, longest)
    ]
    if total > most:
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(parts))
        lengths = np.array([parts[k].end - parts[k].scored for k in order])
        parts = [parts[k] for k in order[: max(1, int((lengths.cumsum() <= most).sum()))]]
    return parts


@torch.no_grad()
def static(model: TextModel, ids: Ids, stretches: Iterable[Stretch]) -> Cost:
    """What stretches cost a model that stays as it is.

    Args:
        model: in evaluation mode.
        ids: of all documents.
        stretches: what to read.
    """
    cost = Cost()
    waiting = sorted(stretches, key=lambda s: s.begin - s.end, reverse=True)
    rows: list[tuple[Stretch, int]] = []
    state = model.initial_state(0)
    while rows or waiting:
        fresh = [(s, s.begin) for s in (waiting.pop() for _ in range(_free(rows, waiting)))]
        state = _joined(state, model.initial_state(len(fresh)))
        rows += fresh
        parts = [_read(model, ids, s, at, min(at + STEPS, s.end)) for s, at in rows]
        logits, state = model(*_batch(model, [inputs for inputs, _ in parts]), state)
        nats = _nats(logits, np.concatenate([targets for _, targets in parts])).cpu().numpy()
        offset = 0
        for (stretch, at), (_, read) in zip(rows, parts, strict=True):
            skipped = max(0, min(len(read), stretch.scored - at))
            cost.add(nats[offset + skipped : offset + len(read)], at + skipped - stretch.document)
            offset += len(read)
        rows = [(s, at + len(read)) for (s, at), (_, read) in zip(rows, parts, strict=True)]
        left = [k for k, (s, at) in enumerate(rows) if at < s.end]
        if len(left) < len(rows):
            rows, state = [rows[k] for k in left], tuple(s[:, left] for s in state)
    return cost


def dynamic(
    model: TextModel,
    ids: Ids,
    stretches: Iterable[Stretch],
    *,
    rate: float,
    window: int = 64,
    clip: float = 1.0,
) -> Cost:
    """What stretches cost a model that learns from each window when it was scored.

    A step of gradient descent follows each window (Mikolov 2012, section 3.2.3; Graves 2013,
    section 3.2); what was learned from one document stays for the next.

    Args:
        model: in evaluation mode; it is left as it is.
        ids: of all documents.
        stretches: what to read, one after the other.
        rate: the learning rate of a window's mean loss.
        window: characters.
        clip: the largest norm of a gradient.
    """
    learner = copy.deepcopy(model).requires_grad_(True)
    cost = Cost()
    for stretch in stretches:
        state = learner.initial_state(1)
        for at in range(stretch.begin, stretch.end, window):
            end = min(at + window, stretch.end)
            inputs, targets = _read(learner, ids, stretch, at, end)
            with torch.enable_grad():
                logits, state = learner(*_batch(learner, [inputs]), state)
                nats = _nats(logits, targets)
                learner.zero_grad()
                torch.autograd.backward(nats.mean())
            state = tuple(s.detach() for s in state)
            torch.nn.utils.clip_grad_norm_(learner.parameters(), clip)
            with torch.no_grad():
                for parameter in learner.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=rate)
            skipped = max(0, min(end, stretch.scored) - at)
            cost.add(nats.detach().cpu().numpy()[skipped:], at + skipped - stretch.document)
    return cost


def _free(rows: Sequence[object], waiting: Sequence[object]) -> int:
    return min(ROWS - len(rows), len(waiting))


def _read(
    model: TextModel, ids: Ids, stretch: Stretch, begin: int, end: int
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Inputs and targets from ``begin`` to ``end - 1``."""
    known = begin > stretch.begin
    read = ids.read(begin - known, end).astype(np.int64)
    inputs = read[:-1] if known else np.concatenate([[model.start], read[:-1]])
    return inputs, read[int(known) :]


def _batch(
    model: TextModel, inputs: Sequence[Int64[np.ndarray, "_n"]]
) -> tuple[Int64[Tensor, "N"], Int64[Tensor, "R_plus_1"]]:
    device = model.output_bias.device
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in inputs])])
    joined = torch.from_numpy(np.concatenate(inputs))
    return joined.to(device), torch.from_numpy(offsets).to(device)


def _nats(logits: Float[Tensor, "n A"], targets: Int64[np.ndarray, "n"]) -> Float[Tensor, "n"]:
    there = torch.from_numpy(targets).to(logits.device)
    return F.cross_entropy(logits.float(), there, reduction="none")


def _joined(states: tuple[Tensor, ...], more: tuple[Tensor, ...]) -> State:
    return tuple(torch.cat([s, m], 1) for s, m in zip(states, more, strict=True))
