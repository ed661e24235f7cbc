"""``peephole.ops.reference.scan``: which rows each step is given."""

import pytest
import torch
from torch import Tensor

from peephole.ops.reference.scan import scan
from tests.helpers.batches import LENGTHS, batch_of
from tests.helpers.marks import DIRECTIONS


@DIRECTIONS
def test_a_step_takes_only_the_sequences_that_have_it(reverse: bool) -> None:
    ragged = batch_of(LENGTHS)
    rows: list[tuple[int, int, int]] = []

    def step(
        x: Tensor, total: Tensor, count: Tensor
    ) -> tuple[tuple[Tensor], tuple[Tensor, Tensor]]:
        rows.append((len(x), len(total), len(count)))
        return (total + x,), (total + x, count + 1)

    state = (torch.zeros(6, 2, dtype=torch.float64), torch.zeros(6, dtype=torch.int64))
    (y,), (totals, counts) = scan(step, [ragged.values], ragged.layout, state, reverse=reverse)
    having = [sum(length > t for length in LENGTHS) for t in range(max(LENGTHS))]
    assert rows == [(n, n, n) for n in having]
    assert counts.tolist() == LENGTHS
    apart = ragged.to_list()
    torch.testing.assert_close(totals, torch.stack([x.sum(0) for x in apart]))
    running = [x.flip(0).cumsum(0).flip(0) if reverse else x.cumsum(0) for x in apart]
    torch.testing.assert_close(y, torch.cat(running))


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_a_batch_without_steps_keeps_its_state(lengths: list[int]) -> None:
    ragged, state = batch_of(lengths), torch.randn(len(lengths), 2, dtype=torch.float64)
    rows: list[int] = []

    def step(x: Tensor, total: Tensor) -> tuple[tuple[Tensor], tuple[Tensor]]:
        rows.append(len(x))
        return (total + x,), (total + x,)

    (y,), (final,) = scan(step, [ragged.values], ragged.layout, (state,))
    assert sum(rows) == 0
    assert y.shape == (0, 2)
    assert torch.equal(final, state)
