"""What memory the kernels read and write: none that is unwritten, and none that is not theirs."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.batches import LENGTHS
from tests.helpers.kernels import (
    F64,
    KINDS,
    LADEN,
    assert_same_bits,
    draw,
    draw_upstream,
    outcome,
)
from tests.helpers.marks import DIRECTIONS
from tests.helpers.recurrences import Recurrence, Tensors, leaves

RECURRENCES = KINDS | {f"{name}-laden": recurrence for name, recurrence in LADEN.items()}
EVERY = pytest.mark.parametrize("recurrence", RECURRENCES.values(), ids=RECURRENCES)
STATES = pytest.mark.parametrize("return_states", [False, True], ids=["", "with states"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that torch gives out is full of NaN until it is written."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def asked(recurrence: Recurrence, return_states: bool) -> dict[str, bool]:
    """``return_states`` where the recurrence has any."""
    return {"return_states": True} if return_states and recurrence.gates > 1 else {}


class Poison:
    """A canary: NaN on both sides of each tensor that the kernels' callers make."""

    MARGIN = 96

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wholes: list[Tensor] = []
        new_empty, empty_like = Tensor.new_empty, torch.empty_like

        def guarded(like: Tensor, *shape: Any, **options: Any) -> Tensor:
            size = torch.Size(shape if shape and isinstance(shape[0], int) else shape[0])
            if not like.is_floating_point() or options:
                return new_empty(like, *shape, **options)
            whole = torch.full((size.numel() + 2 * self.MARGIN,), torch.nan, dtype=like.dtype)
            self.wholes.append(whole)
            return whole[self.MARGIN : self.MARGIN + size.numel()].view(size)

        def guarded_like(like: Tensor, **options: Any) -> Tensor:
            return empty_like(like, **options) if options else guarded(like, like.shape)

        monkeypatch.setattr(Tensor, "new_empty", guarded)
        monkeypatch.setattr(torch, "empty_like", guarded_like)

    def check(self) -> None:
        assert self.wholes
        for whole in self.wholes:
            assert whole[: self.MARGIN].isnan().all()
            assert whole[-self.MARGIN :].isnan().all()


def within_nan(tensors: Tensors) -> Tensors:
    """The same tensors, each in the middle of memory that is full of NaN, or of True."""

    def surrounded(t: Tensor) -> Tensor:
        fill = torch.nan if t.is_floating_point() else 1 if t.dtype == torch.bool else 2**62
        whole = torch.full((t.numel() + 192,), fill, dtype=t.dtype)
        whole[96 : 96 + t.numel()] = t.detach().flatten()
        return whole[96 : 96 + t.numel()].view(t.shape).requires_grad_(t.requires_grad)

    return {name: surrounded(t) for name, t in tensors.items()}


class TestUnwritten:
    @EVERY
    @DIRECTIONS
    @STATES
    @pytest.mark.usefixtures("poisoned")
    def test_memory_is_not_read(
        self, recurrence: Recurrence, reverse: bool, return_states: bool
    ) -> None:
        assert torch.zeros(1).new_empty(5).isnan().all()
        options = {"reverse": reverse} | asked(recurrence, return_states)
        for lengths in (LENGTHS, [1], [0, 0], [2] * 50, []):
            tensors = draw(recurrence, lengths)
            found = outcome(recurrence, tensors, draw_upstream(recurrence, tensors), **options)
            assert not any(result.isnan().any() for result in found.values())

    @EVERY
    @DTYPES
    def test_only_their_own_memory_is_written_and_used(
        self, recurrence: Recurrence, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for size in (*range(1, 21), 33, 67):
            for initial in (True, False):
                tensors = draw(recurrence, [2, 0, 1, 5, 3], size, dtype, initial)
                upstream = draw_upstream(recurrence, tensors)
                wanted = outcome(recurrence, tensors, upstream)
                with monkeypatch.context() as patch:
                    canaries = Poison(patch)
                    found = outcome(recurrence, within_nan(tensors), within_nan(upstream))
                canaries.check()
                assert_same_bits(found, wanted, size)


class TestInputs:
    @EVERY
    @STATES
    @pytest.mark.parametrize("keep", [False, True], ids=["once", "graph retained"])
    def test_are_as_they_were(
        self, recurrence: Recurrence, return_states: bool, keep: bool
    ) -> None:
        tensors = draw(recurrence, LENGTHS)
        upstream = draw_upstream(recurrence, tensors)
        before = {name: t.detach().clone() for name, t in (tensors | upstream).items()}
        outputs = recurrence(tensors, backend="cpu", **asked(recurrence, return_states))
        values = [output.detach().clone() for output in outputs]
        torch.autograd.grad(
            outputs[: len(upstream)],
            list(leaves(tensors).values()),
            list(upstream.values()),
            retain_graph=keep,
        )
        assert all(torch.equal(t, before[name]) for name, t in (tensors | upstream).items())
        # Outputs are the caller's, whatever autograd keeps of them.
        assert all(map(torch.equal, outputs, values))

    @EVERY
    @STATES
    def test_share_no_memory_with_results(
        self, recurrence: Recurrence, return_states: bool
    ) -> None:
        for lengths in (LENGTHS, [0, 0]):
            tensors = draw(recurrence, lengths)
            outputs = recurrence(tensors, backend="cpu", **asked(recurrence, return_states))
            found = [*tensors.values(), *outputs]
            places = [t.untyped_storage().data_ptr() for t in found if t.numel()]
            assert len(places) == len(set(places))

    @EVERY
    def test_an_output_changed_in_place_is_an_error_in_the_backward_pass(
        self, recurrence: Recurrence
    ) -> None:
        tensors = draw(recurrence, LENGTHS)
        y, *_ = recurrence(tensors, backend="cpu")
        with torch.no_grad():
            y.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
