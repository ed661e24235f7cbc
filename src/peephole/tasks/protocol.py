"""What the training loop asks of a task."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Generator, Tensor, nn


class Loss(NamedTuple):
    """The loss on one batch.

    Attributes:
        total: a number with a gradient, summed over the batch's targets.
        targets: how many targets that is.
        state: what the next batch starts from, where the task carries a recurrent state from one
            batch to the next; the loop cuts the gradient there. None where it does not.
    """

    total: Tensor
    targets: int
    state: Any = None


@runtime_checkable
class Task(Protocol):
    """Data, model, loss and metrics of one problem.

    A batch is whatever ``loss`` understands; the loop only hands it over.

    Attributes:
        monitor: the metric, one of ``evaluate``'s, by which the best model is chosen.
        goal: whether "min" or "max" of it is best.
    """

    monitor: str
    goal: Literal["min", "max"]

    def model(self) -> nn.Module:
        """A new model, drawn from torch's global generator, which the loop has seeded."""

    def updates(self, batch_size: int) -> int:
        """How many batches an epoch has."""

    def batches(self, batch_size: int, generator: Generator) -> Iterable[Any]:
        """One epoch of batches, in an order drawn from ``generator``."""

    def loss(self, model: nn.Module, batch: Any, state: Any) -> Loss:
        """The loss on a batch; ``state`` is the last batch's, None at the start of an epoch."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics on validation data. Called without gradients, in evaluation mode."""
