"""The network, beside torch.nn's parts."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from peephole.errors import UserError
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.settings import Network, check
from tests.tasks.text.texts import model

OFFSETS = torch.tensor([0, 4, 4, 11, 12])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("norm", ["none", "output"])
@pytest.mark.parametrize("tied", [False, True])
def test_it_is_torchs_layers_between_embedding_and_output(cell: str, norm: str, tied: bool) -> None:
    width = 5 if tied else 3
    made = model(cell=cell, layer_norm=norm, tied=tied, embedding_size=width)
    inputs = torch.randint(9, (12,))
    state = tuple(torch.randn(2, 4, 5).double() for _ in range(made.network.states))
    logits, final = made(inputs, OFFSETS, state)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell]
    for b, (begin, end) in enumerate(pairwise(OFFSETS.tolist())):
        if begin == end:
            continue
        x = made.embedding.weight[inputs[begin:end]] * (5**0.5 if tied else 1)
        for k, layer in enumerate(made.layers):
            theirs = kind(x.shape[1], 5).double()
            theirs.load_state_dict(layer.state_dict())
            before = tuple(s[k : k + 1, b] for s in state)
            x, end_state = theirs(x, before if cell == "lstm" else before[0])
            ends = end_state if cell == "lstm" else (end_state,)
            for ours, wanted in zip(final, ends, strict=True):
                torch.testing.assert_close(ours[k : k + 1, b], wanted)
            if norm == "output":
                x = F.layer_norm(x, (5,), made.norms[k].weight, made.norms[k].bias)
        weight = made.embedding.weight[:8] if tied else made.output
        torch.testing.assert_close(logits[begin:end], F.linear(x, weight, made.output_bias))


def test_dropout_is_for_training_alone_and_reaches_every_layer() -> None:
    for options in ({"dropout": 0.5}, {"recurrent_dropout": 0.5}):
        made = model(**options)
        x, offsets, state = torch.arange(8), torch.tensor([0, 8]), made.initial_state(1)
        torch.testing.assert_close(made(x, offsets, state)[0], made(x, offsets, state)[0])
        made.train()
        assert not torch.equal(made(x, offsets, state)[0], made(x, offsets, state)[0])


def test_dropout_leaves_the_embedding_alone() -> None:
    made = model(dropout=0.5)
    x, offsets, state = torch.arange(8), torch.tensor([0, 8]), made.initial_state(1)
    wanted = made(x, offsets, state)[1]
    made.train()
    for ours, theirs in zip(made(x, offsets, state)[1], wanted, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert not torch.equal(ours[1], theirs[1])


def test_tied_has_fewer_parameters() -> None:
    def count(tied: bool) -> int:
        network = Network(hidden_size=6, embedding_size=6, tied=tied)
        return sum(p.numel() for p in TextModel(10, network).parameters())

    assert count(False) - count(True) == 60


@pytest.mark.parametrize("tied", [False, True])
def test_a_new_model_knows_next_to_nothing(tied: bool) -> None:
    made = TextModel(65, Network(hidden_size=64, embedding_size=64, tied=tied))
    ids = torch.randint(65, (500,))
    logits, _ = made(ids, torch.tensor([0, 500]), made.initial_state(1))
    nats = F.cross_entropy(logits, torch.randint(65, (500,)))
    assert nats.item() == pytest.approx(torch.tensor(65.0).log().item(), abs=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "model.hidden_size: 0; it must be from 1 to 16,384"),
        ({"layers": 65}, "model.layers: 65; it must be from 1 to 64"),
        ({"embedding_size": 0, "tied": False}, "model.embedding_size: 0; it must be from 1"),
        ({"dropout": 1.0}, "model.dropout: 1.0; it must be from 0.0 to 0.95"),
        ({"dropout": float("nan")}, "model.dropout: nan; it must be from 0.0 to 0.95"),
        ({"recurrent_dropout": -0.1}, "model.recurrent_dropout: -0.1; it must be from 0.0"),
        (
            {"embedding_size": 3},
            "model.tied: an embedding of 3 cannot be the output matrix of 256 hidden units; make "
            "them the same, or do not tie them",
        ),
        (
            {"cell": "gru", "peephole": "full"},
            "model.peephole: only the lstm has peepholes, and the cell is gru",
        ),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check(replace(Network(), **options))
    assert str(error.value).startswith(message)
