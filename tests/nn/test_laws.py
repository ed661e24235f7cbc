"""Laws that a layer keeps on any batch: sequences apart, in any order, in halves, reversed."""

from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import peephole
from peephole import Ragged
from tests.helpers.layerwise import random_batch, randomized

# Those with "options" are the reference's alone: there are no kernels for layer norm.
LAYERS: dict[str, Callable[..., Any]] = {
    "LSTM": peephole.LSTM,
    "GRU": peephole.GRU,
    "RNN": peephole.RNN,
    "LSTM-projected": lambda *a, **k: peephole.LSTM(*a, proj_size=2, **k),
    "LSTM-options": lambda *a, **k: peephole.LSTM(
        *a,
        peephole="full",
        coupled=True,
        cell_clip=0.6,
        zoneout=(0.1, 0.4),
        recurrent_dropout=0.5,
        layer_norm=True,
        learn_initial_state=True,
        skip=True,
        **k,
    ),
    "LSTM-dropped": lambda *a, **k: peephole.LSTM(
        *a,
        peephole="full",
        cell_clip=0.6,
        zoneout=(0.1, 0.4),
        recurrent_dropout=0.5,
        skip=True,
        **k,
    ),
    "GRU-options": lambda *a, **k: peephole.GRU(
        *a, zoneout=0.2, recurrent_dropout=0.5, layer_norm=True, learn_initial_state=True, **k
    ),
    "GRU-dropped": lambda *a, **k: peephole.GRU(
        *a, zoneout=0.2, recurrent_dropout=0.5, learn_initial_state=True, **k
    ),
    "RNN-options": lambda *a, **k: peephole.RNN(
        *a, "relu", zoneout=0.2, layer_norm=True, learn_initial_state=True, skip=True, **k
    ),
}
RUNS = {
    f"{name}-{backend}": (make, backend)
    for name, make in LAYERS.items()
    for backend in ("reference", "torch", "auto")
    if {
        "reference": not name.endswith("-dropped"),
        "torch": not name.endswith(("-options", "-dropped")),
        "auto": not name.endswith("-options"),
    }[backend]
}
EVERY = pytest.mark.parametrize(("make", "backend"), RUNS.values(), ids=RUNS)
FEW = hypothesis.settings(max_examples=6)
LENGTHS = st.lists(st.integers(0, 6), max_size=5)

Make = Callable[..., Any]


def layer_of(make: Make, backend: str, num_layers: int = 2, **options: Any) -> Any:
    """The same one in every example: it is in evaluation, where no mask is drawn."""
    torch.manual_seed(3)
    options = {"bidirectional": True, **options}
    return randomized(make(3, 4, num_layers, backend=backend, **options)).eval()


def states(final: Any) -> tuple[Tensor, ...]:
    return final if isinstance(final, tuple) else (final,)


def as_given(states: tuple[Tensor, ...]) -> Any:
    return states if len(states) == 2 else states[0]


def initial(layer: Any, sequences: int) -> Any:
    rows = layer.num_layers * (1 + layer.bidirectional)
    sizes = layer.state_sizes(layer.hidden_size)
    return as_given(
        tuple(torch.randn(rows, sequences, size, dtype=torch.float64) for size in sizes)
    )


def some(hx: Any, which: Any) -> Any:
    return as_given(tuple(s[:, which] for s in states(hx)))


def close(given: Any, wanted: Any) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-12, atol=1e-12)


@EVERY
@FEW
@hypothesis.given(lengths=LENGTHS, given=st.booleans(), recorded=st.booleans(), data=st.data())
def test_sequences_one_at_a_time_in_any_order(
    make: Make, backend: str, lengths: list[int], given: bool, recorded: bool, data: st.DataObject
) -> None:
    layer = layer_of(make, backend)
    x = random_batch(lengths, 3)
    order = data.draw(st.permutations(range(len(lengths))))
    hx = initial(layer, len(lengths)) if given else None
    # What auto chooses depends on whether autograd records.
    with torch.set_grad_enabled(recorded):
        y, final = layer(x, hx)
        close(y.offsets, x.offsets)
        for b in range(len(lengths)):
            alone, end = layer(x[[b]], None if hx is None else some(hx, [b]))
            close(y[b], alone.values)
            close(some(final, [b]), end)
        shuffled, ends = layer(x[order], None if hx is None else some(hx, order))
    close(shuffled.values, y[order].values)
    close(ends, some(final, order))


@EVERY
@FEW
@hypothesis.given(lengths=LENGTHS, data=st.data())
def test_two_halves_equal_the_whole(
    make: Make, backend: str, lengths: list[int], data: st.DataObject
) -> None:
    # The reverse direction would hand its state the other way.
    layer = layer_of(make, backend, bidirectional=False)
    x = random_batch(lengths, 3)
    cuts = [data.draw(st.integers(0, length)) for length in lengths]
    pairs = list(zip(x.to_list(), cuts, strict=True))
    halves = [
        Ragged.from_list([x.values[:0], *(part(s, k) for s, k in pairs)])[1:]
        for part in (lambda s, k: s[:k], lambda s, k: s[k:])
    ]
    hx = initial(layer, len(lengths))
    y, final = layer(x, hx)
    first, middle = layer(halves[0], hx)
    second, end = layer(halves[1], middle)
    close(final, end)
    for whole, one, two in zip(y, first, second, strict=True):
        close(whole, torch.cat([one, two]))


