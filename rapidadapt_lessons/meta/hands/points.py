"""Click points, and watch each start adapt to them (lesson 6)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ...errors import BadData
from ...guards import require_some
from ...show.hand import Hand, hand
from ...show.looks import GREY, looks
from ...show.plots import Picture, canvas
from .. import maml
from ..sinusoids import INPUTS, MetaMethod, Waves, network
from ..task_batch import Params

Starts = Mapping[str, tuple[MetaMethod, Params]]  # by name: how to adapt, and the parameters to start from
Point = Sequence[float]  # x, y

PLANE_HEIGHT = 6.0  # how far up and down the plane reaches
SLIDER_STEPS = 10
MOST_CLICKED = 50
PLANE_GRID = torch.linspace(*INPUTS, 101)[:, None]
FAR = 99.0  # curves are cut there, far outside of the plane
EXAMPLES = ((3.0, 0.8, (-4.2, -2.6, -0.9, 1.2, 3.4)), (4.5, 2.2, (-3.7, -1.0, 2.9)), (1.2, 1.5, (0.6, 1.9, 3.3, 4.5)))


def click_points(starts: Starts) -> Hand:
    """Return a plane on which points are clicked, and each start's curve after 0 to 10 gradient steps on them.

    Args:
        starts: by name, how to adapt, and the parameters to start from.

    Raises:
        CourseError: there are no starts.
    """
    require_some(starts, "starts", 'pass at least one by its name, such as {"MAML": (sinusoids.MAML, params)}.')
    examples = [sinusoid_example(*values) for values in EXAMPLES]
    asked = {"points": examples[0]["points"], "step": 1}
    styles = {name: style.colour for name, style in looks(starts).items()}
    fixed = {
        "examples": examples, "colours": styles, "x": INPUTS, "y": (-PLANE_HEIGHT, PLANE_HEIGHT), "steps": SLIDER_STEPS,
        "grid": PLANE_GRID[:, 0].tolist(),
    }  # fmt: skip
    script = Path(__file__).with_name("points.js")
    return hand(script, lambda asked: points_answer(starts, asked), asked, points_picture(starts, **asked), **fixed)


def sinusoid_example(amplitude: float, phase: float, x: Sequence[float]) -> dict[str, Any]:
    """Return points of a sinusoid, and its whole curve over PLANE_GRID."""
    wave = Waves(torch.tensor([amplitude]), torch.tensor([phase]))
    y = wave(torch.tensor(x)[:, None])[0, :, 0]
    return {
        "points": [[a, round(b, 2)] for a, b in zip(x, y.tolist())],
        "curve": [round(value, 2) for value in wave(PLANE_GRID)[0, :, 0].tolist()],
    }


def points_answer(starts: Starts, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return, by start, its curve over PLANE_GRID and its error on the points after 0 to SLIDER_STEPS steps, as text.

    A start that diverges has the curve None and the error "no longer finite" from that step on. Without points there
    is no step and no error. Raises BadData for too many points, or one outside of the plane.
    """
    x, y = checked_points(asked["points"])
    shown = {}
    for name, start in starts.items():
        path = clicked_path(*start, x, y, SLIDER_STEPS if len(x) else 0)
        both = [heights(one, torch.cat([PLANE_GRID, x])) for one in path]
        shown[name] = {
            "curves": [_plain(values[: len(PLANE_GRID)]) for values in both],
            "errors": [_told(maml.mse(values[len(PLANE_GRID) :], y[:, 0])) for values in both] if len(x) else [],
        }
    return {"starts": shown}


def checked_points(points: Sequence[Point]) -> tuple[Tensor, Tensor]:
    """Return points as x and y, each [points, 1]. Raises BadData for more than MOST_CLICKED, or one off the plane."""
    if len(points) > MOST_CLICKED:
        raise BadData(f"there are {len(points)} points.", f"clear some: at most {MOST_CLICKED}.")
    for x, y in points:
        if not (INPUTS[0] <= x <= INPUTS[1] and abs(y) <= PLANE_HEIGHT):
            raise BadData(f"the point ({x:g}, {y:g}) is outside of the plane.", "click inside of it.")
    data = torch.tensor(points, dtype=torch.float32).reshape(-1, 2)
    return data[:, :1], data[:, 1:]


def clicked_path(method: MetaMethod, params: Params, x: Tensor, y: Tensor, steps: int) -> list[Params]:
    """Return the parameters after 0, 1, ..., `steps` gradient steps on the points."""
    net, path = _shell(), [params]
    options = {"inner_lr": method.inner_lr, "adaptable": method.adaptable, "second_order": False}
    for _ in range(steps):
        path.append(maml.inner_loop(net, path[-1], x, y, **options))
    return path


def heights(params: Params, x: Tensor) -> Tensor:
    """Return the network's outputs, [points]. x: [points, 1]."""
    with torch.no_grad():
        return functional_call(_shell(), params, (x,))[:, 0]


def points_picture(starts: Starts, points: Sequence[Point], step: int) -> Picture:
    """Draw each start's curve before and after some steps on the points. Its description holds no measured number."""
    figure, axes = canvas(7.4, 4.2)
    x, y = checked_points(points)
    for name, style in looks(starts).items():
        path = clicked_path(*starts[name], x, y, step)
        axes.plot(PLANE_GRID, heights(path[0], PLANE_GRID), color=style.colour, lw=1.4, ls=":")
        after = heights(path[step], PLANE_GRID)
        axes.plot(PLANE_GRID, after, color=style.colour, lw=2.2)
        axes.annotate(name, (INPUTS[1], after[-1].item()), (6, -4), textcoords="offset points", color=style.ink)
    axes.scatter(x, y, color="black", s=44, zorder=4, edgecolor="white")
    axes.set(xlabel="x", ylabel="y", xlim=INPUTS, ylim=(-PLANE_HEIGHT, PLANE_HEIGHT))
    told = f"{len(points)} points, {step} gradient step{'s' * (step != 1)}"
    axes.set_title(f"{told}: click points of your own when the notebook runs", loc="left", fontsize=11)
    axes.plot([], [], color=GREY, lw=1.4, ls=":", label="before adapting")
    axes.legend(frameon=False, loc="upper left")
    alt = f"Line chart to be clicked on. {told}: the curves of {' and '.join(starts)} before, dotted, and after."
    return Picture(figure, alt)


@functools.cache
def _shell() -> nn.Module:
    """Return a network whose own parameters nobody uses; building one takes longer than running it."""
    return network()


def _plain(values: Tensor) -> list[float] | None:
    """Return a curve as numbers that fit into the page's messages, or None where one is not finite."""
    return [round(value, 2) for value in values.clamp(-FAR, FAR).tolist()] if values.isfinite().all() else None


def _told(error: Tensor) -> str:
    return f"{error:.2f}" if error < 1e6 else "no longer finite"
