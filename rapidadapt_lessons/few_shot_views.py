"""What a few-shot task looks like."""

from __future__ import annotations

import torch

from .plots import COLOURS, STYLE, Picture
from .task_batch import TaskBatch


def episode_picture(batch: TaskBatch, *, task: int = 0, title: str = "One task") -> Picture:
    """Show a task's pictures, one row for each class: the support left of the line, the query right of it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ways = int(batch.support_y[task].max()) + 1
    parts = [x[task].unflatten(0, (ways, -1))[:, :, 0] for x in (batch.support_x, batch.query_x)]
    shots, queries = (part.shape[1] for part in parts)
    side = parts[0].shape[-1]
    sheet = torch.cat(parts, 1).permute(0, 2, 1, 3).reshape(ways * side, (shots + queries) * side)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.62 * (shots + queries) + 1, 0.62 * ways + 0.6), layout="constrained")
        axes = figure.subplots()
        axes.imshow((1 - sheet).numpy(), cmap="gray", vmin=0, vmax=1)
        for i in range(1, ways):
            axes.axhline(i * side - 0.5, color="#DDDDDD", lw=0.8)
        axes.axvline(shots * side - 0.5, color=COLOURS[1], lw=2.5)
        axes.set_yticks([(i + 0.5) * side for i in range(ways)], [f"class {i}" for i in range(ways)])
        middles = [shots * side / 2, (shots + queries / 2) * side]
        axes.set_xticks(middles, ["support", f"query ({queries} of each class)"])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title, loc="left")
    alt = (
        f"Pictures in {ways} rows, one for each letter. {title}. Left of a line the support, {shots} of each letter; "
        f"right of it the query, {queries} of each. The same letter comes upright, slanted, light and bold, and is "
        "turned, stretched and shifted."
    )
    return Picture(figure, alt)