@EVERY
@FEW
@hypothesis.given(lengths=LENGTHS)
def test_reverse_is_forwards_on_the_reversed_batch(
    make: Make, backend: str, lengths: list[int]
) -> None:
    layer = layer_of(make, backend)
    x = random_batch(lengths, 3)
    torch.testing.assert_close(x.reverse().reverse().values, x.values, rtol=0, atol=0)
    hx = initial(layer, len(lengths))
    swapped = with_directions_swapped(layer, make, backend)
    y, final = layer(x, hx)
    rows = [1, 0, 3, 2]
    z, ends = swapped(x.reverse(), as_given(tuple(s[rows] for s in states(hx))))
    close(halves_swapped(z.reverse().values, layer), y.values)
    close(as_given(tuple(s[rows] for s in states(ends))), final)


@EVERY
@FEW
@hypothesis.given(lengths=LENGTHS)
def test_the_reverse_direction_is_a_layer_on_the_reversed_batch(
    make: Make, backend: str, lengths: list[int]
) -> None:
    """The same law for the first layer alone, on a layer of one direction."""
    both = layer_of(make, backend, num_layers=1)
    alone = make(3, 4, 1, backend=backend).double().eval()
    reverse = {
        name.removesuffix("_reverse"): p
        for name, p in both.state_dict().items()
        if name.endswith("_reverse")
    }
    alone.load_state_dict(reverse)
    x = random_batch(lengths, 3)
    y, final = both(x)
    z, ends = alone(x.reverse())
    close(z.reverse().values, y.values[:, alone.output_size :])
    close(states(ends)[0][0], states(final)[0][1])


@EVERY
@FEW
@hypothesis.given(lengths=LENGTHS, place=st.integers(0, 6))
def test_an_empty_sequence_more_changes_nothing(
    make: Make, backend: str, lengths: list[int], place: int
) -> None:
    layer = layer_of(make, backend)
    x, B = random_batch(lengths, 3), len(lengths)
    place = min(place, B)
    offsets = torch.cat([x.offsets[: place + 1], x.offsets[place:]])
    hx = initial(layer, B + 1)
    others = [b for b in range(B + 1) if b != place]
    y, final = layer(x, some(hx, others))
    z, ends = layer(Ragged(x.values, offsets), hx)
    close(z.values, y.values)
    close(some(ends, others), final)
    # It ends where it began.
    torch.testing.assert_close(some(ends, [place]), some(hx, [place]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@FEW
@hypothesis.given(lengths=LENGTHS)
def test_gradients_are_the_sum_of_each_sequence_s(name: str, lengths: list[int]) -> None:
    layer = layer_of(LAYERS[name], "auto")
    x = random_batch(lengths, 3)
    x.values.requires_grad_()
    y, final = layer(x)
    weights = torch.randn_like(y.values)
    finals = tuple(torch.randn_like(s) for s in states(final))
    inputs = [x.values, *layer.parameters()]

    def gradients(y: Tensor, w: Tensor, final: Any, ws: tuple[Tensor, ...]) -> Any:
        total = (y * w).sum() + sum((s * v).sum() for s, v in zip(states(final), ws, strict=True))
        return torch.autograd.grad(total, inputs, materialize_grads=True)

    together = gradients(y.values, weights, final, finals)
    apart = [torch.zeros_like(each) for each in together]
    for b, w in enumerate(y.with_values(weights)):
        one, end = layer(x[[b]])
        each = gradients(one.values, w, end, tuple(s[:, [b]] for s in finals))
        apart = [a + e for a, e in zip(apart, each, strict=True)]
    torch.testing.assert_close(list(together), apart, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "inference"])
@FEW
@hypothesis.given(lengths=LENGTHS)
def test_in_float32_too(name: str, recorded: bool, lengths: list[int]) -> None:
    # There the LSTM has an operator of its own, oneDNN's.
    layer = layer_of(LAYERS[name], "auto").float()
    x = random_batch(lengths, 3).to(torch.float32)
    with torch.set_grad_enabled(recorded):
        y, final = layer(x)
        for b in range(len(lengths)):
            alone, end = layer(x[[b]])
            torch.testing.assert_close(y[b], alone.values, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(some(final, [b]), end, rtol=1e-5, atol=1e-5)


def with_directions_swapped(layer: Any, make: Make, backend: str) -> nn.Module:
    """Each direction has the other's weights, and looks at the layer below the other way about."""
    swapped = make(3, 4, 2, backend=backend, bidirectional=True).double().eval()
    width = layer.state_sizes(layer.hidden_size)[0]
    # With skip the input comes first, which has no halves.
    start = 3 if layer.skip else 0
    theirs = {}
    for name, parameter in layer.state_dict().items():
        other = name.removesuffix("_reverse") if name.endswith("_reverse") else name + "_reverse"
        if name.startswith("weight_ih_l1"):
            head, a, b = parameter.split([start, width, width], 1)
            parameter = torch.cat([head, b, a], 1)
        theirs[other] = parameter
    swapped.load_state_dict(theirs)
    return swapped


def halves_swapped(y: Tensor, layer: Any) -> Tensor:
    """The directions' outputs changed about, in each layer's part of the output."""
    parts = y.split(layer.state_sizes(layer.hidden_size)[0], 1)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return torch.cat([part for a, b in pairs for part in (b, a)], 1)
