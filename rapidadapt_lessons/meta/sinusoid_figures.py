"""Figures of sinusoid regression, and the view behind its widget. Values in, a described figure out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from ..errors import CourseError, TrainingDiverged
from ..show.plots import COLOURS, MARKERS, STYLE, Picture, interval
from . import maml
from .sinusoids import AMPLITUDES, INPUTS, PHASES, Method, Waves, mean_wave, network, select
from .task_batch import Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 10.0  # how far up and down a typed point may lie
MOST_POINTS = 50
GREY = "#7F7F7F"
Start = tuple[Method, Params]  # how to adapt, and the parameters of one seed to start from


def grid() -> Tensor:
    """Return 200 inputs over the whole range, [200, 1]."""
    return torch.linspace(*INPUTS, 200)[:, None]


def predict(params: Params, x: Tensor) -> Tensor:
    """Return the network's outputs for one seed's parameters, without gradient. x: [points, 1]."""
    with torch.no_grad():
        return functional_call(network(), params, (x,))


def family_picture(waves: Waves, shown: int = 4, shots: int = 10) -> Picture:
    """Draw some tasks as curves, each with the few points that a learner would be given."""
    figure, [axes] = _panels(1, 7, 3.8)
    batch = waves.batch(shots, 1, torch.Generator().manual_seed(0))
    x, curves = grid(), waves(grid())
    for i in range(min(shown, len(curves))):
        axes.plot(x[:, 0], curves[i, :, 0], color=COLOURS[i], lw=1.6)
        axes.scatter(batch.support_x[i], batch.support_y[i], color=COLOURS[i], marker=MARKERS[i], s=34, zorder=3)
    _label(axes, f"{shown} tasks, {shots} points each")
    alt = f"{shown} sine curves of different heights and shifts, each with {shots} marked points."
    return Picture(figure, f"Line chart. {alt}")


def mean_picture(params: Params, waves: Waves) -> Picture:
    """Draw what one network learned from all tasks at once, for every seed, against the tasks' exact average."""
    figure, [axes] = _panels(1, 7, 3.8)
    x = grid()
    for curve in waves(x)[:40]:
        axes.plot(x[:, 0], curve[:, 0], color=GREY, lw=0.7, alpha=0.35)
    seeds = len(next(iter(params.values())))
    learned = torch.stack([predict(select(params, seed), x) for seed in range(seeds)])
    for seed in range(seeds):
        told = f"learned ({seeds} seeds)" if seed == 0 else None
        axes.plot(x[:, 0], learned[seed, :, 0], color=COLOURS[1], lw=1.6, label=told)
    axes.plot(x[:, 0], mean_wave(x)[:, 0], color=COLOURS[0], ls="--", lw=2.2, label=r"exact mean, $-1.62\,\cos x$")
    axes.plot([], [], color=GREY, lw=0.7, label="40 of the tasks")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    _label(axes, f"One network for all tasks, {seeds} seeds")
    far = (learned - mean_wave(x)).abs().amax(dim=(1, 2))
    told = "follow" if bool((far < 1).all()) else "do not all follow"
    alt = f"The networks {told} the exact mean of the tasks, a flat cosine, while the tasks spread widely around it."
    return Picture(figure, f"Line chart. {alt}")


def starts_picture(trained: Mapping[str, Params]) -> Picture:
    """Draw each method's initialisation as a function, one line for each seed, beside the mean of the tasks.

    The description says which methods keep close to that mean: within 1 of it everywhere, for every seed.
    """
    figure, panels = _panels(len(trained), 2.3 * len(trained), 2.9, share=True)
    x, close = grid(), []
    for axes, (name, params) in zip(panels, trained.items()):
        lines = [predict(select(params, seed), x) for seed in range(len(next(iter(params.values()))))]
        for i, line in enumerate(lines):
            axes.plot(x[:, 0], line[:, 0], color=GREY, lw=1.1, label="one seed" if i == 0 else None)
        axes.plot(x[:, 0], mean_wave(x)[:, 0], color=COLOURS[0], ls="--", lw=1.6, label="tasks' mean")
        _label(axes, name, ylabel="output before adapting" if axes is panels[0] else "")
        close += [name] if all((line - mean_wave(x)).abs().max() < 1 for line in lines) else []
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    alt = f"Before adapting: one panel each for {', '.join(trained)}, one line a seed, the tasks' mean dashed."
    return Picture(figure, f"Line charts. {alt} Close to the mean with every seed: {', '.join(close) or 'none'}.")


