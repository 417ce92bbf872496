"""Figures and widget views of two-parameter meta-learning: tasks, inner steps, landscapes, and what weighs what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..guards import require_at_least, require_positive
from ..show.html import table
from ..show.looks import COLOURS, GREY, MARKERS, look
from ..show.plots import Picture, canvas, panel_canvas
from . import landscape, maml
from .landscape import START_METHODS, Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ByMethod = Mapping[str, Tensor]  # each method's point, [2], or path, [points, 2]
Ranges = tuple[tuple[float, float], tuple[float, float]]  # of the first and the second parameter
START = {"marker": "o", "color": "white", "ms": 8, "mec": "black", "mew": 1.4, "ls": "none", "zorder": 3}
DARK_GREY = "#5F5F5F"
LEAST_LOSS = 1e-9  # a logarithm needs more than the 0 of points that lie on a line exactly


def tasks_picture(family: Family, chosen: Sequence[int]) -> Picture:
    """Draw some tasks' examples and true lines: support filled, query hollow."""
    (figure, axes), words = canvas(7, 4.2), []
    for i, task in enumerate(chosen):
        slope = family.truth[task, 1].item()
        low, high = _task(axes, family, task, family.truth[task], f"slope {slope:.1f}", place=i)
        words.append(f"slope {slope:.1f} with x from {low:.1f} to {high:.1f}")
    title = "Steeper lines cover a narrower range of x"
    _label(axes, title, "x", "y", legend=True)
    told = f"{len(chosen)} of {len(family.batch)} tasks, each a noisy straight line: " + "; ".join(words)
    return Picture(figure, f"Scatter plot. {title}. {told}.")


def adapted_picture(family: Family, theta: Tensor, inner_lr: float, steps: int) -> Picture:
    """Draw every task's examples, the line of the start, and each task's line after adapting from it."""
    (figure, axes), words = canvas(7, 4.2), []
    for task, (x, y) in enumerate(zip(family.batch.support_x, family.batch.support_y)):
        adapted = maml.inner_loop(family.module, {"theta": theta}, x, y, inner_lr=inner_lr, steps=steps)["theta"]
        slope, true = adapted[1].item(), family.truth[task, 1].item()
        _task(axes, family, task, adapted.detach(), f"task {task + 1}: slope {slope:.2f}", place=task)
        words.append(f"task {task + 1} {slope:.2f}, its points' own {true:.2f}")
    ends = torch.stack(torch.aminmax(torch.cat([family.batch.support_x, family.batch.query_x])))
    axes.plot(ends, theta[0] + theta[1] * ends, color="black", ls="--", lw=1.4, label=f"start: slope {theta[1]:.2f}")
    title = f"From MAML's start, {_count(steps, 'inner step')} on the support"
    _label(axes, title, "x", "y", legend=True)
    told = f"Start: slope {theta[1]:.2f}; then " + "; ".join(words)
    return Picture(figure, f"Scatter plot with lines. {title}. {told}.")


def shrink_picture(family: Family, theta: Tensor, inner_lr: float) -> Picture:
    """Draw a dot for each eigenvector of each task's support Hessian: across, its curvature; up, by what the Hessian
    term multiplies the first-order gradient's component along it.
    """
    curvatures, ratios = [], []
    for task, hessian in enumerate(landscape.hessians(family, theta)):
        values, vectors = torch.linalg.eigh(hessian)
        alone = Family(family.module, family.batch.tasks(task, task + 1), family.truth)
        directions = (landscape.direction(alone, name, inner_lr, 1) for name in ("MAML", "first-order MAML"))
        full, first = (vectors.T @ direction(theta) for direction in directions)
        curvatures += values.tolist()
        ratios += (full / first).tolist()
    figure, axes = canvas(7, 3.8)
    top = max(curvatures) * 1.08
    axes.axhline(0, color=GREY, lw=1)
    axes.plot([0, top], [1, 1 - inner_lr * top], color=COLOURS[0], lw=1.5, label="1 − αλ")
    axes.scatter(curvatures, ratios, color=COLOURS[1], s=26, alpha=0.7, lw=0, zorder=3, label="computed")
    title = f"The Hessian term multiplies the gradient by 1 − αλ (α = {inner_lr:g})"
    _label(axes, title, "curvature λ of the support's loss", "MAML's gradient ÷ g alone", xlim=(0, top))
    _mark_solved(axes, inner_lr)
    axes.legend(frameon=False, loc="lower left")
    off = max(abs(r - (1 - inner_lr * c)) for c, r in zip(curvatures, ratios))
    where = "on the line" if off < 1e-6 else f"up to {off:.2f} off the line"
    ends = f"{max(ratios):.2f} at curvature {min(curvatures):.2f} to {min(ratios):.2f} at {max(curvatures):.2f}"
    told = f"{len(ratios)} dots, all {where} 1 minus alpha times curvature: from {ends}."
    return Picture(figure, f"Scatter plot. {title}. {told}")


