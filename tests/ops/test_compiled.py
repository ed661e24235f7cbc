"""The opaque operations that compiled and exported graphs hold."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils import _pytree as pytree

import peephole
from peephole import Ragged
from peephole.ops import compiled
from tests.helpers.batches import offsets_of
from tests.helpers.errors import raises
from tests.helpers.graphs import F64, assert_close, random_batch, traceable  # noqa: F401

pytestmark = pytest.mark.usefixtures("traceable")

recurrence = torch.ops.peephole.recurrence
backward = torch.ops.peephole.recurrence_backward

# A layer of one direction for each thing that the operations have to carry.
LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "lstm": (peephole.LSTM, {}),
    "lstm-masks": (
        peephole.LSTM,
        {"peephole": "full", "proj_size": 2, "zoneout": (0.3, 0.4), "recurrent_dropout": 0.5},
    ),
    "lstm-floats": (
        peephole.LSTM,
        {"coupled": True, "cell_clip": 0.5, "zoneout": 0.2, "layer_norm": True},
    ),
    "gru": (peephole.GRU, {"layer_norm": True, "bias": False}),
    "rnn": (peephole.RNN, {"nonlinearity": "relu", "backend": "reference"}),
}
EVERY = pytest.mark.parametrize(("kind", "options"), LAYERS.values(), ids=LAYERS)


def layer_of(kind: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    layer = kind(3, 4, dtype=F64, **options)
    # In evaluation zoneout is a number, in training a mask.
    return layer.eval() if "cell_clip" in options else layer


def arguments(
    monkeypatch: pytest.MonkeyPatch, layer: nn.Module, *args: Any, **options: Any
) -> compiled.Call:
    """What a graph of the layer would give the operation, on real tensors."""
    calls = []

    def note(*given: Any) -> Any:
        calls.append(compiled.Call(*given))
        return recurrence(*given)

    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        patch.setattr(torch.ops.peephole, "recurrence", note)
        layer(*args, **options)
    (call,) = calls
    # Leaves of autograd, but for the masks.
    return call._replace(
        values=leaf(call.values),
        tensors=[leaf(t) if t.is_floating_point() else t for t in call.tensors],
    )


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def call_on(
    monkeypatch: pytest.MonkeyPatch, layer: nn.Module, lengths: Sequence[int], **options: Any
) -> compiled.Call:
    x, B = random_batch(lengths), len(lengths)
    hx = tuple(torch.randn(1, B, size, dtype=F64) for size in layer.state_sizes(4))
    return arguments(monkeypatch, layer, x, hx if len(hx) > 1 else hx[0], **options)


def call_on_padded(
    monkeypatch: pytest.MonkeyPatch, layer: nn.Module, steps: int, lengths: Sequence[int]
) -> compiled.Call:
    x = torch.randn(steps, len(lengths), 3, dtype=F64)
    return arguments(monkeypatch, layer, x, lengths=torch.tensor(lengths, dtype=torch.int64))


def floating(call: compiled.Call) -> list[Tensor]:
    return [t for t in (call.values, *call.tensors) if t.requires_grad]


class TestOpcheck:
    """torch's own examination: schema, fake tensors, autograd, tracing with dynamic sizes."""

    @EVERY
    @pytest.mark.parametrize("lengths", [[3, 0, 2], [4], [], [0, 0]], ids=str)
    def test_ragged(
        self,
        kind: type[nn.Module],
        options: dict[str, Any],
        lengths: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        call = call_on(monkeypatch, layer_of(kind, options), lengths)
        torch.library.opcheck(recurrence.default, tuple(call))

    @EVERY
    def test_lengths(
        self, kind: type[nn.Module], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for steps, lengths in ((4, [4, 0, 1]), (3, [2])):
            call = call_on_padded(monkeypatch, layer_of(kind, options), steps, lengths)
            torch.library.opcheck(recurrence.default, tuple(call))

    @pytest.mark.parametrize("kind", [peephole.LSTM, peephole.GRU, peephole.RNN])
    def test_return_states(self, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
        layer = kind(3, 4, dtype=F64)
        call = call_on(monkeypatch, layer, [2, 0, 3], return_states=True)
        torch.library.opcheck(recurrence.default, tuple(call))

    @EVERY
    @pytest.mark.parametrize("lengths", [[3, 0, 2], []], ids=str)
    def test_the_derivative(
        self,
        kind: type[nn.Module],
        options: dict[str, Any],
        lengths: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        call = call_on(monkeypatch, layer_of(kind, options), lengths)
        with torch.no_grad():
            y, *final = recurrence(*call)
        needed = [t.requires_grad for t in (call.values, *call.tensors)]
        needed[1] = False
        d_results = [torch.randn_like(y), *(None for _ in final)]
        bare = call._replace(
            values=call.values.detach(), tensors=[t.detach() for t in call.tensors]
        )
        torch.library.opcheck(backward.default, (d_results, needed, *bare))

    def test_packed_rows(self) -> None:
        packed = pack_sequence([torch.randn(n, 3) for n in (2, 4, 1)], enforce_sorted=False)
        given = (packed.batch_sizes, packed.unsorted_indices, packed.data)
        torch.library.opcheck(torch.ops.peephole.packed_rows.default, given)
        rows, offsets = torch.ops.peephole.packed_rows(*given)
        batch = Ragged(packed.data.index_select(0, rows), offsets)
        again, wanted = batch.to_packed(), packed
        assert_close([again.data, again.batch_sizes], [wanted.data, wanted.batch_sizes])


class TestValues:
    @EVERY
    def test_gradients_are_those_of_finite_differences(
        self, kind: type[nn.Module], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = call_on(monkeypatch, layer_of(kind, options), [3, 0, 2])
        inputs = floating(call)

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            given = iter(inputs)
            values, *tensors = (
                next(given) if t.requires_grad else t for t in (call.values, *call.tensors)
            )
            return tuple(recurrence(*call._replace(values=values, tensors=tensors)))

        assert torch.autograd.gradcheck(run, inputs)

    @EVERY
    def test_only_what_is_needed_gets_a_gradient(
        self, kind: type[nn.Module], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = call_on(monkeypatch, layer_of(kind, options), [3, 0, 2])
        y, *_ = recurrence(*call)
        whole = torch.autograd.grad(y.sum(), floating(call), materialize_grads=True)
        # As after freezing all but the last weight.
        few = call._replace(values=call.values.detach(), tensors=[t.detach() for t in call.tensors])
        few.tensors[0].requires_grad_()
        y, *_ = recurrence(*few)
        (alone,) = torch.autograd.grad(y.sum(), few.tensors[0])
        assert_close([alone], [whole[1]])

    def test_padding_is_never_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer = peephole.LSTM(3, 4, batch_first=True, zoneout=0.5, dtype=F64)
        x = torch.full((3, 4, 3), torch.nan, dtype=F64)
        lengths = torch.tensor([2, 0, 4])
        exists = torch.arange(4) < lengths.unsqueeze(1)
        x[exists] = torch.randn(6, 3, dtype=F64)
        call = arguments(monkeypatch, layer, x, lengths=lengths)
        results = recurrence(*call)
        gradients = torch.autograd.grad(sum(result.sum() for result in results), floating(call))
        assert all(tensor.isfinite().all() for tensor in (*results, *gradients))
        assert not results[0].view(3, 4, 4)[~exists].any()
        assert not gradients[0].view(3, 4, 3)[~exists].any()
        assert (gradients[0].view(3, 4, 3)[exists] != 0).any(1).all()

    @EVERY
    def test_lengths_pick_the_steps_and_their_masks(
        self, kind: type[nn.Module], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lengths = [2, 0, 4, 1]
        call = call_on_padded(monkeypatch, layer_of(kind, options), 5, lengths)
        exists = (torch.arange(5) < torch.tensor(lengths).unsqueeze(1)).flatten()
        by_step = [t[exists] if len(t) == len(exists) else t for t in call.tensors]
        compact = call._replace(
            values=call.values[exists], offsets=offsets_of(lengths), lengths=None, tensors=by_step
        )
        y, *final = recurrence(*call)
        wanted, *wanted_final = recurrence(*compact)
        assert_close([y[exists], *final], [wanted, *wanted_final])

    @pytest.mark.parametrize(
        ("offsets", "message"),
        [
            ([1, 2, 5], "offsets[0] = 1; it must be 0"),
            ([0, 2, 4], "offsets end at 4, but values have 5 steps; they must agree"),
            ([0, 6, 5], "offsets fall: offsets[1] = 6, offsets[2] = 5"),
        ],
    )
    def test_wrong_offsets(
        self, offsets: list[int], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = call_on(monkeypatch, peephole.GRU(3, 4, dtype=F64), [3, 2])
        for _ in range(2):  # What was refused once is not remembered as right.
            with raises(message):
                recurrence(*call._replace(offsets=torch.tensor(offsets)))
        # The same offsets may fit other values.
        assert recurrence(*call)[0].shape == (5, 4)


class TestMemory:
    @EVERY
    @pytest.mark.parametrize("lengths", [[3, 0, 2], [4], [0, 0]], ids=str)
    def test_results_share_none(
        self,
        kind: type[nn.Module],
        options: dict[str, Any],
        lengths: list[int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        call = call_on(monkeypatch, layer_of(kind, options), lengths)
        results = recurrence(*call)
        assert_apart(results, call)
        d_results = [torch.ones_like(result) for result in results]
        needed = [t.requires_grad for t in (call.values, *call.tensors)]
        with torch.no_grad():
            found = backward(d_results, needed, *call)
        assert_apart([*found, *d_results], call)

    def test_an_empty_batch_gives_a_copy_of_its_state(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = call_on(monkeypatch, peephole.GRU(3, 4, dtype=F64), [0, 0])
        _, h_n = recurrence(*call)
        h0 = call.tensors[-1]
        assert_close([h_n], [h0])
        with torch.no_grad():
            h_n.add_(1)
        assert (h_n != h0).all()


def assert_apart(results: Sequence[Tensor], call: compiled.Call) -> None:
    tensors = [*results, *(t for t in pytree.tree_leaves(tuple(call)) if isinstance(t, Tensor))]
    places = [t.untyped_storage().data_ptr() for t in tensors]
    places = [place for place in places if place]
    assert len(places) == len(set(places))
    assert all(result.is_contiguous() for result in results)


class TestSecondDerivatives:
    MESSAGE = (
        "a compiled or exported peephole layer has first derivatives only; for second ones call "
        "the layer outside of torch.compile, with backend='reference'"
    )

    def test_of_the_operation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        call = call_on(monkeypatch, peephole.LSTM(3, 4, dtype=F64), [3, 2])
        y, *_ = recurrence(*call)
        (d_values,) = torch.autograd.grad(y.square().sum(), call.values, create_graph=True)
        with raises(self.MESSAGE, RuntimeError):
            d_values.sum().backward()

    def test_of_a_graph(self) -> None:
        layer, x = peephole.LSTM(3, 4, dtype=F64), random_batch([3, 2])
        # What aot_autograd makes of a graph has none either, and says so in torch's words.
        y, _ = torch.compile(layer, fullgraph=True, backend="eager")(x)
        (d_values,) = torch.autograd.grad(y.values.sum(), x.values, create_graph=True)
        with raises(self.MESSAGE, RuntimeError):
            d_values.sum().backward()
