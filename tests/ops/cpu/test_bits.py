"""What is the same to the last bit: a sequence in any company, and any number of threads.

Given the same ``gates_x``. Weights' gradients are sums over all sequences, so they depend on which
there are and how they are shared out, but not on the run.
"""

import math
from collections.abc import Iterator, Sequence

import pytest
import torch

import peephole
from peephole import Ragged
from peephole.nn import Layer
from tests.helpers.batches import offsets_of
from tests.helpers.kernels import (
    KINDS,
    LADEN,
    assert_same_bits,
    draw,
    draw_upstream,
    outcome,
)
from tests.helpers.marks import DIRECTIONS
from tests.helpers.recurrences import Recurrence, Tensors, leaves, pick, spans

RECURRENCES = {name: KINDS[name] for name in ("lstm", "lstm-diagonal", "lstm-full", "gru-bias_hn")}
RECURRENCES |= {name: KINDS[name] for name in ("lstm-coupled-full", "rnn-tanh")}
RECURRENCES |= {f"{name}-laden": LADEN[name] for name in ("lstm-full", "gru", "rnn-relu")}
EVERY = pytest.mark.parametrize("recurrence", RECURRENCES.values(), ids=RECURRENCES)
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["float32", "float64", "bfloat16"]
)

# Alone, those of 1 and 2 steps are computed on weights as they lie.
LENGTHS = [7, 1, 0, 2, 3, 20, 1, 2, 5, 0, 13]
BY_STEP = ("y", "d_gates_x")


