"""From gradients to weights: optimizers, schedules and averages."""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from peephole.train.settings import Settings

# What torch.autograd.backward and torch.utils.checkpoint call.
_engine: Any = torch.autograd.Variable._execution_engine


def backward(total: Tensor) -> None:
    """``total.backward()`` without its look at the arguments.

    That takes a fifth of a small network's whole update.
    """
    one = _number(1.0, total.dtype, total.device)
    _engine.run_backward(
        (total,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


@functools.cache
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number that many updates use; not to be changed but by who puts it back."""
    return torch.tensor(value, dtype=dtype, device=device)


class Gradient(NamedTuple):
    """The gradients of those parameters that have one."""

    weights: list[Tensor]
    gradients: list[Tensor]

    @classmethod
    def of(cls, parameters: list[nn.Parameter], weights: list[Tensor]) -> "Gradient":
        """The gradients that parameters have now; ``weights`` are their detached selves."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if len(gradients) < len(parameters):
            both = zip(weights, parameters, strict=True)
            weights = [weight for weight, p in both if p.grad is not None]
        return cls(weights, gradients)

    def is_finite(self) -> bool:
        """Whether each number of them is finite.

        On a small network this takes a third of ``norm``'s time: torch has one call for it, which
        would also scale them.
        """
        device = self.gradients[0].device
        others = _number(0.0, torch.float32, device)
        one = _number(1.0, torch.float32, device)
        torch._amp_foreach_non_finite_check_and_unscale_(self.gradients, others, one)
        if others.item():
            others.zero_()
            return False
        return True

    def norm(self) -> float:
        """Of all of them as one vector; not finite where one of them is not."""
        norms = torch._foreach_norm(self.gradients)
        return float(torch.linalg.vector_norm(torch.stack(norms)))


class Sgd:
    """Plain stochastic gradient descent: each weight less the rate times its gradient.

    ``torch.optim.SGD`` does the same, but takes several times as long to look at its options as
    a small network takes for the arithmetic.
    """

    def step(self, gradient: Gradient, rate: float, scale: float) -> None:
        """Change the weights by gradients that are to be multiplied by ``scale``."""
        torch._foreach_add_(gradient.weights, gradient.gradients, alpha=-rate * scale)

    def tensors(self) -> dict[str, Tensor]:
        """What it has beside the weights, by name."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``tensors`` gave."""


class Adam:
    """AdamW of ``torch.optim``."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        # Each weight is touched once: several times as fast as torch's own choice on a CPU.
        self.own = torch.optim.AdamW(parameters, lr=0.0, weight_decay=decay, fused=True)

    def step(self, gradient: Gradient, rate: float, scale: float) -> None:
        """Change the weights by gradients that are to be multiplied by ``scale``."""
        torch._foreach_mul_(gradient.gradients, scale)
        self.own.param_groups[0]["lr"] = rate
        self.own.step()

    def tensors(self) -> dict[str, Tensor]:
        """What it has beside the weights, by name."""
        return {
            f"{k}.{name}": tensor
            for k, parameter in enumerate(self.parameters)
            for name, tensor in self.own.state[parameter].items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``tensors`` gave."""
        for name, tensor in tensors.items():
            k, _, what = name.partition(".")
            parameter = self.parameters[int(k)]
            self.own.state[parameter][what] = tensor.to(parameter.device)


def optimizer(parameters: list[nn.Parameter], settings: Settings) -> Sgd | Adam:
    return Sgd() if settings.optimizer == "sgd" else Adam(parameters, settings.weight_decay)


def rate(settings: Settings, update: int, planned: int) -> float:
    """The learning rate of an update, counted from 0, of so many that are planned."""
    warm = settings.warm_up
    if warm is None:
        warm = 0 if settings.schedule == "constant" else max(1, planned // 20)
    if update < warm:
        return settings.learning_rate * (update + 1) / warm
    done = min(1.0, (update - warm) / max(1, planned - warm))
    match settings.schedule:
        case "constant":
            return settings.learning_rate
        case "linear":
            return settings.learning_rate * (1 - done)
        case "cosine":
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Average:
    """An exponential moving average of a model's weights (Polyak & Juditsky 1992)."""

    def __init__(self, model: nn.Module, averaged: nn.Module, decay: float) -> None:
        """Begin at the weights of ``model``.

        Args:
            model: what is trained.
            averaged: a model of the same form, whose weights are the average.
            decay: the share of the old average that stays, after the first updates.
        """
        self.model = averaged
        self.decay = decay
        self.pairs = [
            (mean.detach(), weight.detach())
            for (mean, weight) in zip(_all(averaged), _all(model), strict=True)
        ]
        with torch.no_grad():
            for mean, weight in self.pairs:
                mean.copy_(weight)

    def take(self, update: int) -> None:
        """Add the weights after an update, counted from 1, to the average."""
        # An average over the first updates must not remember how they began.
        decay = min(self.decay, update / (9 + update)) if update > 1 else 0.0
        floating = [(m, w) for m, w in self.pairs if m.is_floating_point()]
        torch._foreach_lerp_([m for m, _ in floating], [w for _, w in floating], 1 - decay)
        for mean, weight in self.pairs:
            if not mean.is_floating_point():
                mean.copy_(weight)


def _all(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
