"""Figures of sinusoid regression. Values in, a described figure out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from ..errors import TrainingDiverged
from ..guards import require_some
from ..show import plots
from ..show.looks import GREY, look
from ..show.plots import Picture, canvas, panel_canvas
from . import maml
from .sinusoids import INPUTS, MetaMethod, Waves, mean_wave, network
from .task_batch import Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = torch.linspace(*INPUTS, 200)[:, None]  # inputs over the whole range, [200, 1]
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}  # a legend right of the axes
Start = tuple[MetaMethod, Params]  # how to adapt, and the parameters of one seed to start from


def outputs(params: Params, x: Tensor) -> Tensor:
    """Return the network's outputs for one seed's parameters, without gradient. x: [points, 1]."""
    with torch.no_grad():
        return functional_call(network(), params, (x,))


def mean_picture(params: Params, waves: Waves) -> Picture:
    """Draw what one network learned from all tasks at once, over 40 of the tasks, beside their exact mean."""
    figure, axes = canvas(7, 3.8)
    for curve in waves(GRID)[:40]:
        axes.plot(GRID, curve, color=GREY, lw=0.7, alpha=0.35)
    exact, learned = mean_wave(GRID), outputs(params, GRID)
    axes.plot(GRID, learned, color=look("pretrained").colour, lw=2, label="pretrained network")
    axes.plot(GRID, exact, color="black", ls="--", lw=1.6, label=r"exact mean, $-1.62\,\cos x$")
    axes.plot([], [], color=GREY, lw=0.7, label="40 of the tasks")
    axes.legend(**BESIDE)
    follows = bool((learned - exact).abs().max() < 1)
    _label(axes, "One network for all tasks learns their mean" if follows else "One network for all tasks")
    told = "follows" if follows else "does not follow"
    alt = f"The network {told} the exact mean of the tasks, a flat cosine, while the tasks spread widely around it."
    return Picture(figure, f"Line chart. {alt}")


def fits_picture(starts: Mapping[str, Start], waves: Waves, title: str, steps: int = 1) -> Picture:
    """Draw one row for each start and one column for each task: before and after some steps on 10 points.

    Each panel names the error over the whole curve. The description has no numbers, because after long training they
    differ between processors.
    """
    columns = len(waves.amplitude)
    figure, panels = panel_canvas(3 * columns, 2.5 * len(starts), columns, len(starts), sharex=True, sharey=True)
    batch, curves = waves.batch(10, 1, torch.Generator().manual_seed(0)), waves(GRID)
    told = f"after {steps} step" + "s" * (steps != 1)
    for axes, ((name, (method, params)), i) in zip(panels, product(starts.items(), range(columns))):
        points = batch.support_x[i], batch.support_y[i]
        fitted = outputs(_adapted(method, params, *points, steps)[-1], GRID)
        axes.plot(GRID, curves[i], color="black", lw=1.2, label="the task's curve")
        axes.plot(GRID, outputs(params, GRID), color=GREY, ls=":", lw=1.6, label="before")
        axes.plot(GRID, fitted, color=look(name).colour, lw=2.2, label=told)
        axes.scatter(*points, color="black", s=26, zorder=4, label="10 points")
        _label(axes, f"{name}: error {maml.mse(fitted, curves[i]).item():.2f}", ylabel="y" if i == 0 else "")
        axes.set_ylim(-6, 6)
        if i == columns - 1:
            axes.legend(**BESIDE)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    alt = f"Rows: {', '.join(starts)}. In each panel a task's curve, its 10 points, and the network before and {told}."
    return Picture(figure, f"Line charts. {title}. {alt}")


def errors_picture(
    results: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    title: str,
    xlabel: str = "gradient steps on the support",
    ylabel: str = "mean squared error on the query",
    live: Mapping[str, tuple[float, float]] = {},
) -> Picture:
    """Draw errors as `plots.curves` does, on a logarithmic axis, so that a line runs through geometric means.

    The description leaves out the live run's numbers, which differ between processors after long training.

    results: for each name, for each x, the recorded errors of the runs. live: for some, x and the error just found.
    """
    require_some(results, "values to draw")
    logs = {name: {x: [math.log10(e) for e in found] for x, found in line.items()} for name, line in results.items()}
    rings = {name: (x, math.log10(error)) for name, (x, error) in live.items()}
    figure = plots.curves(logs, title=title, xlabel=xlabel, ylabel=ylabel, limits=None, live=rings).figure
    low, high = figure.axes[0].get_ylim()
    ticks = [tick for tick in TICKS if low < math.log10(tick) < high]
    figure.axes[0].set_yticks([math.log10(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    figure.axes[0].set_ylim(low, high)
    means = {
        name: ", ".join(f"{10 ** mean(found):.2f} at {x:g}" for x, found in line.items()) for name, line in logs.items()
    }
    told = "; ".join(f"{name}: {values}" for name, values in means.items())
    ring = f" Rings: your runs, {' and '.join(live)}." if live else ""
    return Picture(figure, f"Line chart. {title}. {ylabel} by {xlabel}. {told}.{ring}")


def training_picture(losses: Sequence[float], title: str, each: int = 25) -> Picture:
    """Draw a training's losses as dots, with their mean over `each` iterations, and say if the last mean is no lower.

    The description has no numbers, because they differ between processors.
    """
    blocks = {i + each: losses[i : i + each] for i in range(0, len(losses), each)}
    require_some(blocks, "losses to draw")
    first, *_, last = [mean(block) for block in blocks.values()]
    told = title if last < first else "The loss does not fall"
    look = {"xlabel": f"meta-iterations, {each} for each mean", "ylabel": "query loss after one step"}
    figure = plots.curves({"meta-loss": blocks}, title=told, limits=(0, 8), **look).figure
    return Picture(figure, f"Line chart of the loss after one step by meta-iterations. {told}.")


def times_picture(milliseconds: Mapping[str, float], title: str, factor: float = 2.0) -> Picture:
    """Draw one meta-gradient's time for each route, and say if the first takes no longer than `factor` times another.

    The description has no numbers, because every machine has its own.
    """
    require_some(milliseconds, "times to draw")
    first, *others = milliseconds.values()
    told = title if first > factor * min(others, default=first) else "Something else kept this machine busy"
    figure = plots.horizontal_bars(milliseconds, title=told, xlabel="ms for one meta-gradient, on your machine").figure
    return Picture(figure, f"Bar chart of the time for one meta-gradient: {', '.join(milliseconds)}. {told}.")


def _adapted(method: MetaMethod, params: Params, x: Tensor, y: Tensor, steps: int) -> list[Params]:
    """Return the parameters after 0, 1, ..., `steps` inner steps. Raises TrainingDiverged where one is not finite."""
    net, path = network(), [params]
    options = {"inner_lr": method.inner_lr, "adaptable": method.adaptable, "second_order": False}
    for step in range(1, steps + 1):
        path.append(maml.inner_loop(net, path[-1], x, y, **options))
        if not all(torch.isfinite(p).all() for p in path[-1].values()):
            told = f"its steps of {method.inner_lr:g} are too long for these points."
            remedy = "take fewer steps, or points that are closer to the family's curves."
            raise TrainingDiverged(f"{method.name} leaves the finite numbers at step {step}: {told}", remedy)
    return path


def _label(axes: Axes, title: str, ylabel: str = "y") -> None:
    axes.set(xlabel="x", ylabel=ylabel, xlim=INPUTS, xticks=[-5, -2.5, 0, 2.5, 5], xticklabels=["-5", "", "0", "", "5"])
    axes.set_title(title, loc="left")