@pytest.fixture
def threads() -> Iterator[None]:
    """Set the number of threads back after the test."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def alone(tensors: Tensors, sequences: Sequence[int]) -> Tensors:
    """The call for some of the sequences, its tensors leaves of autograd."""
    inputs = leaves(tensors)
    return {
        name: t.detach().requires_grad_(name in inputs)
        for name, t in pick(tensors, sequences).items()
    }


def of_sequences(results: Tensors, tensors: Tensors, sequences: Sequence[int]) -> Tensors:
    """The rows of outputs, of gradients or of upstream ones that belong to these sequences."""
    rows = [row for b in sequences for row in spans(tensors)[b]]
    return {
        name: result[rows if name in BY_STEP else list(sequences)]
        for name, result in results.items()
        if name in (*BY_STEP, "h_n", "c_n", "d_h0", "d_c0")
    }


def assert_company_does_not_matter(
    recurrence: Recurrence, tensors: Tensors, others: Sequence[Sequence[int]], reverse: bool
) -> None:
    upstream = draw_upstream(recurrence, tensors)
    whole = outcome(recurrence, tensors, upstream, reverse=reverse)
    for sequences in others:
        given = alone(tensors, sequences)
        found = outcome(
            recurrence, given, of_sequences(upstream, tensors, sequences), reverse=reverse
        )
        found = of_sequences(found, given, range(len(sequences)))
        assert_same_bits(found, of_sequences(whole, tensors, sequences), sequences)


class TestCompany:
    @EVERY
    @DIRECTIONS
    @DTYPES
    def test_alone(self, recurrence: Recurrence, reverse: bool, dtype: torch.dtype) -> None:
        for size in (3, 21, 70):
            tensors = draw(recurrence, LENGTHS, size, dtype)
            others = [[b] for b in range(len(LENGTHS))]
            assert_company_does_not_matter(recurrence, tensors, others, reverse)

    @EVERY
    @DTYPES
    def test_among_many(self, recurrence: Recurrence, dtype: torch.dtype) -> None:
        # Two groups of rows, and all places within a tile.
        lengths = [(b * 5) % 4 for b in range(75)]
        tensors = draw(recurrence, lengths, 19, dtype)
        others = [[b] for b in range(0, 75, 3)] + [list(range(b, 75)) for b in range(1, 75, 7)]
        assert_company_does_not_matter(recurrence, tensors, others, reverse=False)

    @EVERY
    @DTYPES
    def test_in_any_order(self, recurrence: Recurrence, dtype: torch.dtype) -> None:
        tensors = draw(recurrence, LENGTHS, 21, dtype)
        orders = [torch.randperm(len(LENGTHS)).tolist() for _ in range(5)]
        assert_company_does_not_matter(recurrence, tensors, orders, reverse=False)

    @EVERY
    @DTYPES
    @pytest.mark.parametrize("poison", [torch.nan, torch.inf], ids=["NaN", "infinity"])
    def test_of_a_sequence_that_is_not_finite(
        self, recurrence: Recurrence, dtype: torch.dtype, poison: float
    ) -> None:
        tensors = draw(recurrence, LENGTHS, 21, dtype)
        others = [b for b in range(len(LENGTHS)) if b not in (0, 3)]
        upstream = draw_upstream(recurrence, tensors)
        whole = outcome(recurrence, tensors, upstream)
        x = tensors["gates_x"].detach().clone()
        for b in (0, 3):
            x[spans(tensors)[b]] = poison
        poisoned = outcome(recurrence, tensors | {"gates_x": x.requires_grad_()}, upstream)
        assert_same_bits(
            of_sequences(poisoned, tensors, others), of_sequences(whole, tensors, others)
        )
        # Zoneout keeps some of the old numbers, but not to the end.
        assert math.isinf(poison) or poisoned["y"][spans(tensors)[0][-1]].isnan().any()


@pytest.mark.usefixtures("threads")
class TestThreads:
    # So much work that each of four threads gets a share.
    SIZES = ((64, [40, 1, 33, 0, 25, 60, 7, 30, 2, 55, 41, 38]), (130, [9] * 40))

    @EVERY
    @DTYPES
    @DIRECTIONS
    def test_any_number_of_threads(
        self, recurrence: Recurrence, dtype: torch.dtype, reverse: bool
    ) -> None:
        size, lengths = self.SIZES[reverse]
        tensors = draw(recurrence, lengths, size, dtype)
        upstream = draw_upstream(recurrence, tensors)
        every = range(len(lengths))
        found = []
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            result = outcome(recurrence, tensors, upstream, reverse=reverse)
            found.append(of_sequences(result, tensors, every))
        for count, result in enumerate(found, 1):
            assert_same_bits(result, found[0], count)

    @pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
    @DTYPES
    def test_gradients_of_the_input(self, kind: type[Layer], dtype: torch.dtype) -> None:
        size, lengths = self.SIZES[0]
        layer = kind(33, size, backend="cpu").to(dtype)
        x = torch.randn(sum(lengths), 33, dtype=dtype, requires_grad=True)
        found = []
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            y, _ = layer(Ragged(x, offsets_of(lengths)))
            found.append(torch.autograd.grad(y.values.square().sum(), x)[0])
        assert all(torch.equal(result, found[0]) for result in found)

    @EVERY
    @DTYPES
    def test_weight_gradients_from_run_to_run(
        self, recurrence: Recurrence, dtype: torch.dtype
    ) -> None:
        size, lengths = self.SIZES[0]
        tensors = draw(recurrence, lengths, size, dtype)
        upstream = draw_upstream(recurrence, tensors)
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            first = outcome(recurrence, tensors, upstream)
            for _ in range(3):
                assert_same_bits(outcome(recurrence, tensors, upstream), first, count)

    @pytest.mark.parametrize("name", ["lstm-diagonal", "gru-bias_hn"])
    def test_these_sizes_are_shared_out(self, name: str) -> None:
        # Each thread adds up its own sequences: other shares round otherwise.
        recurrence = KINDS[name]
        size, lengths = self.SIZES[0]
        tensors = draw(recurrence, lengths, size, torch.float32)
        upstream = draw_upstream(recurrence, tensors)
        summed = {"lstm-diagonal": "d_weight_ch", "gru-bias_hn": "d_bias_hn"}[name]
        found = []
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            found.append(outcome(recurrence, tensors, upstream)[summed])
        for k, result in enumerate(found):
            torch.testing.assert_close(result, found[0], rtol=1e-3, atol=1e-3)
            assert not any(torch.equal(result, other) for other in found[:k])
