"""Drag the start over the loss landscapes of one or two tasks, and watch the inner steps (lesson 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import BadData, CourseError
from ...guards import require_at_least, require_positive
from ...show.hand import Hand, hand
from ...show.looks import look
from ...show.plots import Picture, panel_canvas
from .. import landscape, maml
from ..landscape import Family, Line
from ..task_batch import TaskBatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MapLimits = tuple[tuple[float, float], tuple[float, float]]  # of the first and the second parameter
LINE_LIMITS = ((-1.5, 1.5), (-0.5, 4.5))
WAVE_LIMITS = ((-0.5, 2.0), (-3.2, 3.2))
MOST_INNER_STEPS = 20
LOWEST = 1e-9  # a logarithm needs more than the 0 of points that lie on a curve exactly


def drag_start(
    family: Family, tasks: Sequence[int], inner_lr: float, steps: int, *,
    start: tuple[float, float] = (-1.0, 2.0), limits: MapLimits | None = None,
) -> Hand:  # fmt: skip
    """Return the landscapes of one or two tasks' support losses, over which the start of the inner steps is dragged.

    Args:
        tasks: numbers of tasks of the family, from 0.
        start: where it stands at first, as the two parameters.
        limits: of the two parameters on the map; None takes those that fit the lesson's family.

    Raises:
        CourseError: more than two tasks or none, one that the family lacks, steps beyond 1 to 20, a rate that is not
            positive, or a start off the map.
    """
    if not 1 <= len(tasks) <= 2 or not all(0 <= task < len(family.batch) for task in tasks):
        told = f"give one or two numbers from 0 to {len(family.batch) - 1}."
        raise CourseError(f"tasks are {list(tasks)}.", told)
    require_positive("inner_lr", inner_lr)
    require_at_least(1, "steps", steps)
    if steps > MOST_INNER_STEPS:
        raise CourseError(f"steps is {steps}.", f"take at most {MOST_INNER_STEPS}.")
    limits = limits or (LINE_LIMITS if isinstance(family.module, Line) else WAVE_LIMITS)
    chosen = [one_task(family, task) for task in tasks]
    answer = partial(start_answer, chosen, inner_lr, steps, limits)
    still, maps = start_picture(chosen, answer({"start": start}), limits)
    fixed = {"panels": maps, "limits": limits, "axes": family.module.axes, "colour": look("MAML").colour}
    return hand(Path(__file__).with_name("start.js"), answer, {"start": list(start)}, still, **fixed)


def one_task(family: Family, task: int) -> Family:
    """Return a family of this task alone, whose query is its support: so its loss is what the inner steps descend."""
    x, y, *_ = family.batch.tasks(task, task + 1).parts
    return Family(family.module, TaskBatch(x, y, x, y), family.truth[task : task + 1])


def start_answer(
    tasks: Sequence[Family], inner_lr: float, steps: int, limits: MapLimits, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return each task's path of inner steps from a start and the losses on it, and the losses' mean over the tasks.

    A path ends before it leaves the finite numbers; losses are texts. Raises BadData for a start off the map.
    """
    start = tuple(asked["start"])
    if not all(low <= value <= high for value, (low, high) in zip(start, limits)):
        raise BadData(f"the start {start} is off the map.", "choose a place on it.")
    paths = [inner_path(one, start, inner_lr, steps) for one in tasks]
    losses = [landscape.loss_at(one, path, 0.0, 0) for one, path in zip(tasks, paths)]
    panels = [
        {"path": path[path.abs().amax(1) < 1e6].tolist(), "losses": [loss_in_words(loss) for loss in along.tolist()]}
        for path, along in zip(paths, losses)
    ]
    means = torch.stack(losses).mean(0).tolist()
    return {"panels": panels, "means": [loss_in_words(value) for value in means], "start": list(start)}


def inner_path(one: Family, start: tuple[float, float], inner_lr: float, steps: int) -> Tensor:
    """Return the parameters after 0, 1, ..., `steps` inner steps on a task's support, [steps + 1, 2]."""
    x, y = one.batch.support_x[0], one.batch.support_y[0]
    path = [one.params(start)]
    for _ in range(steps):
        path.append(maml.inner_loop(one.module, path[-1], x, y, inner_lr=inner_lr, second_order=False))
    return torch.stack([params["theta"] for params in path]).detach()


