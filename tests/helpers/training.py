"""A task of ragged sequences, to train in this process, in killed ones and in several."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import peephole
from peephole import Ragged
from peephole.data.batches import Batches
from peephole.data.streams import Pieces, Streams
from peephole.tasks.protocol import Batching, Loss, Plan, State
from peephole.train import Event, Fit, Position, Settings, fit
from peephole.train.checkpoints import Checkpoints


class Model(nn.Module):
    """A recurrent layer and a head, with dropout between them."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layer = peephole.LSTM(2, 5, peephole="diagonal").double()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(5, 1).double()

    def forward(self, x: Ragged, state: Any = None) -> tuple[Tensor, Any]:
        y, final = self.layer(x, state)
        return self.head(self.drop(y.values)).squeeze(1), final


class Sums:
    """At each step the mean of a sequence's first feature so far; lengths from 0 to 60."""

    monitor = "loss"
    goal: Literal["min", "max"] = "min"

    def __init__(self, sequences: int = 40, dropout: float = 0.0) -> None:
        draw = np.random.default_rng(5)
        self.lengths = draw.integers(0, 4, sequences) ** 2 * draw.integers(1, 7, sequences)
        self.lengths[0] = 60
        offsets = torch.tensor([0, *self.lengths]).cumsum(0)
        values = torch.from_numpy(draw.normal(size=(int(offsets[-1]), 2)))
        self.data = Ragged(values, offsets)
        means = [part[:, 0].cumsum(0) / torch.arange(1, len(part) + 1) for part in self.data]
        self.targets = self.data.with_values(torch.cat(means)[:, None])
        self.dropout = dropout

    def model(self) -> nn.Module:
        return Model(self.dropout)

    def plan(self, batching: Batching) -> Plan:
        return Batches(
            self.lengths,
            batch_size=batching.size,
            batch_steps=batching.steps,
            pool=batching.pool,
            seed=batching.seed,
        )

    def batches(self, shares: Iterable[Any]) -> Iterator[tuple[Ragged, Tensor]]:
        for share in shares:
            index = torch.from_numpy(share)
            yield self.data[index], self.targets[index].values.squeeze(1)

    def loss(self, model: nn.Module, batch: Any, state: State) -> Loss:
        x, targets = batch
        output, _ = model(x)
        return Loss((output - targets).square().sum(), len(targets), steps=len(targets))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        output, _ = model(self.data)
        return {"loss": float((output - self.targets.values.squeeze(1)).square().mean())}

    def names(self, share: Any) -> list[str]:
        return [f"sequence {index}" for index in share]


class Stream(Sums):
    """The same as documents, read as streams with the state carried over."""

    def plan(self, batching: Batching) -> Plan:
        return Streams(self.lengths, streams=batching.size or 1, window=7, seed=batching.seed)

    def batches(self, shares: Iterable[Pieces]) -> Iterator[Any]:
        for p in shares:
            offsets = np.concatenate([[0], p.lengths.cumsum()])
            first = self.data.offsets.numpy()[p.document] + p.begin - offsets[:-1]
            rows = torch.from_numpy(np.arange(offsets[-1]) + first.repeat(p.lengths))
            x = Ragged(self.data.values[rows], torch.from_numpy(offsets))
            local = torch.from_numpy(p.stream - p.streams.start)
            carries, continues = torch.from_numpy(p.carries), torch.from_numpy(p.continues)
            targets = self.targets.values[rows, 0]
            yield x, targets, local, continues, carries, len(p.streams)

    def loss(self, model: nn.Module, batch: Any, state: State) -> Loss:
        x, targets, stream, continues, carries, streams = batch
        initial = None
        if state is not None:
            kept = [s[stream] * continues[:, None] for s in state]
            initial = tuple(s[None] for s in kept)
        output, final = model(x, initial)
        carried = tuple(
            s.new_zeros(streams, 5).index_copy(0, stream[carries], s[0].detach()[carries])
            for s in final
        )
        return Loss((output - targets).square().sum(), len(targets), carried, len(targets))


class Lines:
    """A journal: JSON lines in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def append(self, event: Event) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def position(self) -> int:
        return self.path.stat().st_size

    def truncate(self, position: int) -> None:
        with self.path.open("r+b") as file:
            file.truncate(position)


TASKS = {"sums": Sums, "stream": Stream}


def train(folder: Path, name: str, dropout: float, **changes: Any) -> Fit:
    """Train in a folder, from where it is."""
    chosen = {
        "epochs": 8,
        "batch_size": 6,
        "learning_rate": 0.01,
        "optimizer": "adam",
        "weight_decay": 0.01,
        "schedule": "cosine",
        "clip": 1.0,
        "average": 0.9,
        "evaluations": 2,
        "keep": "best",
        "checkpoint_seconds": 0.0,
    }
    settings = Settings(**{**chosen, **changes})
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return fit(
        TASKS[name](dropout=dropout),
        settings,
        journal=Lines(folder / "metrics.jsonl"),
        checkpoints=Checkpoints(folder, Position, keep=settings.checkpoints),
        resume=True,
    )


if __name__ == "__main__":
    place, which, share, changes = sys.argv[1:]
    torch.set_num_threads(1)
    trained = train(Path(place), which, float(share), **json.loads(changes))
    if os.environ.get("RANK", "0") == "0":
        torch.save(trained.model.state_dict(), Path(place) / "trained.pt")
