"""One batch and one layer's weights, as torch.nn and peephole take them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import peephole
from peephole import Ragged

SEED = 0
# Of the difference to what is compared with, as a share of its norm. float32 stays fifty times
# below at all sizes of the layers' benchmark; another function does not.
TOLERANCE = 1e-4


class Size(NamedTuple):
    """A batch of B sequences of at most T steps, I features a step; H hidden units."""

    B: int
    T: int
    I: int  # noqa: E741  the field's name
    H: int

    @property
    def shortest(self) -> int:
        """The least steps that are drawn; the most are T."""
        return max(2, self.T // 8)

    def __str__(self) -> str:
        return f"{self.B}, {self.T}, {self.I}, {self.H}"


@dataclass(frozen=True)
class Contender:
    """A layer and a batch in the form it takes.

    Attributes:
        layer: the layer.
        forward: gives its output at the steps, in its own form.
        upstream: the gradient with respect to that output; zero where there is no step.
        unpack: brings an output to ``[N, H]``, in the order of the ragged batch.
    """

    layer: nn.Module
    forward: Callable[[], Tensor]
    upstream: Tensor
    unpack: Callable[[Tensor], Tensor]

    @functools.cached_property
    def weights(self) -> list[Tensor]:
        return list(self.layer.parameters())

    def infer(self) -> Tensor:
        with torch.inference_mode():
            return self.forward()

    def train(self) -> tuple[Tensor, ...]:
        """The gradients with respect to the weights, forward and backward."""
        return torch.autograd.grad(self.forward(), self.weights, self.upstream)

    def call(self, mode: str) -> Callable[[], object]:
        """What is timed: "train" or "infer"."""
        self.layer.train(mode == "train")
        return self.train if mode == "train" else self.infer

    def outcome(self, mode: str) -> tuple[Tensor, ...]:
        """What that computes, in a form that all contenders share."""
        return self.train() if mode == "train" else (self.unpack(self.infer()),)


def batch(size: Size) -> Ragged:
    """Sequences of normal numbers, lengths uniform from ``size.shortest`` to T, one of them T."""
    torch.manual_seed(SEED)
    lengths = torch.randint(size.shortest, size.T + 1, (size.B,))
    lengths[0] = size.T
    return Ragged.from_padded(torch.randn(size.B, size.T, size.I), lengths)


def contenders(kind: str, size: Size) -> dict[str, Contender]:
    """All contenders, with the same weights, batch and upstream gradient, in float32.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        size: of batch and layer.

    Returns:
        ``padded`` and ``packed`` (torch.nn), ``auto`` and ``reference`` (the same Ragged at each
        call) and ``fresh`` (auto on a Ragged made anew at each call, as a loop over a data set
        has it, so that nothing kept in it serves twice); ``same_padded`` and ``same_packed``
        (auto on the very input of ``padded`` and ``packed``).
    """
    x = batch(size)
    upstream = x.with_values(torch.randn(x.values.shape[0], size.H))
    theirs = getattr(nn, kind)(size.I, size.H)
    auto, reference = (_ours(kind, size, theirs, name) for name in ("auto", "reference"))
    return {
        "padded": _padded(theirs, x, upstream),
        "packed": _packed(theirs, x, upstream),
        "auto": _ragged(auto, upstream, lambda: x),
        "fresh": _ragged(auto, upstream, lambda: Ragged._trusted(x.values, x.offsets)),
        "reference": _ragged(reference, upstream, lambda: x),
        "same_padded": _padded(auto, x, upstream),
        "same_packed": _packed(auto, x, upstream),
    }


def check_agreement(all: dict[str, Contender], mode: str) -> None:
    """Raise ValueError unless every contender computes what ``packed`` does."""
    wanted = all["packed"].outcome(mode)
    for name, contender in all.items():
        for k, (given, other) in enumerate(zip(contender.outcome(mode), wanted, strict=True)):
            error = float((given - other).norm() / other.norm())
            if not error < TOLERANCE:
                raise ValueError(
                    f"{name} computes something else than torch.nn on a PackedSequence: result "
                    f"{k} to {mode} is off by {error:.2g} of its norm (allowed: {TOLERANCE:g}), "
                    "so their times cannot be compared"
                )


def _ours(kind: str, size: Size, theirs: nn.Module, backend: str) -> nn.Module:
    layer: nn.Module = getattr(peephole, kind)(size.I, size.H, backend=backend)
    layer.load_state_dict(theirs.state_dict())
    return layer


def _ragged(layer: Any, upstream: Ragged, given: Callable[[], Ragged]) -> Contender:
    return Contender(layer, lambda: layer(given())[0].values, upstream.values, lambda y: y)


def _padded(layer: Any, x: Ragged, upstream: Ragged) -> Contender:
    padded = x.to_padded(batch_first=False)
    return Contender(
        layer,
        lambda: layer(padded)[0],
        upstream.to_padded(batch_first=False),
        lambda y: Ragged.from_padded(y, x.lengths, batch_first=False).values,
    )


def _packed(layer: Any, x: Ragged, upstream: Ragged) -> Contender:
    packed = x.to_packed()
    return Contender(
        layer,
        lambda: layer(packed)[0].data,
        upstream.to_packed().data,
        lambda y: Ragged.from_packed(PackedSequence(y, *packed[1:])).values,
    )