def landscape_picture(
    family: Family,
    inner_lr: float,
    steps: int,
    points: ByMethod,
    limits: Ranges,
    paths: ByMethod | None = None,
    title: str = "",
) -> Picture:
    """Draw the query loss before and after adapting, with points and paths. The legend names points off the map."""
    (figure, panels), words = panel_canvas(10.4, 4.6, 2), []
    if title:
        figure.suptitle(title, fontsize=13)
    for axes, n in zip(panels, (0, steps)):
        _contours(axes, family, inner_lr, n, limits)
        axes.scatter(*family.truth.T, color="black", s=7, alpha=0.45, lw=0, label="each task's truth")
        for name, path in (paths or {}).items():
            axes.plot(*path.T, color="white", lw=3.5)
            axes.plot(*path.T, color=look(name).colour, lw=1.6)
            axes.plot(*path[0], **START, label="step 0")
        losses = []
        for name, point in points.items():
            colour, marker = look(name).colour, look(name).marker
            inside = all(low <= value <= high for value, (low, high) in zip(point.tolist(), limits))
            label = name if inside else f"{name}, off the map at ({point[0]:.2f}, {point[1]:.2f})"
            axes.plot(*point, marker=marker, color=colour, ms=9, mec="white", mew=1.2, ls="none", label=label)
            losses.append(f"{name} {landscape.loss_at(family, point, inner_lr, n):.2f}")
        when = f"after {_count(n, 'inner step')}" if n else "before adapting"
        _label(axes, f"Loss {when}", *family.module.axes, xlim=limits[0], ylim=limits[1])
        words.append(f"{when}: " + ", ".join(losses))
    _legend(figure, panels[0])
    places = "; ".join(f"{name} ({point[0]:.2f}, {point[1]:.2f})" for name, point in points.items())
    what = (
        f"{title}. " * bool(title) + f"Two contour maps of the mean query loss over {' and '.join(family.module.axes)}"
    )
    return Picture(figure, f"{what}. Points: {places}. Loss " + "; ".join(words) + ".")


def weights_picture(family: Family, inner_lr: float, steps: int) -> Picture:
    """Draw each method's weight against a task's curvature in the slope, with the family's tasks as ticks below."""
    figure, axes = canvas(7.4, 4.0)
    found = landscape.hessians(family, torch.zeros(2, dtype=torch.float64))[:, 1, 1]
    curvature = torch.linspace(0, found.max().item() * 1.05, 300, dtype=torch.float64)
    right = curvature[-1].item()
    words, ends = [], {}
    for name in START_METHODS:
        values = landscape.weight(name, curvature, inner_lr, steps)
        values = values / values.max()
        # Dashes, because with one step Reptile's weights are the average task's.
        axes.plot(curvature, values, color=look(name).colour, lw=2.4, ls=(0, (4, 3)) if name == "Reptile" else "-")
        ends[name] = values[-1].item()
        words.append(f"{name} is largest at curvature {curvature[values.argmax()]:.1f} and ends at {values[-1]:.2f}")
    low, high = axes.get_ylim()
    for name, place in _apart(ends, (high - low) * 0.07).items():
        axes.annotate(name, (right * 1.015, place), color=look(name).colour, va="center", annotation_clip=False)
    axes.plot(found, torch.full_like(found, low), "|", color="black", ms=11, clip_on=False)
    axes.axhline(0, color=GREY, lw=1)
    title = f"Which tasks a method listens to (α = {inner_lr:g}, {_count(steps, 'step')})"
    xlabel, limits = "curvature h of a task's loss in the slope (ticks: the tasks)", (low - 0.04 * (high - low), high)
    _label(axes, title, xlabel, "weight (largest = 1)", xlim=(0, right), ylim=limits)
    _mark_solved(axes, inner_lr)
    return Picture(figure, f"Line chart. {title}. Relative weight by curvature: " + "; ".join(words) + ".")


