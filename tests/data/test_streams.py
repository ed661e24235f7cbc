"""Which steps make an update of truncated back-propagation."""

import itertools
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from peephole.data.streams import Pieces, Streams, StreamsEpoch, streams_of
from peephole.errors import UserError

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=15).filter(any)
# A document and a step of it.
Step = tuple[int, int]


@st.composite
def plans(draw: st.DrawFn) -> Streams:
    return Streams(
        draw(LENGTHS),
        streams=draw(st.integers(1, 9)),
        window=draw(st.integers(1, 12)),
        seed=draw(st.integers(0, 2**70)),
        shuffle=draw(st.booleans()),
    )


def steps(pieces: Pieces, p: int) -> list[Step]:
    return [(int(pieces.document[p]), t) for t in range(pieces.begin[p], pieces.end[p])]


def read(epoch: StreamsEpoch, streams: int) -> list[list[list[Step]]]:
    """For each stream and update the steps that are read, in their order."""
    found: list[list[list[Step]]] = [[[] for _ in range(len(epoch))] for _ in range(streams)]
    for k in range(len(epoch)):
        pieces = epoch.batch(k)
        for p, stream in enumerate(pieces.stream.tolist()):
            found[stream][k] += steps(pieces, p)
    return found


def joined(lists: list[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))


class TestStreams:
    @hypothesis.given(plan=plans(), number=st.integers(0, 3))
    def test_stretches_are_the_documents_one_after_the_other(
        self, plan: Streams, number: int
    ) -> None:
        stretches = [joined(own) for own in read(plan.epoch(number), plan.streams)]
        lengths = plan.lengths.tolist()
        whole = joined(stretches)
        order = list(dict.fromkeys(document for document, _ in whole))
        every = [(document, t) for document in order for t in range(lengths[document])]
        if plan.shuffle and len(order) == 1:
            left_out = min(plan.window - 1, len(every) // 10)
            first = whole[0][1]
            assert 0 <= first <= left_out
            assert whole == every[first : first + len(every) - left_out]
        else:
            assert whole == every
            assert sorted(order) == [b for b, length in enumerate(lengths) if length]
        sizes = {len(stretch) for stretch in stretches}
        assert max(sizes) - min(sizes) <= 1

    @hypothesis.given(plan=plans())
    def test_an_update_is_a_window_of_every_stretch(self, plan: Streams) -> None:
        epoch = plan.epoch(0)
        assert len(epoch)
        for own in read(epoch, plan.streams):
            left = sum(map(len, own))
            for window in own:
                assert len(window) == min(plan.window, left)
                left -= len(window)

    @hypothesis.given(plan=plans())
    def test_pieces_are_in_order_and_say_how_long_they_are(self, plan: Streams) -> None:
        epoch = plan.epoch(0)
        for k in range(len(epoch)):
            pieces = epoch.batch(k)
            assert pieces.stream.tolist() == sorted(pieces.stream)
            assert (pieces.begin >= 0).all()
            assert (pieces.end <= plan.lengths[pieces.document]).all()
            assert pieces.lengths.tolist() == [len(steps(pieces, p)) for p in range(len(pieces[0]))]
            assert (pieces.lengths > 0).all()

    @hypothesis.given(plan=plans())
    def test_carrying_states_is_as_reading_each_stretch_at_once(self, plan: Streams) -> None:
        """A state that is the list of steps since its document, or its stretch, began."""
        epoch = plan.epoch(1)
        carried: dict[int, list[Step]] = {}
        ends: dict[Step, list[Step]] = {}
        for k in range(len(epoch)):
            pieces = epoch.batch(k)
            after = {}
            for p, stream in enumerate(pieces.stream.tolist()):
                state = carried[stream] if pieces.continues[p] else []
                state = state + steps(pieces, p)
                ends[state[-1]] = state
                if pieces.carries[p]:
                    assert stream not in after
                    after[stream] = state
            assert set(after) == set(pieces.stream.tolist())
            carried = after
        wanted: dict[Step, list[Step]] = {}
        for own in read(epoch, plan.streams):
            for step, k in [(step, k) for k, window in enumerate(own) for step in window]:
                before = (step[0], step[1] - 1)
                went_on = before in wanted and before in joined(own[: k + 1])
                wanted[step] = [*(wanted[before] if went_on else []), step]
        assert ends == {last: wanted[last] for last in ends}

    @hypothesis.given(plan=plans(), world=st.integers(1, 12))
    def test_a_process_reads_the_same_streams_in_every_update(
        self, plan: Streams, world: int
    ) -> None:
        epoch = plan.epoch(0)
        own = [streams_of(plan.streams, rank, world) for rank in range(world)]
        assert joined([list(some) for some in own]) == list(range(plan.streams))
        assert max(map(len, own)) - min(map(len, own)) <= 1
        for k in range(len(epoch)):
            batch = epoch.batch(k)
            shares = [epoch.share(k, rank, world) for rank in range(world)]
            for some, share in zip(own, shares, strict=True):
                assert set(share.stream.tolist()) <= set(some)
                assert share.streams == some
            arrays = [share[:-1] for share in shares]
            for whole, parts in zip(batch[:-1], zip(*arrays, strict=True), strict=True):
                assert {part.dtype for part in parts} == {whole.dtype}
                assert joined([part.tolist() for part in parts]) == whole.tolist()

    @hypothesis.given(plan=plans(), others=st.lists(st.integers(0, 9), max_size=3))
    def test_seed_and_epoch_say_all(self, plan: Streams, others: list[int]) -> None:
        again = Streams(
            plan.lengths,
            streams=plan.streams,
            window=plan.window,
            seed=plan.seed,
            shuffle=plan.shuffle,
        )
        for number in others:
            again.epoch(number)
        ours, theirs = plan.epoch(2), again.epoch(2)
        for k in reversed(range(len(theirs))):
            for mine, other in zip(ours.batch(k), theirs.batch(k), strict=True):
                assert list(mine) == list(other)

    def test_the_order_is_the_one_it_was(self) -> None:
        """A run that is resumed goes on with it, so a change of it must not come in silence."""
        documents = Streams([1] * 6, streams=1, window=6, seed=7).epoch(2).batch(0).document
        assert documents.tolist() == [4, 3, 2, 0, 1, 5]
        assert Streams([999], streams=1, window=50, seed=7).epoch(2).batch(0).begin == 19

    def test_every_seed_and_epoch_has_its_own_order(self) -> None:
        orders = {
            tuple(joined(joined(read(Streams([1] * 30, streams=3, window=4, seed=s).epoch(e), 3))))
            for s in (0, 1, 2**32)
            for e in range(5)
        }
        assert len(orders) == 15

    def test_without_shuffling_every_epoch_is_the_same(self) -> None:
        for lengths in ([3, 0, 9, 4], [100]):
            plan = Streams(lengths, streams=2, window=3, seed=0, shuffle=False)
            first, second = (joined(joined(read(plan.epoch(e), 2))) for e in range(2))
            assert first == second == [(b, t) for b, n in enumerate(lengths) for t in range(n)]

    @pytest.mark.parametrize("k", [-1, 4])
    def test_an_update_that_is_not_there(self, k: int) -> None:
        epoch = Streams([10, 10], streams=2, window=3, seed=0).epoch(0)
        assert len(epoch) == 4
        with pytest.raises(IndexError, match=f"update {k} of an epoch that has 4"):
            epoch.batch(k)

    def test_a_rank_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="rank 2 of 2 processes"):
            Streams([9], streams=1, window=3, seed=0).epoch(0).share(0, 2, 2)


