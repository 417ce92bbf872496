"""Figures of sinusoid regression, and the view behind its widget. Values in, a described figure out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from ..errors import CourseError, TrainingDiverged
from ..guards import require_one_of
from ..show.looks import COLOURS, GREY, MARKERS, looks
from ..show.plots import Picture, canvas, panel_canvas
from . import maml
from .sinusoids import AMPLITUDES, INPUTS, PHASES, MetaMethod, Waves, each_seed, mean_wave, network
from .task_batch import Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 10.0  # how far up and down a typed point may lie
MOST_POINTS = 50
GRID = torch.linspace(*INPUTS, 200)[:, None]  # inputs over the whole range, [200, 1]
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}  # a legend right of the axes
Start = tuple[MetaMethod, Params]  # how to adapt, and the parameters of one seed to start from


def outputs(params: Params, x: Tensor) -> Tensor:
    """Return the network's outputs for one seed's parameters, without gradient. x: [points, 1]."""
    with torch.no_grad():
        return functional_call(network(), params, (x,))


def family_picture(waves: Waves) -> Picture:
    """Draw the first four tasks as curves, each with the ten points that a learner would be given."""
    figure, axes = canvas(7, 3.8)
    batch, curves = waves.batch(10, 1, torch.Generator().manual_seed(0)), waves(GRID)[:4]
    for i, curve in enumerate(curves):
        axes.plot(GRID, curve, color=COLOURS[i], lw=1.6)
        axes.scatter(batch.support_x[i], batch.support_y[i], color=COLOURS[i], marker=MARKERS[i], s=34, zorder=3)
    _label(axes, f"{len(curves)} tasks, 10 points each")
    alt = f"Line chart. {len(curves)} sine curves of different heights and shifts, each with 10 marked points."
    return Picture(figure, alt)


def mean_picture(params: Params, waves: Waves) -> Picture:
    """Draw what one network learned from all tasks at once, for every seed, against the tasks' exact average."""
    figure, axes = canvas(7, 3.8)
    for curve in waves(GRID)[:40]:
        axes.plot(GRID, curve, color=GREY, lw=0.7, alpha=0.35)
    mean, learned = mean_wave(GRID), [outputs(one, GRID) for one in each_seed(params)]
    for seed, line in enumerate(learned):
        axes.plot(GRID, line, color=COLOURS[1], lw=1.6, label=f"learned ({len(learned)} seeds)" if seed == 0 else None)
    axes.plot(GRID, mean, color=COLOURS[0], ls="--", lw=2.2, label=r"exact mean, $-1.62\,\cos x$")
    axes.plot([], [], color=GREY, lw=0.7, label="40 of the tasks")
    axes.legend(**BESIDE)
    _label(axes, f"One network for all tasks, {len(learned)} seeds")
    told = "follow" if _all_close(learned, mean) else "do not all follow"
    alt = f"The networks {told} the exact mean of the tasks, a flat cosine, while the tasks spread widely around it."
    return Picture(figure, f"Line chart. {alt}")


def starts_picture(trained: Mapping[str, Params]) -> Picture:
    """Draw each method's initialisation as a function, one line for each seed, beside the mean of the tasks."""
    figure, panels = panel_canvas(2.3 * len(trained), 2.9, len(trained), sharex=True, sharey=True)
    mean, close = mean_wave(GRID), []
    for axes, (name, params) in zip(panels, trained.items()):
        lines = [outputs(one, GRID) for one in each_seed(params)]
        for i, line in enumerate(lines):
            axes.plot(GRID, line, color=GREY, lw=1.1, label="one seed" if i == 0 else None)
        axes.plot(GRID, mean, color=COLOURS[0], ls="--", lw=1.6, label="tasks' mean")
        _label(axes, name, ylabel="output before adapting" if axes is panels[0] else "")
        close += [name] if _all_close(lines, mean) else []
    panels[-1].legend(**BESIDE)
    alt = f"Before adapting: one panel each for {', '.join(trained)}, one line a seed, the tasks' mean dashed."
    return Picture(figure, f"Line charts. {alt} Close to the mean with every seed: {', '.join(close) or 'none'}.")


