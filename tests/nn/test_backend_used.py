"""Which backend a layer ran on, and what a person is told of it."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

import peephole
from peephole.nn import layer as layer_module
from peephole.ops.cpu.extension import MISSING
from tests.helpers.errors import raises
from tests.helpers.layers import (
    BY_NAME,
    EVERY,
    EVERY_SERVED,
    HIDDEN,
    INPUT,
    Kind,
    float32_projection,
    ragged,
    random_sequences,
)

pytestmark = float32_projection


@pytest.mark.usefixtures("without_kernels")
class TestWithoutKernels:
    @BY_NAME
    def test_what_torch_has_not_is_the_reference_s(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, zoneout=0.5)
        layer(torch.zeros(4, 3, INPUT))
        assert layer.backend_used == "reference"
        layer = getattr(peephole, name)(INPUT, HIDDEN)
        layer(torch.zeros(4, 3, INPUT), return_states=True)
        assert layer.backend_used == "reference"

    @BY_NAME
    def test_by_name_they_are_missed(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, backend="cpu")
        with raises(f"backend='cpu' cannot serve: {MISSING}; backend='reference' can"):
            layer(torch.zeros(4, 3, INPUT))


class TestKernelsByName:
    @pytest.mark.parametrize(
        ("option", "what"),
        [({"layer_norm": True}, "layer normalization"), ({"proj_size": 2}, "projection")],
        ids=["layer norm", "projection"],
    )
    def test_what_they_lack(self, option: dict[str, Any], what: str) -> None:
        layer = peephole.LSTM(INPUT, HIDDEN, backend="cpu", **option)
        for x in (torch.zeros(4, 3, INPUT), torch.zeros(4, INPUT), ragged([torch.zeros(4, INPUT)])):
            with raises(
                f"backend='cpu' cannot serve: the compiled kernels have no {what}; "
                "backend='reference' can"
            ):
                layer(x)

    @BY_NAME
    def test_another_device(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, backend="cpu", device="meta")
        with raises(
            "backend='cpu' cannot serve: the compiled kernels are for the CPU, and the input is on "
            "meta; backend='reference' can"
        ):
            layer(torch.zeros(4, 3, INPUT, device="meta"))


class TestWhatAPersonIsTold:
    @pytest.fixture(autouse=True)
    def _untold(self, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        # It says each thing once in a process.
        layer_module._log_choice.cache_clear()
        caplog.set_level(logging.INFO, "peephole")
        yield
        layer_module._log_choice.cache_clear()

    @EVERY_SERVED
    def test_backend_used(self, kind: Kind, backend: str) -> None:
        layer = kind.layer(backend=backend)
        assert layer.backend_used is None
        if backend == "auto":
            backend = "torch" if "proj_size" in kind.options else "cpu"
        # So little padding that torch's operators are the fastest but for the kernels.
        for x in (ragged(random_sequences([7, 7])), random_sequences([150])[0]):
            layer(x)
            assert layer.backend_used == backend

    @EVERY
    def test_backend_used_is_the_last_call_s(self, kind: Kind) -> None:
        layer = kind.layer()
        first = "torch" if "proj_size" in kind.options else "cpu"
        x = ragged(random_sequences([7, 7]))
        layer(x)
        assert layer.backend_used == first
        with forward_ad.dual_level():
            layer(x)
        assert layer.backend_used == "reference"
        layer(x)
        assert layer.backend_used == first

    @BY_NAME
    def test_a_small_padded_batch_is_left_to_torch(self, name: str) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN)
        x = torch.zeros(4, 3, INPUT)
        with torch.no_grad():
            layer(x)
        assert layer.backend_used == "torch"
        with torch.no_grad():
            layer(x, lengths=[4, 4, 2])
        assert layer.backend_used == "cpu"

    @BY_NAME
    def test_another_than_the_kernels_is_logged_once_for_each_reason(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        x = torch.zeros(4, 3, INPUT)
        layers = [getattr(peephole, name)(INPUT, HIDDEN, layer_norm=True) for _ in range(2)]
        for layer in (*layers, *layers):
            layer(x)
        start = f"peephole.{name} runs on the reference backend: "
        message = start + "the compiled kernels have no layer normalization"
        assert caplog.record_tuples == [("peephole", logging.INFO, message)]
        with forward_ad.dual_level():
            for layer in layers:
                layer(x)
        assert caplog.messages[1:] == [
            start + "torch.func and forward-mode derivatives do not reach into compiled kernels"
        ]

    def test_so_are_torch_s_operators(self, caplog: pytest.LogCaptureFixture) -> None:
        layer = peephole.LSTM(INPUT, HIDDEN, proj_size=2)
        for _ in range(2):
            layer(ragged([torch.zeros(4, INPUT)]))
        assert caplog.messages == [
            "peephole.LSTM runs on the torch backend: the compiled kernels have no projection"
        ]

    @BY_NAME
    @pytest.mark.usefixtures("without_kernels")
    def test_kernels_that_are_missing(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        getattr(peephole, name)(INPUT, HIDDEN, zoneout=0.5)(torch.zeros(4, 3, INPUT))
        assert caplog.messages == [f"peephole.{name} runs on the reference backend: {MISSING}"]

    @BY_NAME
    def test_nothing_is_logged_of_the_kernels(
        self, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        layer = getattr(peephole, name)(INPUT, HIDDEN, zoneout=0.1, recurrent_dropout=0.2)
        layer(torch.zeros(4, 3, INPUT))
        layer(torch.zeros(0, 3, INPUT))
        layer(torch.zeros(4, 3, INPUT), return_states=True)
        assert not caplog.records

    @pytest.mark.parametrize("backend", ["reference", "torch"])
    def test_nothing_is_logged_of_what_was_asked_for(
        self, backend: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        layer = peephole.LSTM(INPUT, HIDDEN, proj_size=2, backend=backend)
        layer(torch.zeros(4, 3, INPUT))
        assert not caplog.records

    @pytest.mark.parametrize("backend", ["auto", "torch"])
    def test_no_steps_is_a_reason_of_its_own(
        self, backend: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        layer = peephole.LSTM(INPUT, HIDDEN, proj_size=2, backend=backend)
        layer(torch.zeros(0, 3, INPUT))
        (message,) = caplog.messages
        # Not that it was the fastest: nothing was measured for such a batch.
        assert "no steps" in message
