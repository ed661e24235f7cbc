"""The network: categories embedded, a recurrent layer, a linear head."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from peephole.errors import UserError
from peephole.nn import GRU, LSTM, RNN
from peephole.ragged import Ragged
from peephole.tasks.table.recipe import Examples, Recipe
from peephole.tasks.table.settings import ModelSettings

State = Any
MAX_UNITS = 16_384
MAX_LAYERS = 64
FORGET_BIAS = 1.0


def resolve(settings: ModelSettings, causal: bool) -> ModelSettings:
    """Settings with nothing left open, checked.

    Args:
        settings: a person's.
        causal: whether a prediction may not look at later steps.

    Raises:
        UserError: an option out of range, or two that contradict each other.
    """
    check(settings)
    if settings.bidirectional and causal:
        raise UserError(
            "a bidirectional model reads the steps after the one it predicts at: not in "
            "forecasting, nor in a single series",
            "model.bidirectional",
        )
    if settings.bidirectional is None:
        return replace(settings, bidirectional=not causal)
    return settings


def check(settings: ModelSettings) -> None:
    """Raise UserError where an option is out of range or contradicts another."""
    for name, value, low, high in (
        ("hidden_size", settings.hidden_size, 1, MAX_UNITS),
        ("layers", settings.layers, 1, MAX_LAYERS),
        ("dropout", settings.dropout, 0.0, 0.95),
    ):
        if not low <= value <= high:
            raise UserError(f"{value}; it must be from {low} to {high:,}", f"model.{name}")
    if settings.cell != "lstm" and settings.peephole is not None:
        raise UserError(
            f"only the lstm has peepholes, and the cell is {settings.cell}", "model.peephole"
        )


def embedding_size(categories: int) -> int:
    """How many numbers stand for a category of so many."""
    return int(min(32, 1 + round(1.6 * categories**0.56)))


class SequenceModel(nn.Module):
    """Predicts from the features of ragged sequences.

    A category's embedding 0, for what training never saw, begins at zero, the middle of the
    others.

    Args:
        recipe: which features come in and how many outputs go out.
        settings: resolved.
    """

    def __init__(self, recipe: Recipe, settings: ModelSettings) -> None:
        super().__init__()
        sizes = [len(category.values) + 1 for category in recipe.features.categories]
        self.embeddings = nn.ModuleList(nn.Embedding(n, embedding_size(n)) for n in sizes)
        with torch.no_grad():
            for weight in self.embeddings.parameters():
                weight[0] = 0
        input_size = len(recipe.features.numbers) + sum(map(embedding_size, sizes))
        self.recurrent = _recurrent(input_size, settings)
        if isinstance(self.recurrent, LSTM):
            _remember(self.recurrent)
        self.per_sequence = recipe.per == "sequence"
        self.readout = settings.readout
        self.is_causal = not self.per_sequence and not settings.bidirectional
        self.directions = 2 if settings.bidirectional else 1
        width = settings.hidden_size * self.directions
        self.head = nn.Sequential(
            nn.Dropout(settings.dropout),
            nn.Linear(width, recipe.outputs),
        )

    def forward(
        self, examples: Examples, state: State = None
    ) -> tuple[Float[Tensor, "M K"], State]:
        """Run over a batch.

        Args:
            examples: B sequences with N steps; their targets are not looked at.
            state: the recurrent layer's initial state; zeros if None.

        Returns:
            The outputs, M = B for one a sequence and M = N for one a step, and the final state.
        """
        codes = examples.codes.values
        embedded = [embed(codes[:, k]) for k, embed in enumerate(self.embeddings)]
        x = examples.numbers.with_values(torch.cat([examples.numbers.values, *embedded], 1))
        y, final = self.recurrent(x, state)
        if not self.per_sequence:
            return self.head(y.values), final
        if self.readout == "last":
            h = final[0] if isinstance(final, tuple) else final
            return self.head(torch.cat(list(h[-self.directions :]), 1)), final
        return self.head(pool(y, self.readout)), final


def _recurrent(input_size: int, settings: ModelSettings) -> LSTM | GRU | RNN:
    shared: dict[str, Any] = {
        "num_layers": settings.layers,
        "dropout": settings.dropout if settings.layers > 1 else 0.0,
        "bidirectional": settings.bidirectional,
    }
    if settings.cell == "gru":
        return GRU(input_size, settings.hidden_size, **shared)
    if settings.cell == "rnn":
        return RNN(input_size, settings.hidden_size, **shared)
    return LSTM(input_size, settings.hidden_size, peephole=settings.peephole, **shared)


def _remember(lstm: LSTM) -> None:
    """Begin with forget gates that are mostly open: Jozefowicz et al. 2015, bias 1."""
    H = lstm.hidden_size
    with torch.no_grad():
        for name, bias in lstm.named_parameters():
            if name.startswith("bias_ih"):
                bias[H : 2 * H] += FORGET_BIAS


def pool(y: Ragged, how: str) -> Float[Tensor, "B H"]:
    """Each sequence's "mean" or "max" over its steps, values ``[N, H]``; none is empty."""
    sequence = torch.arange(len(y), device=y.device).repeat_interleave(
        y.lengths, output_size=y.values.shape[0]
    )
    zeros = y.values.new_zeros(len(y), y.values.shape[1])
    places = sequence[:, None].expand_as(y.values)
    reduce = "amax" if how == "max" else "mean"
    return zeros.scatter_reduce(0, places, y.values, reduce, include_self=False)
