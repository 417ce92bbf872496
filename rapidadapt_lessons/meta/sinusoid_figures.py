"""Figures of sinusoid regression, and the view behind its widget. Values in, a described figure out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from ..errors import CourseError, TrainingDiverged
from ..guards import require_one_of, require_some
from ..show import plots
from ..show.looks import COLOURS, GREY, MARKERS, look
from ..show.plots import Picture, canvas, panel_canvas
from . import maml
from .sinusoids import AMPLITUDES, INPUTS, PHASES, MetaMethod, Waves, mean_wave, network
from .task_batch import Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 10.0  # how far up and down a typed point may lie
MOST_POINTS = 50
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


def parse_points(text: str) -> tuple[Tensor, Tensor]:
    """Return typed points such as "-2,1; 0,3; 1.5,-2" as x and y, each [points, 1].

    Semicolons, spaces or line breaks separate them; brackets around them are ignored. Raises CourseError for no points,
    too many, something that is no pair of numbers, or a point outside of the picture.
    """
    remedy = "write pairs x,y with semicolons between them and a point for the decimals: -2,1; 0,3; 1.5,-2"
    pieces = re.sub(r"\s*,\s*", ",", text.strip()).replace(";", " ").split()
    if not 1 <= len(pieces) <= MOST_POINTS:
        raise CourseError(f"{len(pieces)} points were typed.", f"{remedy} (at least 1 point, at most {MOST_POINTS}).")
    points = []
    for piece in pieces:
        try:
            x, y = (float(number) for number in piece.strip("()[]").split(","))
        except ValueError as error:
            raise CourseError(f"{piece!r} is not a pair of numbers.", f"{remedy}.") from error
        if not (INPUTS[0] <= x <= INPUTS[1] and abs(y) <= HEIGHT):
            inside = f"keep x between {INPUTS[0]:g} and {INPUTS[1]:g} and y between {-HEIGHT:g} and {HEIGHT:g}."
            raise CourseError(f"the point {piece} is outside of the picture.", inside)
        points.append((x, y))
    x, y = torch.tensor(points).T
    return x[:, None], y[:, None]


def adapt_view(
    starts: Mapping[str, Start], method: str, amplitude: float, phase: float, shots: int, step: int, points: str = ""
) -> Picture:
    """Show one start adapting up to a step: the curve, and the error so far.

    It adapts to typed points (see `parse_points`), or where there are none to `shots` random points of a sinusoid of
    this amplitude and phase, in radians. Raises CourseError for an unknown method, a task outside of the family, no
    shots, negative steps or faulty points, and TrainingDiverged where a value is no longer finite.
    """
    require_one_of(starts, "start", method)
    if not isinstance(step, int) or not 0 <= step <= 100:
        raise CourseError(f"step is {step!r}.", "give a whole number from 0 to 100.")
    wave = None
    if points.strip():
        x, y = parse_points(points)
    else:
        for name, value, (low, high) in (("amplitude", amplitude, AMPLITUDES), ("phase", phase, PHASES)):
            if not low <= value <= high + 0.01:
                raise CourseError(f"{name} is {value}.", f"choose it between {low:g} and {high:.2f}.")
        wave = Waves(torch.tensor([float(amplitude)]), torch.tensor([float(phase)]))
        batch = wave.batch(shots, 1, torch.Generator().manual_seed(0))
        x, y = batch.support_x[0], batch.support_y[0]
    return _adapt_picture(method, _adapted(*starts[method], x, y, step), x, y, wave)


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


def _adapt_picture(name: str, path: Sequence[Params], x: Tensor, y: Tensor, wave: Waves | None) -> Picture:
    """Draw the curve at every step so far, the last one strong, beside the error at each step."""
    figure, [axes, below] = panel_canvas(9.6, 3.8, 2, width_ratios=(1.7, 1))
    last = len(path) - 1
    errors = {"support": [maml.mse(outputs(p, x), y).item() for p in path]}
    if wave is not None:
        truth = wave(GRID)[0]
        axes.plot(GRID, truth, color="black", lw=1.2, label="truth")
        errors["whole curve"] = [maml.mse(outputs(p, GRID), truth).item() for p in path]
    axes.plot(GRID, outputs(path[0], GRID), color=GREY, ls=":", lw=1.6, label="before")
    for i, params in enumerate(path[1:-1]):
        told = "steps between" if i == 0 else None
        axes.plot(GRID, outputs(params, GRID), color=COLOURS[4], lw=0.8, alpha=0.6, label=told)
    if last:
        axes.plot(GRID, outputs(path[-1], GRID), color=COLOURS[0], lw=2.2, label=f"step {last}")
    axes.scatter(x, y, color=COLOURS[1], marker="D", s=34, zorder=4, label="support")
    axes.legend(loc="upper right", frameon=False, fontsize=9, ncols=2)
    _label(axes, name)
    reach = HEIGHT + 0.5 if wave is None else 7
    axes.set_ylim(-reach, reach)
    for i, (kind, values) in enumerate(errors.items()):
        below.plot(range(len(values)), values, color=COLOURS[1 - i], marker=MARKERS[i], lw=1.6, ms=4, label=kind)
    below.set(xlabel="gradient steps", ylabel="mean squared error", xlim=(-0.5, max(10, last) + 0.5))
    below.set_ylim(0, max(map(max, errors.values())) * 1.08 + 1e-6)
    below.legend(frameon=False, fontsize=9)
    told = "; ".join(f"{kind} {values[0]:.2f} before, {values[-1]:.2f} now" for kind, values in errors.items())
    return Picture(figure, f"{name} after {last} gradient steps on {len(x)} points. Mean squared error: {told}.")


def _label(axes: Axes, title: str, ylabel: str = "y") -> None:
    axes.set(xlabel="x", ylabel=ylabel, xlim=INPUTS, xticks=[-5, -2.5, 0, 2.5, 5], xticklabels=["-5", "", "0", "", "5"])
    axes.set_title(title, loc="left")
