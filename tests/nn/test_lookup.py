"""Inputs of ids: the same as the embedding's rows, and folded into the gates where that pays."""

import inspect
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import peephole
from peephole import Ragged
from peephole.nn import lookup
from tests.helpers.batches import LENGTHS, NONEMPTY, offsets_of
from tests.helpers.graphs import traceable  # noqa: F401
from tests.helpers.layerwise import randomized

WIDTH, H = lookup.WIDE_WITHOUT_GRADIENT, 3
# Rows of an embedding: much fewer than steps, and too many.
FEW, MANY = 5, 12
KINDS = [peephole.LSTM, peephole.GRU, peephole.RNN]
OPTIONS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    *((kind, {"bias": False}) for kind in KINDS),
    *((kind, {"single_bias": True}) for kind in KINDS),
    *((kind, {"layer_norm": True}) for kind in KINDS),
    *((kind, {"zoneout": 0.3, "recurrent_dropout": 0.4}) for kind in KINDS),
    *((kind, {"num_layers": 2, "bidirectional": True, "dropout": 0.4}) for kind in KINDS),
    *((kind, {"hidden_size": [4, 3], "skip": True}) for kind in KINDS),
    *((kind, {"learn_initial_state": True, "backend": "reference"}) for kind in KINDS),
    *((kind, {"learn_initial_state": True}) for kind in KINDS),
    *((kind, {"backend": "cpu"}) for kind in KINDS),
    *((kind, {"backend": "torch"}) for kind in KINDS),
    (peephole.LSTM, {"peephole": "full"}),
    (peephole.LSTM, {"peephole": "diagonal", "coupled": True}),
    (peephole.LSTM, {"peephole": "full", "coupled": True}),
    (peephole.LSTM, {"proj_size": 2}),
    (peephole.LSTM, {"cell_clip": 0.1}),
]


def layer_of(kind: type[nn.Module], **options: Any) -> Any:
    torch.manual_seed(1)
    return randomized(kind(WIDTH, options.pop("hidden_size", H), **options), scale=0.2)


def embedding_of(rows: int) -> Tensor:
    return torch.randn(rows, WIDTH, dtype=torch.float64, requires_grad=True)


def ids_of(lengths: list[int], rows: int) -> Ragged:
    return Ragged(torch.randint(0, rows, (sum(lengths),)), offsets_of(lengths))


def gradients(loss: Tensor, layer: nn.Module, embedding: Tensor, **more: Any) -> dict[str, Tensor]:
    names = ["embedding", *(name for name, _ in layer.named_parameters())]
    of = [embedding, *layer.parameters()]
    found = torch.autograd.grad(loss, of, materialize_grads=True, **more)
    return dict(zip(names, found, strict=True))


def assert_agree(given: Any, wanted: Any) -> None:
    torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


def folds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets, of each call, how many directions are given their gates' part."""
    counts: list[int] = []
    look_up = lookup.look_up

    def spied(*args: Any, **options: Any) -> Any:
        values, folded = look_up(*args, **options)
        counts.append(len(folded))
        return values, folded

    monkeypatch.setattr(lookup, "look_up", spied)
    return counts


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_is_what_rows_give(kind: type[nn.Module], options: dict[str, Any], rows: int) -> None:
    layer, embedding = layer_of(kind, **options), embedding_of(rows)
    ids = ids_of(LENGTHS, rows)
    found = []
    for told in (
        {"input": ids, "embedding": embedding},
        {"input": ids.with_values(F.embedding(ids.values, embedding))},
    ):
        torch.manual_seed(2)
        y, ends = layer(**told)
        ends = ends if isinstance(ends, tuple) else (ends,)
        everything = [y.values, *(e for each in ends for e in each)]
        loss = sum(each.sin().sum() for each in everything)
        found.append((everything, gradients(loss, layer, embedding)))
    (outputs, grads), (wanted, wanted_grads) = found
    assert_agree(outputs, wanted)
    assert_agree(grads, wanted_grads)
    assert any(g.abs().max() > 0 for g in grads.values())
    with torch.no_grad():
        torch.manual_seed(2)
        assert_agree(layer(ids, embedding=embedding)[0].values, wanted[0])


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [
        *((kind, {}, 1) for kind in KINDS),
        *((kind, {"bidirectional": True, "num_layers": 2}, 2) for kind in KINDS),
        (peephole.LSTM, {"peephole": "full"}, 1),
        (peephole.LSTM, {"skip": True}, 0),
        (peephole.LSTM, {"layer_norm": True}, 0),
        (peephole.LSTM, {"backend": "reference"}, 0),
    ],
)
def test_folds_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], options: dict[str, Any], count: int
) -> None:
    counts = folds(monkeypatch)
    layer = layer_of(kind, **options)
    layer(ids_of(LENGTHS, FEW), embedding=embedding_of(FEW))
    layer(ids_of(LENGTHS, FEW), embedding=embedding_of(MANY))
    assert counts == [count, 0]


