"""Which sequences make an update: batches by a budget of steps, and each process's share."""

from heapq import heapreplace
from itertools import pairwise

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike

from peephole.errors import UserError

Numbers = Int64[np.ndarray, "..."]


def at_least(least: int, value: int, option: str) -> None:
    """Raise UserError if the value is less."""
    if value < least:
        raise UserError(f"{value}; it must be at least {least}", option)


class Batches:
    """Whole sequences in batches, in an order drawn anew for each epoch.

    An update is one global batch, which the processes of a job share among them. Which sequences
    it has follows from the seed, the epoch and the update's number within it and from nothing
    else: not from the number of processes, nor from what was asked before. So a position in the
    training is two numbers, the epoch and k; to resume, ask ``epoch(e).batch(k)`` for the next.
    (The order is numpy's own, which may draw another one in another version of it.)

    Sequences come at random. With ``pool`` above 1 they are gathered into pools of so many
    batches' worth, each pool is sorted by length and cut, and the batches come at random: then
    a batch has sequences of similar length. Layers that pad need that; ours gain nothing from it
    (``python -m benchmarks sampler``).
    """

    def __init__(
        self,
        lengths: ArrayLike,
        *,
        batch_size: int | None = None,
        batch_steps: int | None = None,
        pool: int = 1,
        seed: int,
    ) -> None:
        """At least one limit must be given; with two of them both hold.

        Args:
            lengths: ``[B]``, the steps of each sequence; a sequence may have none.
            batch_size: sequences in a global batch, at most.
            batch_steps: steps in a global batch, at most; a sequence with more is a batch of its
                own.
            pool: batches whose sequences are sorted by length together; 1 for none.
            seed: of the order, 0 or more.

        Raises:
            UserError: no sequences, a negative length, no limit, or a number that is too small.
        """
        self.lengths = checked_lengths(lengths)
        if batch_size is None and batch_steps is None:
            raise UserError("not given, nor is batch_steps; give one of them or both", "batch_size")
        self.batch_size = len(self.lengths) if batch_size is None else batch_size
        self.batch_steps = batch_steps
        self.pool = pool
        self.seed = seed
        at_least(1, self.batch_size, "batch_size")
        if batch_steps is not None:
            at_least(1, batch_steps, "batch_steps")
        at_least(1, pool, "pool")
        at_least(0, seed, "seed")

    def epoch(self, number: int) -> "Epoch":
        """Plan an epoch, 0 or later: its order and where its batches begin and end.

        With ``batch_steps`` epochs differ in their number of updates.
        """
        draw = generator(self.seed, number)
        order = draw.permutation(len(self.lengths))
        if self.pool > 1:
            order = self._sorted_in_pools(order)
        bounds = self._cut(order, 1)
        begins, ends = bounds[:-1], bounds[1:]
        if self.pool > 1:
            shuffled = draw.permutation(len(begins))
            begins, ends = begins[shuffled], ends[shuffled]
        return Epoch(self.lengths, order, begins, ends)

    def _sorted_in_pools(self, order: Numbers) -> Numbers:
        bounds = self._cut(order, self.pool)
        pools = np.arange(len(bounds) - 1).repeat(np.diff(bounds))
        lengths = self.lengths[order]
        # Every other pool from its longest to its shortest: a batch with sequences of two pools
        # then has similar ones too.
        within = np.where(pools % 2, -lengths, lengths)
        keys = pools * (2 * lengths.max() + 1) + within
        ordered: Numbers = order[keys.argsort(kind="stable")]
        return ordered

    def _cut(self, order: Numbers, batches: int) -> Numbers:
        """Where so many batches' worth begin in ``order``, and its end."""
        B = len(order)
        size = min(batches * self.batch_size, B)
        if self.batch_steps is None:
            return np.append(np.arange(0, B, size), B)
        # In one array, since a large one that is new takes longer than what is computed in it;
        # any mode but "clip" makes another.
        sums = np.zeros(B + 1, dtype=np.int64)
        self.lengths.take(order, out=sums[1:], mode="clip")
        sums.cumsum(out=sums)
        steps = min(batches * self.batch_steps, int(sums[-1]))
        bounds = [0]
        while (begin := bounds[-1]) < B:
            ends = sums[begin + 1 : begin + size + 1]
            fitting = int(ends.searchsorted(sums[begin] + steps, side="right"))
            bounds.append(begin + max(1, fitting))
        return np.array(bounds)