def line_landscape_view(inner_lr: float, steps: int, spread: float) -> Picture:
    """Show the lines' landscape and each method's resting point. Raises CourseError for values that adapt nothing."""
    _require_adapting(inner_lr, steps)
    family = landscape.line_family(spread=spread)
    points = {name: landscape.resting_point(family, name, inner_lr, steps) for name in START_METHODS}
    return landscape_picture(family, inner_lr, steps, points, ((-0.5, 0.5), (0, 3.5)))


def weights_view(inner_lr: float, steps: int, spread: float) -> Picture:
    """Show which tasks each method listens to. Raises as `line_landscape_view` does."""
    _require_adapting(inner_lr, steps)
    return weights_picture(landscape.line_family(spread=spread), inner_lr, steps)


def own_lines_view(points: str, start: str, inner_lr: float, steps: int) -> str:
    """Show every method's start for the reader's own points, and the gradients at a start of the reader's, as HTML.

    points: as for `own_lines`, and refused as there. start: intercept and slope, "0 1"; BadData for anything else.
    """
    _require_adapting(inner_lr, steps)
    family = landscape.own_lines(points)
    own = torch.tensor(landscape.two_numbers(start, "your start"), dtype=torch.float64)
    rest = {name: landscape.resting_point(family, name, inner_lr, steps) for name in START_METHODS}
    starts = []
    for name, theta in {"your start": own, **rest}.items():
        losses = [landscape.loss_at(family, theta, inner_lr, n).item() for n in (0, steps)]
        starts.append((name, *(f"{value:.2f}" for value in [*theta.tolist(), *losses])))
    tasks = []
    for i, hessian in enumerate(landscape.hessians(family, own)):
        curvatures = torch.linalg.eigvalsh(hessian)
        shown = ("; ".join(f"{v:.2f}" for v in values.tolist()) for values in (curvatures, 1 - inner_lr * curvatures))
        tasks.append((str(i + 1), f"{family.truth[i, 1]:.2f}", *shown))
    gradients, true = [], landscape.direction(family, "MAML", inner_lr, steps)(own)
    for name in ("MAML", "first-order MAML", "Reptile"):
        found = landscape.direction(family, name, inner_lr, steps)(own)
        apart = f"{landscape.angle(true, found):.0f}°" if found.norm() * true.norm() > 0 else "one is zero"
        gradients.append((name, *(f"{v:.3f}" for v in found.tolist()), apart))
    nudge = 1e-5 * torch.eye(2, dtype=torch.float64)
    up, down = (landscape.loss_at(family, own + e, inner_lr, steps) for e in (nudge, -nudge))
    gradients.append(("MAML by finite differences", *(f"{v:.3f}" for v in ((up - down) / 2e-5).tolist()), ""))
    low, high = torch.aminmax(torch.stack([*family.truth, own, *rest.values()]), dim=0)
    limits = tuple((a - 0.3 * (b - a) - 0.1, b + 0.3 * (b - a) + 0.1) for a, b in zip(low.tolist(), high.tolist()))
    return (
        adapted_picture(family, rest["MAML"], inner_lr, steps).html()
        + landscape_picture(family, inner_lr, steps, rest, limits).html()
        + table(("start from", "intercept", "slope", "loss before adapting", f"after {_count(steps, 'step')}"), starts)
        + table(("task", "slope of its points", "curvatures λ of its support", "a step leaves 1 − αλ"), tasks)
        + table(("direction at your start", "intercept", "slope", "angle to MAML's"), gradients)
    )