def loss_in_words(loss: float) -> str:
    """Return a loss with two digits after the point, or as a word where no number helps."""
    return f"{loss:.2f}" if loss < 1e4 else "too large"


def start_picture(tasks: Sequence[Family], answer: Mapping[str, Any], limits: MapLimits) -> tuple[Picture, list[dict]]:
    """Draw what the widget shows at first. Return it, and each panel's map, as contours, for the page to draw."""
    figure, panels = panel_canvas(4.6 * len(tasks), 4.2, len(tasks))
    maps, words, style = [], [], look("MAML")
    for axes, one, shown in zip(panels, tasks, answer["panels"]):
        maps.append(_map(axes, one, limits))
        title, path, losses = maps[-1]["title"], shown["path"], shown["losses"]
        axes.plot(*zip(*path), "-o", color=style.colour, ms=6, lw=2, mec="white", mew=0.8, clip_on=True)
        axes.plot(*path[0], "o", color="white", ms=9, mec="black", mew=1.6)
        axes.plot(*maps[-1]["best"], "*", color="black", ms=13, mec="white", mew=0.8)
        axes.set(xlabel=one.module.axes[0], ylabel=one.module.axes[1], xlim=limits[0], ylim=limits[1])
        axes.set_title(f"{title}\nloss {losses[0]} → {losses[-1]}", loc="left", fontsize=11)
        words.append(f"{title}: loss {losses[0]} at the start and {losses[-1]} after {len(losses) - 1} inner steps")
    place = ", ".join(f"{value:.2f}" for value in answer["start"])
    alt = f"Contour maps of the support's loss, on which the start ({place}) can be dragged. {'; '.join(words)}."
    return Picture(figure, alt), maps


def _map(axes: Axes, one: Family, limits: MapLimits) -> dict[str, Any]:
    """Draw one task's contours, on a log scale. Return them in plain values, with a title and the lowest point."""
    from matplotlib.ticker import FuncFormatter

    first, second = (torch.linspace(*span, 61, dtype=torch.float64) for span in limits)
    grid = torch.stack(torch.meshgrid(first, second, indexing="xy"), dim=-1)
    loss = landscape.loss_at(one, grid, 0.0, 0)
    values = loss.clamp_min(LOWEST).log10()
    low, high = values.min().item(), max(values.max().item(), values.min().item() + 1e-6)
    levels = [low + (high - low) * i / 9 for i in range(10)]
    bands = axes.contourf(first, second, values, levels=levels, cmap="Blues_r", alpha=0.75, extend="both")
    lines = axes.contour(first, second, values, levels[1:-1], colors="#33536B", linewidths=0.6, linestyles="solid")
    labels = axes.clabel(lines, fmt=FuncFormatter(lambda v, _: f"{10**v:.2g}"), fontsize=7.5, colors="black")
    if isinstance(one.module, Line):
        best = landscape.task_optima(one)[0].tolist()
        flat, steep = torch.linalg.eigvalsh(landscape.hessians(one, grid[0, 0])[0]).tolist()
        title = f"task of slope {one.truth[0, 1]:.1f}, curvatures {flat:.2f} and {steep:.2f}"
    else:
        best = grid.reshape(-1, 2)[loss.argmin()].tolist()
        title = f"task of amplitude {one.truth[0, 0]:.1f}, phase {one.truth[0, 1]:.1f}"
    return {
        "title": title,
        "best": best,
        "bands": [[part.round(3).tolist() for part in band.to_polygons()] for band in bands.get_paths()],
        "labels": [[*map(float, label.get_position()), label.get_text()] for label in labels],
        "ticks": [
            [tick for tick in ticks.tolist() if span[0] <= tick <= span[1] and math.isfinite(tick)]
            for ticks, span in ((axes.get_xticks(), limits[0]), (axes.get_yticks(), limits[1]))
        ],
    }