class Epoch:
    """The batches of one epoch; its length is the number of its updates."""

    def __init__(self, lengths: Numbers, order: Numbers, begins: Numbers, ends: Numbers) -> None:
        """Use ``Batches.epoch``."""
        self._lengths, self._order = lengths, order
        self._begins, self._ends = begins, ends

    def __len__(self) -> int:
        return len(self._begins)

    def batch(self, k: int) -> Int64[np.ndarray, "b"]:
        """The numbers of the sequences in global batch k; not to be changed in place.

        Raises:
            IndexError: the epoch has no update k.
        """
        part: Numbers = self._order[self._begins[k] : self._ends[k]]
        return part

    def share(self, k: int, rank: int, world: int) -> Int64[np.ndarray, "b"]:
        """The part of global batch k that is one process's, in the batch's order.

        Sequences are dealt longest first, each to the process that has the fewest steps by then:
        no process has more than the mean and the longest sequence. An empty sequence counts as
        one step, so that many of them are dealt out too.

        Args:
            k: the update.
            rank: of the process, 0 to ``world - 1``.
            world: how many processes there are; with more than sequences some shares are empty.

        Raises:
            IndexError: the epoch has no update k.
        """
        check_rank(rank, world)
        batch = self.batch(k)
        if world == 1:
            return batch
        part: Numbers = batch[_dealt(self._lengths[batch], world) == rank]
        return part


def _dealt(lengths: Numbers, world: int) -> Numbers:
    """The process that each sequence is dealt to.

    Those of the same length are dealt together, since a large batch of short sequences has few
    lengths: first as many of them as surely go to each process, then the others one by one.
    """
    longest_first = (-lengths).argsort(kind="stable")
    falling = lengths[longest_first]
    changes = (np.flatnonzero(falling[1:] != falling[:-1]) + 1).tolist()
    heap = [(0, rank) for rank in range(world)]
    ranks: list[int] = []
    counts: list[int] = []
    for begin, end in pairwise([0, *changes, len(falling)]):
        weight, count = max(1, int(falling[begin])), end - begin
        if count > world:
            heap.sort()
            level = _level([load for load, _ in heap], weight * count)
            for k, (load, rank) in enumerate(heap):
                if load + weight <= level:
                    some = (level - load) // weight
                    heap[k] = (load + weight * some, rank)
                    ranks.append(rank)
                    counts.append(some)
                    count -= some
            heap.sort()
        for _ in range(count):
            load, rank = heap[0]
            heapreplace(heap, (load + weight, rank))
            ranks.append(rank)
            counts.append(1)
    owners = np.empty_like(longest_first)
    owners[longest_first] = np.repeat(ranks, counts)
    return owners


def _level(loads: list[int], amount: int) -> int:
    """How high water stands that is poured over a floor of these heights, the lowest first."""
    for k, load in enumerate(loads, 1):
        amount += load
        if k == len(loads) or amount <= k * loads[k]:
            break
    return amount // k


def checked_lengths(lengths: ArrayLike) -> Int64[np.ndarray, "B"]:
    """Lengths as int64; raise UserError unless they are one or more whole numbers from 0."""
    array = np.asarray(lengths)
    if array.ndim != 1 or not len(array):
        raise UserError(
            f"lengths must be one number for each of one or more sequences, got shape "
            f"{list(array.shape)}"
        )
    if array.dtype.kind not in "iu":
        raise UserError(f"lengths must be whole numbers, got {array.dtype}")
    if (negative := array < 0).any():
        b = int(negative.argmax())
        raise UserError(f"lengths[{b}] = {array[b]} is negative")
    return array.astype(np.int64, copy=False)


def check_rank(rank: int, world: int) -> None:
    """Raise ValueError unless that many processes have one with this number."""
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes; ranks count from 0")


def generator(seed: int, epoch: int) -> np.random.Generator:
    """What draws an epoch's order: the same numbers for the same seed and epoch, always."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,))))
