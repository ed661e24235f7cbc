"""What holds for every recurrence of ``peephole.ops``: derivatives, laws, dtypes, errors.

On every backend that computes it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from peephole import Ragged
from tests.helpers.batches import LENGTHS, offsets_of
from tests.helpers.errors import raises
from tests.helpers.marks import DIRECTIONS, forward_mode
from tests.helpers.recurrences import (
    RECURRENCES,
    Recurrence,
    Tensors,
    assert_agree,
    cut,
    leaves,
    on_backends,
    pick,
    spans,
)

RUNS = on_backends(RECURRENCES)
EVERY = pytest.mark.parametrize("recurrence", RUNS.values(), ids=RUNS)
# With "auto", which leaves the kernels where they cannot serve.
EVERY_ON_AUTO = pytest.mark.parametrize("recurrence", RECURRENCES.values(), ids=RECURRENCES)


def as_function(
    recurrence: Recurrence, tensors: Tensors, reverse: bool
) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """The op as a function of its leaves alone, and those leaves."""
    names, primals = zip(*leaves(tensors).items(), strict=True)

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        return recurrence(tensors | dict(zip(names, given, strict=True)), reverse=reverse)

    return run, primals


class TestDerivatives:
    # Finite differences at sizes where they are cheap, with an empty sequence among them.
    @EVERY
    @DIRECTIONS
    def test_first(self, recurrence: Recurrence, reverse: bool) -> None:
        tensors = recurrence.draw([2, 0, 1], hidden_size=2)
        assert torch.autograd.gradcheck(*as_function(recurrence, tensors, reverse))

    @EVERY
    @DIRECTIONS
    def test_second(self, recurrence: Recurrence, reverse: bool) -> None:
        tensors = recurrence.draw([2, 0, 1], hidden_size=2)
        assert torch.autograd.gradgradcheck(*as_function(recurrence, tensors, reverse))

    @forward_mode
    @EVERY_ON_AUTO
    @DIRECTIONS
    def test_jvp_is_the_transpose_of_the_gradient(
        self, recurrence: Recurrence, reverse: bool
    ) -> None:
        run, primals = as_function(recurrence, recurrence.draw(LENGTHS), reverse)
        tangents = tuple(torch.randn_like(p) for p in primals)
        outputs, moved = torch.func.jvp(run, primals, tangents)
        upstream = [torch.randn_like(output) for output in outputs]
        gradients = torch.autograd.grad(run(*primals), primals, upstream)
        forward = sum((u * m).sum() for u, m in zip(upstream, moved, strict=True))
        backward = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
        torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-10)


class TestLaws:
    @EVERY
    @DIRECTIONS
    @pytest.mark.parametrize("initial", [True, False], ids=["initial state", "from zero"])
    @hypothesis.settings(max_examples=10)
    @hypothesis.given(lengths=st.lists(st.integers(0, 4), max_size=5))
    def test_a_batch_equals_its_sequences_one_by_one(
        self, recurrence: Recurrence, reverse: bool, initial: bool, lengths: list[int]
    ) -> None:
        tensors = recurrence.draw(lengths, initial=initial)
        whole = recurrence(tensors, reverse=reverse)
        alone = [recurrence(pick(tensors, [b]), reverse=reverse) for b in range(len(lengths))]
        nothing = recurrence(pick(tensors, []), reverse=reverse)
        wanted = [torch.cat(parts) for parts in zip(nothing, *alone, strict=True)]
        assert_agree(whole, wanted, tensors)

    @EVERY
    @DIRECTIONS
    @hypothesis.settings(max_examples=5)
    @hypothesis.given(order=st.permutations(range(len(LENGTHS))))
    def test_the_order_of_sequences_does_not_matter(
        self, recurrence: Recurrence, reverse: bool, order: list[int]
    ) -> None:
        tensors = recurrence.draw(LENGTHS)
        y, *finals = recurrence(tensors, reverse=reverse)
        wanted = [Ragged(y, tensors["offsets"])[order].values, *(s[order] for s in finals)]
        assert_agree(recurrence(pick(tensors, order), reverse=reverse), wanted, tensors)

    @EVERY
    @hypothesis.settings(max_examples=5)
    @hypothesis.given(data=st.data())
    def test_two_halves_with_the_state_handed_over_equal_the_whole(
        self, recurrence: Recurrence, data: st.DataObject
    ) -> None:
        cuts = [data.draw(st.integers(0, length)) for length in LENGTHS]
        tensors = recurrence.draw(LENGTHS)
        rows = spans(tensors)
        halves = (
            cut(tensors, [span[:k] for span, k in zip(rows, cuts, strict=True)]),
            cut(tensors, [span[k:] for span, k in zip(rows, cuts, strict=True)]),
        )
        outputs, handed_over = [], {}
        for half in halves:
            y, *finals = recurrence(half | handed_over)
            outputs.append(Ragged(y, half["offsets"]).to_list())
            handed_over = dict(zip(recurrence.states, finals, strict=True))
        y = torch.cat([y for pair in zip(*outputs, strict=True) for y in pair])
        assert_agree((y, *finals), recurrence(tensors), tensors)

    @EVERY
    def test_reverse_is_flipping_there_and_back(self, recurrence: Recurrence) -> None:
        tensors = recurrence.draw(LENGTHS)
        y, *finals = recurrence(cut(tensors, [span[::-1] for span in spans(tensors)]))
        wanted = (Ragged(y, tensors["offsets"]).reverse().values, *finals)
        assert_agree(recurrence(tensors, reverse=True), wanted, tensors)

    @EVERY
    def test_states_left_out_are_zeros(self, recurrence: Recurrence) -> None:
        tensors = recurrence.draw(LENGTHS, initial=False)
        states = recurrence.draw(LENGTHS)
        zeros = {name: torch.zeros_like(states[name]) for name in recurrence.states}
        assert_agree(recurrence(tensors), recurrence(tensors | zeros), tensors)


class TestWithoutSteps:
    @EVERY
    @DIRECTIONS
    @pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
    def test_final_states_are_initial_states(
        self, recurrence: Recurrence, reverse: bool, lengths: list[int]
    ) -> None:
        tensors = recurrence.draw(lengths)
        y, *finals = recurrence(tensors, reverse=reverse)
        assert y.shape == (0, recurrence.output_size(3))
        for name, final in zip(recurrence.states, finals, strict=True):
            assert torch.equal(final, tensors[name])

    @EVERY
    @DIRECTIONS
    @pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
    def test_gradients_are_zeros(
        self, recurrence: Recurrence, reverse: bool, lengths: list[int]
    ) -> None:
        tensors = recurrence.draw(lengths, initial=False)
        y, *finals = recurrence(tensors, reverse=reverse)
        # Without allow_unused, grad raises where an output does not depend on a tensor.
        for output in (y, finals[0]):
            gradients = torch.autograd.grad(
                output.sum(), list(leaves(tensors).values()), retain_graph=True
            )
            assert all(not gradient.any() for gradient in gradients)


# float64 is what the truths are compared in; a coarser dtype may differ by some of its own
# roundings, which grow over the steps.
TOLERANCES = {torch.float64: 0.0, torch.float32: 1e-5, torch.bfloat16: 0.1}


@EVERY
@DIRECTIONS
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES.items(), ids=str)
def test_dtypes(
    recurrence: Recurrence, reverse: bool, dtype: torch.dtype, tolerance: float
) -> None:
    # The clip's derivative jumps, and normalizing few numbers magnifies their roundings.
    options = {name: value for name, value in recurrence.options.items() if name != "cell_clip"}
    recurrence = replace(recurrence, options=options)
    tensors = recurrence.draw(LENGTHS, 17 if "weight_ln_hh" in recurrence.extras else 3)
    floats = [name for name, boolean in recurrence.masks.items() if not boolean]
    masks = {name: tensors[name].to(dtype) for name in floats}
    halved = {
        name: t.detach().mul(0.5).to(dtype).requires_grad_() for name, t in leaves(tensors).items()
    }
    coarse = tensors | masks | halved
    exact = tensors | {
        name: t.detach().double().requires_grad_() for name, t in leaves(coarse).items()
    }
    given, wanted = recurrence(coarse, reverse=reverse), recurrence(exact, reverse=reverse)
    for ours, truth in zip(given, wanted, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), truth, rtol=tolerance, atol=tolerance)
    sum(output.sum() for output in given).backward()
    sum(output.sum() for output in wanted).backward()
    for name in leaves(tensors):
        d_ours, d_truth = coarse[name].grad, exact[name].grad
        assert d_ours.dtype == dtype
        error = (d_ours.double() - d_truth).norm() / d_truth.norm()
        assert error <= tolerance, f"d_{name}"


@EVERY
def test_offsets_of_int32(recurrence: Recurrence) -> None:
    tensors = recurrence.draw(LENGTHS)
    narrow = tensors | {"offsets": tensors["offsets"].int()}
    assert_agree(recurrence(narrow), recurrence(tensors), tensors)


@EVERY
def test_auto_is_one_of_them(recurrence: Recurrence) -> None:
    tensors = recurrence.draw(LENGTHS)
    assert_agree(recurrence(tensors, backend="auto"), recurrence(tensors), tensors)


@pytest.mark.usefixtures("unhooked")
class TestErrors:
    @EVERY_ON_AUTO
    def test_unknown_backend(self, recurrence: Recurrence) -> None:
        with raises("backend='cuda'; there are auto, reference, cpu"):
            recurrence(recurrence.draw(LENGTHS), backend="cuda")

    @EVERY_ON_AUTO
    @pytest.mark.parametrize(
        ("offsets", "message"),
        [
            ([0, 2, 1, 6], "offsets fall: offsets[1] = 2, offsets[2] = 1"),
            ([1, 6], "offsets[0] = 1; it must be 0"),
            ([0, 5], "offsets end at 5, but values have 6 steps; they must agree"),
            ([0.0, 6.0], "offsets must be whole numbers, got torch.float32"),
            ([[0, 6]], "offsets must be [B + 1], got shape [1, 2]"),
        ],
    )
    def test_wrong_offsets(self, recurrence: Recurrence, offsets: list[Any], message: str) -> None:
        with raises(message):
            recurrence(recurrence.draw([6]) | {"offsets": torch.tensor(offsets)})

    @EVERY_ON_AUTO
    @pytest.mark.parametrize("shape", [(6, 4), (6, 1), (6,), (6, 12, 1)])
    def test_wrong_gates_x(self, recurrence: Recurrence, shape: tuple[int, ...]) -> None:
        tensors = recurrence.draw([6], hidden_size=5)
        GH, P = recurrence.gates * 5, recurrence.output_size(5)
        with raises(
            f"gates_x must be [N, {GH}] to go with weight_hh [{GH}, {P}], got {list(shape)}"
        ):
            recurrence(tensors | {"gates_x": torch.zeros(shape, dtype=torch.float64)})

    @EVERY_ON_AUTO
    @pytest.mark.parametrize("shape", [(7, 3), (7,), (3, 3, 3)])
    def test_wrong_weight_hh(self, recurrence: Recurrence, shape: tuple[int, ...]) -> None:
        wrong = {"weight_hh": torch.zeros(shape, dtype=torch.float64)}
        with raises(
            f"weight_hh must be [{recurrence.gates} * H, H] with H hidden units, got {list(shape)}"
        ):
            recurrence(recurrence.draw(LENGTHS) | wrong)

    @EVERY_ON_AUTO
    @pytest.mark.parametrize("shape", [(5, 3), (6, 4), (1, 6, 3), (3,)])
    def test_wrong_h0(self, recurrence: Recurrence, shape: tuple[int, ...]) -> None:
        wrong = {"h0": torch.zeros(shape, dtype=torch.float64)}
        with raises(f"h0 must be [6, {recurrence.output_size(3)}], got {list(shape)}"):
            recurrence(recurrence.draw(LENGTHS) | wrong)

    @EVERY_ON_AUTO
    def test_gates_x_that_are_not_floating_point(self, recurrence: Recurrence) -> None:
        tensors = recurrence.draw(LENGTHS)
        with raises("gates_x must be floating point, got torch.int64"):
            recurrence(tensors | {"gates_x": tensors["gates_x"].long()})

    @EVERY_ON_AUTO
    def test_another_dtype_or_device(self, recurrence: Recurrence) -> None:
        tensors = recurrence.draw(LENGTHS)
        for name in leaves(tensors).keys() - {"gates_x"}:
            with raises(
                f"{name} has dtype torch.float32, but gates_x has torch.float64; all must agree"
            ):
                recurrence(tensors | {name: tensors[name].float()})
            with raises(f"{name} has device meta, but gates_x has cpu; all must agree"):
                recurrence(tensors | {name: tensors[name].to("meta")})
        with raises("offsets are on meta, values on cpu"):
            recurrence(tensors | {"offsets": offsets_of(LENGTHS).to("meta")})
