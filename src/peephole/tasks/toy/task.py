"""The toy as a task that the training loop understands."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._nn import mse_loss

from peephole.data.batches import Batches
from peephole.ragged import Ragged
from peephole.tasks.protocol import Batching, Loss, Plan, State
from peephole.tasks.toy.data import (
    DATA_SETS,
    TRAIN_SHARE,
    Z_MAX,
    Sample,
    clean_inputs,
    posterior_mean,
    simulate,
)
from peephole.tasks.toy.models import Model

Array = np.ndarray[Any, np.dtype[np.int64]]

# Updates whose sequences are gathered at a time.
AT_ONCE = 256
# Of torch's three reductions.
SUM = 2
# Sequences evaluated at a time: few enough that what a step needs stays in the cache.
PART = 2048


class Batch(NamedTuple):
    """Inputs ``[n, 1]``, normalised, and raw targets: ``[B, 1]``, or ``[n, 1]`` with one a step."""

    inputs: Ragged
    targets: Tensor


class Toy:
    """One model of the table on its data set.

    Args:
        model: the row of the table.
        sequences: how many are drawn; the first 70% train, the others test.
        seed: of the data.
    """

    monitor = "mse"
    goal: Literal["min", "max"] = "min"
    # To seed a generator that no model of the table asks takes 3% of an update.
    draws = False

    def __init__(self, model: Model, sequences: int, seed: int) -> None:
        self.spec = model
        self.data = DATA_SETS[model.data]
        self.sample, self.test_sample = simulate(self.data, sequences, seed).split(TRAIN_SHARE)
        values = self.sample.inputs.values
        self.mean, self.sd = values.mean(), values.std()
        self.train, self.test = self.batch(self.sample), self.batch(self.test_sample)

    def batch(self, sample: Sample) -> Batch:
        """Inputs normalised by one mean and deviation of all training steps; targets raw."""
        inputs = sample.inputs.with_values((sample.inputs.values - self.mean) / self.sd).to(
            torch.float32
        )
        targets = sample.step_targets() if self.data.every_step else sample.z
        batch = Batch(inputs, targets.to(torch.float32)[:, None])
        return self._reversed(batch) if self.spec.reverse else batch

    def _reversed(self, batch: Batch) -> Batch:
        targets = batch.targets
        if self.data.every_step:
            targets = batch.inputs.with_values(targets).reverse().values
        return Batch(batch.inputs.reverse(), targets)

    # What the loop asks for

    def model(self) -> nn.Module:
        return self.spec.make()

    def plan(self, batching: Batching) -> Plan:
        return Batches(
            self.train.inputs.lengths.numpy(),
            batch_size=batching.size,
            batch_steps=batching.steps,
            pool=batching.pool,
            seed=batching.seed,
        )

    def batches(self, shares: Iterable[Array]) -> Iterator[Batch]:
        """The sequences of many updates are gathered at once; a batch is a view of them."""
        shares = iter(shares)
        while group := list(islice(shares, AT_ONCE)):
            taken = self._take(self.train, torch.from_numpy(np.concatenate(group)))
            sizes = [len(share) for share in group]
            same = all(size == sizes[0] for size in sizes[:-1]) and 0 < sizes[-1] <= sizes[0]
            yield from self._split(taken, sizes[0] if same else sizes)

    def loss(self, model: nn.Module, batch: Batch, state: State) -> Loss:
        """The sum of squared errors."""
        # torch.nn.functional's first broadcasts what has the same shape: a tenth of an update.
        total = mse_loss(model(batch.inputs), batch.targets, SUM)  # type: ignore[arg-type]
        return Loss(total, batch.targets.shape[0], steps=batch.inputs.values.shape[0])

    def names(self, share: Array) -> list[str]:
        return [f"sequence {index}" for index in share.tolist()]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"mse": float(self.squared_errors(model, self.test).mean())}

    # What the results need

    def predict_z(self, model: nn.Module, batch: Batch) -> Tensor:
        """The prediction of z itself for each sequence, ``[B]``."""
        predictions = self.predict(model, batch)
        if self.data.every_step:
            predictions = batch.inputs.with_values(predictions).first()
        return predictions.squeeze(1)

    def squared_errors(self, model: nn.Module, batch: Batch) -> Tensor:
        """At each target, float64, ``[B]`` or ``[n]``."""
        predictions = self.predict(model, batch)
        return (predictions.double() - batch.targets.double()).square().squeeze(1)

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """One for each target, in their shape."""
        return torch.cat([model(part.inputs) for part in self._split(batch, PART)])

    def grid(self, points: int = 200) -> tuple[Tensor, Tensor, Batch]:
        """Noise-free sequences of three steps at equally spaced targets.

        Returns:
            f(z) ``[points]``, z ``[points]`` and the batch.
        """
        z = torch.linspace(0, Z_MAX, points, dtype=torch.float64)
        inputs = clean_inputs(z, torch.full((points,), 3))
        return inputs.first().squeeze(1), z, self.batch(Sample(inputs, z))

    def bayes_squared_errors(self) -> Tensor:
        """Those of the posterior mean at each of the test data's targets, float64."""
        error = posterior_mean(self.test_sample.inputs, self.data.sd) - self.test_sample.z
        if self.data.every_step:
            # z - t is as uncertain as z.
            error = error.repeat_interleave(self.test_sample.inputs.lengths)
        return error.square()

    def mean_squared_errors(self) -> Tensor:
        """Those of predicting the training targets' mean, at each of the test data's targets."""
        mean = self.train.targets.double().mean()
        return (self.test.targets.double() - mean).square().squeeze(1)

    def by_length(self, errors: Tensor) -> dict[str, float]:
        """The mean of the test data's errors for each length of sequence."""
        lengths = self.test.inputs.lengths
        if self.data.every_step:
            lengths = lengths.repeat_interleave(lengths)
        return {str(T): float(errors[lengths == T].mean()) for T in self.data.lengths}

    def _take(self, batch: Batch, order: Tensor) -> Batch:
        if not self.data.every_step:
            return Batch(batch.inputs[order], batch.targets[order])
        targets = batch.inputs.with_values(batch.targets)[order]
        return Batch(batch.inputs[order], targets.values)

    def _split(self, batch: Batch, size: int | list[int]) -> Iterator[Batch]:
        parts = batch.inputs.split(size)
        if self.data.every_step:
            targets = batch.inputs.with_values(batch.targets).split(size)
            yield from (Batch(x, y.values) for x, y in zip(parts, targets, strict=True))
        else:
            yield from map(Batch, parts, torch.split(batch.targets, size))
