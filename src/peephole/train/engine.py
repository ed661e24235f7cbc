"""Devices, precision and processes: lightning-fabric, where there is more than one CPU's work."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from peephole.errors import Interrupted, UserError
from peephole.train import descent, launch
from peephole.train.settings import Settings

# One evaluates while the others wait; torchrun sees to those that are lost.
TIMEOUT = timedelta(days=7)


# Groups of processes that have parted. Who drops one waits for its threads, which may wait for
# Python's lock to drop what they sent last; so they are left until the process ends.
_parted: list[Any] = []


class Engine:
    """What a training runs on.

    Several processes are those that ``torchrun`` started. One process on the CPU in float32
    needs nothing of Fabric, which takes two seconds to load and some of each update. Used in a
    ``with`` statement, at whose end the processes part.

    Attributes:
        rank: of this process.
        world: how many there are.
        device: of the model.
    """

    def __init__(self, settings: Settings) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = torch.device("cpu")
        self.fabric: Any = None
        self._seed = _mixed(_mixed(settings.seed) ^ self.rank)
        accelerator = settings.device
        if accelerator == "cuda" and not torch.cuda.is_available():
            raise UserError("'cuda', but torch sees no GPU here; use cpu, or auto", "device")
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if (self.world, accelerator, settings.precision) == (1, "cpu", "32"):
            return
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy

        if self.world > 1:
            _join(self.rank, self.world, "nccl" if accelerator == "cuda" else "gloo")
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=here,
            num_nodes=self.world // here,
            strategy=DDPStrategy(timeout=TIMEOUT) if self.world > 1 else "auto",
            precision="bf16-mixed" if settings.precision == "bf16-mixed" else "32-true",
        )
        self.fabric.launch()
        self.device = self.fabric.device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.world == 1:
            return
        if error is None or isinstance(error, Interrupted):
            # A process that just ends takes others down that still talk to it.
            torch.distributed.barrier()
            _parted.append(torch.distributed.group.WORLD)
            torch.distributed.destroy_process_group()

    def placed(self, model: nn.Module) -> nn.Module:
        """The model on its device, as it is called while it trains."""
        if self.fabric is None:
            return model
        model.to(self.device)
        wrapped: nn.Module = self.fabric.setup_module(model)
        return wrapped

    def batch(self, batch: Any) -> Any:
        """A batch on the device."""
        if self.device.type == "cpu":
            return batch
        return tree_map_only(Tensor, lambda t: t.to(self.device, non_blocking=True), batch)

    def backward(self, total: Tensor) -> None:
        """Add gradients to the parameters; over several processes their mean."""
        if self.fabric is None:
            descent.backward(total)
        else:
            self.fabric.backward(total)

    def part(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of a part; processes exchange gradients after the last."""
        if self.world == 1 or last:
            return nullcontext()
        context: AbstractContextManager[Any] = self.fabric.no_backward_sync(model)
        return context

    def sums(self, numbers: Sequence[float]) -> Sequence[float]:
        """Each number, added up over the processes."""
        if self.world == 1:
            return numbers
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def from_first(self, value: Any) -> Any:
        """What the first process has, on all of them."""
        if self.world == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gathered(self, value: Any) -> list[Any] | None:
        """What each process has, in their order, on the first one; None on the others."""
        if self.world == 1:
            return [value]
        box: list[Any] | None = [None] * self.world if self.rank == 0 else None
        torch.distributed.gather_object(value, box, dst=0)
        return box

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """In evaluation mode, without gradients; precision as in training."""
        was_training = model.training
        model.eval()
        context = nullcontext() if self.fabric is None else self.fabric.autocast()
        with torch.no_grad(), context:
            yield
        model.train(was_training)

    def seed(self, update: int) -> None:
        """Let torch's random numbers follow from the seed, the process and the update alone."""
        mixed = _mixed(self._seed ^ update)
        torch.default_generator.manual_seed(mixed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(mixed)


def _join(rank: int, world: int, backend: str) -> None:
    """Let the processes find each other; else Fabric does it when it is launched.

    Those that torchrun starts again ask the same store as before, and torch does not tell the
    addresses of those that are gone from the new ones.
    """
    if (store := launch.store()) is None:
        return
    own = torch._C._distributed_c10d.PrefixStore(f"peephole/{launch.attempt()}", store)
    torch.distributed.init_process_group(
        backend, store=own, rank=rank, world_size=world, timeout=TIMEOUT
    )


def _mixed(number: int) -> int:
    """A number of 64 bits as different as can be for each number (splitmix64)."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return number ^ (number >> 31)
