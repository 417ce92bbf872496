"""Figures and widget views of two-parameter meta-learning: tasks, inner steps, landscapes, and what weighs what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CourseError
from ..show.html import table
from ..show.plots import COLOURS, MARKERS, STYLE, Picture
from . import landscape, maml
from .landscape import START_METHODS, Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOK = {
    "average task": (COLOURS[0], "o"),
    "Reptile": (COLOURS[3], "^"),
    "first-order MAML": (COLOURS[2], "D"),
    "MAML": (COLOURS[1], "s"),
}
LEAST_LOSS = 1e-9  # a logarithm needs more than the 0 of points that lie on a line exactly
SCALES = "each panel has its own colour scale; darker is lower"


def tasks_picture(family: Family, chosen: Sequence[int]) -> Picture:
    """Draw some tasks' examples and true lines: support filled, query hollow."""
    figure, (axes,) = _panels(1, 7, 4.2)
    told = []
    for i, task in enumerate(chosen):
        slope = family.truth[task, 1].item()
        ends = _task(axes, family, i, task, family.truth[task], f"slope {slope:.1f}")
        told.append(f"slope {slope:.1f} with x from {ends[0]:.1f} to {ends[1]:.1f}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title="filled: support\nhollow: query")
    axes.set(xlabel="x", ylabel="y")
    title = f"{len(chosen)} of {len(family.batch)} tasks"
    axes.set_title(title, loc="left")
    return Picture(figure, f"Scatter plot. {title}, each a noisy straight line: " + "; ".join(told) + ".")


def adapted_picture(family: Family, theta: Tensor, inner_lr: float, steps: int) -> Picture:
    """Draw every task's examples, the line of the initialisation, and each task's line after adapting from it."""
    figure, (axes,) = _panels(1, 7, 4.2)
    told = []
    for task, (x, y) in enumerate(zip(family.batch.support_x, family.batch.support_y)):
        adapted = maml.inner_loop(family.module, {"theta": theta}, x, y, inner_lr=inner_lr, steps=steps)[
            "theta"
        ].detach()
        slope, true = adapted[1].item(), family.truth[task, 1].item()
        _task(axes, family, task, task, adapted, f"task {task + 1}: slope {slope:.2f}")
        told.append(f"task {task + 1} {slope:.2f}, its points' own {true:.2f}")
    xs = torch.cat([family.batch.support_x, family.batch.query_x], 1)
    ends = torch.stack([xs.min(), xs.max()])
    axes.plot(ends, theta[0] + theta[1] * ends, color="black", ls="--", lw=1.4, label=f"start: slope {theta[1]:.2f}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title="filled: support\nhollow: query")
    axes.set(xlabel="x", ylabel="y")
    title = f"From MAML's start, {steps} inner step{'s' * (steps > 1)} on the support"
    axes.set_title(title, loc="left")
    return Picture(
        figure, f"Scatter plot with lines. {title}. Start: slope {theta[1]:.2f}; then " + "; ".join(told) + "."
    )


def steps_picture(
    family: Family, chosen: Sequence[int], theta: tuple[float, float], inner_lr: float, steps: int
) -> Picture:
    """Draw, for some tasks, the support's loss over the two parameters and the inner steps that descend it."""
    figure, panels = _panels(len(chosen), 4.4 * len(chosen), 4.0)
    told = []
    start = family.params(theta)
    for axes, task in zip(panels, chosen):
        part = family.batch.tasks(task, task + 1)
        itself = maml.TaskBatch(part.support_x, part.support_y, part.support_x, part.support_y)
        path = [start["theta"]]
        for _ in range(steps):
            x, y = part.support_x[0], part.support_y[0]
            path.append(maml.inner_loop(family.module, {"theta": path[-1]}, x, y, inner_lr=inner_lr)["theta"])
        line, best = torch.stack(path), landscape.task_optima(family)[task]
        _contours(axes, Family(family.module, itself, part.support_y), 0.0, 0, ((-1.5, 1.5), (-0.5, 4.5)))
        axes.plot(line[:, 0], line[:, 1], "-", color="white", lw=4)
        axes.plot(line[:, 0], line[:, 1], "-o", color=COLOURS[1], ms=6, lw=2, mec="white", mew=0.8, label="inner steps")
        _start(axes, line[0])
        axes.plot(*best, marker="*", color="black", ms=13, mec="white", mew=0.8, ls="none", label="best point")
        slope = family.truth[task, 1].item()
        curvature = torch.linalg.eigvalsh(landscape.hessians(family, start["theta"])[task])
        low, high = curvature.tolist()
        axes.set_title(f"true slope {slope:.1f}: curvatures {low:.2f} and {high:.2f}", loc="left")
        axes.set(xlabel=family.module.axes[0], ylabel=family.module.axes[1])
        left = ((line[-1] - best).norm() / (line[0] - best).norm()).item()
        told.append(
            f"the task of slope {slope:.1f} has curvatures {low:.2f} and {high:.2f}, and after {steps} steps "
            f"{left:.2f} of the distance to its best point is left"
        )
    _legend(figure, panels[0])
    return Picture(
        figure, "Contour maps of the support's loss with the path of the inner steps: " + "; ".join(told) + "."
    )


def shrink_picture(family: Family, theta: Tensor, inner_lr: float) -> Picture:
    """Draw by what the Hessian term multiplies the gradient, along each curvature direction of each task.

    A dot is one eigenvector of one task's support Hessian: across, its curvature; up, the MAML gradient's component
    along it divided by that of g alone, the first-order gradient. Both gradients come from `maml.meta_gradient`.
    """
    curvatures, ratios = [], []
    every = landscape.hessians(family, theta)
    for task in range(len(family.batch)):
        values, vectors = torch.linalg.eigh(every[task])
        part = family.batch.tasks(task, task + 1)
        full, first = (
            maml.meta_gradient(family.module, {"theta": theta}, part, inner_lr=inner_lr, second_order=order).params[
                "theta"
            ]
            for order in (True, False)
        )
        curvatures += values.tolist()
        ratios += ((vectors.T @ full) / (vectors.T @ first)).tolist()
    figure, (axes,) = _panels(1, 7, 3.8)
    top = max(curvatures) * 1.08
    axes.axhline(0, color="#7F7F7F", lw=1)
    axes.plot([0, top], [1, 1 - inner_lr * top], color=COLOURS[0], lw=1.5, label="1 − αλ")
    axes.scatter(curvatures, ratios, color=COLOURS[1], s=26, alpha=0.7, lw=0, zorder=3, label="computed")
    axes.set(xlabel="curvature λ of the support's loss", ylabel="MAML's gradient ÷ g alone", xlim=(0, top))
    _mark_solved(axes, inner_lr)
    axes.legend(frameon=False, loc="lower left")
    title = f"What the Hessian term does to the gradient (α = {inner_lr:g})"
    axes.set_title(title, loc="left")
    off = max(abs(r - (1 - inner_lr * c)) for c, r in zip(curvatures, ratios))
    where = "on the line" if off < 1e-6 else f"up to {off:.2f} off the line"
    return Picture(
        figure,
        f"Scatter plot. {title}. {len(ratios)} dots, all {where} 1 minus alpha times curvature: from "
        f"{max(ratios):.2f} at curvature {min(curvatures):.2f} to {min(ratios):.2f} at {max(curvatures):.2f}.",
    )


def landscape_picture(
    family: Family,
    inner_lr: float,
    steps: int,
    points: Mapping[str, Tensor],
    limits: tuple[tuple[float, float], tuple[float, float]],
    paths: Mapping[str, Tensor] | None = None,
) -> Picture:
    """Draw the mean query loss over the two parameters, before and after adapting, with points and paths on both.

    A point outside the limits is named, with its place, in the legend.
    """
    figure, panels = _panels(2, 10.4, 4.6)
    told = []
    for axes, n in zip(panels, (0, steps)):
        _contours(axes, family, inner_lr, n, limits)
        axes.scatter(*family.truth.T, color="black", s=7, alpha=0.45, lw=0, label="each task's truth")
        for name, path in (paths or {}).items():
            axes.plot(*path.T, color="white", lw=3.5)
            axes.plot(*path.T, color=LOOK[name][0], lw=1.6)
            _start(axes, path[0])
        losses = {name: landscape.loss_at(family, point, inner_lr, n).item() for name, point in points.items()}
        for name, point in points.items():
            colour, marker = LOOK[name]
            inside = all(low <= value <= high for value, (low, high) in zip(point.tolist(), limits))
            label = name if inside else f"{name}, off the map at ({point[0]:.2f}, {point[1]:.2f})"
            axes.plot(*point, marker=marker, color=colour, ms=9, mec="white", mew=1.2, ls="none", label=label)
        when = "before adapting" if n == 0 else f"after {n} inner step{'s' * (n > 1)}"
        axes.set_title(f"Loss {when}", loc="left")
        axes.set(xlabel=family.module.axes[0], ylabel=family.module.axes[1], xlim=limits[0], ylim=limits[1])
        told.append(f"{when}: " + ", ".join(f"{name} {value:.2f}" for name, value in losses.items()))
    _legend(figure, panels[0])
    places = "; ".join(f"{name} ({point[0]:.2f}, {point[1]:.2f})" for name, point in points.items())
    names = " and ".join(family.module.axes)
    return Picture(
        figure, f"Two contour maps of the mean query loss over {names}. Points: {places}. Loss " + "; ".join(told) + "."
    )


def weight(method: str, curvature: Tensor, inner_lr: float, steps: int) -> Tensor:
    """Return the weight that a method gives to a task whose loss has this curvature, [...]; for quadratic losses.

    With s = (1 - alpha * curvature) ** steps: average task h, first-order MAML h s, MAML h s^2, Reptile 1 - s.

    Raises:
        CourseError: no such method.
    """
    s = (1 - inner_lr * curvature) ** steps
    known = {
        "average task": curvature,
        "Reptile": 1 - s,
        "first-order MAML": curvature * s,
        "MAML": curvature * s**2,
    }
    if method not in known:
        raise CourseError(f"there is no method {method!r}.", f"choose one of {', '.join(START_METHODS)}.")
    return known[method]


def weights_picture(family: Family, inner_lr: float, steps: int) -> Picture:
    """Draw each method's weight against a task's curvature in the slope, with the family's tasks as ticks below."""
    figure, (axes,) = _panels(1, 7.4, 4.0)
    found = landscape.hessians(family, torch.zeros(2, dtype=torch.float64))[:, 1, 1]
    curvature = torch.linspace(0, found.max().item() * 1.05, 300, dtype=torch.float64)
    told = []
    ends = {}
    for name in START_METHODS:
        values = weight(name, curvature, inner_lr, steps)
        values = values / values.max()
        # Dashes, because with one step Reptile's weights are the average task's.
        axes.plot(curvature, values, color=LOOK[name][0], lw=2.4, ls=(0, (4, 3)) if name == "Reptile" else "-")
        ends[name] = values[-1].item()
        told.append(f"{name} is largest at curvature {curvature[values.argmax()]:.1f} and ends at {values[-1]:.2f}")
    low, high = axes.get_ylim()
    for name, place in _apart(ends, (high - low) * 0.07).items():
        where = (curvature[-1].item() * 1.015, place)
        axes.annotate(name, where, color=LOOK[name][0], va="center", annotation_clip=False)
    axes.plot(found, torch.full_like(found, low), "|", color="black", ms=11, clip_on=False)
    axes.axhline(0, color="#7F7F7F", lw=1)
    axes.set(xlabel="curvature h of a task's loss in the slope (ticks: the tasks)", ylabel="weight (largest = 1)")
    axes.set(xlim=(0, curvature[-1].item()), ylim=(low - 0.04 * (high - low), high))
    _mark_solved(axes, inner_lr)
    title = f"Which tasks a method listens to (α = {inner_lr:g}, {steps} step{'s' * (steps > 1)})"
    axes.set_title(title, loc="left")
    return Picture(figure, f"Line chart. {title}. Relative weight by curvature: " + "; ".join(told) + ".")


def angles_picture(
    results: Mapping[str, Mapping[float, Sequence[float]]], *, title: str, xlabel: str, xscale: str = "linear"
) -> Picture:
    """Draw, for each method and each x, every network's angle to MAML's gradient as a dot, and lines through means.

    Args:
        results: for each method in `START_METHODS`, for each x, the angles in degrees.
        xscale: "linear", or "log" for an x above 0.
    """
    figure, (axes,) = _panels(1, 7, 4.0)
    axes.set_xscale(xscale)
    told = []
    for name, line in results.items():
        colour, marker = LOOK[name]
        means = [sum(values) / len(values) for values in line.values()]
        for x, values in line.items():
            axes.scatter([x] * len(values), values, color=colour, marker=marker, s=24, alpha=0.5, lw=0)
        axes.plot(list(line), means, color=colour, lw=2)
        last = (list(line)[-1], means[-1])
        axes.annotate(name, last, (10, 0), textcoords="offset points", color=colour, va="center")
        told.append(f"{name}: " + ", ".join(f"{mean:.0f} at {x:g}" for x, mean in zip(line, means)))
    axes.axhline(90, color="#7F7F7F", ls="--", lw=1)
    axes.text(0.02, 91, "no longer downhill", color="#5F5F5F", fontsize=9, transform=axes.get_yaxis_transform())
    xs = list(next(iter(results.values())))
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.minorticks_off()
    axes.set(xlabel=xlabel, ylabel="angle to MAML's gradient (degrees)", ylim=(0, 98))
    axes.set_title(title, loc="left")
    return Picture(
        figure, f"Line chart. {title}. Mean angle to MAML's gradient in degrees by {xlabel}: " + "; ".join(told) + "."
    )


def line_landscape_view(inner_lr: float, steps: int, spread: float) -> Picture:
    """Show the lines' landscape before and after adapting, with where each method comes to rest.

    Raises:
        CourseError: values outside what `landscape.line_family` and `landscape.resting_point` take.
    """
    if steps < 1:
        raise CourseError(f"{steps} inner steps leave nothing to compare.", "take at least one.")
    family = landscape.line_family(spread=spread)
    points = {name: landscape.resting_point(family, name, inner_lr, steps) for name in START_METHODS}
    return landscape_picture(family, inner_lr, steps, points, ((-0.5, 0.5), (0, 3.5)))


def weights_view(inner_lr: float, steps: int, spread: float) -> Picture:
    """Show which tasks each method listens to. Raises as `line_landscape_view` does."""
    if steps < 1 or not (math.isfinite(inner_lr) and inner_lr > 0):
        raise CourseError(f"inner_lr {inner_lr} with {steps} steps adapts nothing.", "take a rate above 0 and a step.")
    return weights_picture(landscape.line_family(spread=spread), inner_lr, steps)


def own_lines_view(points: str, start: str, inner_lr: float, steps: int) -> str:
    """Show what the lesson's functions make of the reader's own points, as HTML: every method's start, what the inner
    steps do from MAML's, and the gradients at a start of the reader's own.

    Args:
        points: as for `landscape.own_lines`.
        start: the reader's intercept and slope, "0 1".

    Raises:
        BadData: as `landscape.own_lines`, or the start is no two numbers.
        CourseError: as `line_landscape_view`.
    """
    if steps < 1 or not (math.isfinite(inner_lr) and inner_lr > 0):
        raise CourseError(f"inner_lr {inner_lr} with {steps} steps adapts nothing.", "take a rate above 0 and a step.")
    family = landscape.own_lines(points)
    own = torch.tensor(landscape.two_numbers(start, "your start"), dtype=torch.float64)
    rest = {name: landscape.resting_point(family, name, inner_lr, steps) for name in START_METHODS}
    after = f"after {steps} step{'s' * (steps > 1)}"
    starts = []
    for name, theta in {"your start": own, **rest}.items():
        losses = [landscape.loss_at(family, theta, inner_lr, n).item() for n in (0, steps)]
        starts.append((name, *(f"{value:.2f}" for value in [*theta.tolist(), *losses])))
    tasks = []
    for i, hessian in enumerate(landscape.hessians(family, own)):
        values = torch.linalg.eigvalsh(hessian).tolist()
        shown = ("; ".join(f"{f(v):.2f}" for v in values) for f in (float, lambda v: 1 - inner_lr * v))
        tasks.append((str(i + 1), f"{family.truth[i, 1]:.2f}", *shown))
    gradients, true = [], landscape.direction(family, "MAML", inner_lr, steps)(own)
    for name in ("MAML", "first-order MAML", "Reptile"):
        found = landscape.direction(family, name, inner_lr, steps)(own)
        apart = f"{landscape.angle(true, found):.0f}°" if found.norm() * true.norm() > 0 else "one is zero"
        gradients.append((name, *(f"{v:.3f}" for v in found.tolist()), apart))
    nudge = 1e-5 * torch.eye(2, dtype=torch.float64)
    up, down = (landscape.loss_at(family, own + e, inner_lr, steps) for e in (nudge, -nudge))
    by_hand = ((up - down) / 2e-5).tolist()
    gradients.append(("MAML by finite differences", *(f"{v:.3f}" for v in by_hand), ""))
    spread = torch.stack([*family.truth, own, *rest.values()])
    low, high = spread.min(0).values, spread.max(0).values
    limits = tuple((a - 0.3 * (b - a) - 0.1, b + 0.3 * (b - a) + 0.1) for a, b in zip(low.tolist(), high.tolist()))
    return (
        adapted_picture(family, rest["MAML"], inner_lr, steps).html()
        + landscape_picture(family, inner_lr, steps, rest, limits).html()
        + table(("start from", "intercept", "slope", "loss before adapting", after), starts)
        + table(("task", "slope of its points", "curvatures λ of its support", "a step leaves 1 − αλ"), tasks)
        + table(("direction at your start", "intercept", "slope", "angle to MAML's"), gradients)
    )


def _task(axes: Axes, family: Family, look: int, task: int, line: Tensor, label: str) -> Tensor:
    """Draw one task's examples, support filled, and a line over their range of x; return the range's two ends."""
    part = family.batch.tasks(task, task + 1)
    xs = torch.cat([part.support_x, part.query_x], 1).flatten()
    ends = torch.stack([xs.min(), xs.max()])
    colour = COLOURS[look % len(COLOURS)]
    axes.plot(ends, line[0] + line[1] * ends, color=colour, lw=1.2, alpha=0.7)
    style = {"color": colour, "marker": MARKERS[look % len(MARKERS)], "s": 34}
    axes.scatter(part.support_x.flatten(), part.support_y.flatten(), **style, label=label)
    axes.scatter(part.query_x.flatten(), part.query_y.flatten(), **style | {"facecolors": "white"})
    return ends


def _start(axes: Axes, point: Tensor) -> None:
    axes.plot(*point, marker="o", color="white", ms=8, mec="black", mew=1.4, ls="none", label="start", zorder=3)


def _legend(figure: Figure, axes: Axes) -> None:
    """Put one axes' legend, each label once, below all panels, with a word on their colours."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    ncols = 5 if sum(map(len, once)) < 80 else 3  # long when a point is off the map
    figure.legend(once.values(), once, loc="outside lower center", ncols=ncols, frameon=False, title=SCALES)


def _mark_solved(axes: Axes, inner_lr: float) -> None:
    """Mark the curvature 1/alpha, which one inner step solves, where it lies within the axes."""
    if 0 < 1 / inner_lr < axes.get_xlim()[1]:
        axes.axvline(1 / inner_lr, color="#7F7F7F", lw=1, ls=":")
        style = {"color": "#5F5F5F", "ha": "center", "bbox": {"fc": "white", "ec": "none", "pad": 1}}
        axes.text(1 / inner_lr, 0.55, "1/α", transform=axes.get_xaxis_transform(), **style)


def _apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return heights for labels, in the same order and at least (almost) a gap apart, near those given."""
    names = sorted(heights, key=lambda name: heights[name])
    places = [heights[name] for name in names]
    for _ in range(50):
        for i in range(len(places) - 1):
            push = max(0.0, gap - (places[i + 1] - places[i])) / 2
            places[i], places[i + 1] = places[i] - push, places[i + 1] + push
    return dict(zip(names, places))


def _contours(axes: Axes, family: Family, inner_lr: float, steps: int, limits: Any) -> None:
    """Fill the axes with the loss, on a log scale, darker where it is lower."""
    from matplotlib.ticker import FuncFormatter

    first, second = (torch.linspace(*span, 61, dtype=torch.float64) for span in limits)
    grid = torch.stack(torch.meshgrid(first, second, indexing="xy"), dim=-1)
    values = landscape.loss_at(family, grid, inner_lr, steps).clamp_min(LEAST_LOSS).log10()
    low, high = values.min().item(), values.max().item()
    high = max(high, low + 1e-6)
    levels = [low + (high - low) * i / 9 for i in range(10)]
    axes.contourf(first, second, values, levels=levels, cmap="Blues_r", alpha=0.75, extend="both")
    lines = axes.contour(
        first, second, values, levels=levels[1:-1], colors="#33536B", linewidths=0.6, linestyles="solid"
    )
    for label in axes.clabel(lines, fmt=FuncFormatter(lambda v, _: f"{10**v:.2g}"), fontsize=7.5, colors="black"):
        label.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of some panels side by side that belongs to no global state."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]
