"""The plain model computes what ours does, and its training reads what ours would read."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.peers import plain
from benchmarks.peers.plain import Plain, dense, dense_loss, train_for
from peephole.data.corpus import Corpus
from peephole.tasks.protocol import Batching
from peephole.tasks.text import scoring
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.settings import Network
from peephole.tasks.text.task import TextTask
from tests.tasks.text import texts

SIZE = 8


def pair(tied: bool = False) -> tuple[TextModel, Plain]:
    """Both forms with the same weights, in float64."""
    width = 5 if tied else 3
    ours = texts.model(SIZE, hidden_size=5, layers=2, embedding_size=width, tied=tied)
    theirs = Plain(SIZE, ours.network).double().eval()
    theirs.load_ours(ours)
    return ours, theirs


class TestModel:
    @pytest.mark.parametrize("tied", [False, True])
    def test_is_ours_on_pieces_of_any_length(self, tied: bool) -> None:
        ours, theirs = pair(tied)
        inputs, offsets = torch.randint(SIZE + 1, (11,)), torch.tensor([0, 4, 5, 11])
        state = tuple(torch.randn(2, 2, 3, 5, dtype=torch.float64))
        for given in (None, state):
            wanted, end = ours(inputs, offsets, given)
            logits, their_end = theirs(inputs, offsets, given)
            torch.testing.assert_close(logits, wanted)
            torch.testing.assert_close(their_end, end)

    @pytest.mark.parametrize("tied", [False, True])
    def test_is_the_same_on_dense_windows(self, tied: bool) -> None:
        _, model = pair(tied)
        inputs = torch.randint(SIZE + 1, (7, 3))
        state = tuple(torch.randn(2, 2, 3, 5, dtype=torch.float64))
        logits, end = model.dense(inputs, state)
        wanted, wanted_end = model(inputs.t().flatten(), torch.tensor([0, 7, 14, 21]), state)
        torch.testing.assert_close(logits.transpose(0, 1).flatten(0, 1), wanted)
        torch.testing.assert_close(end, wanted_end)

    def test_is_scored_as_ours_is(self) -> None:
        ours, theirs = pair()
        corpus = texts.corpus(200, 40, 77, held_out=(1, 2))
        stretches = scoring.whole(corpus.bounds, [1, 2])
        costs = [scoring.static(model, corpus.ids, stretches) for model in (ours, theirs)]
        assert costs[0].targets == costs[1].targets == 117
        assert costs[1].nats == pytest.approx(costs[0].nats)

    def test_begins_as_torch_draws_it(self) -> None:
        network = Network(hidden_size=16, layers=2, embedding_size=4, tied=False)
        model = Plain(SIZE, network)
        names = [name for name, _ in model.named_parameters()]
        assert not any(name.startswith("layers") for name in names)
        assert model.output is not None
        for weight in (model.lstm.weight_hh_l1, model.output, model.output_bias):
            assert 0 < float(weight.detach().abs().max()) <= 16**-0.5

    @pytest.mark.parametrize("option", [{"cell": "gru"}, {"peephole": "full"}, {"dropout": 0.1}])
    def test_what_torch_lacks_is_refused(self, option: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"^torch.nn.LSTM cannot compute Network\("):
            Plain(SIZE, Network(**option))  # type: ignore[arg-type]


def task(*lengths: int) -> TextTask:
    """The last of these documents is held out."""
    network = Network(hidden_size=12, layers=1, embedding_size=6, tied=False)
    return TextTask(texts.corpus(*lengths), network, plain.WINDOW)


def test_a_dense_window_has_a_stream_a_column() -> None:
    one = task(8 * 3 * plain.WINDOW, 9)
    epoch = one.plan(Batching(8, None, 1, 0)).epoch(0)
    (window,) = one.batches([epoch.share(1, 0, 1)])
    inputs, targets = dense(window)
    assert inputs.shape == (plain.WINDOW, 8)
    assert torch.equal(inputs[1:], targets[:-1])
    assert torch.equal(targets.t().flatten(), window.targets)


class TestTraining:
    def test_an_epoch_reads_what_is_not_held_out_once(self) -> None:
        one = task(20 * plain.WINDOW + 37, 12 * plain.WINDOW - 37, 999)
        windows = []
        for window, is_first in plain._windows(one, seed=0):
            if is_first and windows:
                break
            windows.append(window)
        read = torch.cat([window.targets.flatten() for window in windows])
        corpus: Corpus = one.corpus
        wanted = corpus.ids.read(0, 32 * plain.WINDOW)
        assert torch.equal(read.sort().values, torch.from_numpy(np.sort(wanted).astype(np.int64)))
        # Each stream begins with nothing known, and so does a document in its middle.
        starts = sum(int((window.inputs == one.corpus.alphabet.size).sum()) for window in windows)
        streams = windows[0].inputs.shape[1]
        assert (streams, starts) == (16, 16 + 1)

    def test_it_takes_its_time_and_learns(self) -> None:
        one = task(4000, 500)
        times = itertools.count()
        shares: list[float] = []
        trained = train_for(
            one, 60.0, seed=0, clock=lambda: float(next(times)), on_share=shares.append
        )
        assert trained.updates == len(shares) == 59
        assert shares == pytest.approx([k / 60 for k in range(1, 60)])
        assert 59 * plain.WINDOW * 10 < trained.characters <= 59 * plain.WINDOW * 15
        cost = scoring.static(trained.model, one.corpus.ids, one.held_out)
        again = train_for(one, 60.0, seed=0, clock=iter(map(float, range(99))).__next__)
        assert scoring.static(again.model, one.corpus.ids, one.held_out).nats == cost.nats
        torch.manual_seed(0)
        fresh = scoring.static(
            Plain(one.corpus.alphabet.size, one.network), one.corpus.ids, one.held_out
        )
        assert cost.mean < 0.9 * fresh.mean

    def test_the_state_is_carried_and_the_gradient_cut(self) -> None:
        _, model = pair()
        batch = plain.Dense(*torch.randint(SIZE, (2, 5, 3)))
        first, state = dense_loss(model, batch, None)
        second, _ = dense_loss(model, batch, state)
        assert not any(s.requires_grad for s in state)
        assert float(first.detach()) != float(second.detach())
