"""Training loops without an engine, for a model of one output and squared errors.

They look at nothing but the data and the weights: no loss is read, no gradient is checked, nothing
is seeded, clipped, evaluated or kept. So they are what an update costs at least.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Inputs as the model takes them, and targets in the form of its output.
Batches = Iterable[tuple[Any, Tensor]]


def with_optimizer(model: nn.Module, batches: Batches, rate: float) -> None:
    """What people write, with the form of ``torch.optim.SGD`` that is fastest here."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, foreach=True)
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def by_hand(
    model: nn.Module,
    batches: Batches,
    rate: float,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> None:
    """The same with the optimizer's arithmetic alone, a single call.

    Args:
        model: its parameters all learn.
        batches: are gone through once.
        rate: of plain stochastic gradient descent.
        backward: adds the gradients of a loss to the parameters.
    """
    parameters = list(model.parameters())
    weights = [parameter.detach() for parameter in parameters]
    for inputs, targets in batches:
        for parameter in parameters:
            parameter.grad = None
        backward(F.mse_loss(model(inputs), targets))
        gradients: list[Any] = [parameter.grad for parameter in parameters]
        torch._foreach_add_(weights, gradients, alpha=-rate)
