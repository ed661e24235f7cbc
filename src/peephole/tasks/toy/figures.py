"""The toy's figures, each drawn on a matplotlib figure that the caller writes."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from peephole.tasks.toy.data import DATA_SETS, Z_MAX, clean_inputs, wave

Curve = Sequence[Mapping[str, float]]

ORANGE = "#e8710a"
COLOURS = {
    "mlp-1": "#9aa0a6",
    "mlp-1-fail": "#d2d5d9",
    "mlp-2": "#3c4043",
    "rnn": "#1a73e8",
    "lstm": ORANGE,
    "lstm-variable": "#b31412",
    "lstm-reversed": "#f28b82",
    "gru-variable": "#188038",
    "bilstm-direct": "#9334e6",
}


def draw_prediction(
    figure: Figure, name: str, f: Tensor, z: Tensor, prediction: Tensor, grid_mse: float | None
) -> None:
    """A model's answers on the noise-free grid over the true inverse.

    Args:
        figure: to draw on.
        name: the model's.
        f: ``[points]``, the first input of each sequence.
        z: ``[points]``, its target.
        prediction: ``[points]``.
        grid_mse: shown in the title; None where the model diverged.
    """
    axes = figure.subplots()
    axes.plot(f, z, color="black", linewidth=1.2, label="true inverse")
    axes.plot(f, prediction, color=ORANGE, linewidth=1.2, label=f"{name}'s prediction")
    axes.set_xlabel("first input, f(z)")
    axes.set_ylabel("target z")
    axes.set_ylim(-1, Z_MAX + 1)
    error = "diverged" if grid_mse is None else f"squared error {grid_mse:.3g}"
    axes.set_title(f"{name}   ({error})")
    axes.legend(loc="best", fontsize=7)


def draw_learning_curves(
    figure: Figure, curves: Mapping[str, Curve], bayes: Mapping[str, float]
) -> None:
    """Test error against sequences seen, all models on one axis.

    Args:
        figure: to draw on.
        curves: for each model, points with ``sequences`` and ``test_mse``.
        bayes: for each data set, the error of the posterior mean.
    """
    axes = figure.subplots()
    for name, curve in curves.items():
        points = [point for point in curve if point["test_mse"] is not None]
        sequences = [point["sequences"] for point in points]
        errors = [point["test_mse"] for point in points]
        axes.plot(sequences, errors, color=COLOURS[name], linewidth=1.1, label=name)
    drawn: list[float] = []
    for data, error in bayes.items():
        close = sum(abs(math.log(error / other)) < 0.3 for other in drawn)
        drawn.append(error)
        axes.axhline(error, color="black", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(
            f"best possible, {data}: {error:.3g}",
            # Side by side where two data sets have nearly the same error.
            (0.01 + 0.33 * close, error),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_minor_formatter("")
    axes.set_xlabel("training sequences seen")
    axes.set_ylabel("test error (mean squared)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)


def draw_function(figure: Figure, z: float = 6.0) -> None:
    """The function, and the inputs that a target z gives."""
    axes = figure.subplots()
    x = torch.linspace(-3, Z_MAX, 600)
    axes.plot(x, wave(x), color="black", linewidth=1.2)
    steps = z - torch.arange(4)
    axes.scatter(steps, wave(steps), color=ORANGE, zorder=3)
    for t, (at, value) in enumerate(zip(steps.tolist(), wave(steps).tolist(), strict=True)):
        axes.annotate(
            "f(z)" if t == 0 else f"f(z − {t})",
            (at, value),
            xytext=(6, 5),
            textcoords="offset points",
            fontsize=8,
            color=ORANGE,
        )
    axes.axvline(z, color=ORANGE, linewidth=0.7, linestyle=":")
    axes.axvspan(0, Z_MAX, color="#f6f6f7", zorder=0)
    axes.set_xlabel("x   (targets z are drawn from the shaded range)")
    axes.set_ylabel("f(x)")
    axes.set_title(f"The function, and the inputs of the target z = {z:g}")


def draw_similarity(figure: Figure, points: int = 160, seed: int = 0) -> None:
    """How alike two targets look: by one input, and by a sequence of three; without and with noise.

    A dark place off the diagonal is a pair of targets that the inputs hardly tell apart.
    """
    z = torch.linspace(0, Z_MAX, points, dtype=torch.float64)
    clean = clean_inputs(z, torch.full((points,), 3)).values.view(points, 3)
    sd = DATA_SETS["fixed"].sd
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.manual_seed(seed))
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, (x, noisy) in zip(
        axes, ((clean, ""), (clean + sd * noise, ", with noise")), strict=True
    ):
        apart = (x[:, None] - x[None]).abs()
        _heat(figure, row[0], apart[..., 0], f"|f(z) − f(z')|{noisy}")
        _heat(figure, row[1], apart.mean(2), f"mean over z, z − 1, z − 2{noisy}")
    for axis in axes[1]:
        axis.set_xlabel("z")
    for axis in axes[:, 0]:
        axis.set_ylabel("z'")


def _heat(figure: Figure, axes: Axes, values: Tensor, title: str) -> None:
    image = axes.imshow(values.numpy(), origin="lower", extent=(0, Z_MAX, 0, Z_MAX))
    axes.grid(False)
    axes.set_title(title, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.85)