def fits_picture(starts: Mapping[str, Start], waves: Waves, steps: Sequence[int] = (1, 10), shots: int = 10) -> Picture:
    """Draw one row for each start and one column for each task: before, and after some numbers of steps."""
    columns = len(waves.amplitude)
    figure, panels = _panels(columns, 3 * columns, 2.6 * len(starts), rows=len(starts), share=True)
    batch = waves.batch(shots, 1, torch.Generator().manual_seed(0))
    x, truth = grid(), waves(grid())
    for row, (name, (method, params)) in enumerate(starts.items()):
        for i in range(columns):
            axes = panels[row * columns + i]
            axes.plot(x[:, 0], truth[i, :, 0], color="black", lw=1.2, label="truth")
            axes.plot(x[:, 0], predict(params, x)[:, 0], color=GREY, ls=":", lw=1.6, label="before")
            for n, look in zip(steps, ("--", "-")):
                fast = _adapted(method, params, batch.support_x[i], batch.support_y[i], n)[-1]
                colour, told = COLOURS[1 if look == "--" else 0], f"after {n} step{'s' * (n > 1)}"
                axes.plot(x[:, 0], predict(fast, x)[:, 0], color=colour, ls=look, lw=1.8, label=told)
            points = {"color": COLOURS[3], "marker": "D", "s": 22, "zorder": 4, "label": "support"}
            axes.scatter(batch.support_x[i], batch.support_y[i], **points)
            _label(axes, f"{name}, task {i + 1}", ylabel="y" if i == 0 else "")
            axes.set_ylim(-6, 6)
    panels[columns - 1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    alt = f"Rows: {', '.join(starts)}. In each panel a task's curve, its {shots} support points, and the network before"
    return Picture(figure, f"Line charts. {alt} and after {' and '.join(map(str, steps))} steps.")


def curves_picture(
    errors: Mapping[str, Tensor],
    title: str,
    ylabel: str = "mean squared error on the query",
    rates: Mapping[str, float] | None = None,
) -> Picture:
    """Draw error against steps for each method, with the 95% interval over seeds, on a logarithmic axis.

    errors: for each method, [seeds, tasks, steps + 1]. Values are cut at 100. With `rates` the legend
    names each method's inner rate. The description names only the lowest
    and the highest curve, because numbers after long training differ between processors.
    """
    figure, [axes] = _panels(1, 7.4, 4.4)
    means = {name: e.mean(1).clamp(max=100.0).nan_to_num(100.0) for name, e in errors.items()}  # [seeds, steps + 1]
    for i, (name, values) in enumerate(means.items()):
        spans = [interval(column.tolist(), (0.0, math.inf)) for column in values.T]
        steps, colour = range(len(spans)), COLOURS[i % len(COLOURS)]
        low, high = [max(s.low, 1e-3) for s in spans], [s.high for s in spans]
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
        marker = MARKERS[i % len(MARKERS)]
        shown = f"{name} (rate {rates[name]:g})" if rates else name
        told = f"{shown}: {spans[1].mean:.2f}, {spans[-1].mean:.2f}"
        axes.plot(steps, [s.mean for s in spans], color=colour, marker=marker, ms=5, lw=1.8, label=told)
    axes.set_yscale("log")
    heights = torch.stack([values.mean(0) for values in means.values()])
    bottom, top = heights.min().item() * 0.7, heights.max().item() * 1.3  # room for the means: a band may be cut
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if bottom < tick < top]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
    legend_title = f"error after 1 and {len(spans) - 1} steps"
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title=legend_title, alignment="left")
    axes.set(xlabel="gradient steps on the support", ylabel=ylabel)
    axes.set_title(title, loc="left")
    after = {name: values[:, 1].mean().item() for name, values in means.items()}
    extremes = f"After 1 step {min(after, key=after.get)} is lowest and {max(after, key=after.get)} is highest."
    return Picture(figure, f"Line chart with bands. {title}. {', '.join(errors)}. {extremes}")


