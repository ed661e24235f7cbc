"""Which sequences make an update, and each process's share of it."""

import itertools
import sys
from heapq import heapify, heapreplace
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from peephole.data.batches import Batches, Epoch
from peephole.errors import UserError

LENGTHS = st.lists(st.integers(0, 20), min_size=1, max_size=60)
LIMITS = st.fixed_dictionaries(
    {}, optional={"batch_size": st.integers(1, 9), "batch_steps": st.integers(1, 60)}
).filter(bool)
POOLS = st.integers(1, 4)
SEEDS = st.integers(0, 2**70)


@st.composite
def plans(draw: st.DrawFn) -> Batches:
    return Batches(draw(LENGTHS), **draw(LIMITS), pool=draw(POOLS), seed=draw(SEEDS))


def all_batches(epoch: Epoch) -> list[list[int]]:
    return [epoch.batch(k).tolist() for k in range(len(epoch))]


def flat(batches: list[list[int]]) -> list[int]:
    return [b for batch in batches for b in batch]


class TestBatches:
    @hypothesis.given(plan=plans(), number=st.integers(0, 5))
    def test_an_epoch_has_every_sequence_once(self, plan: Batches, number: int) -> None:
        batches = all_batches(plan.epoch(number))
        assert all(batches)
        # What is computed is what is there: nothing is padded, left out or done twice.
        assert sorted(flat(batches)) == list(range(len(plan.lengths)))

    @hypothesis.given(plan=plans())
    def test_limits_hold(self, plan: Batches) -> None:
        for batch in all_batches(plan.epoch(0)):
            assert len(batch) <= plan.batch_size
            if plan.batch_steps is not None and len(batch) > 1:
                assert plan.lengths[batch].sum() <= plan.batch_steps

    @hypothesis.given(lengths=LENGTHS, limits=LIMITS, seed=SEEDS)
    def test_no_batch_has_room_for_the_next_sequence(
        self, lengths: list[int], limits: dict[str, int], seed: int
    ) -> None:
        for batch, following in itertools.pairwise(
            all_batches(Batches(lengths, **limits, seed=seed).epoch(0))
        ):
            more = [lengths[b] for b in [*batch, following[0]]]
            assert len(more) > limits.get("batch_size", 99) or sum(more) > limits["batch_steps"]

    @hypothesis.given(plan=plans(), others=st.lists(st.integers(0, 9), max_size=3))
    def test_seed_and_epoch_say_all(self, plan: Batches, others: list[int]) -> None:
        again = Batches(
            plan.lengths,
            batch_size=plan.batch_size,
            batch_steps=plan.batch_steps,
            pool=plan.pool,
            seed=plan.seed,
        )
        for number in others:
            again.epoch(number)
        ours, theirs = plan.epoch(2), again.epoch(2)
        for k in reversed(range(len(theirs))):
            assert ours.batch(k).tolist() == theirs.batch(k).tolist()

    @pytest.mark.parametrize("pool", [1, 3])
    def test_every_seed_and_epoch_has_its_own_order(self, pool: int) -> None:
        orders = {
            tuple(flat(all_batches(Batches([5] * 40, batch_size=3, pool=pool, seed=seed).epoch(e))))
            for seed in (0, 1, 2, 2**32, 2**32 + 1)
            for e in range(8)
        }
        assert len(orders) == 40

    def test_the_order_is_the_one_it_was(self) -> None:
        """A run that is resumed goes on with it, so a change of it must not come in silence."""
        epoch = Batches(range(8), batch_size=3, seed=7).epoch(2)
        assert all_batches(epoch) == [[3, 6, 0], [7, 2, 4], [1, 5]]

    def test_places_are_uniform(self) -> None:
        """Each of 6 sequences is in each of 3 batches in a third of 600 epochs."""
        plan = Batches([1] * 6, batch_size=2, seed=0)
        counts = np.zeros((3, 6), dtype=int)
        for number in range(600):
            for k, batch in enumerate(all_batches(plan.epoch(number))):
                counts[k, batch] += 1
        assert abs(counts - 200).max() < 5 * np.sqrt(600 * 2 / 9)

    def test_a_long_sequence_is_a_batch_of_its_own(self) -> None:
        plan = Batches([3, 50, 0, 3, 3, 50], batch_steps=9, seed=0)
        for number in range(20):
            batches = all_batches(plan.epoch(number))
            assert [1] in batches
            assert [5] in batches

    def test_without_steps_there_are_batches_all_the_same(self) -> None:
        assert sorted(flat(all_batches(Batches([0, 0, 0], batch_steps=1, seed=0).epoch(0)))) == [
            0,
            1,
            2,
        ]

    def test_limits_may_be_larger_than_any_number(self) -> None:
        for limits in ({"batch_steps": 10**30}, {"batch_size": sys.maxsize, "pool": 9}):
            assert len(Batches([3, 4], **limits, seed=0).epoch(0)) == 1

    def test_an_update_that_is_not_there(self) -> None:
        epoch = Batches([1] * 7, batch_size=2, seed=0).epoch(0)
        assert len(epoch) == 4
        with pytest.raises(IndexError):
            epoch.batch(4)


