"""Autocast to bfloat16, layers in half precision, and the meta device."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import peephole
from peephole import Ragged
from tests.helpers.batches import offsets_of
from tests.helpers.layers import as_given, as_tuple

KINDS = ("LSTM", "GRU", "RNN")
CELLS = tuple(f"{name}Cell" for name in KINDS)
LENGTHS = [6, 1, 0, 9, 9]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer norm": {"layer_norm": True, "learn_initial_state": True},
    "zoneout": {"zoneout": 0.4},
}
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
BACKENDS = pytest.mark.parametrize("backend", ["reference", "torch", "cpu", "auto"])
BY_KIND = pytest.mark.parametrize("name", KINDS)

# bfloat16 keeps 8 bits: it rounds by at most u = 2**-9 of a number. Here numbers are at most 1 or
# 2. A step rounds inputs, weights, the gates' sums, the gates and the state; what is wrong in a
# state goes on to the next one only in part, as the drawn weights contract. That makes some ten
# times u, and never its square root, which a wrong cast or gate would give.
BOUND = 16 * 2.0**-9


def bf16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def batch(dtype: torch.dtype = torch.float32) -> Ragged:
    return Ragged(torch.randn(sum(LENGTHS), 3).to(dtype), offsets_of(LENGTHS))


def initial(layer: Any) -> tuple[Tensor, ...]:
    return tuple(
        torch.randn(layer.num_layers, len(LENGTHS), 5).mul(0.5).requires_grad_()
        for _ in layer.states
    )


def floats(result: Any) -> list[Tensor]:
    """All that a layer gives but the offsets."""
    leaves = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
    return [t for t in leaves if t.is_floating_point()]


def assert_near(given: Tensor, wanted: Tensor, bound: float = BOUND) -> None:
    assert given.dtype == torch.bfloat16
    assert wanted.dtype == torch.float32
    error = (given.float() - wanted).abs().max().item()
    assert 0 < error < bound


class TestAutocast:
    @BY_KIND
    @BACKENDS
    def test_of_what_torch_has(self, name: str, backend: str) -> None:
        layer = getattr(peephole, name)(3, 5, 2, backend=backend)
        x, hx = batch(), initial(layer)
        y, states = layer(x, as_given(hx))
        leaves = [*layer.parameters(), *hx]
        upstream = torch.randn_like(y.values)
        d_wanted = torch.autograd.grad(y.values, leaves, upstream)
        with bf16():
            found, final = layer(x, as_given(hx))
        assert_near(found.values, y.values)
        for given, wanted in zip(as_tuple(final), as_tuple(states), strict=True):
            assert_near(given, wanted)
        d_given = torch.autograd.grad(found.values, leaves, upstream.bfloat16())
        for given, wanted, leaf in zip(d_given, d_wanted, leaves, strict=True):
            assert given.dtype == leaf.dtype == torch.float32
            # Of the largest, as gradients are sums over the steps.
            error = (given - wanted).abs().max() / wanted.abs().max()
            assert 0 < error < BOUND

    @BY_KIND
    @EVERY_OPTION
    def test_of_the_options(self, name: str, options: dict[str, Any]) -> None:
        if name == "LSTM":
            options = options | {"peephole": "full", "cell_clip": 2.0}
        layer = getattr(peephole, name)(3, 5, 2, **options).eval()
        x = batch()
        wanted = floats(layer(x, return_states=True))
        with bf16():
            result = layer(x, return_states=True)
        # Normalized sums stretch errors: how much, rounding inputs and weights alone shows, and
        # each step of the computation rounds some more.
        rounded = copy.deepcopy(layer).bfloat16().float()
        stretched = floats(rounded(x.to(torch.bfloat16).to(torch.float32), return_states=True))
        for given, truth, moved in zip(floats(result), wanted, stretched, strict=True):
            assert_near(given, truth, BOUND + 4 * (moved - truth).abs().max().item())
        found = result[0]
        found.values.float().sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in layer.parameters())

    @BY_KIND
    @pytest.mark.parametrize("form", ["padded", "unbatched", "lengths"])
    def test_of_forms(self, name: str, form: str) -> None:
        layer = getattr(peephole, name)(3, 5)
        x = torch.randn(7, 3) if form == "unbatched" else torch.randn(7, 4, 3)
        lengths = [7, 2, 0, 1] if form == "lengths" else None
        y, _ = layer(x, lengths=lengths)
        with bf16():
            assert_near(layer(x, lengths=lengths)[0], y)

    @pytest.mark.parametrize("name", CELLS)
    @EVERY_OPTION
    def test_of_cells(self, name: str, options: dict[str, Any]) -> None:
        cell = getattr(peephole, name)(3, 5, **options).eval()
        x = torch.randn(4, 3)
        hx = tuple(torch.randn(4, 5).mul(0.5).requires_grad_() for _ in cell.states)
        wanted = as_tuple(cell(x, as_given(hx)))
        with bf16():
            given = as_tuple(cell(x, as_given(hx)))
        for a, b in zip(given, wanted, strict=True):
            assert_near(a, b)
        given[0].float().sum().backward()
        assert cell.weight_hh.grad.dtype == hx[0].grad.dtype == torch.float32

    def test_of_a_persons_cell_is_that_cell_s(self) -> None:
        model = peephole.Recurrent([peephole.LSTMCell(3, 5), peephole.GRUCell(5, 4)])
        x = batch()
        y, _ = model(x)
        with bf16():
            assert_near(model(x)[0].values, y.values)

    @BY_KIND
    def test_leaves_float64_alone(self, name: str) -> None:
        layer = getattr(peephole, name)(3, 5, dtype=torch.float64)
        x = batch(torch.float64)
        with bf16():
            assert torch.equal(layer(x)[0].values, layer(x)[0].values)
            assert layer(x)[0].dtype == torch.float64

    @BY_KIND
    def test_takes_input_that_is_bfloat16_already(self, name: str) -> None:
        layer = nn.Sequential(nn.Linear(3, 3), getattr(peephole, name)(3, 5))
        with bf16():
            y, _ = layer(torch.randn(7, 4, 3))
        assert y.dtype == torch.bfloat16
        y.float().sum().backward()
        assert layer[0].weight.grad.dtype == torch.float32


class TestConversions:
    @pytest.mark.parametrize("name", [*KINDS, *CELLS])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @EVERY_OPTION
    def test_half_precision(self, name: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
        module = getattr(peephole, name)(3, 5, **options).eval()
        x = torch.randn(4, 3)
        wanted = pytree.tree_leaves(module(x))
        module.to(dtype)
        assert {p.dtype for p in module.parameters()} == {dtype}
        for given, truth in zip(pytree.tree_leaves(module(x.to(dtype))), wanted, strict=True):
            assert given.dtype == dtype
            assert (given.float() - truth).abs().max() < BOUND

    @BY_KIND
    def test_there_and_back(self, name: str) -> None:
        layer = getattr(peephole, name)(3, 5)
        x = batch()
        wanted = layer(x)[0].values
        assert torch.equal(layer.double().float()(x)[0].values, wanted)
        assert layer.half().weight_hh_l0.dtype == torch.float16
        assert layer.bfloat16().weight_hh_l0.dtype == torch.bfloat16

    @pytest.mark.parametrize("name", KINDS)
    def test_the_meta_device_gives_torch_s_shapes(self, name: str) -> None:
        x = torch.empty(7, 4, 3, device="meta")
        ours = getattr(peephole, name)(3, 5, 2, bidirectional=True).to("meta")
        theirs = getattr(nn, name)(3, 5, 2, bidirectional=True, device="meta")
        for a, b in zip(pytree.tree_leaves(ours(x)), pytree.tree_leaves(theirs(x)), strict=True):
            assert a.shape == b.shape
            assert a.is_meta

    @pytest.mark.parametrize("name", CELLS)
    def test_a_cell_on_the_meta_device(self, name: str) -> None:
        found = getattr(peephole, name)(3, 5).to("meta")(torch.empty(4, 3, device="meta"))
        assert all(t.is_meta and t.shape == (4, 5) for t in as_tuple(found))
