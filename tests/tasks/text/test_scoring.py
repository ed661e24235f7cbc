"""What a text costs."""

import copy
import math
from collections import Counter

import hypothesis
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from peephole.data.corpus import InMemory, of_texts
from peephole.tasks.text import scoring
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.scoring import Cost, Stretch, dynamic, spread, static, whole
from tests.tasks.text.texts import corpus, model

DOCUMENTS = (37, 0, 1, 64, 130)


def costs(made: TextModel, ids: list[int]) -> np.ndarray:
    """Of each character of one document, all of it read at once."""
    inputs = torch.tensor([made.start, *ids[:-1]])
    with torch.no_grad():
        logits, _ = made(inputs, torch.tensor([0, len(ids)]), made.initial_state(1))
    return F.cross_entropy(logits.float(), torch.tensor(ids), reduction="none").numpy()


class TestStatic:
    @pytest.mark.parametrize("rows", [1, 2, 32])
    @pytest.mark.parametrize("steps", [1, 17, 256])
    def test_windows_cost_what_whole_documents_do(
        self, rows: int, steps: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scoring, "ROWS", rows)
        monkeypatch.setattr(scoring, "STEPS", steps)
        text = corpus(*DOCUMENTS, held_out=(0,))
        made = model(text.alphabet.size)
        cost = static(made, text.ids, whole(text.bounds, range(5)))
        each = [
            costs(made, text.ids.read(int(a), int(b)).tolist())
            for a, b in zip(text.bounds[:-1], text.bounds[1:], strict=True)
            if a < b
        ]
        assert cost.targets == sum(DOCUMENTS)
        assert cost.nats == pytest.approx(sum(float(part.sum()) for part in each), rel=1e-5)
        assert cost.mean == cost.nats / cost.targets
        by_place: Counter[int] = Counter()
        for part in each:
            for place, nats in enumerate(part.tolist(), 1):
                by_place[1 << (place.bit_length() - 1)] += nats
        counts = Counter(1 << p.bit_length() - 1 for part in each for p in range(1, len(part) + 1))
        assert [place for place, _ in cost.positions()] == sorted(counts)
        for place, mean in cost.positions():
            assert mean == pytest.approx(by_place[place] / counts[place], rel=1e-5)

    def test_what_is_read_before_is_not_scored(self) -> None:
        text = corpus(100, 10)
        made = model(text.alphabet.size)
        ids = text.ids.read(0, 100).tolist()
        cost = static(made, text.ids, [Stretch(0, 30, 50, 80)])
        assert cost.targets == 30
        assert cost.nats == pytest.approx(float(costs(made, ids[30:80])[20:].sum()), rel=1e-5)
        assert [place for place, _ in cost.positions()] == [32, 64]

    def test_even_odds_cost_the_logarithm_of_the_alphabet(self) -> None:
        made = model(8)
        with torch.no_grad():
            made.output.zero_()
            made.output_bias.zero_()
        cost = static(
            made, InMemory(np.arange(8, dtype=np.uint8).repeat(9)), [Stretch(0, 0, 0, 72)]
        )
        assert cost.mean == pytest.approx(math.log(8), rel=1e-6)
        assert cost.bits == pytest.approx(3, rel=1e-6)
        assert cost.perplexity == pytest.approx(8, rel=1e-6)


class TestSpread:
    @hypothesis.given(
        lengths=st.lists(st.integers(1, 900), min_size=1, max_size=8), warm_up=st.integers(0, 50)
    )
    def test_every_character_is_scored_once(self, lengths: list[int], warm_up: int) -> None:
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        stretches = whole(bounds, range(len(lengths)))
        parts = spread(stretches, 10**6, warm_up)
        scored = [place for s in parts for place in range(s.scored, s.end)]
        assert sorted(scored) == list(range(sum(lengths)))
        for part in parts:
            assert part.document in bounds
            assert part.begin == max(part.document, part.scored - warm_up)

    def test_a_long_enough_warm_up_changes_nothing(self) -> None:
        text = corpus(500, 300, held_out=(0,))
        made = model(text.alphabet.size)
        stretches = whole(text.bounds, range(2))
        exact = static(made, text.ids, stretches)
        parts = static(made, text.ids, spread(stretches, 10**6, 500))
        assert parts.nats == pytest.approx(exact.nats, rel=1e-6)
        np.testing.assert_allclose(parts.by_position, exact.by_position, rtol=1e-5)

    def test_a_part_of_a_long_text_stands_for_it(self) -> None:
        bounds = np.array([0, 10_000, 10_010, 60_000])
        parts = spread(whole(bounds, range(3)), 5000)
        scored = [place for s in parts for place in range(s.scored, s.end)]
        assert 4000 < len(scored) <= 5000
        assert len(set(scored)) == len(scored)
        # From everywhere.
        assert {place // 10_000 for place in scored} == set(range(6))
        assert parts == spread(whole(bounds, range(3)), 5000)


class TestDynamic:
    def test_what_does_not_learn_costs_what_it_does(self) -> None:
        text = corpus(50, 130, held_out=(0,))
        made = model(text.alphabet.size)
        stretches = whole(text.bounds, range(2))
        slow = dynamic(made, text.ids, stretches, rate=1e-12, window=7)
        exact = static(made, text.ids, stretches)
        assert slow.nats == pytest.approx(exact.nats, rel=1e-5)
        np.testing.assert_allclose(slow.by_position, exact.by_position, rtol=1e-5)

    def test_steps_of_descent_follow_each_window(self) -> None:
        """Two windows and a step of torch.optim.SGD in between."""
        text = corpus(20, 5)
        made = model(text.alphabet.size)
        ids = torch.from_numpy(text.ids.read(0, 20).astype(np.int64))
        inputs = torch.cat([torch.tensor([made.start]), ids[:-1]])
        theirs = copy.deepcopy(made)
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.3)
        state, nats = theirs.initial_state(1), 0.0
        for part in (slice(0, 12), slice(12, 20)):
            logits, state = theirs(inputs[part], torch.tensor([0, len(ids[part])]), state)
            loss = F.cross_entropy(logits, ids[part])
            nats += loss.item() * len(ids[part])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
            optimizer.step()
            state = tuple(s.detach() for s in state)
        cost = dynamic(made, text.ids, [Stretch(0, 0, 0, 20)], rate=0.3, window=12)
        assert cost.nats == pytest.approx(nats, rel=1e-5)

    def test_it_learns_what_repeats_and_leaves_the_model_as_it_is(self) -> None:
        text = of_texts(["abcd" * 150, ""], [False, True])
        made = model(text.alphabet.size, hidden_size=16)
        before = copy.deepcopy(made.state_dict())
        stretches = whole(text.bounds, [0])
        learning = dynamic(made, text.ids, stretches, rate=0.5, window=10)
        assert learning.mean < 0.8 * static(made, text.ids, stretches).mean
        for name, value in made.state_dict().items():
            assert torch.equal(value, before[name])
        assert all(parameter.grad is None for parameter in made.parameters())


def test_costs_add_up() -> None:
    cost = Cost()
    cost.add(np.array([1.0, 2.0], np.float32), 0)
    cost.add(np.array([4.0], np.float32), 2)
    assert (cost.nats, cost.targets, cost.mean) == (7.0, 3, 7 / 3)
    assert cost.positions() == [(1, 1.0), (2, 3.0)]


def test_perplexity_has_no_end() -> None:
    assert Cost(nats=1e4, targets=1).perplexity == math.inf