class TestPools:
    @hypothesis.given(lengths=LENGTHS, limits=LIMITS, seed=SEEDS)
    def test_one_pool_of_all_is_sorted(
        self, lengths: list[int], limits: dict[str, int], seed: int
    ) -> None:
        epoch = Batches(lengths, **limits, pool=2000, seed=seed).epoch(0)
        batches = [[lengths[b] for b in batch] for batch in all_batches(epoch)]
        assert flat(sorted(batches, key=lambda batch: (batch[0], batch[-1]))) == sorted(lengths)

    def test_a_pool_has_the_sequences_that_came_at_random(self) -> None:
        lengths = np.random.default_rng(0).integers(0, 100, 60)
        alone = all_batches(Batches(lengths, batch_size=5, seed=3).epoch(1))
        pools = [set(flat(alone[k : k + 4])) for k in range(0, 12, 4)]
        batches = all_batches(Batches(lengths, batch_size=5, pool=4, seed=3).epoch(1))
        for pool in pools:
            own = [lengths[batch].tolist() for batch in batches if set(batch) <= pool]
            assert len(own) == 4
            assert flat(sorted(map(sorted, own))) == sorted(lengths[list(pool)])

    def test_a_batch_of_two_pools_has_similar_lengths_too(self) -> None:
        lengths = np.random.default_rng(0).integers(1, 100, 2000)
        spreads = [
            np.ptp(lengths[batch])
            for batch in all_batches(Batches(lengths, batch_steps=500, pool=8, seed=0).epoch(0))
        ]
        assert max(spreads) < 50

    def test_batches_come_at_random(self) -> None:
        lengths = np.arange(200)
        epoch = Batches(lengths, batch_size=2, pool=100, seed=0).epoch(0)
        first = [batch[0] for batch in all_batches(epoch)]
        assert abs(np.corrcoef(first, np.arange(100))[0, 1]) < 0.3


def by_heap(lengths: list[int], world: int) -> list[int]:
    """The loads that longest first to the least loaded gives, falling."""
    loads = [0] * world
    heapify(loads)
    for length in sorted(lengths, reverse=True):
        heapreplace(loads, loads[0] + length)
    return sorted(loads, reverse=True)


def best(lengths: list[int], world: int) -> int:
    """The least that the most loaded can have."""
    return min(
        max(sum(n for n, r in zip(lengths, ranks, strict=True) if r == rank) for rank in ranks)
        for ranks in itertools.product(range(world), repeat=len(lengths))
    )


