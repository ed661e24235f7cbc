"""A text as a task: streams, carried states, what is scored."""

from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from peephole.data.corpus import of_texts
from peephole.tasks.protocol import Batching, Task
from peephole.tasks.text import scoring
from peephole.tasks.text.settings import Network
from peephole.tasks.text.task import SAMPLE, TextTask, Window
from peephole.train import Settings, fit
from tests.tasks.text.texts import corpus, model, words

SMALL = Network(hidden_size=5, embedding_size=3, tied=False)


def windows(task: TextTask, epoch: int = 0, **batching: Any) -> list[Window]:
    plan = task.plan(Batching(**{"size": None, "steps": None, "pool": 1, "seed": 3, **batching}))
    planned = plan.epoch(epoch)
    return list(task.batches(planned.share(k, 0, 1) for k in range(len(planned))))


def test_it_is_a_task() -> None:
    assert isinstance(TextTask(corpus(50, 20), SMALL), Task)


@hypothesis.given(
    lengths=st.lists(st.integers(0, 40), min_size=2, max_size=5).filter(lambda some: some[0]),
    window=st.integers(1, 12),
    streams=st.integers(1, 4),
)
def test_inputs_are_the_targets_one_step_earlier(
    lengths: list[int], window: int, streams: int
) -> None:
    text = corpus(*lengths)
    task = TextTask(text, SMALL, window)
    start = text.alphabet.size
    plan = task.plan(Batching(streams, None, 1, 0)).epoch(1)
    read: dict[int, list[int]] = {}
    for k in range(len(plan)):
        pieces = plan.share(k, 0, 1)
        (batch,) = task.batches([pieces])
        assert batch.offsets.tolist() == [0, *pieces.lengths.cumsum().tolist()]
        for p, stream in enumerate(batch.stream.tolist()):
            piece = slice(int(batch.offsets[p]), int(batch.offsets[p + 1]))
            inputs, targets = batch.inputs[piece].tolist(), batch.targets[piece].tolist()
            first = int(text.bounds[task.documents[pieces.document[p]]])
            begin, end = first + int(pieces.begin[p]), first + int(pieces.end[p])
            assert targets == text.ids.read(begin, end).tolist()
            assert inputs[1:] == targets[:-1]
            # The last character of the same stream, wherever the state is carried too.
            assert inputs[0] == (read[stream][-1] if batch.continues[p] else start)
            read[stream] = targets


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_windows_of_one_stream_cost_what_the_documents_do(cell: str) -> None:
    """The state is carried within a document and never between two."""
    text = corpus(37, 3, 60, 12, 9)
    network = Network(cell=cell, hidden_size=5, embedding_size=3, tied=False)
    task = TextTask(text, network, 7)
    made = model(text.alphabet.size, cell=cell)
    wanted = scoring.static(made, text.ids, scoring.whole(text.bounds, task.documents.tolist()))
    total, targets, state = 0.0, 0, None
    with torch.no_grad():
        for batch in windows(task, size=1):
            loss = task.loss(made, batch, state)
            total, targets, state = total + loss.total.item(), targets + loss.targets, loss.state
            assert loss.steps == loss.targets
    assert targets == wanted.targets == 112
    assert total == pytest.approx(wanted.nats)


def test_carried_states_are_those_of_each_stream() -> None:
    text = corpus(64, 20)
    task = TextTask(text, SMALL, 8)
    made = model(text.alphabet.size)
    state = None
    with torch.no_grad():
        for batch in windows(task, size=3)[:2]:
            state = task.loss(made, batch, state).state
        pieces = [task.plan(Batching(3, None, 1, 3)).epoch(0).share(k, 0, 1) for k in range(2)]
        assert state is not None
        for stream in range(3):
            begin, end = int(pieces[0].begin[stream]), int(pieces[1].end[stream])
            ids = text.ids.read(begin, end).astype(np.int64)
            inputs = torch.from_numpy(np.concatenate([[made.start], ids[:-1]]))
            _, wanted = made(inputs, torch.tensor([0, len(ids)]), made.initial_state(1))
            for ours, theirs in zip(state, wanted, strict=True):
                torch.testing.assert_close(ours[stream], theirs[:, 0])


def test_streams_are_not_more_than_the_text_has_windows_for() -> None:
    task = TextTask(corpus(100, 10), SMALL, 10)
    for batching, streams in (
        ({}, 5),
        ({"size": 3}, 3),
        ({"size": 99}, 5),
        ({"steps": 25}, 2),
        ({"steps": 1}, 1),
    ):
        assert windows(task, **batching)[0].streams == streams


def test_it_trains_and_writes_what_it_read() -> None:
    text = of_texts(["abcde" * 200, "abcde" * 20], [False, True])
    samples: list[str] = []
    task = TextTask(text, Network(hidden_size=24, embedding_size=24), 16, samples.append)
    fitted = fit(
        task,
        Settings(epochs=20, learning_rate=0.02, optimizer="adam", batch_size=4, clip=1.0, seed=1),
    )
    losses = [event["loss"] for event in fitted.events]
    assert losses[-1] < 0.05 < losses[0]
    assert len(samples) == 20
    assert {len(sample) for sample in samples} == {SAMPLE}
    assert "abcdeabcde" in samples[-1]


def test_names_are_of_what_a_share_reads() -> None:
    text = corpus(30, 3000, 20)
    task = TextTask(text, SMALL, 1500)
    plan = task.plan(Batching(1, None, 1, 1)).epoch(0)
    names = [name for k in range(len(plan)) for name in task.names(plan.share(k, 0, 1))]
    assert "characters 1 to 30 of text 1" in names
    assert any(name.endswith(" to 3,000 of text 2") for name in names)
    in_bytes = of_texts([words(30), "ab"], [False, True], "byte")
    other = TextTask(in_bytes, SMALL, 30)
    share = other.plan(Batching(1, None, 1, 1)).epoch(0).share(0, 0, 1)
    assert other.names(share)[0].startswith("bytes ")
