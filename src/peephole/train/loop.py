"""The training loop. It knows its task by protocol only."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_map_only

from peephole.tasks.protocol import Loss, Task

Event = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        epochs: passes over the training data.
        batch_size: sequences (or streams) an update.
        learning_rate: of the optimizer, at its highest.
        optimizer: "sgd" (plain) or "adam" (with decoupled weight decay).
        weight_decay: of "adam".
        schedule: "constant", or "cosine": a linear warm-up over the first twentieth of the
            updates, then down to zero along half a cosine.
        clip: the largest norm of the gradient; longer ones are scaled down to it. None for any.
        average: evaluate and keep an exponential moving average of the weights with this decay,
            rather than the weights themselves (Polyak & Juditsky 1992); the decay rises to it over
            the first updates. None for none.
        evaluations: how often an epoch is interrupted to evaluate, at equal distances.
        patience: stop after so many evaluations without a new best. None to go on.
        keep: whether the "best" model by the task's monitor is returned, or the "last".
        seed: of the weights, the order of the batches and dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float | None = None
    average: float | None = None
    evaluations: int = 1
    patience: int | None = None
    keep: Literal["best", "last"] = "last"
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """A trained model and how it came about.

    Attributes:
        model: in evaluation mode.
        events: one for each evaluation: ``update``, ``updates`` (planned), ``epoch`` (done, with
            fraction), ``train_loss`` (a target's, since the evaluation before) and the metrics.
        best: the event of the returned model.
        seconds: wall time, evaluations included.
    """

    model: nn.Module
    events: list[Event]
    best: Event
    seconds: float


class Diverged(ArithmeticError):
    """The loss stopped being a finite number; ``fit`` holds what there was by then."""

    def __init__(self, fit: Fit) -> None:
        super().__init__(
            f"the loss is {fit.best['train_loss']} by update {fit.best['update']} of "
            f"{fit.best['updates']}; try a smaller learning rate"
        )
        self.fit = fit


def fit(task: Task, settings: Settings, on_event: Callable[[Event], None] | None = None) -> Fit:
    """Train a model of ``task``; ``on_event`` sees each evaluation as it happens.

    Raises:
        Diverged: the loss is not a finite number at an evaluation.
    """
    begin = time.perf_counter()
    torch.manual_seed(settings.seed)
    model = task.model()
    per_epoch = task.updates(settings.batch_size)
    planned = per_epoch * settings.epochs
    pauses = {-(-per_epoch * k // settings.evaluations) for k in range(1, settings.evaluations + 1)}
    parameters = list(model.parameters())
    optimizer = _optimizer(parameters, settings)
    schedule = _schedule(settings, planned)
    averaged = _averaged(model, settings.average)
    best = _Best(task, settings)
    events: list[Event] = []
    update = 0
    for epoch in range(settings.epochs):
        order = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        state = None
        totals: list[Tensor] = []
        targets = 0
        for k, batch in enumerate(task.batches(settings.batch_size, order), start=1):
            if schedule is not None:
                _set_rate(optimizer, settings.learning_rate * schedule(update))
            loss = task.loss(model, batch, state)
            _descend(parameters, optimizer, loss, settings.clip)
            if isinstance(averaged, AveragedModel):
                averaged.update_parameters(model)
            state = _detached(loss.state)
            totals.append(loss.total.detach())
            targets += loss.targets
            update += 1
            if k in pauses:
                event: Event = {
                    "event": "evaluation",
                    "update": update,
                    "updates": planned,
                    "epoch": epoch + k / per_epoch,
                    "train_loss": float(torch.stack(totals).sum()) / targets,
                    **_evaluate(task, _inner(averaged)),
                }
                totals, targets = [], 0
                events.append(event)
                if on_event is not None:
                    on_event(event)
                if not math.isfinite(event["train_loss"]):
                    raise Diverged(Fit(model.eval(), events, event, time.perf_counter() - begin))
                best.see(_inner(averaged), event)
        if best.is_stale():
            break
    kept = _inner(averaged)
    return Fit(kept.eval(), events, best.restore(kept), time.perf_counter() - begin)


def _descend(
    parameters: list[nn.Parameter],
    optimizer: "_Optimizer",
    loss: Loss,
    clip: float | None,
) -> None:
    for parameter in parameters:
        parameter.grad = None
    _backward(loss.total, loss.total.new_full((), 1 / loss.targets))
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


def _backward(total: Tensor, share: Tensor) -> None:
    """``total.backward(share)``, without the look at its arguments.

    That takes a fifth of a small network's whole update.
    """
    _engine.run_backward(
        (total,), (share,), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


# What torch.autograd.backward and torch.utils.checkpoint call.
_engine: Any = torch.autograd.Variable._execution_engine


def _averaged(model: nn.Module, decay: float | None) -> nn.Module:
    """The model whose weights are evaluated: itself, or a moving average of it."""
    if decay is None:
        return model

    def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        # An average over the first updates must not remember how they began.
        return torch.lerp(new, old, min(decay, (1 + int(updates)) / (10 + int(updates))))

    return AveragedModel(model, avg_fn=average)


def _inner(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, AveragedModel) else model


def _detached(state: Any) -> Any:
    if state is None:
        return None
    return tree_map_only(torch.Tensor, torch.Tensor.detach, state)


def _evaluate(task: Task, model: nn.Module) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        metrics = task.evaluate(model)
    model.train()
    return metrics


class _Sgd:
    """Plain stochastic gradient descent: each weight less the rate times its gradient.

    ``torch.optim.SGD`` does the same, but takes several times as long to look at its options as
    a small network takes for the arithmetic.
    """

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        self.parameters = parameters
        # A detached tensor shares the parameter's memory, and has no graph to be kept out of.
        self.weights = [parameter.detach() for parameter in parameters]
        self.param_groups: list[dict[str, Any]] = [{"lr": rate}]

    def step(self) -> None:
        rate = self.param_groups[0]["lr"]
        pairs = [
            (weight, parameter.grad)
            for weight, parameter in zip(self.weights, self.parameters, strict=True)
            if parameter.grad is not None
        ]
        weights, gradients = zip(*pairs, strict=True)
        torch._foreach_add_(weights, gradients, alpha=-rate)


_Optimizer = _Sgd | torch.optim.Optimizer


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> _Optimizer:
    if settings.optimizer == "sgd":
        return _Sgd(parameters, settings.learning_rate)
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )


def _set_rate(optimizer: _Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _schedule(settings: Settings, planned: int) -> Callable[[int], float] | None:
    """The share of the learning rate at each update, from 0; None where it stays whole."""
    if settings.schedule == "constant":
        return None
    warm = max(1, planned // 20)

    def share(update: int) -> float:
        if update < warm:
            return (update + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (update - warm) / max(1, planned - warm)))

    return share


class _Best:
    """Which evaluation was best so far, and the weights it saw."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self.monitor, self.sign = task.monitor, {"min": 1, "max": -1}[task.goal]
        self.keep, self.patience = settings.keep, settings.patience
        self.event: Event | None = None
        self.weights: dict[str, torch.Tensor] = {}
        self.last: Event = {}
        self.since = 0

    def see(self, model: nn.Module, event: Event) -> None:
        self.last = event
        self.since += 1
        score = self.sign * event[self.monitor]
        if self.event is None or score < self.sign * self.event[self.monitor]:
            self.event, self.since = event, 0
            if self.keep == "best":
                self.weights = copy.deepcopy(model.state_dict())

    def is_stale(self) -> bool:
        return self.patience is not None and self.since >= self.patience

    def restore(self, model: nn.Module) -> Event:
        """Put back the weights that are to be kept, and give the event that saw them."""
        if self.keep == "last" or self.event is None:
            return self.last
        model.load_state_dict(self.weights)
        return self.event
