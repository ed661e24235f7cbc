"""The compiled kernels against the reference at the sizes where they change what they do.

Vectors have 2, 4, 8 or 16 lanes, panels 4 vectors, tiles up to 24 rows; rows go through in groups
of 48, matrices in blocks of 64 rows; a few steps are computed on weights as they lie.
"""

import numpy as np
import pytest
import torch

from peephole.offsets import Layout
from peephole.ops.cpu import direction
from tests.helpers.kernels import (
    KINDS,
    LADEN,
    assert_agrees_with_reference,
    assert_same,
    draw,
    draw_upstream,
    outcome,
    output_names,
)
from tests.helpers.marks import DIRECTIONS
from tests.helpers.recurrences import Recurrence

EVERY = pytest.mark.parametrize("recurrence", KINDS.values(), ids=KINDS)
EVERY_LADEN = pytest.mark.parametrize("recurrence", LADEN.values(), ids=LADEN)
# One for each matrix, and each number of columns that a panel has.
CORE = ("lstm", "lstm-full", "lstm-coupled-full", "gru-bias_hn", "rnn-tanh")
EVERY_MATRIX = pytest.mark.parametrize("recurrence", [KINDS[name] for name in CORE], ids=CORE)


@EVERY_MATRIX
def test_every_hidden_size(recurrence: Recurrence) -> None:
    for size in [*range(1, 71), 127, 128, 129]:
        tensors = draw(recurrence, [3, 0, 1, 4], size)
        assert_agrees_with_reference(recurrence, tensors, what=size, reverse=bool(size % 3 == 0))


# Only in float32 has a vector 16 lanes. What is wrong at a size is wrong by far more than rounding.
@EVERY_MATRIX
def test_every_hidden_size_in_float32(recurrence: Recurrence) -> None:
    for size in [*range(1, 37), *range(47, 51), *range(63, 67), 80, 81, 95, 97, 113, 145]:
        exact = draw(recurrence, [4, 0, 3], size)
        coarse = {
            name: t.detach().float().requires_grad_() if t.requires_grad else t
            for name, t in exact.items()
        }
        upstream = draw_upstream(recurrence, exact)
        given = outcome(recurrence, coarse, {name: d.float() for name, d in upstream.items()})
        wanted = outcome(recurrence, exact, upstream, "reference")
        given = {name: t.double() for name, t in given.items()}
        assert_same(given, wanted, tolerance=1e-4, what=size)


@EVERY_LADEN
def test_hidden_sizes_with_options(recurrence: Recurrence) -> None:
    for size in [*range(1, 20), 31, 32, 33, 63, 64, 65, 97]:
        tensors = draw(recurrence, [2, 4, 0, 3], size)
        assert_agrees_with_reference(recurrence, tensors, what=size, reverse=bool(size % 2))


@EVERY_MATRIX
def test_every_number_of_sequences(recurrence: Recurrence) -> None:
    for count in [*range(1, 51), 95, 96, 97]:
        # As many rows in each step, or ever fewer.
        lengths = [3] * count if count % 7 else [1 + b % 5 for b in range(count)]
        tensors = draw(recurrence, lengths, 5)
        assert_agrees_with_reference(recurrence, tensors, what=lengths)


@EVERY_LADEN
@pytest.mark.parametrize("count", [23, 49, 73])
def test_numbers_of_sequences_with_options(recurrence: Recurrence, count: int) -> None:
    tensors = draw(recurrence, [(b * 7) % 6 for b in range(count)], 19)
    assert_agrees_with_reference(recurrence, tensors, reverse=count == 49)