class TestShares:
    @hypothesis.given(plan=plans(), world=st.integers(1, 7))
    def test_every_sequence_of_a_batch_is_in_one_share(self, plan: Batches, world: int) -> None:
        epoch = plan.epoch(0)
        for k in range(len(epoch)):
            batch = epoch.batch(k).tolist()
            shares = [epoch.share(k, rank, world).tolist() for rank in range(world)]
            assert sorted(flat(shares)) == sorted(batch)
            for share in shares:
                assert share == sorted(share, key=batch.index)

    @hypothesis.given(plan=plans())
    def test_one_process_has_the_batch_as_it_is(self, plan: Batches) -> None:
        epoch = plan.epoch(0)
        for k in range(len(epoch)):
            assert epoch.share(k, 0, 1).tolist() == epoch.batch(k).tolist()

    @hypothesis.given(
        lengths=st.lists(
            st.sampled_from([0, 1, 1, 2, 3, 7, 40, 1000]) | st.integers(0, 50),
            min_size=1,
            max_size=200,
        ),
        world=st.integers(2, 9),
    )
    def test_are_dealt_longest_first_to_the_least_loaded(
        self, lengths: list[int], world: int
    ) -> None:
        epoch = Batches(lengths, batch_size=len(lengths), seed=0).epoch(0)
        shares = [[lengths[b] for b in epoch.share(0, rank, world)] for rank in range(world)]
        loads = sorted(map(sum, shares), reverse=True)
        assert loads == by_heap(lengths, world)
        assert loads[0] <= sum(lengths) / world + max(lengths)

    @hypothesis.given(
        lengths=st.lists(st.integers(1, 30), min_size=1, max_size=7), world=st.integers(2, 3)
    )
    def test_are_as_good_as_graham_says(self, lengths: list[int], world: int) -> None:
        """Graham 1969: at most 4/3 - 1 / (3 world) times as much as the best there is."""
        epoch = Batches(lengths, batch_size=len(lengths), seed=0).epoch(0)
        most = max(sum(lengths[b] for b in epoch.share(0, rank, world)) for rank in range(world))
        assert 3 * world * most <= (4 * world - 1) * best(lengths, world)

    def test_empty_sequences_are_dealt_out_too(self) -> None:
        epoch = Batches([0] * 10, batch_size=10, seed=0).epoch(0)
        assert sorted(len(epoch.share(0, rank, 4)) for rank in range(4)) == [2, 2, 3, 3]

    def test_with_more_processes_than_sequences_some_are_empty(self) -> None:
        epoch = Batches([4, 4, 4], batch_size=3, seed=0).epoch(0)
        shares = [epoch.share(0, rank, 5) for rank in range(5)]
        assert [len(share) for share in shares] == [1, 1, 1, 0, 0]
        assert {share.dtype for share in shares} == {np.dtype("int64")}

    @pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0), (1, 1)])
    def test_a_rank_that_is_not_there(self, rank: int, world: int) -> None:
        epoch = Batches([1], batch_size=1, seed=0).epoch(0)
        with pytest.raises(ValueError, match=f"rank {rank} of {world} processes"):
            epoch.share(0, rank, world)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": []}, r"lengths must be one number .* one or more sequences, got shape \[0\]"),
        ({"lengths": [[1]]}, r"got shape \[1, 1\]"),
        ({"lengths": [1.5]}, "lengths must be whole numbers, got float64"),
        ({"lengths": [True]}, "lengths must be whole numbers, got bool"),
        ({"lengths": [3, 0, -4, -5]}, r"lengths\[2\] = -4 is negative"),
        ({"batch_size": None}, "batch_size: not given, nor is batch_steps; give one"),
        ({"batch_size": 0}, "batch_size: 0; it must be at least 1"),
        ({"batch_steps": 0}, "batch_steps: 0; it must be at least 1"),
        ({"pool": 0}, "pool: 0; it must be at least 1"),
        ({"seed": -1}, "seed: -1; it must be at least 0"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Batches(**{"lengths": [1], "batch_size": 1, "seed": 0, **options})


def test_lengths_of_any_whole_numbers_will_do() -> None:
    for lengths in ([3, 1], np.array([3, 1], dtype=np.uint8), np.array([3, 1], dtype=np.int32)):
        plan = Batches(lengths, batch_steps=3, seed=0)
        assert plan.lengths.dtype == np.int64
        assert len(plan.epoch(0)) == 2
