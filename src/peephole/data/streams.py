"""Which steps make an update of truncated back-propagation: streams read a window at a time."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import ArrayLike

from peephole.data.batches import Numbers, at_least, check_rank, checked_lengths, generator
from peephole.errors import UserError


class Pieces(NamedTuple):
    """What an update reads: P pieces of documents, in the order of streams, then of time.

    A piece that does not continue begins from the initial state.

    Attributes:
        document: ``[P]``, the number of its document.
        begin: ``[P]``, its first step, counted from the document's.
        end: ``[P]``, the step after its last; none is empty.
        stream: ``[P]``, the number of its stream.
        continues: ``[P]``, whether it begins from the state that its stream carries: its document
            went on from the update before.
        carries: ``[P]``, whether its last state is the one that its stream carries to the next
            update: it is the stream's last here.
        streams: those of which these pieces are; some may have none.
    """

    document: Int64[np.ndarray, "P"]
    begin: Int64[np.ndarray, "P"]
    end: Int64[np.ndarray, "P"]
    stream: Int64[np.ndarray, "P"]
    continues: Bool[np.ndarray, "P"]
    carries: Bool[np.ndarray, "P"]
    streams: range

    @property
    def lengths(self) -> Int64[np.ndarray, "P"]:
        lengths: Numbers = self.end - self.begin
        return lengths


class Streams:
    """Documents read side by side, a window at a time, with the state carried over.

    Each epoch puts the documents one after the other in an order drawn anew and cuts the whole
    into stretches of equal length (to one step), one a stream. Update k reads steps ``k * window``
    to ``(k + 1) * window - 1`` of every stretch; there a document may end and the next one begin.

    A single document has no order to draw. An epoch begins at a random step of it instead and
    leaves out some, so that windows differ from epoch to epoch: ``window - 1`` steps at the ends
    together, or a tenth of the document where that is less.

    As with ``Batches``, all this follows from seed, epoch and k alone: a position in the training
    is these numbers, and to resume, one asks for the next update (and needs the states that the
    streams carry).
    """

    def __init__(
        self,
        lengths: ArrayLike,
        *,
        streams: int,
        window: int,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        """Documents of any length, be it a million short ones or a single one of 10^9 steps.

        Args:
            lengths: the steps of each document; one may have none.
            streams: how many there are; with fewer steps some are empty.
            window: steps of a stream in an update.
            seed: of the order, 0 or more.
            shuffle: False reads all steps of all documents in their own order, the same way in
                every epoch.

        Raises:
            UserError: no steps, a negative length, or a number that is too small.
        """
        self.lengths = checked_lengths(lengths)
        self.documents = np.flatnonzero(self.lengths)
        if not len(self.documents):
            raise UserError("lengths are all 0; at least one document must have steps")
        self.streams, self.window, self.seed = streams, window, seed
        self.shuffle = shuffle
        at_least(1, streams, "streams")
        at_least(1, window, "window")
        at_least(0, seed, "seed")

    def epoch(self, number: int) -> "StreamsEpoch":
        """Plan an epoch, 0 or later: the order of the documents and where streams begin."""
        documents = self.documents
        draw = generator(self.seed, number)
        if self.shuffle:
            documents = documents[draw.permutation(len(documents))]
        bounds = np.concatenate([[0], self.lengths[documents].cumsum()])
        first, steps = 0, int(bounds[-1])
        if self.shuffle and len(documents) == 1:
            left_out = min(self.window - 1, steps // 10)
            first = int(draw.integers(left_out + 1))
            steps -= left_out
        starts = first + steps * np.arange(self.streams + 1) // self.streams
        return StreamsEpoch(documents, bounds, starts, self.window)


class StreamsEpoch:
    """The windows of one epoch; its length is the number of its updates."""

    def __init__(self, documents: Numbers, bounds: Numbers, starts: Numbers, window: int) -> None:
        """Use ``Streams.epoch``.

        Args:
            documents: ``[D]``, those with steps, in the epoch's order.
            bounds: ``[D + 1]``, where each begins if they stand one after the other.
            starts: ``[S + 1]``, where the stretches begin there, and where the last one ends.
            window: steps.
        """
        self._documents, self._bounds = documents, bounds
        self._starts, self._window = starts, window
        self._updates = -(-int(np.diff(starts).max()) // window)

    def __len__(self) -> int:
        return self._updates

    def batch(self, k: int) -> Pieces:
        """What all streams read in update k.

        Raises:
            IndexError: the epoch has no update k.
        """
        return self.share(k, 0, 1)

    def share(self, k: int, rank: int, world: int) -> Pieces:
        """The part of update k that is one process's: that of its streams.

        Args:
            k: the update.
            rank: of the process, 0 to ``world - 1``.
            world: how many processes there are; with more than streams some shares are empty.

        Raises:
            IndexError: the epoch has no update k.
        """
        if not 0 <= k < self._updates:
            raise IndexError(f"update {k} of an epoch that has {self._updates}")
        own = streams_of(len(self._starts) - 1, rank, world)
        begins = self._starts[own.start : own.stop] + k * self._window
        ends = np.minimum(begins + self._window, self._starts[own.start + 1 : own.stop + 1])
        stream = np.arange(own.start, own.stop)
        if k == self._updates - 1:
            # Shorter stretches may have ended.
            left = begins < ends
            begins, ends, stream = begins[left], ends[left], stream[left]
        first = self._bounds.searchsorted(begins, side="right") - 1
        counts = self._bounds.searchsorted(ends, side="left") - first
        after = counts.cumsum()
        before = after - counts
        place = np.arange(counts.sum()) + (first - before).repeat(counts)
        offset = self._bounds[place]
        begin = np.maximum(begins.repeat(counts) - offset, 0)
        end = np.minimum(ends.repeat(counts), self._bounds[place + 1]) - offset
        continues, carries = np.zeros((2, len(place)), dtype=bool)
        continues[before] = (begin[before] > 0) & (k > 0)
        carries[after - 1] = True
        return Pieces(
            self._documents[place], begin, end, stream.repeat(counts), continues, carries, own
        )


def streams_of(streams: int, rank: int, world: int) -> range:
    """The streams of one process, the same in every update: neighbours, evenly shared out.

    Args:
        streams: how many there are in all.
        rank: of the process, 0 to ``world - 1``.
        world: how many processes there are; with more than streams some have none.
    """
    check_rank(rank, world)
    return range(streams * rank // world, streams * (rank + 1) // world)
