"""The compiled kernels against the reference: every option, alone and in company, and gradients.

In float64, to 1e-10 of the size of the numbers.
"""

from itertools import combinations, product

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers.batches import LENGTHS, offsets_of
from tests.helpers.kernels import (
    KINDS,
    LADEN,
    assert_agrees_with_reference,
    assert_same,
    draw,
    draw_upstream,
    outcome,
    output_names,
    recurrences,
)
from tests.helpers.marks import DIRECTIONS
from tests.helpers.recurrences import Recurrence, Tensors, dropping, leaves, lstm

PEEPHOLES = ("none", "diagonal", "full")
ZONEOUTS = ("bool", "float", 0.3, 0.8, 0.0, 1.0)

# Each option with each recurrence that has it.
OPTIONS = dict(KINDS)
for name, kind in KINDS.items():
    OPTIONS[f"{name}-recurrent_mask"] = dropping(kind, recurrent_mask=True)
    OPTIONS |= {f"{name}-zoneout_h={z}": dropping(kind, zoneout_h=z) for z in ZONEOUTS}
    if "c0" in kind.states:
        OPTIONS |= {f"{name}-zoneout_c={z}": dropping(kind, zoneout_c=z) for z in ZONEOUTS}
for peephole, coupled in product(PEEPHOLES, (False, True)):
    OPTIONS[f"lstm-{peephole}-{coupled=}-clip"] = lstm(peephole, coupled, cell_clip=0.5)

EVERY = pytest.mark.parametrize("recurrence", KINDS.values(), ids=KINDS)
EVERY_LADEN = pytest.mark.parametrize("recurrence", LADEN.values(), ids=LADEN)
EVERY_OPTION = pytest.mark.parametrize("recurrence", OPTIONS.values(), ids=OPTIONS)


