"""One step of a few sequences: cells without derivatives, and layers whose products are dots."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import peephole
from peephole import Ragged
from peephole.ops import cpu
from peephole.ops.cpu.step import SEQUENCES
from tests.helpers.kernels import emptied

F32, F64 = torch.float32, torch.float64
SIZES = [(1, 1), (3, 5), (17, 16), (20, 33), (64, 63), (130, 129)]
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTMCell", {}),
    "gru": ("GRUCell", {}),
    "tanh": ("RNNCell", {"nonlinearity": "tanh"}),
    "relu": ("RNNCell", {"nonlinearity": "relu"}),
}
EVERY_CELL = pytest.mark.parametrize("which", CELLS)
EVERY_SIZE = pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "x".join(map(str, sizes)))

LAYERS: dict[str, tuple[type[peephole.nn.Layer], dict[str, Any]]] = {
    "lstm": (peephole.LSTM, {}),
    "diagonal": (peephole.LSTM, {"peephole": "diagonal"}),
    "full": (peephole.LSTM, {"peephole": "full"}),
    "coupled": (peephole.LSTM, {"peephole": "full", "coupled": True, "cell_clip": 0.3}),
    "gru": (peephole.GRU, {}),
    "rnn": (peephole.RNN, {"nonlinearity": "relu"}),
}


def pair(which: str, inputs: int, hidden: int, dtype: torch.dtype, bias: bool) -> tuple[Any, Any]:
    """A cell of ``torch.nn`` and ours, with the same weights."""
    torch.manual_seed(inputs + hidden)
    name, options = CELLS[which]
    theirs = getattr(nn, name)(inputs, hidden, bias=bias, dtype=dtype, **options)
    ours = getattr(peephole, name)(inputs, hidden, bias=bias, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def drawn(
    which: str, sequences: int, inputs: int, hidden: int, dtype: torch.dtype
) -> tuple[Tensor, Any]:
    x = torch.randn(sequences, inputs)
    h, c = torch.randn(2, sequences, hidden)
    state = (h.to(dtype), c.to(dtype)) if which == "lstm" else h.to(dtype)
    return x.to(dtype), state


def straight(cell: Any, x: Tensor, state: Any) -> tuple[Tensor, ...] | None:
    """The compiled step itself; None where it does not serve."""
    state = state if isinstance(state, tuple) else (state,)
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    kind = {"LSTMCell": "lstm", "GRUCell": "gru", "RNNCell": "rnn"}[type(cell).__name__]
    return cpu.step(kind, cell.recurrence_options().get("nonlinearity"), x, state, *weights)


def assert_close(ours: Any, theirs: Any, dtype: torch.dtype) -> None:
    bound = 1e-12 if dtype is F64 else 2e-6
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)


@EVERY_CELL
@EVERY_SIZE
@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
def test_agrees_with_torch(which: str, sizes: tuple[int, int], dtype: torch.dtype) -> None:
    for bias in (True, False):
        ours, theirs = pair(which, *sizes, dtype, bias)
        for B in range(SEQUENCES + 1):
            x, state = drawn(which, B, *sizes, dtype)
            with torch.no_grad():
                wanted = theirs(x, state)
                found = straight(ours, x, state)
                assert found is not None
                assert_close(found if len(found) > 1 else found[0], wanted, dtype)
                assert_close(ours(x, state), wanted, dtype)


@EVERY_CELL
@EVERY_SIZE
def test_bfloat16_is_torchs_float32_rounded(which: str, sizes: tuple[int, int]) -> None:
    ours, theirs = pair(which, *sizes, torch.bfloat16, True)
    theirs = theirs.float()
    for B in range(1, SEQUENCES + 1):
        x, state = drawn(which, B, *sizes, torch.bfloat16)
        with torch.no_grad():
            found = ours(x, state)
            wanted = theirs(*tree_map(Tensor.float, (x, state)))
        for one, other in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
            assert one.dtype == torch.bfloat16
            # Gates within a few roundings of 2^-8; a cell is their product with another.
            torch.testing.assert_close(one.float(), other, rtol=2e-2, atol=2e-2)


@EVERY_CELL
def test_an_input_of_no_width(which: str) -> None:
    ours, theirs = pair(which, 1, 7, F64, True)
    x, state = drawn(which, 3, 1, 7, F64)
    kind = {"lstm": "lstm", "gru": "gru"}.get(which, "rnn")
    weights = (ours.weight_ih[:, :0], ours.weight_hh, ours.bias_ih, ours.bias_hh)
    states = state if isinstance(state, tuple) else (state,)
    with torch.no_grad():
        found = cpu.step(
            kind, ours.recurrence_options().get("nonlinearity"), x[:, :0], states, *weights
        )
        assert found is not None
        assert_close(found if len(found) > 1 else found[0], theirs(x * 0, state), F64)


@EVERY_CELL
def test_more_sequences_are_torchs(which: str) -> None:
    ours, theirs = pair(which, 5, 7, F64, True)
    x, state = drawn(which, SEQUENCES + 1, 5, 7, F64)
    with torch.no_grad():
        assert straight(ours, x, state) is None
        assert_close(ours(x, state), theirs(x, state), F64)


@EVERY_CELL
def test_derivatives_are_torchs(which: str) -> None:
    ours, theirs = pair(which, 5, 7, F64, True)
    x, state = drawn(which, 1, 5, 7, F64)
    assert straight(ours, x, state) is None
    ours.requires_grad_(False)
    assert straight(ours, x, state) is not None
    assert straight(ours, x.requires_grad_(), state) is None
    theirs.requires_grad_(False)
    (d_x,) = torch.autograd.grad(first(ours(x, state)).sum(), x)
    (wanted,) = torch.autograd.grad(first(theirs(x, state)).sum(), x)
    assert_close(d_x, wanted, F64)


def first(state: Any) -> Tensor:
    h: Tensor = state[0] if isinstance(state, tuple) else state
    return h


@EVERY_CELL
@pytest.mark.parametrize("spoiled", ["x", "state", "weight_ih", "weight_hh", "bias_ih", "bias_hh"])
@torch.no_grad()
def test_other_tensors_are_left_to_torch(which: str, spoiled: str) -> None:
    ours, theirs = pair(which, 6, 6, F64, True)
    x, state = drawn(which, 2, 6, 6, F64)
    if spoiled == "x":
        x = x.t().contiguous().t()
    elif spoiled == "state":
        state = tree_map(lambda s: s.repeat(1, 2)[:, ::2], state)
    else:
        for cell in (ours, theirs):
            wide = getattr(cell, spoiled).detach().repeat_interleave(2, 0)
            setattr(cell, spoiled, nn.Parameter(wide[::2]))
    assert straight(ours, x, state) is None
    assert_close(ours(x, state), theirs(x, state), F64)


@EVERY_CELL
@torch.no_grad()
def test_tensors_that_do_not_fit_are_refused(which: str) -> None:
    """Whatever does not fit, nothing is computed, and torch's operator says what is wrong."""
    ours, _ = pair(which, 6, 7, F64, True)
    x, state = drawn(which, 2, 6, 7, F64)
    wrong: list[tuple[Tensor, Any]] = [
        (x.float(), state),
        (x[0], state),
        (x[:, :5].contiguous(), state),
        (x.to("meta"), state),
        (x.to_sparse(), state),
        (torch._neg_view(x), state),
        (torch._efficientzerotensor(2, 6, dtype=F64), state),
    ]
    spoils = (
        lambda s: s[:1].contiguous(),
        lambda s: s[:, :6].contiguous(),
        lambda s: s.float(),
        lambda s: s[0],
        emptied,
    )
    wrong += [(x, tree_map(spoil, state)) for spoil in spoils]
    for given in wrong:
        assert straight(ours, *given) is None, given
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        whole = getattr(ours, name)
        for part in (whole[1:].contiguous(), whole.float(), whole[None]):
            setattr(ours, name, nn.Parameter(part))
            assert straight(ours, x, state) is None
        setattr(ours, name, whole)
    assert straight(ours, x, state) is not None


@pytest.mark.parametrize("name", LAYERS)
@EVERY_SIZE
def test_layers_of_single_steps(name: str, sizes: tuple[int, int]) -> None:
    """Up to a few rows are multiplied without packing, in an order of their own."""
    kind, options = LAYERS[name]
    torch.manual_seed(3)
    layers = [kind(*sizes, **options, backend=b, dtype=F64) for b in ("cpu", "reference")]
    layers[1].load_state_dict(layers[0].state_dict())
    for lengths in ([1], [2], [3], [1, 0, 1], [1] * 4, [1] * 5, [2, 1, 0, 2], [1] * 49):
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        values = torch.randn(sum(lengths), sizes[0], dtype=F64)
        found = []
        for layer in layers:
            x = values.clone().requires_grad_()
            y, state = layer(Ragged(x, offsets))
            total = y.values.sin().sum() + sum(s.cos().sum() for s in tree_leaves(state))
            found.append([y.values, total, *torch.autograd.grad(total, [x, *layer.parameters()])])
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)