class TestOneSeries:
    @pytest.mark.parametrize(
        ("steps", "streams", "window"), [(1009, 4, 10), (95, 2, 30), (7, 1, 3)]
    )
    def test_windows_begin_at_a_random_step(self, steps: int, streams: int, window: int) -> None:
        """Stretches of equal length, one after the other, that begin anywhere in the slack."""
        slack = min(window - 1, steps // 10)
        length = (steps - slack) // streams
        plan = Streams([steps], streams=streams, window=window, seed=0)
        shifts = set()
        for number in range(200):
            epoch = plan.epoch(number)
            assert len(epoch) == -(-length // window)
            shift = int(epoch.batch(0).begin[0])
            shifts.add(shift)
            for k in range(len(epoch)):
                pieces = epoch.batch(k)
                begin = shift + length * np.arange(streams) + k * window
                width = min(window, length - k * window)
                assert pieces.begin.tolist() == begin.tolist()
                assert pieces.end.tolist() == (begin + width).tolist()
                assert pieces.continues.tolist() == [k > 0] * streams
                assert pieces.carries.all()
        assert shifts == set(range(slack + 1))

    def test_one_with_steps_among_empty_documents_is_one_series(self) -> None:
        plan = Streams([0, 500, 0], streams=1, window=20, seed=0)
        assert len({int(plan.epoch(e).batch(0).begin[0]) for e in range(50)}) > 10

    def test_a_very_long_one_takes_no_memory(self) -> None:
        epoch = Streams([10**15], streams=3, window=10**6, seed=0, shuffle=False).epoch(0)
        assert len(epoch) == -(-(10**15) // (3 * 10**6))
        last = epoch.batch(len(epoch) - 1)
        assert last.end[-1] == 10**15
        assert last.continues.all()


def test_an_example() -> None:
    plan = Streams([4, 0, 1, 5], streams=2, window=4, seed=0, shuffle=False)
    first, second = (plan.epoch(0).batch(k) for k in range(2))
    assert first.document.tolist() == [0, 3]
    assert first.begin.tolist() == [0, 0]
    assert first.end.tolist() == [4, 4]
    assert first.continues.tolist() == [False, False]
    assert second.document.tolist() == [2, 3]
    assert second.begin.tolist() == [0, 4]
    assert second.end.tolist() == [1, 5]
    assert second.continues.tolist() == [False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": []}, r"lengths must be one number .* got shape \[0\]"),
        ({"lengths": [3, -1]}, r"lengths\[1\] = -1 is negative"),
        ({"lengths": [0, 0]}, "lengths are all 0; at least one document must have steps"),
        ({"streams": 0}, "streams: 0; it must be at least 1"),
        ({"window": 0}, "window: 0; it must be at least 1"),
        ({"seed": -1}, "seed: -1; it must be at least 0"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Streams(**{"lengths": [1], "streams": 1, "window": 1, "seed": 0, **options})
