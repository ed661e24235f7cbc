"""The training loop. It knows its task by protocol only."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

from peephole.errors import Interrupted, UserError
from peephole.tasks.protocol import Epoch, Loss, State, Task
from peephole.train.agreement import Agreed
from peephole.train.checkpoints import Checkpoints
from peephole.train.descent import Gradient, rate
from peephole.train.engine import Engine
from peephole.train.interrupts import Interrupts
from peephole.train.outcome import Diverged, Fit, Journal, Progress
from peephole.train.settings import Settings
from peephole.train.training import Event, Found, Position, Training

# How often progress is shown, and how often an error is looked for that others have seen.
SHOW_SECONDS = 0.2


def fit(
    task: Task,
    settings: Settings,
    *,
    journal: Journal | None = None,
    checkpoints: Checkpoints[Position] | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    say: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_update: Callable[[], None] | None = None,
    on_resume: Callable[[int], None] | None = None,
) -> Fit:
    """Train a model of ``task``.

    Args:
        task: the problem.
        settings: how.
        journal: takes each event; nothing is kept if None.
        checkpoints: where they go; none if None, and then nothing can be resumed. Of several
            processes the first one's count.
        resume: go on from the newest checkpoint that is whole; likewise.
        engine: what it runs on; one of its own if None.
        say: takes each line that a person should read.
        on_event: sees each evaluation as it happens.
        on_progress: sees, a few times a second, how far it is.
        on_update: called after each update, for a profiler.
        on_resume: told how many updates are done before it goes on.

    Raises:
        Diverged: the loss or a gradient is not a finite number.
        Interrupted: SIGTERM or SIGINT came; where there are checkpoints, the last is of now.
        UserError: a checkpoint cannot be written, or is of other settings or data.
    """
    with Engine(settings) if engine is None else nullcontext(engine) as engine:
        resume, keeps = engine.from_first((resume, checkpoints is not None))
        loop = _Loop(task, settings, engine, journal, checkpoints, keeps)
        if resume:
            for line in loop.go_back():
                if say is not None and engine.rank == 0:
                    say(line)
            if on_resume is not None:
                on_resume(loop.training.at.update)
        loop.on_event, loop.on_progress, loop.on_update = on_event, on_progress, on_update
        interrupts = Interrupts()
        with interrupts if keeps else nullcontext():
            return loop.run(interrupts)


class _Loop:
    """One call of ``fit``."""

    on_event: Callable[[Event], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_update: Callable[[], None] | None = None

    def __init__(
        self,
        task: Task,
        settings: Settings,
        engine: Engine,
        journal: Journal | None,
        checkpoints: Checkpoints[Position] | None,
        keeps: bool,
    ) -> None:
        self.task, self.settings, self.engine = task, settings, engine
        self.draws: bool = getattr(task, "draws", True)
        self.journal = journal if engine.rank == 0 else None
        self.checkpoints = checkpoints
        self.keeps = keeps
        self.training = Training(task, settings, engine)
        self.events: list[Event] = []
        self.began = self.shown = self.saved = time.monotonic()
        self.steps = 0
        self.written: tuple[int, int, int] | None = None
        self.restored = False

    def run(self, interrupts: Interrupts) -> Fit:
        at, settings = self.training.at, self.settings
        plan = self.task.plan(settings.batching)
        self.training.model.train()
        while at.epoch < settings.epochs and not self.is_done():
            epoch = plan.epoch(at.epoch)
            if not 0 <= at.batch <= len(epoch):
                raise UserError(
                    f"the checkpoint is of other data: it was after {at.batch:,} updates of epoch "
                    f"{at.epoch}, which has {len(epoch):,}"
                )
            if not at.update:
                whole = len(epoch) * settings.epochs
                at.planned = min(whole, settings.updates or whole)
            pauses = self.pauses(len(epoch))
            batches = self.task.batches(self.shares(epoch))
            while at.batch < len(epoch) and not self.is_done():
                agreed = self.update(epoch, batches, interrupts)
                self.restored = False
                if at.batch in pauses or at.update == settings.updates:
                    self.evaluate(len(epoch))
                if agreed.save or agreed.stop:
                    self.save()
                self.stop_if(agreed)
            if at.batch == len(epoch):
                at.epoch, at.batch = at.epoch + 1, 0
                self.training.states = [None] * settings.accumulate
        self.save()
        self.stop_if(Agreed.of(self.engine, 0.0, 0, interrupts.signal, False))
        return self.finished(self.training.restore())

    def stop_if(self, agreed: Agreed) -> None:
        """Raise Interrupted where a signal came to any process."""
        if agreed.stop:
            raise Interrupted(
                agreed.stop, None if self.checkpoints is None else self.checkpoints.run
            )

    def update(self, epoch: Epoch, batches: Iterator[Any], interrupts: Interrupts) -> Agreed:
        """Make one update; gives what all processes agree on."""
        training, engine, at = self.training, self.engine, self.training.at
        if self.draws:
            engine.seed(at.update)
        for parameter in training.parameters:
            parameter.grad = None
        total, targets, before = 0.0, 0, training.states.copy()
        parts = list(islice(batches, self.settings.accumulate))
        for k, batch in enumerate(parts):
            with engine.part(training.called, last=k + 1 == len(parts)):
                loss = self.loss(engine.batch(batch), training.states[k])
                engine.backward(loss.total)
            training.states[k] = _detached(loss.state)
            total += loss.total.item()
            targets += loss.targets
            self.steps += loss.steps
        due = time.monotonic() - self.saved > self.settings.checkpoint_seconds
        agreed = Agreed.of(engine, total, targets, interrupts.signal, due)
        if self.descend(epoch, agreed.total, agreed.targets):
            at.total += agreed.total
            at.targets += agreed.targets
        else:
            # What is not finite is not carried on either.
            at.skipped, training.states = at.skipped + 1, before
        at.update += 1
        at.batch += 1
        if self.on_update is not None:
            self.on_update()
        if self.on_progress is not None:
            self.show()
        return agreed

    def loss(self, batch: Any, state: State) -> Loss:
        try:
            return self.task.loss(self.training.called, batch, state)
        except (IndexError, ValueError, RuntimeError) as error:
            if not self.restored or isinstance(error, UserError):
                raise
            raise UserError("the states in the checkpoint do not fit the model") from error

    def descend(self, epoch: Epoch, total: float, targets: int) -> bool:
        """Take a step along the gradient of the loss a target.

        Returns:
            False where it was skipped.
        """
        training, settings = self.training, self.settings
        gradient = Gradient.of(training.parameters, training.weights)
        # Processes exchange the mean of their sums.
        scale = self.engine.world / max(1, targets)
        # What is clipped needs the norm; otherwise there is a quicker way to see that it is finite.
        norm = 0.0
        if settings.clip is not None or not gradient.is_finite():
            norm = gradient.norm() * scale
        if not (math.isfinite(total) and math.isfinite(norm)):
            self.refuse(epoch, total, norm)
            return False
        if settings.clip is not None and norm > settings.clip:
            scale *= settings.clip / norm
        at = training.at
        training.optimizer.step(gradient, rate(settings, at.update, at.planned), scale)
        if training.average is not None:
            training.average.take(at.update + 1)
        return True

    def refuse(self, epoch: Epoch, total: float, norm: float) -> None:
        """Stop at an update that is not finite, unless it is to be skipped."""
        at = self.training.at
        if self.settings.on_nonfinite == "skip":
            return
        names = self.task.names(epoch.share(at.batch, 0, 1))
        what = f"the loss is {total}" if not math.isfinite(total) else f"the gradient is {norm}"
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
        what = f"{what} in update {at.update + 1} of {at.planned}, on {shown}"
        event = {**self.described(total), **self.measured()}
        self.events.append(event)
        if self.journal is not None:
            # Names may be long, and a line has to stay one that is read again.
            self.journal.append({"event": "diverged", "update": at.update, "what": what[:1000]})
        raise Diverged(what, self.finished(event))

    def evaluate(self, updates: int) -> None:
        """Measure the model, and take note of it."""
        training, at = self.training, self.training.at
        loss = at.total / at.targets if at.targets else math.nan
        event = {
            **self.described(loss),
            "epoch": at.epoch + at.batch / updates,
            **self.measured(),
        }
        at.total, at.targets = 0.0, 0
        self.events.append(event)
        better = training.see(event)
        if self.journal is not None:
            self.journal.append(event)
        if self.on_event is not None and self.engine.rank == 0:
            self.on_event(event)
        if better and self.settings.keep == "best":
            self.save()

    def measured(self) -> dict[str, float]:
        """The metrics of the model as it is, which the first process computes."""
        metrics: dict[str, float] = {}
        if self.engine.rank == 0:
            model = self.training.evaluated
            with self.engine.evaluating(model):
                metrics = self.task.evaluate(model)
        found: dict[str, float] = self.engine.from_first(metrics)
        return found

    def described(self, loss: float) -> Event:
        at = self.training.at
        return {
            "event": "evaluation",
            "update": at.update,
            "updates": max(at.planned, at.update),
            "epoch": float(at.epoch),
            "train_loss": loss,
            **({"skipped": at.skipped} if at.skipped else {}),
        }

    # Checkpoints

    def save(self) -> None:
        """Write a checkpoint of now."""
        self.saved = time.monotonic()
        at = self.training.at
        where = (at.update, at.epoch, at.batch)
        if not self.keeps or where == self.written:
            return
        self.written = where
        tensors = self.training.tensors()
        if tensors is None or self.checkpoints is None:
            return
        at.seconds += self.saved - self.began
        self.began = self.saved
        at.events_bytes = 0 if self.journal is None else self.journal.position()
        best = int(at.best["update"] or 0) if at.best and self.settings.keep == "best" else None
        self.checkpoints.write(at.update, tensors, at, best=best)

    def go_back(self) -> list[str]:
        """Go to the newest checkpoint that is whole.

        Returns:
            What a person should know about it.
        """
        found, lines = self.found() if self.engine.rank == 0 else (None, [])
        found = self.engine.from_first(found)
        if found is None:
            if self.journal is not None:
                self.journal.truncate(0)
            return [*lines, "there is no checkpoint yet: the training begins anew"]
        self.training.load(found)
        self.restored = found.at.carried > 0
        if self.journal is not None:
            self.journal.truncate(found.at.events_bytes)
        return [*lines, f"resumed from {found.path}, after {found.at.update:,} updates"]

    def found(self) -> tuple[Found | None, list[str]]:
        """The newest checkpoint that is whole, and what is wrong with newer ones."""
        assert self.checkpoints is not None
        checkpoint, lines = self.checkpoints.newest()
        if checkpoint is None:
            if lines:
                raise UserError(f"{lines[-1]}; none is whole: mend one, or begin another run")
            return None, []
        found = self.training.read(checkpoint)
        if checkpoint.best is not None:
            try:
                found.best = self.training.read_best(self.checkpoints.read(checkpoint.best))
            except UserError as error:
                lines.append(f"{error.message}; the best model is chosen anew from here on")
                found.at.best, found.at.since_best = {}, 0
        return found, lines

    # Smaller things

    def shares(self, epoch: Epoch) -> Iterator[Any]:
        """What the parts of this process read, from the next update to the epoch's end."""
        parts = self.settings.accumulate
        first, of = self.engine.rank * parts, self.engine.world * parts
        for k in range(self.training.at.batch, len(epoch)):
            for part in range(parts):
                yield epoch.share(k, first + part, of)

    def pauses(self, updates: int) -> set[int]:
        """After which updates of an epoch to evaluate."""
        times = min(self.settings.evaluations, updates)
        return {-(-updates * k // times) for k in range(1, times + 1)}

    def is_done(self) -> bool:
        settings, at = self.settings, self.training.at
        if settings.updates is not None and at.update >= settings.updates:
            return True
        patience = settings.patience
        return patience is not None and at.batch == 0 and at.since_best >= patience

    def show(self) -> None:
        now = time.monotonic()
        if now - self.shown < SHOW_SECONDS or self.on_progress is None or self.engine.rank:
            return
        at = self.training.at
        loss = at.total / at.targets if at.targets else math.nan
        speed = self.steps * self.engine.world / (now - self.shown)
        planned = max(at.planned, at.update)
        self.on_progress(Progress(at.update, planned, at.epoch, loss, speed))
        self.shown, self.steps = now, 0

    def finished(self, best: Event) -> Fit:
        seconds = self.training.at.seconds + time.monotonic() - self.began
        return Fit(self.training.evaluated.cpu().eval(), self.events, best, seconds)


def _detached(state: State) -> State:
    return None if state is None else tuple(tensor.detach() for tensor in state)
