"""The kernels within autograd: graphs that are kept, second derivatives, hooks, checkpoints."""

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from peephole import ops
from tests.helpers.batches import LENGTHS, offsets_of
from tests.helpers.kernels import F64, KINDS, LADEN, assert_same, draw, draw_upstream, outcome
from tests.helpers.marks import DIRECTIONS
from tests.helpers.recurrences import Recurrence, leaves

RECURRENCES = KINDS | {f"{name}-laden": recurrence for name, recurrence in LADEN.items()}
EVERY = pytest.mark.parametrize("recurrence", RECURRENCES.values(), ids=RECURRENCES)
STATES = pytest.mark.parametrize("return_states", [False, True], ids=["", "with states"])


def asked(recurrence: Recurrence, return_states: bool) -> dict[str, bool]:
    """``return_states`` where the recurrence has any."""
    return {"return_states": True} if return_states and recurrence.gates > 1 else {}


class TestGraph:
    @EVERY
    @STATES
    def test_retained_gives_the_same_again(
        self, recurrence: Recurrence, return_states: bool
    ) -> None:
        tensors = draw(recurrence, LENGTHS)
        upstream = draw_upstream(recurrence, tensors)
        inputs = list(leaves(tensors).values())
        outputs = recurrence(tensors, backend="cpu", **asked(recurrence, return_states))
        outputs = outputs[: len(upstream)]
        first, second, last = (
            torch.autograd.grad(outputs, inputs, list(upstream.values()), retain_graph=keep)
            for keep in (True, True, False)
        )
        assert all(map(torch.equal, first, second))
        assert all(map(torch.equal, first, last))

    @EVERY
    def test_not_retained_gives_torchs_own_error(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS)
        y, *_ = recurrence(tensors, backend="cpu")
        y.sum().backward(retain_graph=True)
        y.sum().backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            y.sum().backward()

    @EVERY
    def test_one_output_after_the_other(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS)
        upstream = draw_upstream(recurrence, tensors)
        inputs = list(leaves(tensors).values())
        outputs = recurrence(tensors, backend="cpu")
        whole = torch.autograd.grad(outputs, inputs, list(upstream.values()), retain_graph=True)
        parts = [
            torch.autograd.grad(output, inputs, d, retain_graph=output is not outputs[-1])
            for output, d in zip(outputs, upstream.values(), strict=True)
        ]
        summed = [sum(part) for part in zip(*parts, strict=True)]
        assert_same(dict(enumerate(summed)), dict(enumerate(whole)))

    @EVERY
    def test_with_a_graph_of_its_own(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS)
        upstream = draw_upstream(recurrence, tensors)
        plain = outcome(recurrence, tensors, upstream)
        outputs = recurrence(tensors, backend="cpu")
        inputs = leaves(tensors)
        gradients = torch.autograd.grad(
            outputs, list(inputs.values()), list(upstream.values()), create_graph=True
        )
        found = {f"d_{name}": d for name, d in zip(inputs, gradients, strict=True)}
        assert_same(found, {name: plain[name] for name in found})
        assert all(d.requires_grad for d in gradients)

    @EVERY
    @DIRECTIONS
    def test_second_derivatives_are_the_references(
        self, recurrence: Recurrence, reverse: bool
    ) -> None:
        tensors = draw(recurrence, LENGTHS, 5)
        upstream = {
            name: d.requires_grad_() for name, d in draw_upstream(recurrence, tensors).items()
        }
        inputs = [*leaves(tensors).values(), *upstream.values()]
        found = []
        for backend in ("cpu", "reference"):
            outputs = recurrence(tensors, backend=backend, reverse=reverse)
            first = torch.autograd.grad(
                outputs, inputs[: -len(upstream)], list(upstream.values()), create_graph=True
            )
            torch.manual_seed(1)
            second = [torch.randn(d.shape, dtype=F64) for d in first]
            found.append(
                torch.autograd.grad(first, inputs, second, allow_unused=True, retain_graph=True)
            )
        assert [d is None for d in found[0]] == [d is None for d in found[1]]
        given, wanted = ({k: d for k, d in enumerate(ds) if d is not None} for ds in found)
        assert given
        assert_same(given, wanted)

    @pytest.mark.parametrize("name", ["lstm-full", "gru-bias_hn", "rnn-tanh"])
    def test_second_derivatives_are_those_of_finite_differences(self, name: str) -> None:
        tensors = draw(KINDS[name], [2, 0, 1], 2)
        names, inputs = zip(*leaves(tensors).items(), strict=True)

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            return KINDS[name](tensors | dict(zip(names, given, strict=True)), backend="cpu")

        assert torch.autograd.gradgradcheck(run, inputs)


class TestBatched:
    """Several upstream gradients at once, of which the kernels can take one."""

    @EVERY
    def test_is_grads_batched(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS, 5)
        inputs = list(leaves(tensors).values())
        outputs = recurrence(tensors, backend="cpu")
        several = [torch.randn(3, *output.shape, dtype=F64) for output in outputs]
        found = torch.autograd.grad(
            outputs, inputs, several, is_grads_batched=True, retain_graph=True
        )
        for k in range(3):
            one = torch.autograd.grad(outputs, inputs, [d[k] for d in several], retain_graph=True)
            assert_same(dict(enumerate(d[k] for d in found)), dict(enumerate(one)))

    def test_jacobian_and_hessian(self) -> None:
        tensors = draw(KINDS["gru"], [2, 1], 2)

        def run(x: Tensor) -> Tensor:
            return KINDS["gru"](tensors | {"gates_x": x}, backend="cpu")[0].square().sum(1)

        for function, of in (("jacobian", run), ("hessian", lambda x: run(x).sum())):
            found = [
                getattr(torch.autograd.functional, function)(
                    of, tensors["gates_x"].detach(), vectorize=vectorize
                )
                for vectorize in (False, True)
            ]
            assert_same({function: found[1]}, {function: found[0]})


class TestDependence:
    """Arguments that are computed from one another."""

    @pytest.mark.parametrize("create_graph", [False, True])
    @pytest.mark.parametrize("backend", ["cpu", "reference"])
    def test_gates_x_and_h0_from_the_weights(self, create_graph: bool, backend: str) -> None:
        weight = torch.randn(12, 4, dtype=F64, requires_grad=True)
        x, offsets = torch.randn(6, 4, dtype=F64), offsets_of([2, 4])

        def run(weight: Tensor) -> Tensor:
            h0 = weight[:2].tanh()
            y, _ = ops.gru(x @ weight.t(), offsets, weight, h0=h0, backend=backend)
            return y.sin().sum()

        (found,) = torch.autograd.grad(run(weight), weight, create_graph=create_graph)
        with torch.no_grad():
            way = torch.randn_like(weight)
            slope = (run(weight + 1e-5 * way) - run(weight - 1e-5 * way)) / 2e-5
        torch.testing.assert_close((found * way).sum().detach(), slope, rtol=1e-6, atol=1e-6)


class TestKept:
    @EVERY
    @pytest.mark.parametrize("keep", [False, True], ids=["once", "graph retained"])
    def test_through_hooks(self, recurrence: Recurrence, keep: bool) -> None:
        tensors = draw(recurrence, LENGTHS)
        upstream = draw_upstream(recurrence, tensors)
        wanted = outcome(recurrence, tensors, upstream)
        inputs = leaves(tensors)
        for hooks in (
            saved_tensors_hooks(lambda t: t.detach().clone().numpy(), torch.from_numpy),
            save_on_cpu(),
        ):
            with hooks:
                outputs = recurrence(tensors, backend="cpu")
            for _ in range(2 if keep else 1):
                gradients = torch.autograd.grad(
                    outputs, list(inputs.values()), list(upstream.values()), retain_graph=keep
                )
                found = {f"d_{name}": d for name, d in zip(inputs, gradients, strict=True)}
                assert_same(found, {name: wanted[name] for name in found})

    @EVERY
    @pytest.mark.parametrize("reentrant", [False, True])
    def test_through_checkpoints(self, recurrence: Recurrence, reentrant: bool) -> None:
        tensors = draw(recurrence, LENGTHS)
        upstream = draw_upstream(recurrence, tensors)
        wanted = outcome(recurrence, tensors, upstream)
        inputs = leaves(tensors)

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            return recurrence(tensors | dict(zip(inputs, given, strict=True)), backend="cpu")

        outputs = checkpoint(run, *inputs.values(), use_reentrant=reentrant)
        torch.autograd.backward(outputs, list(upstream.values()))
        found = {f"d_{name}": t.grad for name, t in inputs.items()}
        assert_same(found, {name: wanted[name] for name in found})

    @EVERY
    def test_nothing_without_gradients(self, recurrence: Recurrence) -> None:
        tensors = draw(recurrence, LENGTHS)
        wanted = recurrence(tensors, backend="cpu")
        saved: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            saved.append(tensor)
            return tensor

        with saved_tensors_hooks(note, lambda t: t):
            for context in (torch.no_grad(), torch.inference_mode()):
                with context:
                    found = recurrence(tensors, backend="cpu")
                assert all(map(torch.equal, found, wanted))
                assert not any(output.requires_grad for output in found)
            frozen = {name: t.detach() for name, t in tensors.items()}
            assert all(map(torch.equal, recurrence(frozen, backend="cpu"), wanted))
        assert not saved
