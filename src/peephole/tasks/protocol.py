"""What the training loop asks of a task."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

State = tuple[Tensor, ...] | None


class Loss(NamedTuple):
    """The loss on one batch.

    Attributes:
        total: a number with a gradient, summed over the batch's targets.
        targets: how many targets that is; an empty batch has none, and a total of 0.
        state: what the next batch starts from, where the task carries a recurrent state from one
            batch to the next: tensors ``[S, ...]``, a row for each stream of this process. The
            loop cuts the gradient there. None where nothing is carried.
        steps: how many the batch has, for the speed that is shown.
    """

    total: Tensor
    targets: int
    state: State = None
    steps: int = 0


@runtime_checkable
class Epoch(Protocol):
    """One pass over the training data, divided into updates; its length is how many these are."""

    def __len__(self) -> int: ...

    def share(self, k: int, rank: int, world: int) -> Any:
        """What process ``rank`` of ``world`` reads in update k; it may be nothing."""


@runtime_checkable
class Plan(Protocol):
    """How training data divide into updates, whatever the number of processes.

    ``peephole.data`` has them: ``Batches`` of whole sequences and ``Streams`` of long ones.
    """

    def epoch(self, number: int) -> Epoch:
        """An epoch, 0 or later; the same number gives the same one."""


class Batching(NamedTuple):
    """What a person chose about batches.

    Attributes:
        size: sequences (or streams) an update, at most; None for no limit.
        steps: steps an update, at most; None for no limit.
        pool: batches whose sequences are sorted by length together; 1 for none.
        seed: of the order.
    """

    size: int | None
    steps: int | None
    pool: int
    seed: int


@runtime_checkable
class Task(Protocol):
    """Data, model, loss and metrics of one problem.

    A batch is whatever ``loss`` understands; the loop moves the tensors in it to the device. Each
    update seeds torch's global generators, from which dropout draws; a task whose ``loss`` never
    draws may have ``draws = False``, and saves that.

    Attributes:
        monitor: the metric, one of ``evaluate``'s, by which the best model is chosen.
        goal: whether "min" or "max" of it is best.
    """

    monitor: str
    goal: Literal["min", "max"]

    def model(self) -> nn.Module:
        """A new model, drawn from torch's global generator, which the loop has seeded."""

    def plan(self, batching: Batching) -> Plan:
        """How the training data divide into updates."""

    def batches(self, shares: Iterable[Any]) -> Iterator[Any]:
        """A batch for each share, in their order; several may be made at a time."""

    def loss(self, model: nn.Module, batch: Any, state: State) -> Loss:
        """The loss on a batch; ``state`` is the last batch's, None at the start of an epoch."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics on validation data. Called without gradients, in evaluation mode."""

    def names(self, share: Any) -> Sequence[str]:
        """What a person calls the sequences of a share, for an error."""
