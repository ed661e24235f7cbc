"""The loop computes an LSTM with peepholes, with all its gradients, in float64."""

import pytest
import torch
from torch import Tensor, nn

import peephole
from benchmarks.peers.loop import PeepholeLoop
from peephole import Ragged

T, B, I, H = 7, 5, 3, 6  # noqa: E741  the field's names
LENGTHS = torch.tensor([7, 1, 4, 7, 2])


@pytest.fixture
def loop() -> PeepholeLoop:
    made = PeepholeLoop(I, H).double()
    for weight in made.parameters():
        nn.init.normal_(weight)
    return made


def outcome(
    y: Tensor, final: tuple[Tensor, Tensor], weights: list[Tensor], x: Tensor
) -> tuple[Tensor, ...]:
    """Output, final state, and the gradients from both to weights and input."""
    h_n, c_n = (state.reshape(B, H) for state in final)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(o.shape, generator=generator).to(o) for o in (y, h_n, c_n)]
    return (y, h_n, c_n, *torch.autograd.grad([y, h_n, c_n], [*weights, x], upstream))


def ragged(y: Tensor) -> Tensor:
    return Ragged.from_padded(y, LENGTHS, batch_first=False).values


def test_without_peepholes_it_is_torchs(loop: PeepholeLoop) -> None:
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    nn.init.zeros_(loop.weight_ch)
    theirs = nn.LSTM(I, H, dtype=torch.float64)
    weights = loop.state_dict()
    theirs.load_state_dict({f"{n}_l0": weights[n] for n in weights if n != "weight_ch"})
    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    y, final = theirs(packed)
    y = nn.utils.rnn.pad_packed_sequence(y)[0]
    own = [weight for name, weight in loop.named_parameters() if name != "weight_ch"]
    given, state = loop(x, LENGTHS)
    torch.testing.assert_close(
        outcome(ragged(given), state, own, x),
        outcome(ragged(y), final, list(theirs.parameters()), x),
    )


def test_with_peepholes_it_is_the_reference(loop: PeepholeLoop) -> None:
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    ours = peephole.LSTM(I, H, peephole="diagonal", dtype=torch.float64, backend="reference")
    ours.load_state_dict({f"{n}_l0": w for n, w in loop.state_dict().items()})
    y, final = ours(x, lengths=LENGTHS)
    given, state = loop(x, LENGTHS)
    torch.testing.assert_close(
        outcome(ragged(given), state, list(loop.parameters()), x),
        outcome(ragged(y), final, list(ours.parameters()), x),
    )


def test_the_input_in_the_padding_changes_nothing(loop: PeepholeLoop) -> None:
    x = torch.randn(T, B, I, dtype=torch.float64)
    other = x.clone()
    other[torch.arange(T).unsqueeze(1) >= LENGTHS] = 1e3
    (y, final), (y_other, final_other) = loop(x, LENGTHS), loop(other, LENGTHS)
    torch.testing.assert_close((y, *final), (y_other, *final_other), rtol=0, atol=0)
