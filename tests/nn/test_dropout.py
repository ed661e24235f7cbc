"""Dropout between layers: the masks of ``torch.nn`` for the same seed, and what they are of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import peephole
from peephole.nn import Layer
from tests.helpers.layers import (
    BACKENDS,
    BATCH_FIRST,
    BOTH,
    EVERY,
    EVERY_SERVED,
    INPUT,
    Kind,
    apart,
    as_tuple,
    assert_agree,
    assert_close,
    float32_projection,
    padded,
    parameters,
    ragged,
    random_sequences,
    shared,
)

SEED = 63
LENGTHS = [5, 1, 3, 0, 7, 7]
# All steps of the packed ones in three orders: longest first, with ties; any order; nearly even.
PACKED: dict[str, Callable[[Tensor], PackedSequence]] = {
    "sorted": lambda x: pack_padded_sequence(x, [7, 5, 5, 1]),
    "unsorted": lambda x: pack_padded_sequence(x, [5, 1, 7, 5], enforce_sorted=False),
    "nearly even": lambda x: pack_padded_sequence(x, [6, 7, 7, 6], enforce_sorted=False),
}
SHARES = pytest.mark.parametrize("dropout", [0.5, 1.0])
STACKS = pytest.mark.parametrize(
    ("num_layers", "bidirectional"), [(2, False), (2, True), (3, True)], ids=str
)


def seeded(module: nn.Module, *given: Any) -> tuple[list[Tensor], Tensor]:
    """Output and states from the same seed, and where that left the generator."""
    torch.manual_seed(SEED)
    output, states = module(*given)
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *as_tuple(states)], torch.get_rng_state()


def assert_drops_alike(
    layer: Layer, truth: nn.RNNBase, x: Tensor, input: Tensor | PackedSequence
) -> None:
    given, state = seeded(layer, input)
    wanted, wanted_state = seeded(truth, input)
    # What comes after the layer draws as before too.
    assert torch.equal(state, wanted_state)
    plain, _ = seeded(truth.eval(), input)
    assert not torch.allclose(plain[0], wanted[0])
    assert_agree(given, wanted, parameters(layer, truth) | shared(x=x))


class TestEqualsTorch:
    @EVERY_SERVED
    @STACKS
    @SHARES
    @BATCH_FIRST
    def test_padded(
        self,
        kind: Kind,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        backend: str,
        batch_first: bool,
    ) -> None:
        layer, truth = kind.pair(
            backend,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            batch_first=batch_first,
        )
        # As many steps as sequences would hide a mask that is drawn for the other layout.
        x = torch.randn(4, 6, INPUT, dtype=torch.float64, requires_grad=True)
        assert_drops_alike(layer, truth, x, x)

    @EVERY_SERVED
    @STACKS
    def test_unbatched(
        self, kind: Kind, num_layers: int, bidirectional: bool, backend: str
    ) -> None:
        layer, truth = kind.pair(
            backend, num_layers=num_layers, bidirectional=bidirectional, dropout=0.5
        )
        x = torch.randn(6, INPUT, dtype=torch.float64, requires_grad=True)
        assert_drops_alike(layer, truth, x, x)

    @EVERY_SERVED
    @STACKS
    @pytest.mark.parametrize("form", PACKED)
    def test_packed(
        self, kind: Kind, num_layers: int, bidirectional: bool, backend: str, form: str
    ) -> None:
        layer, truth = kind.pair(
            backend, num_layers=num_layers, bidirectional=bidirectional, dropout=0.5
        )
        x = torch.randn(7, 4, INPUT, dtype=torch.float64, requires_grad=True)
        assert_drops_alike(layer, truth, x, PACKED[form](x))

    @EVERY_SERVED
    @pytest.mark.parametrize("form", PACKED)
    def test_packed_and_all_dropped(self, kind: Kind, backend: str, form: str) -> None:
        layer, truth = kind.pair(backend, num_layers=2, dropout=1.0)
        x = torch.randn(7, 4, INPUT, dtype=torch.float64, requires_grad=True)
        assert_drops_alike(layer, truth, x, PACKED[form](x))

    @float32_projection
    @EVERY
    @SHARES
    @BATCH_FIRST
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_bit_for_bit_on_torch_s_operator(
        self, kind: Kind, dropout: float, batch_first: bool, dtype: torch.dtype
    ) -> None:
        layer, truth = kind.pair(
            "torch",
            num_layers=3,
            bidirectional=True,
            dropout=dropout,
            batch_first=batch_first,
            dtype=dtype,
        )
        for shape in ((4, 6, INPUT), (6, INPUT)):
            x = torch.randn(shape, dtype=dtype)
            for given, wanted in zip(seeded(layer, x)[0], seeded(truth, x)[0], strict=True):
                assert torch.equal(given, wanted)

    @EVERY_SERVED
    def test_evaluation_drops_nothing(self, kind: Kind, backend: str) -> None:
        layer, truth = kind.pair(backend, num_layers=3, dropout=0.5)
        layer.eval()
        plain, _ = kind.pair("reference", num_layers=3)
        plain.load_state_dict(truth.state_dict())
        sequences = random_sequences([7, 5, 5, 1])
        x = padded(sequences, batch_first=False)
        lengths = [len(s) for s in sequences]
        for given in (
            (x,),
            (pack_padded_sequence(x, lengths),),
            (ragged(sequences),),
            (x, None, lengths),
        ):
            torch.manual_seed(SEED)
            before = torch.get_rng_state()
            output, states = layer(*given)
            assert torch.equal(torch.get_rng_state(), before)
            wanted, wanted_states = plain(*given)
            sizes = [7] * 4 if len(given) == 1 and given[0] is x else lengths
            for ours, theirs in zip(
                [*apart(output, sizes), *as_tuple(states)],
                [*apart(wanted, sizes), *as_tuple(wanted_states)],
                strict=True,
            ):
                assert_close(ours, theirs)


WIDTH = 40


def showing_masks(backend: str, dropout: float, bidirectional: bool, batch_first: bool) -> Layer:
    """A layer of two whose output is the mask between them, scaled, and whatever comes after it.

    Layer 0 gives 1 everywhere; layer 1 gives what it is given, in reverse the other half of it.
    """
    layer = peephole.RNN(
        INPUT,
        WIDTH,
        2,
        "relu",
        dropout=dropout,
        bidirectional=bidirectional,
        batch_first=batch_first,
        backend=backend,
        dtype=torch.float64,
    )
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    for d, suffix in enumerate(("", "_reverse")[: 1 + bidirectional]):
        nn.init.ones_(layer.get_parameter("bias_ih_l0" + suffix))
        weight = layer.get_parameter("weight_ih_l1" + suffix)
        with torch.no_grad():
            weight[:, d * WIDTH : (d + 1) * WIDTH] = torch.eye(WIDTH)
    return layer


class TestOtherForms:
    @BACKENDS
    @BOTH
    @pytest.mark.parametrize("dropout", [0.25, 0.7])
    @pytest.mark.parametrize("form", ["ragged", "[T, B]", "[B, T]"])
    def test_masks_are_drawn_element_by_element(
        self, backend: str, bidirectional: bool, dropout: float, form: str
    ) -> None:
        lengths = [50, 1, 0, 33, 50]
        layer = showing_masks(backend, dropout, bidirectional, form == "[B, T]")
        sequences = random_sequences(lengths)
        if form == "ragged":
            output, _ = layer(ragged(sequences))
        else:
            output, _ = layer(padded(sequences, form == "[B, T]"), lengths=torch.tensor(lengths))
        y = torch.cat(apart(output, lengths, form == "[B, T]"))
        kept = y != 0
        # Scaled once: the last layer's output is not dropped a second time.
        assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - dropout)))
        # 5 of the binomial's standard deviations.
        n = kept.numel()
        share = kept.double().mean()
        assert abs(share - (1 - dropout)) < 5 * (dropout * (1 - dropout) / n) ** 0.5
        # Each step and each unit has numbers of its own, and so has each sequence.
        assert len({tuple(row) for row in kept.tolist()}) == len(kept)
        assert len({tuple(column) for column in kept.t().tolist()}) == kept.shape[1]

    @BACKENDS
    def test_each_call_draws_anew(self, backend: str) -> None:
        layer = showing_masks(backend, 0.5, bidirectional=False, batch_first=False)
        x = ragged(random_sequences(LENGTHS))
        first, second = layer(x)[0].values, layer(x)[0].values
        assert not torch.equal(first, second)
        torch.manual_seed(SEED)
        third = layer(x)[0].values
        torch.manual_seed(SEED)
        assert torch.equal(layer(x)[0].values, third)

    @BACKENDS
    def test_all_dropped(self, backend: str) -> None:
        layer = showing_masks(backend, 1.0, bidirectional=True, batch_first=False)
        output, _ = layer(ragged(random_sequences(LENGTHS)))
        assert not output.values.any()

    @EVERY
    def test_no_sequences(self, kind: Kind) -> None:
        layer = kind.layer(num_layers=2, dropout=0.5)
        output, states = layer(torch.zeros(5, 0, INPUT, dtype=torch.float64))
        assert output.shape == (5, 0, layer.output_size)
        assert {state.shape[:2] for state in as_tuple(states)} == {(2, 0)}
