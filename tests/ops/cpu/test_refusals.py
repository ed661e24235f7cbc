"""What the kernels cannot compute: by name an error that says why, under "auto" another backend."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import peephole
from peephole import ops
from tests.helpers.batches import LENGTHS, offsets_of
from tests.helpers.kernels import F64, KINDS, draw
from tests.helpers.marks import forward_mode
from tests.helpers.recurrences import Recurrence, Tensors, gru, lstm, rnn

EVERY = pytest.mark.parametrize("recurrence", KINDS.values(), ids=KINDS)
LACKING = {
    "layer norm of an LSTM": (lstm("diagonal", layer_norm=True), "layer norm"),
    "layer norm of a GRU": (gru(layer_norm=True), "layer norm"),
    "layer norm of an RNN": (rnn(layer_norm=True), "layer norm"),
    "projection": (lstm(projected=True), "projection"),
}

pytestmark = pytest.mark.usefixtures("unhooked")


def refused(recurrence: Recurrence, tensors: Tensors, why: str) -> None:
    """Assert that the kernels say why, and who can."""
    with pytest.raises(ValueError, match=why) as error:
        recurrence(tensors, backend="cpu")
    assert str(error.value).startswith("backend='cpu' cannot serve: ")
    assert str(error.value).endswith("; backend='reference' can")


class TestOps:
    @pytest.mark.parametrize(("recurrence", "why"), LACKING.values(), ids=LACKING)
    def test_options(self, recurrence: Recurrence, why: str) -> None:
        tensors = recurrence.draw(LENGTHS)
        refused(recurrence, tensors, why)
        given, wanted = recurrence(tensors), recurrence(tensors, backend="reference")
        assert all(map(torch.equal, given, wanted))

    @EVERY
    def test_devices(self, recurrence: Recurrence) -> None:
        tensors = {name: t.detach().to("meta") for name, t in draw(recurrence, [2]).items()}
        tensors["offsets"] = tensors["offsets"].to("meta")
        with pytest.raises((ValueError, NotImplementedError, RuntimeError)):
            recurrence(tensors, backend="cpu")

    def test_gradients_of_masks(self) -> None:
        recurrence = lstm(recurrent_mask=True, zoneout_h="float")
        for name in ("recurrent_mask", "zoneout_h"):
            tensors = draw(recurrence, LENGTHS)
            tensors[name] = tensors[name].requires_grad_()
            refused(recurrence, tensors, name)
            y, *_ = recurrence(tensors)
            assert torch.autograd.grad(y.sum(), tensors[name])[0].any()

    @EVERY
    @forward_mode
    def test_transforms(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS, 5)
        wanted, *_ = recurrence(tensors, backend="reference")
        x = tensors["gates_x"]

        def of(backend: str) -> Callable[[Tensor], Tensor]:
            return lambda x: recurrence(tensors | {"gates_x": x}, backend=backend)[0]

        transforms: list[Callable[[Callable[[Tensor], Tensor]], Any]] = [
            lambda f: torch.func.vmap(f)(torch.stack([x, x]))[1],
            lambda f: torch.func.jvp(f, (x,), (x,))[0],
            lambda f: torch.func.vjp(f, x)[0],
        ]
        for transform in transforms:
            torch.testing.assert_close(transform(of("auto")), wanted)
            with pytest.raises(ValueError, match=r"torch\.func.*backend='reference' can"):
                transform(of("cpu"))
        with forward_ad.dual_level(), pytest.raises(ValueError, match="forward-mode"):
            of("cpu")(forward_ad.make_dual(x, x))

    @EVERY
    def test_modes_that_watch_operations(self, recurrence: Recurrence) -> None:
        tensors = {name: t.detach() for name, t in draw(recurrence, LENGTHS, 5).items()}
        with FlopCounterMode(display=False) as counted:
            recurrence(tensors)
            with pytest.raises(ValueError, match="mode"):
                recurrence(tensors, backend="cpu")
        assert counted.get_total_flops() > 0


class TestLayers:
    @pytest.mark.parametrize(
        ("options", "why"),
        [({"layer_norm": True}, "layer norm"), ({"proj_size": 3}, "projection")],
        ids=["layer norm", "projection"],
    )
    def test_options(self, options: dict[str, Any], why: str) -> None:
        x = peephole.Ragged(torch.randn(9, 3), offsets_of([4, 5]))
        layer = peephole.LSTM(3, 5, backend="cpu", **options)
        with pytest.raises(ValueError, match=why) as error:
            layer(x)
        assert "backend='reference'" in str(error.value)
        assert peephole.LSTM(3, 5, peephole="diagonal", **options)(x)[0].values.isfinite().all()

    @pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
    def test_tensors_without_numbers(self, kind: type[torch.nn.Module]) -> None:
        with FakeTensorMode():
            y, _ = kind(3, 4)(torch.randn(5, 2, 3))
            assert y.shape == (5, 2, 4)
            with pytest.raises(ValueError, match="backend='reference'"):
                kind(3, 4, backend="cpu")(torch.randn(5, 2, 3))
        y, _ = kind(3, 4, device="meta")(torch.randn(5, 2, 3, device="meta"))
        assert y.shape == (5, 2, 4)

    @pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
    def test_a_traced_graph_computes_the_same(self, kind: type[torch.nn.Module]) -> None:
        layer = kind(3, 4)
        x, other = torch.randn(2, 5, 2, 3)
        with torch.no_grad():
            graph = make_fx(lambda x: layer(x)[0])(x)
            torch.testing.assert_close(graph(other), layer(other)[0])


def test_an_unknown_backend_is_an_error_that_lists_what_there_is() -> None:
    x, offsets, weight = torch.randn(5, 4), offsets_of([2, 3]), torch.randn(4, 4, dtype=F64)
    for wrong in ("CPU", "c", "cuda"):
        with pytest.raises(ValueError, match="auto, reference, cpu"):
            ops.rnn(x.double(), offsets, weight, backend=wrong)
