"""The training loop on a task small enough to know the answer."""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from peephole.data.batches import Batches
from peephole.errors import UserError
from peephole.tasks.protocol import Batching, Loss, Plan, State
from peephole.train import Diverged, Event, Settings, fit
from peephole.train.descent import rate


class Line:
    """Fit y = 2 x; the batches are single numbers, so plain SGD can be worked out by hand."""

    monitor = "mse"
    goal: Literal["min", "max"] = "min"

    def __init__(self, points: int = 8, noise: float = 0.0) -> None:
        self.x = torch.linspace(0.5, 1.5, points)
        self.y = 2 * self.x + noise * torch.randn(points)
        self.states: list[Any] = []

    def model(self) -> nn.Module:
        return nn.Linear(1, 1, bias=False)

    def plan(self, batching: Batching) -> Plan:
        return Batches(
            [1] * len(self.x),
            batch_size=batching.size,
            batch_steps=batching.steps,
            seed=batching.seed,
        )

    def batches(self, shares: Iterable[Any]) -> Iterator[Tensor]:
        yield from map(torch.from_numpy, shares)

    def loss(self, model: nn.Module, batch: Tensor, state: State) -> Loss:
        self.states.append(state)
        error = model(self.x[batch, None]).squeeze(1) - self.y[batch]
        return Loss(error.square().sum(), len(batch), (model.weight * 1,))

    def names(self, share: Any) -> list[str]:
        return [f"point {index}" for index in share]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"mse": float((model(self.x[:, None]).squeeze(1) - self.y).square().mean())}


def settings(**changes: Any) -> Settings:
    return Settings(**{"epochs": 3, "batch_size": 2, "learning_rate": 0.1, **changes})


def by_hand(task: Line, seed: int, epochs: int, rate: float) -> float:
    torch.manual_seed(seed)
    weight = task.model().weight.item()
    for epoch in range(epochs):
        planned = task.plan(Batching(2, None, 1, seed)).epoch(epoch)
        for batch in task.batches(planned.share(k, 0, 1) for k in range(len(planned))):
            x, y = task.x[batch].double(), task.y[batch].double()
            weight -= rate * float((2 * (weight * x - y) * x).mean())
    return weight


def test_plain_sgd_is_the_mean_gradient_of_each_batch() -> None:
    task = Line()
    trained = fit(task, settings(seed=4))
    assert trained.model.weight.item() == pytest.approx(by_hand(task, 4, 3, 0.1), rel=1e-5)