def some(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every choice of at least one of them."""
    return [chosen for k in range(1, len(names) + 1) for chosen in combinations(names, k)]


class TestOptions:
    @EVERY_OPTION
    @DIRECTIONS
    def test_alone(self, recurrence: Recurrence, reverse: bool) -> None:
        tensors = draw(recurrence, LENGTHS)
        assert_agrees_with_reference(recurrence, tensors, reverse=reverse)

    @EVERY_LADEN
    @DIRECTIONS
    def test_together(self, recurrence: Recurrence, reverse: bool) -> None:
        for size in (1, 5, 34):
            tensors = draw(recurrence, LENGTHS, size)
            assert_agrees_with_reference(recurrence, tensors, what=size, reverse=reverse)

    @EVERY_OPTION
    def test_states_left_out_are_zeros(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS, initial=False)
        assert_agrees_with_reference(recurrence, tensors)

    @hypothesis.settings(max_examples=100)
    @hypothesis.given(
        recurrence=recurrences(),
        lengths=st.lists(st.integers(0, 9), max_size=14),
        size=st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 70]),
        reverse=st.booleans(),
        initial=st.booleans(),
        data=st.data(),
    )
    def test_drawn(
        self,
        recurrence: Recurrence,
        lengths: list[int],
        size: int,
        reverse: bool,
        initial: bool,
        data: st.DataObject,
    ) -> None:
        tensors = draw(recurrence, lengths, size, initial=initial)
        names = data.draw(st.sampled_from(some(output_names(recurrence))))
        upstream = draw_upstream(recurrence, tensors, names)
        assert_agrees_with_reference(recurrence, tensors, upstream, reverse=reverse)

    @pytest.mark.parametrize("name", ["lstm", "lstm-diagonal", "lstm-full", "lstm-coupled", "gru"])
    @DIRECTIONS
    def test_return_states(self, name: str, reverse: bool) -> None:
        asked = {"reverse": reverse, "return_states": True}
        for recurrence in (KINDS[name], LADEN.get(name, KINDS[name])):
            tensors = draw(recurrence, LENGTHS)
            names = output_names(recurrence, return_states=True)
            # Gates and cells have gradients too, as anything else.
            for chosen in [names, *((name,) for name in names), names[:1] + names[-1:]]:
                upstream = draw_upstream(recurrence, tensors, chosen)
                assert_agrees_with_reference(recurrence, tensors, upstream, chosen, **asked)
            # Asking for them changes nothing else, and needs no autograd.
            values = recurrence(tensors, backend="cpu", **asked)
            without = recurrence(tensors, backend="cpu", reverse=reverse)
            assert all(map(torch.equal, values[: len(without)], without))
            with torch.no_grad():
                alone = recurrence(tensors, backend="cpu", **asked)
            assert all(map(torch.equal, alone, values))


class TestClip:
    """Of c = f c(t-1) + i g with f = 1 and i = 0, so that the cell stays what it was."""

    @pytest.mark.parametrize("peephole", PEEPHOLES)
    def test_the_edge_is_within(self, peephole: str) -> None:
        recurrence = lstm(peephole, cell_clip=0.5)
        cells = [0.5, -0.5, 0.5 + 1e-12, -0.5 - 1e-12, 0.5 - 1e-12, 0.49, 3.0, -3.0]
        size = len(cells)
        tensors = draw(recurrence, [1, 2, 0], size)
        x = tensors["gates_x"].detach()
        x[:, :size], x[:, size : 2 * size] = -1000, 1000
        tensors["gates_x"] = x.requires_grad_()
        tensors["c0"] = torch.tensor([cells] * 3, dtype=x.dtype).requires_grad_()
        assert_agrees_with_reference(recurrence, tensors)
        d_c0 = outcome(recurrence, tensors, draw_upstream(recurrence, tensors))["d_c0"]
        assert (d_c0[:2] != 0).tolist() == [
            [True, True, False, False, True, True, False, False]
        ] * 2

    def test_a_nan_goes_through(self) -> None:
        recurrence = lstm(cell_clip=0.5)
        tensors = draw(recurrence, [1])
        tensors["c0"].data[0, 3] = torch.nan
        y, _, c_n = recurrence(tensors, backend="cpu")
        assert c_n.isnan()[0].tolist() == [unit == 3 for unit in range(17)]
        assert y[0].isnan().tolist() == [unit == 3 for unit in range(17)]


class TestGradients:
    @EVERY
    @DIRECTIONS
    def test_from_each_choice_of_outputs(self, recurrence: Recurrence, reverse: bool) -> None:
        tensors = draw(recurrence, LENGTHS)
        for names in some(output_names(recurrence)):
            upstream = draw_upstream(recurrence, tensors, names)
            assert_agrees_with_reference(recurrence, tensors, upstream, names, reverse=reverse)

    @EVERY_LADEN
    @pytest.mark.parametrize("kept", [False, True], ids=["once", "graph retained"])
    def test_of_each_choice_of_inputs(self, recurrence: Recurrence, kept: bool) -> None:
        tensors = draw(recurrence, LENGTHS)
        upstream = draw_upstream(recurrence, tensors)
        whole = outcome(recurrence, tensors, upstream, "reference")
        names = tuple(leaves(tensors))
        # One or two at a time, and all but one: each product is left out by some.
        for chosen in [c for c in some(names) if len(c) in (1, 2, len(names) - 1)]:
            given = {n: t.detach() if n in names else t for n, t in tensors.items()}
            given |= {n: given[n].requires_grad_() for n in chosen}
            outputs = recurrence(given, backend="cpu")
            gradients = torch.autograd.grad(
                outputs, [given[n] for n in chosen], list(upstream.values()), retain_graph=kept
            )
            found = {f"d_{n}": d for n, d in zip(chosen, gradients, strict=True)}
            assert_same(found, {name: whole[name] for name in found}, what=chosen)

    @EVERY
    def test_upstream_without_gaps_or_with(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS)
        plain = draw_upstream(recurrence, tensors)
        one = torch.ones((), dtype=plain["y"].dtype)
        forms = {
            "as of sum()": {name: one.expand(d.shape) for name, d in plain.items()},
            "one row": {name: d[0].expand(d.shape) for name, d in plain.items()},
            "transposed": {name: d.t().contiguous().t() for name, d in plain.items()},
            "of a wider one": {name: d.repeat(1, 2)[:, : d.shape[1]] for name, d in plain.items()},
        }
        for form, upstream in forms.items():
            assert_agrees_with_reference(recurrence, tensors, upstream, form)

    @EVERY
    def test_of_a_sum(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS)
        inputs = list(leaves(tensors).values())
        found = []
        for backend in ("cpu", "reference"):
            loss = sum(output.sum() for output in recurrence(tensors, backend=backend))
            found.append(dict(enumerate(torch.autograd.grad(loss, inputs))))
        assert_same(*found)

    @EVERY
    @DIRECTIONS
    def test_are_those_of_finite_differences(self, recurrence: Recurrence, reverse: bool) -> None:
        self.check(recurrence, [2, 0, 1], reverse)

    @EVERY_LADEN
    @DIRECTIONS
    def test_with_options_are_those_of_finite_differences(
        self, recurrence: Recurrence, reverse: bool
    ) -> None:
        self.check(recurrence, [3, 1], reverse)

    def check(self, recurrence: Recurrence, lengths: list[int], reverse: bool) -> None:
        tensors = draw(recurrence, lengths, 3)
        names, inputs = zip(*leaves(tensors).items(), strict=True)

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            call = tensors | dict(zip(names, given, strict=True))
            return recurrence(call, reverse=reverse, backend="cpu")

        assert torch.autograd.gradcheck(run, inputs)


class TestForms:
    """Tensors that lie in memory in other ways than those that are drawn."""

    @staticmethod
    def spread(tensors: Tensors) -> dict[str, Tensors]:
        def through(change: object) -> Tensors:
            return {
                name: t if name == "offsets" else change(t.detach()).requires_grad_(t.requires_grad)
                for name, t in tensors.items()
            }

        return {
            "transposed": through(lambda t: t.t().contiguous().t()),
            "every second column": through(lambda t: t.repeat_interleave(2, -1)[..., ::2]),
            "in the middle": through(lambda t: torch.cat([t, t, t])[len(t) : 2 * len(t)]),
            "one row for all": through(lambda t: t[:1].expand(t.shape) if len(t) else t),
        }

    @EVERY_LADEN
    def test_inputs_with_gaps(self, recurrence: Recurrence) -> None:
        for form, tensors in self.spread(draw(recurrence, LENGTHS)).items():
            assert_agrees_with_reference(recurrence, tensors, what=form)

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int16], ids=str)
    def test_offsets_of_other_dtypes(self, dtype: torch.dtype) -> None:
        recurrence = KINDS["lstm"]
        tensors = draw(recurrence, LENGTHS)
        tensors["offsets"] = tensors["offsets"].to(dtype)
        assert_agrees_with_reference(recurrence, tensors)

    def test_offsets_with_gaps(self) -> None:
        recurrence = KINDS["lstm"]
        tensors = draw(recurrence, LENGTHS)
        tensors["offsets"] = offsets_of(LENGTHS).repeat_interleave(3)[::3]
        assert not tensors["offsets"].is_contiguous()
        assert_agrees_with_reference(recurrence, tensors)
