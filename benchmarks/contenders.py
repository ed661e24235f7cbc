"""One batch and one layer's weights, in the form that each contender takes."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import peephole
from benchmarks.kinds import KINDS
from benchmarks.peers.loop import PeepholeLoop
from benchmarks.sizes import Size
from peephole import Ragged

SEED = 0
# Of the difference to what is compared with, as a share of its norm. float32 stays fifty times
# below at all sizes of the layers' benchmark; another function does not.
TOLERANCE = 1e-4
# bfloat16 keeps 8 bits, and rounds at every step.
COARSE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Contender:
    """A layer and a batch in the form it takes.

    Attributes:
        layer: the layer.
        forward: gives its output at the steps, in its own form.
        upstream: the gradient with respect to that output; zero where there is no step.
        unpack: brings an output to ``[N, H]``, in the order of the ragged batch.
        truth: makes a contender that computes the same, to compare with; None for one that is
            itself what others are compared with.
        tolerance: of the difference to that, as a share of its norm.
    """

    layer: nn.Module
    forward: Callable[[], Tensor]
    upstream: Tensor
    unpack: Callable[[Tensor], Tensor]
    truth: "Callable[[], Contender] | None" = None
    tolerance: float = TOLERANCE

    @functools.cached_property
    def weights(self) -> list[Tensor]:
        return list(self.layer.parameters())

    @property
    def backend(self) -> str | None:
        """What a layer of ours ran on; None before it ran, and for others."""
        return getattr(self.layer, "backend_used", None)

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


def contenders(
    kind: str, size: Size, names: Iterable[str] | None = None, *, backend: str = "auto"
) -> dict[str, Contender]:
    """Contenders with the same weights, batch and upstream gradient, in float32.

    Args:
        kind: a key of ``KINDS``.
        size: of batch and layer.
        names: who takes part, of ``KINDS[kind]``; its ``contenders`` if None. ``padded`` and
            ``packed`` are ``torch.nn``'s; ``loop`` is the peer. Ours are ``auto`` on the same
            Ragged at each call, ``fresh`` on one made anew at each call, as a loop over a data
            set has it, so that nothing kept in it serves twice, ``lengths`` on a padded tensor
            and its lengths, ``same_padded`` and ``same_packed`` on the very input of ``padded``
            and ``packed``, and by name the backends. ``none``, ``diagonal`` and ``full`` are
            layers of ours with such peepholes, each with weights of its own.
        backend: of our layers that are not called by their backend's name.

    Raises:
        ValueError: there is no such backend.
    """
    names = KINDS[kind].contenders if names is None else names
    x = batch(size)
    upstream = x.with_values(torch.randn(x.values.shape[0], size.H))
    if kind == "peepholes":
        return {name: _with_peepholes(name, size, x, upstream, backend) for name in names}
    layer = KINDS[kind].layer
    if kind == "diagonal":
        options = {"peephole": kind}
        theirs = _loop(size)
        weights = {f"{name}_l0": weight for name, weight in theirs.state_dict().items()}
        truth = functools.cache(lambda: _looped(theirs, x, upstream))
    else:
        options = {}
        theirs = getattr(nn, layer)(size.I, size.H)
        weights = theirs.state_dict()
        truth = functools.cache(lambda: on_packed(theirs, x, upstream))
    auto = functools.cache(lambda: _ours(layer, size, weights, backend, **options))

    def by_name(backend: str) -> Contender:
        return on_ragged(_ours(layer, size, weights, backend, **options), upstream, lambda: x)

    makers: dict[str, Callable[[], Contender]] = {
        "padded": lambda: on_padded(theirs, x, upstream),
        "auto": lambda: on_ragged(auto(), upstream, lambda: x),
        "fresh": lambda: on_ragged(auto(), upstream, lambda: Ragged._trusted(x.values, x.offsets)),
        "lengths": lambda: on_padded(auto(), x, upstream, x.lengths),
        "same_padded": lambda: on_padded(auto(), x, upstream),
        "same_packed": lambda: on_packed(auto(), x, upstream),
        "reference": lambda: by_name("reference"),
        "cpu": lambda: by_name("cpu"),
    }
    return {
        name: replace(makers[name](), truth=truth) if name in makers else truth() for name in names
    }


def of_dtypes(kind: str, size: Size, backend: str) -> dict[str, Contender]:
    """Ours in float32, in bfloat16 and under autocast, and ``torch.nn``'s in bfloat16.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        size: of batch and layer.
        backend: of our layers.
    """
    x = batch(size)
    upstream = x.with_values(torch.randn(x.values.shape[0], size.H))
    theirs = getattr(nn, kind)(size.I, size.H)
    weights = theirs.state_dict()
    dtype = torch.bfloat16
    coarse_x, coarse_upstream = (r.with_values(r.values.to(dtype)) for r in (x, upstream))
    coarse = getattr(nn, kind)(size.I, size.H)
    coarse.load_state_dict(weights)
    coarse.to(dtype)
    wide, cast, narrow = (_ours(kind, size, weights, backend) for _ in range(3))
    narrow.to(dtype)

    def under_autocast() -> Tensor:
        with torch.autocast("cpu", dtype):
            y: Tensor = cast(x)[0].values
            return y

    all = {
        "bfloat16": on_ragged(narrow, coarse_upstream, lambda: coarse_x),
        "autocast": Contender(cast, under_autocast, coarse_upstream.values, lambda y: y),
        "padded": on_padded(coarse, coarse_x, coarse_upstream),
        "packed": on_packed(coarse, coarse_x, coarse_upstream),
    }
    truth = functools.cache(lambda: on_packed(theirs, x, upstream))
    exact = replace(on_ragged(wide, upstream, lambda: x), truth=truth)
    return {"float32": exact} | {
        name: replace(one, truth=truth, tolerance=COARSE_TOLERANCE) for name, one in all.items()
    }


def check_agreement(all: dict[str, Contender], mode: str) -> None:
    """Raise ValueError unless every contender computes what its truth does."""
    wanted: dict[Callable[[], Contender], tuple[Tensor, ...]] = {}
    for name, contender in all.items():
        if contender.truth is None:
            continue
        if contender.truth not in wanted:
            wanted[contender.truth] = contender.truth().outcome(mode)
        pairs = zip(contender.outcome(mode), wanted[contender.truth], strict=True)
        for k, (given, other) in enumerate(pairs):
            error = float((given - other).norm() / other.norm())
            if not error < contender.tolerance:
                raise ValueError(
                    f"{name} computes something else than {_name(contender.truth())}: result "
                    f"{k} to {mode} is off by {error:.2g} of its norm (allowed: "
                    f"{contender.tolerance:g}), so their times cannot be compared"
                )


def _name(truth: Contender) -> str:
    return f"{type(truth.layer).__module__}.{type(truth.layer).__qualname__}"


def _ours(
    layer: str, size: Size, weights: dict[str, Tensor], backend: str, **options: str
) -> nn.Module:
    made: nn.Module = getattr(peephole, layer)(size.I, size.H, backend=backend, **options)
    made.load_state_dict(weights)
    return made


def _with_peepholes(name: str, size: Size, x: Ragged, upstream: Ragged, backend: str) -> Contender:
    """An LSTM of ours, and as its truth the same on the reference backend."""
    torch.manual_seed(SEED)
    peepholes = None if name == "none" else name
    layer = peephole.LSTM(size.I, size.H, peephole=peepholes, backend=backend)
    reference = peephole.LSTM(size.I, size.H, peephole=peepholes, backend="reference")
    reference.load_state_dict(layer.state_dict())
    truth = on_ragged(reference, upstream, lambda: x)
    return replace(on_ragged(layer, upstream, lambda: x), truth=lambda: truth)


def _loop(size: Size) -> PeepholeLoop:
    """The peer, with weights as ``torch.nn`` draws them."""
    loop = PeepholeLoop(size.I, size.H)
    for weight in loop.parameters():
        nn.init.uniform_(weight, -(size.H**-0.5), size.H**-0.5)
    return loop


def _looped(loop: PeepholeLoop, x: Ragged, upstream: Ragged) -> Contender:
    padded, lengths = x.to_padded(batch_first=False), x.lengths
    return Contender(
        loop,
        lambda: loop(padded, lengths)[0],
        upstream.to_padded(batch_first=False),
        lambda y: Ragged.from_padded(y, lengths, batch_first=False).values,
    )


def on_ragged(layer: Any, upstream: Ragged, given: Callable[[], Ragged]) -> Contender:
    return Contender(layer, lambda: layer(given())[0].values, upstream.values, lambda y: y)


def on_padded(layer: Any, x: Ragged, upstream: Ragged, lengths: Tensor | None = None) -> Contender:
    padded = x.to_padded(batch_first=False)
    more = {} if lengths is None else {"lengths": lengths}
    return Contender(
        layer,
        lambda: layer(padded, **more)[0],
        upstream.to_padded(batch_first=False),
        lambda y: Ragged.from_padded(y, x.lengths, batch_first=False).values,
    )


def on_packed(layer: Any, x: Ragged, upstream: Ragged) -> Contender:
    packed = x.to_packed()
    return Contender(
        layer,
        lambda: layer(packed)[0].data,
        upstream.to_packed().data,
        lambda y: Ragged.from_packed(PackedSequence(y, *packed[1:])).values,
    )