@pytest.mark.parametrize(("training", "width"), [(True, lookup.WIDE), (False, WIDTH)])
@pytest.mark.parametrize("kind", KINDS)
def test_folds_what_is_wide_enough(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], training: bool, width: int
) -> None:
    """Without derivatives there are fewer products to save."""
    counts = folds(monkeypatch)
    for each in (width, width - 1):
        layer, embedding = kind(each, H).double(), embedding_of(FEW)[:, :each]
        with torch.set_grad_enabled(training):
            layer(ids_of(LENGTHS, FEW), embedding=embedding)
    assert counts == [1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_takes_states_and_gives_steps(kind: type[nn.Module]) -> None:
    layer, embedding, ids = layer_of(kind), embedding_of(FEW), ids_of(LENGTHS, FEW)
    state: Any = torch.randn(1, len(LENGTHS), H).double()
    state = (state, state.cos()) if kind is peephole.LSTM else state
    rows = ids.with_values(F.embedding(ids.values, embedding))
    y, ends, steps = layer(ids, state, embedding=embedding, return_states=True)
    wanted, wanted_ends, wanted_steps = layer(rows, state, return_states=True)
    assert_agree((y.values, ends), (wanted.values, wanted_ends))
    for name, gate in wanted_steps[0].gates.items():
        assert_agree(steps[0].gates[name].values, gate.values)


@pytest.mark.parametrize("kind", KINDS)
def test_has_second_derivatives(kind: type[nn.Module]) -> None:
    layer, embedding = layer_of(kind), embedding_of(FEW)
    ids = ids_of(NONEMPTY, FEW)
    found = []
    for told in (
        {"input": ids, "embedding": embedding},
        {"input": ids.with_values(F.embedding(ids.values, embedding))},
    ):
        y, _ = layer(**told)
        first = gradients(y.values.sin().sum(), layer, embedding, create_graph=True)
        found.append(gradients(sum(g.square().sum() for g in first.values()), layer, embedding))
    assert_agree(*found)


@pytest.mark.parametrize("rows", [FEW, MANY])
def test_takes_every_form(rows: int) -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(rows)
    ids = ids_of(LENGTHS, rows)
    wanted = layer(ids, embedding=embedding)[0]
    longest = max(LENGTHS)
    # What stands past the ends is not looked up.
    padded = torch.full((longest, len(LENGTHS)), -1)
    for b, sequence in enumerate(ids):
        padded[: len(sequence), b] = sequence
    y, _ = layer(padded, lengths=LENGTHS, embedding=embedding)
    assert_agree(y, wanted.to_padded(batch_first=False))
    y, _ = layer(Ragged(ids.values.int(), ids.offsets), embedding=embedding)
    assert_agree(y.values, wanted.values)
    first = ids[0]
    y, _ = layer(first, embedding=embedding)
    assert_agree(y, wanted[0])
    nested = torch.nested.nested_tensor_from_jagged(ids.values, ids.offsets)
    y, _ = layer(nested, embedding=embedding)
    assert_agree(y.values(), wanted.values)
    narrowed = torch.nested.narrow(
        padded.t().clamp(min=0).contiguous(), 1, 0, torch.tensor(LENGTHS), torch.jagged
    )
    y, _ = layer(narrowed, embedding=embedding)
    assert_agree(torch.cat([*y.unbind()]), wanted.values)


def test_takes_packed_ids() -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(FEW)
    padded = torch.randint(0, FEW, (max(NONEMPTY), len(NONEMPTY)))
    packed = pack_padded_sequence(padded, torch.tensor(NONEMPTY), enforce_sorted=False)
    y, (h_n, _) = layer(packed, embedding=embedding)
    rows = PackedSequence(F.embedding(packed.data, embedding), *packed[1:])
    wanted, (wanted_h_n, _) = layer(rows)
    assert_agree(y.data, wanted.data)
    assert_agree(h_n, wanted_h_n)


def test_takes_whole_padded_batches_first() -> None:
    layer, embedding = layer_of(peephole.GRU, batch_first=True), embedding_of(FEW)
    ids = torch.randint(0, FEW, (3, 7))
    assert_agree(layer(ids, embedding=embedding), layer(F.embedding(ids, embedding)))


def test_empty_batches_give_zeros() -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(FEW)
    y, (h_n, _) = layer(ids_of([0, 0], FEW), embedding=embedding)
    assert y.values.shape == (0, H)
    grads = gradients(h_n.sum() + y.values.sum(), layer, embedding)
    assert all(not g.any() for g in grads.values())


@pytest.mark.usefixtures("traceable")
def test_compiles() -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(FEW)
    ids = ids_of(LENGTHS, FEW)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def run(ids: Tensor, offsets: Tensor, embedding: Tensor) -> Tensor:
        y: Tensor = layer(Ragged(ids, offsets), embedding=embedding)[0].values
        return y

    assert_agree(run(ids.values, ids.offsets, embedding), layer(ids, embedding=embedding)[0].values)


@pytest.mark.usefixtures("traceable")
def test_compiled_padding_is_not_looked_up() -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(FEW)
    ids = torch.randint(0, FEW, (4, 3))
    ids[2:, 1] = -1
    lengths = torch.tensor([4, 2, 4])
    run = torch.compile(layer, fullgraph=True, backend="aot_eager")
    given, wanted = (f(ids, lengths=lengths, embedding=embedding) for f in (run, layer))
    assert_agree(given, wanted)


def test_goes_where_operations_are_watched() -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(FEW)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y, _ = layer(mode.from_tensor(torch.zeros(20, 3, dtype=torch.int64)), embedding=embedding)
    assert y.shape == (20, 3, H)


def test_goes_with_transforms() -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(FEW)
    ids = ids_of(NONEMPTY, FEW)

    def loss(embedding: Tensor) -> Tensor:
        total: Tensor = layer(ids, embedding=embedding)[0].values.sin().sum()
        return total

    wanted = gradients(loss(embedding), layer, embedding)["embedding"]
    assert_agree(torch.func.grad(loss)(embedding.detach()), wanted)


def test_autocast_casts_the_embedding() -> None:
    layer = peephole.LSTM(WIDTH, H)
    embedding = torch.randn(FEW, WIDTH, requires_grad=True)
    ids = ids_of(LENGTHS, FEW)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(ids, embedding=embedding)
        wanted, _ = layer(ids.with_values(F.embedding(ids.values, embedding)))
    assert y.values.dtype == torch.bfloat16
    # One more rounding: the gates' part is of bfloat16 too.
    torch.testing.assert_close(y.values, wanted.values, rtol=0.05, atol=0.02)
    found = [torch.autograd.grad(each.values.float().sum(), embedding)[0] for each in (y, wanted)]
    torch.testing.assert_close(*found, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("ids", "embedding", "message"),
    [
        (
            torch.tensor([0, 5]),
            torch.zeros(5, WIDTH),
            "the id 5; the embedding has 5 rows, so that ",
        ),
        (torch.tensor([0, -1]), torch.zeros(5, WIDTH), "the id -1; the embedding has 5 rows"),
        (torch.tensor([0, 5]), torch.zeros(1, WIDTH), r"ids are from 0 to 0"),
        (torch.tensor([0.0]), torch.zeros(5, WIDTH), "ids, int64 or int32, and not torch.float32"),
        (
            torch.tensor([0]),
            torch.zeros(5, WIDTH + 1),
            r"must be \[A, 256\] for input_size=256, got \[5, ",
        ),
        (
            torch.tensor([0]),
            torch.zeros(WIDTH),
            r"must be \[A, 256\] for input_size=256, got \[256\]",
        ),
        (
            torch.tensor([0]),
            torch.zeros(5, WIDTH).double(),
            "embedding has dtype torch.float64, but",
        ),
        (torch.tensor([0]), torch.zeros(5, WIDTH, device="meta"), "embedding has device meta, but"),
        (
            torch.zeros(2, 3, WIDTH),
            torch.zeros(5, WIDTH),
            r"\[T\], \[T, B\] or \[B, T\]; got 3 dim",
        ),
        (torch.tensor([0], device="meta"), torch.zeros(5, WIDTH), "input has device meta, but"),
    ],
)
def test_says_what_does_not_fit(ids: Tensor, embedding: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        peephole.LSTM(WIDTH, H)(ids, embedding=embedding)


def test_an_embedding_is_a_tensor() -> None:
    embedding: Any = nn.Embedding(FEW, WIDTH)
    message = "a tensor [A, 256], got Embedding; of an nn.Embedding give its weight"
    # Behind the annotations, which are checked while the tests run.
    check = inspect.unwrap(lookup.check)
    with pytest.raises(TypeError, match=re.escape(message)):
        check(torch.tensor([0]), embedding, WIDTH, torch.zeros(1))


def test_ragged_and_packed_ids_have_one_dimension() -> None:
    layer, embedding = layer_of(peephole.LSTM), embedding_of(FEW)
    with pytest.raises(ValueError, match=r"a Ragged's values must be \[N\]; got 2 dimensions"):
        layer(Ragged(torch.zeros(2, 1, dtype=torch.int64), offsets_of([2])), embedding=embedding)
    packed = PackedSequence(torch.zeros(2, 1, dtype=torch.int64), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match=r"a PackedSequence's data must be \[N\]; got 2 dim"):
        layer(packed, embedding=embedding)
