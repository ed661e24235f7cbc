"""bfloat16 where the processor multiplies such numbers: products of pairs, sums in float32.

Elsewhere it is computed in float32 and rounded at the end, as float16 always is; what is asked of
both is in ``test_precision.py`` and ``test_bits.py``.
"""

import copy
import math

import pytest
import torch
from torch import Tensor

import peephole
from peephole import Ragged
from peephole.ops import cpu
from peephole.ops.cpu import direction, kernels
from peephole.ops.cpu.extension import CALLS
from tests.helpers.batches import offsets_of
from tests.helpers.kernels import KINDS, assert_same, draw, draw_upstream, outcome

BF16 = torch.bfloat16
NATIVE = BF16 in CALLS
native = pytest.mark.skipif(not NATIVE, reason="no kernels for bfloat16 on this processor")
# Up to here bfloat16 has every whole number.
LARGEST = 256


def test_the_instruction_set_says_it() -> None:
    assert (cpu.instruction_set() == "avx512bf16") == NATIVE


def whole(*shape: int, most: int = 1) -> Tensor:
    return torch.randint(-most, most + 1, shape).double()


def sparse(outputs: int, inputs: int) -> Tensor:
    """Weights of -1, 0 and 1: in each row and each column at least one that is not 0, and few."""
    weights = torch.zeros(outputs, inputs, dtype=torch.float64)
    for k in range(2 * max(outputs, inputs)):
        weights[k % outputs, k % inputs] = whole(1)
    return torch.where(torch.eye(outputs, inputs) > 0, torch.ones_like(weights), weights)


def relu_layer(inputs: int, hidden: int) -> peephole.RNN:
    layer = peephole.RNN(inputs, hidden, nonlinearity="relu", backend="cpu").double()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(sparse(hidden, inputs))
        layer.weight_hh_l0.copy_(sparse(hidden, hidden))
        layer.bias_ih_l0.copy_(whole(hidden))
        layer.bias_hh_l0.copy_(whole(hidden))
    return layer


def results(layer: peephole.RNN, values: Tensor, offsets: Tensor, d_y: Tensor) -> dict[str, Tensor]:
    x = values.clone().requires_grad_()
    y, h_n = layer(Ragged(x, offsets))
    names = [name for name, _ in layer.named_parameters()]
    found = torch.autograd.grad(y.values, [x, *layer.parameters()], d_y)
    return {"y": y.values, "h_n": h_n} | dict(zip(("x", *names), found, strict=True))


# Sums of whole numbers are exact, so each number that is left out or taken twice shows.
@pytest.mark.parametrize("inputs", [1, 2, 31, 129])
@pytest.mark.parametrize("lengths", [[2, 3, 0, 1], [1] * 5, [3] * 53], ids=["few", "one", "many"])
def test_products_of_whole_numbers_are_exact(inputs: int, lengths: list[int]) -> None:
    for size in [*range(1, 36), 47, 48, 63, 64, 65, 97, 127, 128, 129, 130, 193, 257]:
        exact = relu_layer(inputs, size)
        values, d_y = whole(sum(lengths), inputs), whole(sum(lengths), size)
        offsets = offsets_of(lengths)
        wanted = results(exact, values, offsets, d_y)
        given = results(copy.deepcopy(exact).to(BF16), values.to(BF16), offsets, d_y.to(BF16))
        assert wanted["y"].abs().max() < LARGEST, "such numbers are rounded: draw smaller ones"
        for name, truth in wanted.items():
            assert torch.equal(given[name], truth.to(BF16)), (name, size)


def test_many_steps_are_added_up_in_blocks() -> None:
    lengths = [1] * 1100 + [2]
    exact = relu_layer(5, 21)
    values, d_y = whole(sum(lengths), 5), whole(sum(lengths), 21)
    wanted = results(exact, values, offsets_of(lengths), d_y)
    rounded = copy.deepcopy(exact).to(BF16)
    given = results(rounded, values.to(BF16), offsets_of(lengths), d_y.to(BF16))
    for name, truth in wanted.items():
        assert torch.equal(given[name], truth.to(BF16)), name


@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("size", [3, 16, 17])
def test_what_is_not_finite_stays_where_it_is(poison: float, size: int) -> None:
    exact = relu_layer(3, size)
    with torch.no_grad():
        # No zeros: times them an infinity would be a NaN, as it should.
        for weight in exact.parameters():
            weight.copy_(torch.rand_like(weight) + 0.5)
    lengths = [3, 1, 2]
    values, d_y = whole(6, 3), torch.ones(6, size).double()
    values[0, 2] = poison
    wanted = results(exact, values, offsets_of(lengths), d_y)
    rounded = copy.deepcopy(exact).to(BF16)
    given = results(rounded, values.to(BF16), offsets_of(lengths), d_y.to(BF16))
    for name in ("y", "h_n", "x"):
        assert torch.equal(given[name].isnan(), wanted[name].isnan()), name
        assert torch.equal(given[name].isinf(), wanted[name].isinf()), name


@native
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_every_number_is_widened_and_rounded(name: str) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(BF16)
    wanted = kernels.evaluate(name, x.float()).to(BF16)
    # A result below the normal numbers is stored as zero.
    wanted[wanted.abs() < torch.finfo(BF16).tiny] = 0
    torch.testing.assert_close(
        kernels.evaluate(name, x), wanted, rtol=0, atol=0, equal_nan=True, check_stride=False
    )


@native
@pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
@pytest.mark.parametrize("autocast", [False, True], ids=["layer", "autocast"])
def test_is_not_widened(
    kind: type[torch.nn.Module], autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise AssertionError("computed in float32")

    monkeypatch.setattr(direction, "_widened", fail)
    layer = kind(4, 11, 2, bidirectional=True, dtype=None if autocast else BF16)
    x = Ragged(torch.randn(9, 4, dtype=None if autocast else BF16), offsets_of([4, 0, 5]))
    with torch.autocast("cpu", BF16, enabled=autocast):
        y, _ = layer(x)
    assert layer.backend_used == "cpu"
    y.values.sum().backward()
    with pytest.raises(AssertionError, match="computed in float32"):
        layer.to(torch.float16)(Ragged(x.values.to(torch.float16), x.offsets))


@pytest.mark.parametrize("recurrence", KINDS.values(), ids=KINDS)
def test_gates_and_cells(recurrence: object) -> None:
    if recurrence.gates == 1:
        pytest.skip("a simple network has no gates to give")
    tensors = draw(recurrence, [4, 0, 7, 1], 19, BF16)
    names = ("y", "gates", "cells") if "c0" in recurrence.states else ("y", "gates")
    upstream = draw_upstream(recurrence, tensors, names)
    given = outcome(recurrence, tensors, upstream, "cpu", return_states=True)
    wanted = outcome(recurrence, tensors, upstream, "reference", return_states=True)
    assert {t.dtype for t in given.values()} == {BF16}
    assert_same(given, wanted, tolerance=0.06)