def _require_adapting(inner_lr: float, steps: int) -> None:
    require_at_least(1, "steps", steps)
    require_positive("inner_lr", inner_lr)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def _label(axes: Axes, title: str, xlabel: str, ylabel: str, *, legend: bool = False, **limits: Any) -> None:
    """Give the axes their words and limits, and the legend of tasks."""
    axes.set(xlabel=xlabel, ylabel=ylabel, **limits)
    axes.set_title(title, loc="left")
    if legend:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title="filled: support\nhollow: query")


def _task(axes: Axes, family: Family, task: int, line: Tensor, label: str, place: int) -> Tensor:
    """Draw one task's examples, support filled, and a line over their range of x; return the range's two ends."""
    support_x, support_y, query_x, query_y = (part[task].flatten() for part in family.batch.parts)
    ends = torch.stack(torch.aminmax(torch.cat([support_x, query_x])))
    style = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "s": 34}
    axes.plot(ends, line[0] + line[1] * ends, color=style["color"], lw=1.2, alpha=0.7)
    axes.scatter(support_x, support_y, **style, label=label)
    axes.scatter(query_x, query_y, **style | {"facecolors": "white"})
    return ends


def _legend(figure: Figure, axes: Axes) -> None:
    """Put one axes' legend, each label once, below all panels, with a word on their colours."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    ncols = 5 if sum(map(len, once)) < 80 else 3  # long when a point is off the map
    title = "each panel has its own colour scale; darker is lower"
    figure.legend(once.values(), once, loc="outside lower center", ncols=ncols, frameon=False, title=title)


def _mark_solved(axes: Axes, inner_lr: float) -> None:
    """Mark the curvature 1/alpha, which one inner step solves, where it lies within the axes."""
    if 0 < 1 / inner_lr < axes.get_xlim()[1]:
        axes.axvline(1 / inner_lr, color=GREY, lw=1, ls=":")
        style = {"color": DARK_GREY, "ha": "center", "bbox": {"fc": "white", "ec": "none", "pad": 1}}
        axes.text(1 / inner_lr, 0.55, "1/α", transform=axes.get_xaxis_transform(), **style)


def _apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return heights for labels, in the same order and at least (almost) a gap apart, near those given."""
    names, places = sorted(heights, key=heights.get), sorted(heights.values())
    for _ in range(50):
        for i in range(len(places) - 1):
            push = max(0.0, gap - (places[i + 1] - places[i])) / 2
            places[i], places[i + 1] = places[i] - push, places[i + 1] + push
    return dict(zip(names, places))


def _contours(axes: Axes, family: Family, inner_lr: float, steps: int, limits: Ranges) -> None:
    """Fill the axes with the loss, on a log scale, darker where it is lower."""
    from matplotlib.ticker import FuncFormatter

    first, second = (torch.linspace(*span, 61, dtype=torch.float64) for span in limits)
    grid = torch.stack(torch.meshgrid(first, second, indexing="xy"), dim=-1)
    values = landscape.loss_at(family, grid, inner_lr, steps).clamp_min(LEAST_LOSS).log10()
    low = values.min().item()
    high = max(values.max().item(), low + 1e-6)
    levels = [low + (high - low) * i / 9 for i in range(10)]
    axes.contourf(first, second, values, levels=levels, cmap="Blues_r", alpha=0.75, extend="both")
    lines = axes.contour(first, second, values, levels[1:-1], colors="#33536B", linewidths=0.6, linestyles="solid")
    for label in axes.clabel(lines, fmt=FuncFormatter(lambda v, _: f"{10**v:.2g}"), fontsize=7.5, colors="black"):
        label.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})