def fits_picture(starts: Mapping[str, Start], waves: Waves) -> Picture:
    """Draw one row for each start and one column for each task: before, and after 1 and 10 steps on 10 points."""
    columns = len(waves.amplitude)
    figure, panels = panel_canvas(3 * columns, 2.6 * len(starts), columns, len(starts), sharex=True, sharey=True)
    batch, curves = waves.batch(10, 1, torch.Generator().manual_seed(0)), waves(GRID)
    for axes, ((name, (method, params)), i) in zip(panels, product(starts.items(), range(columns))):
        points = batch.support_x[i], batch.support_y[i]
        path = _adapted(method, params, *points, 10)
        axes.plot(GRID, curves[i], color="black", lw=1.2, label="truth")
        axes.plot(GRID, outputs(params, GRID), color=GREY, ls=":", lw=1.6, label="before")
        axes.plot(GRID, outputs(path[1], GRID), color=COLOURS[1], ls="--", lw=1.8, label="after 1 step")
        axes.plot(GRID, outputs(path[10], GRID), color=COLOURS[0], lw=1.8, label="after 10 steps")
        axes.scatter(*points, color=COLOURS[3], marker="D", s=22, zorder=4, label="support")
        _label(axes, f"{name}, task {i + 1}", ylabel="y" if i == 0 else "")
        axes.set_ylim(-6, 6)
    panels[columns - 1].legend(**BESIDE)
    alt = f"Rows: {', '.join(starts)}. In each panel a task's curve, its 10 support points, and the network before"
    return Picture(figure, f"Line charts. {alt} and after 1 and 10 steps.")


def curves_picture(
    errors: Mapping[str, Tensor], title: str, *, ylabel: str = "mean squared error on the query",
    rates: Mapping[str, float] | None = None,
) -> Picture:  # fmt: skip
    """Draw error against steps for each method, every seed as a dot and their mean as a line, on a logarithmic axis.

    errors: for each method, [seeds, tasks, steps + 1], cut at 100. rates: each method's inner rate, for the legend.
    The description has no numbers, because they differ between processors after long training.
    """
    figure, axes = canvas(7.4, 4.4)
    means = {name: e.mean(1).clamp(max=100.0).nan_to_num(100.0) for name, e in errors.items()}  # [seeds, steps + 1]
    for name, style in looks(means).items():
        values, centre = means[name], means[name].mean(0).tolist()
        steps = range(len(centre))
        for run in values if len(values) > 1 else ():
            axes.scatter(steps, run.tolist(), color=style.colour, s=8, alpha=0.5, lw=0)
        shown = f"{name} (rate {rates[name]:g})" if rates else name
        told = f"{shown}: {centre[1]:.2f}, {centre[-1]:.2f}"
        axes.plot(steps, centre, color=style.colour, marker=style.marker, ms=5, lw=1.8, label=told)
    heights = torch.stack([values.mean(0) for values in means.values()])
    bottom, top = heights.min().item() * 0.7, heights.max().item() * 1.3  # room for the means: a seed's dot may be cut
    axes.set(xlabel="gradient steps on the support", ylabel=ylabel, yscale="log", ylim=(bottom, top))
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if bottom < tick < top]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.legend(**BESIDE, title=f"error after 1 and {len(centre) - 1} steps", alignment="left")
    axes.set_title(title, loc="left")
    after = {name: values[:, 1].mean().item() for name, values in means.items()}
    extremes = f"After 1 step {min(after, key=after.get)} is lowest and {max(after, key=after.get)} is highest."
    return Picture(figure, f"Line chart. {title}. {', '.join(errors)}. {extremes}")


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


def _all_close(lines: Sequence[Tensor], mean: Tensor) -> bool:
    """Return whether every line is within 1 of the mean everywhere."""
    return all((line - mean).abs().max() < 1 for line in lines)


def _label(axes: Axes, title: str, ylabel: str = "y") -> None:
    axes.set(xlabel="x", ylabel=ylabel, xlim=INPUTS, xticks=[-5, -2.5, 0, 2.5, 5], xticklabels=["-5", "", "0", "", "5"])
    axes.set_title(title, loc="left")