def test_a_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, again, other = (fit(Line(), settings(seed=s)).model.weight for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("draws", [None, False, True])
def test_torchs_generator_is_seeded_unless_a_task_says_that_it_does_not_draw(
    draws: bool | None,
) -> None:
    class Drawing(Line):
        def loss(self, model: nn.Module, batch: Tensor, state: State) -> Loss:
            drawn.append(float(torch.rand(())))
            return super().loss(model, batch, state)

    drawn: list[float] = []
    task: Any = Drawing(points=20)
    if draws is not None:
        task.draws = draws
    for number in (0, 1):
        # Seeds the generator for the model; what evaluations draw is to change nothing.
        fit(
            task,
            settings(epochs=1, evaluations=4),
            on_event=lambda _, n=number: torch.manual_seed(n),
        )
    first, second = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    assert (first == second) == (draws is not False)


def test_evaluations_stand_at_equal_distances_and_at_each_epochs_end() -> None:
    seen: list[Event] = []
    trained = fit(Line(points=20), settings(epochs=2, evaluations=4), on_event=seen.append)
    assert seen == trained.events
    assert [event["update"] for event in seen] == [3, 5, 8, 10, 13, 15, 18, 20]
    assert seen[3]["epoch"] == 1
    assert {event["updates"] for event in seen} == {20}


def test_more_evaluations_than_updates_are_one_each() -> None:
    trained = fit(Line(points=4), settings(epochs=1, evaluations=20))
    assert [event["update"] for event in trained.events] == [1, 2]


def test_train_loss_is_the_mean_over_targets_since_the_evaluation_before() -> None:
    trained = fit(Line(), settings(epochs=1, learning_rate=1e-12))
    assert trained.events[0]["train_loss"] == pytest.approx(trained.events[0]["mse"], rel=1e-4)


def test_the_state_is_handed_on_without_its_gradient_and_starts_anew_each_epoch() -> None:
    task = Line(points=4)
    fit(task, settings(epochs=2))
    assert [state is None for state in task.states] == [True, False, True, False]
    assert not task.states[1][0].requires_grad


def test_keep_best_gives_back_the_best_weights_and_last_the_last() -> None:
    # Past a rate of 1 / mean(x^2) plain SGD on a parabola grows worse with each update.
    worse = {"epochs": 4, "learning_rate": 1.2}
    best = fit(Line(), settings(keep="best", **worse))
    last = fit(Line(), settings(keep="last", **worse))
    errors = [event["mse"] for event in best.events]
    assert errors.index(min(errors)) < 3
    assert best.best["mse"] == min(errors)
    with torch.no_grad():
        assert Line().evaluate(best.model)["mse"] == pytest.approx(min(errors))
    assert last.best == last.events[-1]


def test_patience_stops_after_that_many_evaluations_without_a_new_best() -> None:
    trained = fit(Line(), settings(epochs=50, learning_rate=1.2, patience=3, keep="best"))
    errors = [event["mse"] for event in trained.events]
    assert len(errors) == errors.index(min(errors)) + 1 + 3


def test_goal_max_prefers_the_larger() -> None:
    class Largest(Line):
        goal: Literal["min", "max"] = "max"

    trained = fit(Largest(), settings(keep="best"))
    assert trained.best["mse"] == max(event["mse"] for event in trained.events)


def test_clip_bounds_the_step() -> None:
    task = Line(points=2)
    torch.manual_seed(0)
    start = task.model().weight.item()
    trained = fit(task, settings(epochs=1, clip=0.01, learning_rate=1.0))
    assert abs(trained.model.weight.item() - start) == pytest.approx(0.01, rel=1e-3)


def test_cosine_warms_up_and_ends_at_zero() -> None:
    weights: list[float] = []

    class Slope(Line):
        """A gradient of 1 everywhere: each update moves the weight by the rate."""

        def loss(self, model: nn.Module, batch: Tensor, state: State) -> Loss:
            weights.append(model.weight.item())
            return Loss(model.weight.sum() * len(batch), len(batch))

    trained = fit(Slope(points=80), settings(epochs=1, schedule="cosine"))
    weights.append(trained.model.weight.item())
    rates = [before - after for before, after in pairwise(weights)]
    assert rates[0] == pytest.approx(0.05, rel=1e-4)
    assert max(rates) == rates[1] == pytest.approx(0.1, rel=1e-4)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_plain_sgd_takes_the_very_steps_of_torchs() -> None:
    line = Line()
    trained = fit(line, settings(epochs=1))
    torch.manual_seed(0)
    model = line.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    epoch = line.plan(Batching(2, None, 1, 0)).epoch(0)
    for batch in line.batches(epoch.share(k, 0, 1) for k in range(len(epoch))):
        optimizer.zero_grad()
        total, targets, *_ = line.loss(model, batch, None)
        (total / targets).backward()
        optimizer.step()
    torch.testing.assert_close(trained.model.weight, model.weight)


def test_average_keeps_a_moving_average_of_the_weights() -> None:
    seen: list[float] = []

    class Watched(Line):
        def loss(self, model: nn.Module, batch: Tensor, state: State) -> Loss:
            seen.append(model.weight.item())
            return super().loss(model, batch, state)

    task = Watched(points=40)
    trained = fit(task, settings(epochs=1, average=0.5))
    plain = fit(Line(points=40), settings(epochs=1))
    # The weights after each update: those that the next one saw, and the last.
    weights = [*seen[1:], plain.model.weight.item()]
    expected = weights[0]
    for n, weight in enumerate(weights[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
    assert trained.model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert trained.events[-1]["mse"] == pytest.approx(
        float((expected * task.x - task.y).square().mean()), rel=1e-3
    )


def test_adam_learns_and_decays() -> None:
    plain = fit(Line(), settings(epochs=100, optimizer="adam"))
    assert plain.events[-1]["mse"] < 1e-3
    decayed = fit(Line(), settings(epochs=100, optimizer="adam", weight_decay=1.0))
    assert decayed.model.weight.item() < plain.model.weight.item() - 0.05


class Poisoned(Line):
    """One of the points has no finite loss, or no finite gradient."""

    def __init__(self, *, gradient: bool = False) -> None:
        super().__init__(points=9)
        self.gradient = gradient

    def loss(self, model: nn.Module, batch: Tensor, state: State) -> Loss:
        loss = super().loss(model, batch, state)
        if 5 not in batch:
            return loss
        weight = model.weight.sum()
        # The square root's derivative at 0 is infinite, its value 0.
        bad = (weight - weight.detach()).abs().sqrt() if self.gradient else weight / 0
        return loss._replace(total=loss.total + bad)


@pytest.mark.parametrize(("gradient", "what"), [(False, "the loss is"), (True, "the gradient is")])
def test_what_is_not_finite_stops_before_it_is_learned_and_names_the_sequences(
    gradient: bool, what: str
) -> None:
    message = what + r" -?(inf|nan) in update \d of 15, on .*point 5"
    with pytest.raises(Diverged, match=message) as got:
        fit(Poisoned(gradient=gradient), settings())
    assert got.value.fit.model.weight.isfinite().all()
    assert got.value.fit.events[-1]["mse"] > 0


def test_skipped_updates_change_nothing() -> None:
    trained = fit(Poisoned(), settings(on_nonfinite="skip", batch_size=1, epochs=1))
    task = Line(points=9)
    torch.manual_seed(0)
    weight = task.model().weight.item()
    order = task.plan(Batching(1, None, 1, 0)).epoch(0)
    for k in range(9):
        point = int(order.share(k, 0, 1)[0])
        if point != 5:
            x, y = float(task.x[point]), float(task.y[point])
            weight -= 0.1 * 2 * (weight * x - y) * x
    assert trained.model.weight.item() == pytest.approx(weight, rel=1e-5)
    assert trained.events[-1]["train_loss"] > 0


class Gapped(Line):
    """Its state is lost for good, where one update's is not finite and is carried on."""

    def loss(self, model: nn.Module, batch: Tensor, state: State) -> Loss:
        loss = super().loss(model, batch, state)
        carried = torch.zeros(1) if state is None else state[0]
        bad = torch.tensor(torch.nan) if len(self.states) == 2 else torch.zeros(())
        return loss._replace(total=loss.total + carried.sum() + bad, state=(carried + bad,))


def test_the_state_of_a_skipped_update_is_not_carried_on() -> None:
    trained = fit(Gapped(), settings(on_nonfinite="skip", epochs=1))
    assert trained.events[-1]["skipped"] == 1


def test_more_evaluations_than_updates_are_one_an_update() -> None:
    """However many a stranger's settings ask for."""
    trained = fit(Line(), settings(evaluations=10**15, epochs=1))
    updates = [event["update"] for event in trained.events]
    assert updates == list(range(1, updates[-1] + 1))
    assert len(updates) > 1


def test_a_figure_that_is_no_number_is_never_the_best() -> None:
    class Late(Line):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            return super().evaluate(model) if len(self.states) > 4 else {"mse": math.nan}

    trained = fit(Late(), settings(keep="best", epochs=2))
    assert [math.isnan(event["mse"]) for event in trained.events] == [True, False]
    assert trained.best is trained.events[1]


def test_a_rate_too_large_stops() -> None:
    with pytest.raises(Diverged, match="try a smaller learning rate") as got:
        fit(Line(), settings(epochs=100, learning_rate=1e6))
    assert got.value.fit.events


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_an_update_add_up_to_the_whole(parts: int) -> None:
    whole = fit(Line(points=11), settings(batch_size=4))
    divided = fit(Line(points=11), settings(batch_size=4, accumulate=parts))
    torch.testing.assert_close(divided.model.weight, whole.model.weight)


def test_a_budget_of_steps_and_a_number_of_updates() -> None:
    trained = fit(Line(points=10), settings(batch_size=None, batch_steps=3, updates=5))
    assert [event["update"] for event in trained.events] == [4, 5]
    assert trained.events[-1]["epoch"] == 1.25


def test_linear_falls_to_zero_after_its_warm_up() -> None:
    chosen = settings(schedule="linear", warm_up=2)
    rates = [rate(chosen, update, 6) for update in range(6)]
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: 0; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0; it must be more than 0"),
        ({"learning_rate": float("nan")}, "learning_rate: nan; it must be more than 0"),
        ({"clip": float("inf")}, "clip: inf; it must be more than 0"),
        ({"average": 1.0}, "average: 1.0; it must be between 0 and 1"),
        ({"accumulate": 0}, "accumulate: 0; it must be at least 1"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds: -1.0; it must be at least 0"),
        ({"batch_size": None}, "batch_size: not given, nor is batch_steps"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as got:
        settings(**changes)
    assert f"{got.value.option}: {got.value.message}".startswith(message)