@EVERY_LADEN
@pytest.mark.parametrize("steps", [255, 256, 257, 519])
def test_blocks_of_many_steps(recurrence: Recurrence, steps: int) -> None:
    # Weights' gradients add up 256 steps at once.
    lengths = [7] * (steps // 7) + [steps % 7, 0]
    for size in (3, 20, 37):
        tensors = draw(recurrence, lengths, size)
        assert_agrees_with_reference(recurrence, tensors, what=size, reverse=size == 20)


@EVERY_MATRIX
@pytest.mark.parametrize("size", [63, 64, 65, 128, 129, 200])
def test_blocks_of_many_units_and_groups_of_many_sequences(
    recurrence: Recurrence, size: int
) -> None:
    for count in (2, 60, 110):
        lengths = [1 + (b * 5) % 4 for b in range(count)]
        tensors = draw(recurrence, lengths, size)
        assert_agrees_with_reference(recurrence, tensors, what=count)


@EVERY
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(recurrence: Recurrence, steps: int) -> None:
    for count in (1, 2, 7, 24, 25, 49, 100):
        for size in (3, 16, 67):
            tensors = draw(recurrence, [steps] * count, size)
            assert_agrees_with_reference(
                recurrence, tensors, what=(count, size), reverse=count == 7
            )


@EVERY_LADEN
@DIRECTIONS
def test_one_sequence(recurrence: Recurrence, reverse: bool) -> None:
    for steps in (1, 2, 3, 40):
        tensors = draw(recurrence, [steps], 18)
        assert_agrees_with_reference(recurrence, tensors, what=steps, reverse=reverse)


@EVERY
def test_many_steps(recurrence: Recurrence) -> None:
    tensors = draw(recurrence, [300, 1, 77], 6)
    # What is left of a gradient after so many steps is small beside the others.
    assert_agrees_with_reference(recurrence, tensors)


@EVERY
@DIRECTIONS
@pytest.mark.parametrize("where", ["first", "last", "everywhere", "all but one"])
def test_empty_sequences(recurrence: Recurrence, reverse: bool, where: str) -> None:
    lengths = {
        "first": [0, 0, 3, 1],
        "last": [3, 1, 0, 0],
        "everywhere": [0, 2, 0, 0, 5, 0, 1, 0],
        "all but one": [0] * 60 + [2] + [0] * 60,
    }[where]
    tensors = draw(recurrence, lengths)
    assert_agrees_with_reference(recurrence, tensors, reverse=reverse)


@EVERY
@DIRECTIONS
@pytest.mark.parametrize("lengths", [[], [0], [0] * 5, [0] * 70], ids=len)
def test_without_steps(recurrence: Recurrence, reverse: bool, lengths: list[int]) -> None:
    for initial in (True, False):
        tensors = draw(recurrence, lengths, initial=initial)
        for name in output_names(recurrence):
            # Here a gradient of None would be an error.
            upstream = draw_upstream(recurrence, tensors, [name])
            found = outcome(recurrence, tensors, upstream, reverse=reverse)
            for state in recurrence.states:
                given = tensors[state] if initial else torch.zeros(len(lengths), 17)
                assert torch.equal(found[f"{state[0]}_n"], given.double())
                if initial:
                    d_state = upstream.get(f"{state[0]}_n", torch.zeros_like(given))
                    assert torch.equal(found.pop(f"d_{state}"), d_state)
            assert not any(d.any() for key, d in found.items() if key.startswith("d_"))


@EVERY
def test_without_hidden_units(recurrence: Recurrence) -> None:
    tensors = draw(recurrence, [2, 0, 1], 1)
    tensors = {
        name: t if name == "offsets" else t.detach()[..., :0].requires_grad_()
        for name, t in tensors.items()
    }
    tensors["weight_hh"] = tensors["weight_hh"].detach()[:0].requires_grad_()
    if tensors.get("weight_ch", torch.empty(0)).shape[0] not in (0, 2, 3):
        pytest.skip("full peepholes of no units are those of none")
    found = recurrence(tensors, backend="cpu")
    assert [tuple(output.shape) for output in found] == [(3, 0)] * len(found)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_the_input_of_no_hidden_units_gets_zeros(kind: str) -> None:
    x = torch.randn(130, 70, requires_grad=True)
    tensors = {"weight_ih": torch.empty(0, 70), "weight_hh": torch.empty(0, 0)}
    options = {
        "reverse": False,
        "return_states": False,
        "coupled": False,
        "cell_clip": None,
        "nonlinearity": "tanh",
    }
    layout = Layout.of_numbers(np.array([0, 60, 130]), x.device)
    y, _, _ = direction.run(kind, x, layout, tensors, options, lambda _: pytest.fail("reference"))
    assert not torch.autograd.grad(y.sum(), x)[0].any()


def test_many_sequences_of_one_unit() -> None:
    recurrence = KINDS["lstm-diagonal"]
    tensors = draw(recurrence, [b % 3 for b in range(3000)], 1)
    assert_agrees_with_reference(recurrence, tensors)