def parse_points(text: str) -> tuple[Tensor, Tensor]:
    """Return typed points such as "-2,1; 0,3; 1.5,-2" as x and y, each [points, 1].

    Points are separated by semicolons, spaces or line breaks; brackets around them are ignored.

    Raises:
        CourseError: no points, too many, something that is no pair of numbers, a point outside of the picture.
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
            raise CourseError(
                f"the point {piece} is outside of the picture.",
                f"keep x between {INPUTS[0]:g} and {INPUTS[1]:g} and y between {-HEIGHT:g} and {HEIGHT:g}.",
            )
        points.append((x, y))
    x, y = torch.tensor(points).T
    return x[:, None], y[:, None]


def adapt_view(
    starts: Mapping[str, Start],
    method: str,
    amplitude: float,
    phase: float,
    shots: int,
    step: int,
    points: str = "",
    seed: int = 0,
) -> Picture:
    """Show one start adapting to a sinusoid, or to typed points, up to a step: the curve, and the error so far.

    Args:
        starts: for each name in the menu, a method and the parameters of one seed.
        amplitude, phase: of the task, phase in radians. Not used when points are typed.
        points: see `parse_points`; empty means `shots` points of the sinusoid, drawn by `seed`.

    Raises:
        CourseError: an unknown method, a task outside of the family, no shots, negative steps, faulty points.
        TrainingDiverged: the steps lead to values that are not finite.
    """
    if method not in starts:
        raise CourseError(f"there is no start {method!r}.", f"choose one of {', '.join(starts)}.")
    if not isinstance(step, int) or not 0 <= step <= 100:
        raise CourseError(f"step is {step!r}.", "give a whole number from 0 to 100.")
    rule, params = starts[method]
    wave = None
    if points.strip():
        x, y = parse_points(points)
    else:
        wave = _one_wave(amplitude, phase)
        batch = wave.batch(shots, 1, torch.Generator().manual_seed(seed))
        x, y = batch.support_x[0], batch.support_y[0]
    path = _adapted(rule, params, x, y, step)
    return _adapt_picture(method, path, x, y, wave)


def _one_wave(amplitude: float, phase: float) -> Waves:
    """Return one task. Raises CourseError when it does not belong to the family."""
    for name, value, (low, high) in (("amplitude", amplitude, AMPLITUDES), ("phase", phase, PHASES)):
        if not low <= value <= high + 0.01:
            raise CourseError(f"{name} is {value}.", f"choose it between {low:g} and {high:.2f}.")
    return Waves(torch.tensor([float(amplitude)]), torch.tensor([float(phase)]))


def _adapted(method: Method, params: Params, x: Tensor, y: Tensor, steps: int) -> list[Params]:
    """Return the parameters after 0, 1, ..., `steps` inner steps on these points.

    Raises:
        TrainingDiverged: a parameter is no longer finite.
    """
    net, path = network(), [params]
    options = {"inner_lr": method.inner_lr, "adaptable": method.adaptable, "second_order": False}
    for step in range(1, steps + 1):
        path.append(maml.inner_loop(net, path[-1], x, y, **options))
        if not all(torch.isfinite(p).all() for p in path[-1].values()):
            raise TrainingDiverged(
                f"{method.name} leaves the finite numbers at step {step}: its steps of {method.inner_lr:g} are too "
                "long for these points.",
                "take fewer steps, or points that are closer to the family's curves.",
            )
    return path


def _adapt_picture(name: str, path: Sequence[Params], x: Tensor, y: Tensor, wave: Waves | None) -> Picture:
    """Draw the curve at every step so far, the last one strong, beside the error at each step."""
    figure, [axes, below] = _panels(2, 9.6, 3.8, widths=(1.7, 1))
    xs, last = grid(), len(path) - 1
    if wave is not None:
        axes.plot(xs[:, 0], wave(xs)[0, :, 0], color="black", lw=1.2, label="truth")
    axes.plot(xs[:, 0], predict(path[0], xs)[:, 0], color=GREY, ls=":", lw=1.6, label="before")
    for i, params in enumerate(path[1:-1]):
        told = "steps between" if i == 0 else None
        axes.plot(xs[:, 0], predict(params, xs)[:, 0], color=COLOURS[4], lw=0.8, alpha=0.6, label=told)
    if last:
        axes.plot(xs[:, 0], predict(path[-1], xs)[:, 0], color=COLOURS[0], lw=2.2, label=f"step {last}")
    axes.scatter(x, y, color=COLOURS[1], marker="D", s=34, zorder=4, label="support")
    axes.legend(loc="upper right", frameon=False, fontsize=9, ncols=2)
    _label(axes, name)
    axes.set_ylim(-HEIGHT - 0.5, HEIGHT + 0.5) if wave is None else axes.set_ylim(-7, 7)
    lines = {"support": [maml.mse(predict(p, x), y).item() for p in path]}
    if wave is not None:
        lines["whole curve"] = [maml.mse(predict(p, xs), wave(xs)[0]).item() for p in path]
    for i, (kind, values) in enumerate(lines.items()):
        below.plot(range(len(values)), values, color=COLOURS[1 - i], marker=MARKERS[i], lw=1.6, ms=4, label=kind)
    below.set(xlabel="gradient steps", ylabel="mean squared error", xlim=(-0.5, max(10, last) + 0.5))
    below.set_ylim(0, max(map(max, lines.values())) * 1.08 + 1e-6)
    below.legend(frameon=False, fontsize=9)
    told = "; ".join(f"{kind} {values[0]:.2f} before, {values[-1]:.2f} now" for kind, values in lines.items())
    return Picture(figure, f"{name} after {last} gradient steps on {len(x)} points. Mean squared error: {told}.")


def _panels(
    columns: int,
    width: float,
    height: float,
    rows: int = 1,
    widths: Sequence[float] | None = None,
    share: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure that belongs to no global state, and its panels row by row."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid_options = {"width_ratios": widths} if widths else None
        axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share, gridspec_kw=grid_options)
    return figure, list(axes.flat)


def _label(axes: Axes, title: str, ylabel: str = "y") -> None:
    axes.set(xlabel="x", ylabel=ylabel, xlim=INPUTS, xticks=[-5, -2.5, 0, 2.5, 5], xticklabels=["-5", "", "0", "", "5"])
    axes.set_title(title, loc="left")
