"""The toy: invert a wavy function from a few noisy readings (kbullaughey, lstm-play, 2015)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peephole.ragged import Ragged

Z_MAX = 10.0
TRAIN_SHARE = 0.7


def wave(x: Tensor) -> Tensor:
    """f(x) = 2 + 0.5 sin(x/2 - 1) + sin(x) + sin(2x + 2) + sin(x/4 + 1)."""
    return (
        2 + 0.5 * torch.sin(x / 2 - 1) + torch.sin(x) + torch.sin(2 * x + 2) + torch.sin(x / 4 + 1)
    )


@dataclass(frozen=True)
class DataSet:
    """How sequences are drawn.

    A target z is drawn from U(0, 10); the inputs are f(z), f(z - 1), f(z - 2), ..., each plus
    normal noise.

    Attributes:
        name: as in the published table.
        sd: standard deviation of the noise.
        lengths: inputs a sequence, in equal shares.
        every_step: whether the targets are z, z - 1, ..., one a step, or z alone.
    """

    name: str
    sd: float
    lengths: tuple[int, ...]
    every_step: bool = False


DATA_SETS = {
    data.name: data
    for data in (
        DataSet("fixed", 0.1, (3,)),
        DataSet("variable", 0.1, (2, 3, 4)),
        DataSet("direct", 0.01, (2, 3, 4), every_step=True),
    )
}


@dataclass(frozen=True)
class Sample:
    """Sequences as drawn.

    Attributes:
        inputs: values ``[N, 1]``, float64, in the function's own units.
        z: ``[S]``, float64, each sequence's target in 0 to 10.
    """

    inputs: Ragged
    z: Tensor

    def split(self, share: float) -> tuple["Sample", "Sample"]:
        """The first ``share`` of the sequences, and the others."""
        cut = round(share * len(self.z))
        return (
            Sample(self.inputs[:cut], self.z[:cut]),
            Sample(self.inputs[cut:], self.z[cut:]),
        )

    def step_targets(self) -> Tensor:
        """Z - t at each step t, ``[N]``."""
        lengths = self.inputs.lengths
        return self.z.repeat_interleave(lengths) - _step_numbers(self.inputs.offsets)


def simulate(data: DataSet, sequences: int, seed: int) -> Sample:
    """Draw sequences; the same seed draws the same ones on any machine."""
    random = np.random.default_rng([seed, list(DATA_SETS).index(data.name)])
    z = torch.from_numpy(random.uniform(0, Z_MAX, sequences))
    lengths = torch.tensor(data.lengths)[torch.arange(sequences) % len(data.lengths)]
    clean = clean_inputs(z, lengths)
    noise = torch.from_numpy(random.normal(0, data.sd, clean.values.shape))
    return Sample(clean.with_values(clean.values + noise), z)


def clean_inputs(z: Tensor, lengths: Tensor) -> Ragged:
    """f(z), f(z - 1), ... for each sequence, ``lengths`` of them, without noise."""
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    x = z.repeat_interleave(lengths) - _step_numbers(offsets)
    return Ragged(wave(x)[:, None], offsets)


def _step_numbers(offsets: Tensor) -> Tensor:
    """0, 1, 2, ... within each sequence, ``[N]``."""
    starts = offsets[:-1].repeat_interleave(offsets.diff())
    return torch.arange(int(offsets[-1])) - starts


def posterior_mean(inputs: Ragged, sd: float) -> Tensor:
    """E[z | inputs] under the toy's own model: no prediction has a smaller mean squared error.

    By the trapezoid rule with Gregory's correction at the ends, on a grid of z so fine that it
    resolves the narrowest posterior there can be: each of up to four readings is a normal
    likelihood in f, and |f'| < 3.75.

    Args:
        inputs: values ``[N, 1]``, float64, in the function's own units.
        sd: the noise's standard deviation.

    Returns:
        ``[S]``, one for each sequence.
    """
    grid = torch.linspace(0, Z_MAX, math.ceil(Z_MAX / (sd / 8)) + 1, dtype=torch.float64)
    weight = torch.ones_like(grid)
    ends = torch.tensor([3 / 8, 7 / 6, 23 / 24], dtype=torch.float64)
    weight[:3], weight[-3:] = ends, ends.flip(0)
    longest = inputs.max_length
    f = wave(grid - torch.arange(longest, dtype=torch.float64)[:, None])
    # -(x - f)^2 / 2 summed over the steps there are; the term in x^2 alone cancels.
    squares = torch.cat([torch.zeros_like(f[:1]), (f * f).cumsum(0)]) / 2
    moments = torch.stack([weight, weight * grid], dim=1)
    means = []
    # Few enough at a time that their densities on the grid stay in the cache.
    for part in inputs.split(64):
        x = part.to_padded().squeeze(2)
        log_likelihood = (x @ f[: x.shape[1]] - squares[part.lengths]) / sd**2
        mass, first = (torch.softmax(log_likelihood, dim=1) @ moments).unbind(1)
        means.append(first / mass)
    return torch.cat(means)
