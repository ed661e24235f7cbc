"""What changes while a model trains: all that a checkpoint holds."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from peephole.data.streams import streams_of
from peephole.tasks.protocol import State, Task
from peephole.tensors import Form
from peephole.train.checkpoints import Checkpoint
from peephole.train.descent import Average, optimizer
from peephole.train.engine import Engine
from peephole.train.settings import Settings
from peephole.train.trust import check_forms, check_position

Number = float | int | str | None
Event = dict[str, Any]


@dataclass
class Position:
    """Where a training is.

    Attributes:
        update: updates done.
        planned: how many there will be, by the length of the first epoch; the schedule goes by it.
        epoch: of the next update, from 0.
        batch: its number in the epoch.
        total: the loss since the last evaluation.
        targets: what it is a sum over.
        last: the last evaluation's event.
        best: that of the best evaluation.
        since_best: evaluations since then.
        skipped: updates that were left out, since something was not finite.
        events_bytes: the length of metrics.jsonl.
        seconds: of training so far.
        carried: how many tensors each stream's state is; 0 where nothing is carried.
    """

    update: int = 0
    planned: int = 0
    epoch: int = 0
    batch: int = 0
    total: float = 0.0
    targets: int = 0
    last: dict[str, Number] = field(default_factory=dict)
    best: dict[str, Number] = field(default_factory=dict)
    since_best: int = 0
    skipped: int = 0
    events_bytes: int = 0
    seconds: float = 0.0
    carried: int = 0


@dataclass
class Found:
    """A checkpoint's content.

    Attributes:
        path: its folder.
        at: where it is.
        tensors: by name.
        best: the best weights so far, if they are kept.
    """

    path: str
    at: Position
    tensors: dict[str, Tensor]
    best: dict[str, Tensor] = field(default_factory=dict)


class Training:
    """A model on its way, with its optimizer and its place in the data.

    Attributes:
        model: as the task made it.
        called: as it is called while it trains, over several processes for example.
        parameters: those that learn.
        average: of its weights, where one is kept.
        at: where it is.
        states: what each part of this process's share carries to the next update.
    """

    def __init__(self, task: Task, settings: Settings, engine: Engine) -> None:
        self.task, self.settings, self.engine = task, settings, engine
        torch.manual_seed(settings.seed)
        self.model = task.model()
        averaged = None if settings.average is None else copy.deepcopy(self.model)
        self.called = engine.placed(self.model)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.weights = [p.detach() for p in self.parameters]
        self.optimizer = optimizer(self.parameters, settings)
        self.average: Average | None = None
        if averaged is not None and settings.average is not None:
            self.average = Average(self.model, averaged.to(engine.device), settings.average)
        self.at = Position()
        self.states: list[State] = [None] * settings.accumulate
        self.best_weights: dict[str, Tensor] = {}

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and kept."""
        return self.model if self.average is None else self.average.model

    def see(self, event: Event) -> bool:
        """Take note of an evaluation; gives whether it is the best so far."""
        at, sign = self.at, {"min": 1, "max": -1}[self.task.goal]
        at.last, at.since_best = event, at.since_best + 1
        monitor = self.task.monitor
        best = float("nan") if not at.best else float(at.best[monitor] or 0)
        better = math.isnan(best) or sign * event[monitor] < sign * best
        if better:
            at.best, at.since_best = event, 0
            if self.settings.keep == "best":
                self.best_weights = copy.deepcopy(self.evaluated.state_dict())
        return better

    def restore(self) -> Event:
        """Put the weights that are to be kept into ``evaluated``; gives the event that saw them."""
        if self.settings.keep == "last" or not self.at.best:
            return self.at.last
        if self.best_weights:
            self.evaluated.load_state_dict(self.best_weights)
        return self.at.best

    # To a checkpoint and back

    def tensors(self) -> dict[str, Tensor] | None:
        """What a checkpoint holds, on the first process; None on the others, which take part."""
        states = [s for s in self.states if s is not None]
        gathered = self.engine.gathered([tuple(t.cpu() for t in s) for s in states])
        if gathered is None:
            return None
        every = [state for each in gathered for state in each]
        self.at.carried = len(every[0]) if every else 0
        joined = [torch.cat([s[k] for s in every]) for k in range(self.at.carried)]
        return {
            **_named("model", self.model.state_dict()),
            **({} if self.average is None else _named("average", self.average.model.state_dict())),
            **_named("optimizer", self.optimizer.tensors()),
            **_named("state", {str(k): tensor for k, tensor in enumerate(joined)}),
        }

    def read(self, checkpoint: Checkpoint[Position]) -> Found:
        """Read what ``load`` takes.

        Raises:
            UserError: it is of another model, or says what cannot be.
        """
        check_position(checkpoint.state, checkpoint.update, self.task.monitor, checkpoint.path)
        check_forms(checkpoint.forms, checkpoint.state.carried, checkpoint.path)
        return Found(
            str(checkpoint.path), checkpoint.state, checkpoint.tensors(self._forms(checkpoint))
        )

    def read_best(self, checkpoint: Checkpoint[Position]) -> dict[str, Tensor]:
        """The weights that are evaluated and kept, of the checkpoint that was written with them.

        Raises:
            UserError: it is of another model.
        """
        name = "model" if self.average is None else "average"
        return _part(name, checkpoint.tensors(self._forms(checkpoint)))

    def load(self, found: Found) -> None:
        """Go to where a checkpoint is."""
        self.at, self.best_weights = found.at, found.best
        self.model.load_state_dict(_part("model", found.tensors))
        if self.average is not None:
            self.average.model.load_state_dict(_part("average", found.tensors))
        self.optimizer.load(_part("optimizer", found.tensors))
        if self.at.carried:
            joined = [found.tensors[f"state.{k}"] for k in range(self.at.carried)]
            parts = self.settings.accumulate
            for a in range(parts):
                own = streams_of(
                    len(joined[0]), self.engine.rank * parts + a, self.engine.world * parts
                )
                self.states[a] = tuple(
                    t[own.start : own.stop].to(self.engine.device) for t in joined
                )

    def _forms(self, checkpoint: Checkpoint[Position]) -> dict[str, Form]:
        """What the tensors must be; of the optimizer's and the streams', what may be is there."""
        model = self.model.state_dict()
        wanted = _named("model", model)
        if self.average is not None:
            wanted |= _named("average", model)
        others = {
            name: form
            for name, form in checkpoint.forms.items()
            if self._may_hold(name, form, checkpoint.state)
        }
        return {name: Form.of(tensor) for name, tensor in wanted.items()} | others

    def _may_hold(self, name: str, form: Form, at: Position) -> bool:
        what, _, rest = name.partition(".")
        if what == "state":
            return _is_number(rest) and int(rest) < at.carried
        k, _, which = rest.partition(".")
        if what != "optimizer" or self.settings.optimizer != "adam" or not _is_number(k):
            return False
        if int(k) >= len(self.parameters) or which not in ("step", "exp_avg", "exp_avg_sq"):
            return False
        like = self.parameters[int(k)]
        return form.shape == (() if which == "step" else tuple(like.shape))


def _is_number(name: str) -> bool:
    # Python refuses to read thousands of digits.
    return name.isdecimal() and len(name) < 10


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }
