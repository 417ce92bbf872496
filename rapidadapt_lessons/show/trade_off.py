"""Figures of gain against harm: the lower the loss the more was learned, the further right the more was lost.

Each has a description that tells its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import hypot, isfinite, log
from statistics import geometric_mean, mean
from typing import TYPE_CHECKING

from ..guards import require_some
from .looks import BLUE, look, looks
from .picture import Picture
from .plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DARK, MUTED = "#222222", "#5F5F5F"
FIGURE_INCHES = (7.2, 4.4)
AXES_INCHES = (6.5, 3.6)  # about
SIDES = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # of a dot, for its name


def trade_off(
    harm: Mapping[str, Mapping[float, Sequence[float]]],
    loss: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    start: tuple[float, float] | None = None,
    most: float | None = None,
    live: Mapping[str, tuple[float, float]] = {},
) -> Picture:
    """Draw one curve for each method along its settings, with every run as a dot: harm to the right, loss upwards.

    A point is its runs' mean loss and, as the harm has a log scale, their geometric mean harm.

    Args:
        harm: for each method, for each setting (a rate, a number of updates), a value above 0 for each seed, as
            `Records.nested` returns them. A setting with a run that diverged (NaN) has no point, and the description
            says so.
        loss: the same, in nats.
        start: harm and loss before any training, drawn as a cross.
        most: the highest harm within the picture; curves run out of it.
        live: for some of the methods, harm and loss of the run that was just made in front of the reader.
    """
    require_some(harm, "values to draw")
    figure, axes = canvas(*FIGURE_INCHES)
    styles, told, names, settings, paths = looks(harm), [], [], [], []
    for name, runs in harm.items():
        style, parts, path = styles[name], [], {}
        for setting in sorted(runs):
            xs, ys = runs[setting], loss[name][setting]
            axes.scatter(xs, ys, s=15, color=style.colour, alpha=0.35, lw=0)
            if all(map(isfinite, (*xs, *ys))):
                path[setting] = geometric_mean(xs), mean(ys)
            parts.append(f"{compact(setting)} {_pair(path[setting]) if setting in path else 'diverged'}")
        told.append(f"{name}: {', '.join(parts)}")
        if path:
            look_of = {"color": style.colour, "marker": style.marker, "ls": style.line}
            axes.plot(*zip(*path.values()), lw=2, ms=7, mec="white", mew=0.8, **look_of)
            shown = {s: at for s, at in path.items() if most is None or at[0] <= most}
            names.append(_Name(name, style.ink, [*shown.values()], bold=True))
            settings += [_Name(compact(s), style.ink, [at]) for s, at in shown.items()]
            paths.append([*path.values()])
    if start:
        names.append(_cross(axes, start, told))
    for name, at in live.items():
        axes.scatter(*zip(at), s=210, facecolors="none", edgecolors=styles[name].ink, lw=2.4, zorder=5)
        names.append(_Name("your run", styles[name].ink, [at], bold=True))
        told.append(f"your run: {name} {_pair(at)}")
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.08, 0.14)
    if most:
        least = min(x for runs in harm.values() for xs in runs.values() for x in xs if isfinite(x))
        axes.set_xlim(least * (least / most) ** 0.1, most)
    _plain_ticks(axes)
    _write(axes, [*names, *settings], paths)
    axes.set_title(title, loc="left")
    return Picture(figure, f"Line chart. {title}. {ylabel}, and {xlabel}. {'; '.join(told)}.")


def attempts(
    runs: Mapping[str, tuple[float, float]],
    start: tuple[float, float],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    most: float,
) -> Picture:
    """Draw a reader's own runs as dots with their names, the newest in a ring, and where they set out as a cross.

    Args:
        runs: harm and loss of each, from the oldest to the newest; they may be infinite or NaN. Both have log scales.
        start: harm and loss before any training.
        most: the highest harm within the picture. What lies beyond, or above the loss of the start, is an arrow at the
            edge.
    """
    figure, axes = canvas(*FIGURE_INCHES)
    finite = [start, *((x, y) for x, y in runs.values() if isfinite(x) and isfinite(y))]
    right = min(most, max(1.6 * start[0], *(1.3 * x for x, _ in finite)))
    top, bottom = 1.5 * start[1], min(0.5 * start[1], *(0.7 * y for _, y in finite))
    left = min(x for x, _ in finite) * (start[0] / right) ** 0.08
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top), xlabel=xlabel, ylabel=ylabel)
    _plain_ticks(axes)
    told: list[str] = []
    names, arrows = [_cross(axes, start, told)], set()
    for name, (x, y) in runs.items():
        at = (x if x <= right else right, y if y <= top else top)  # NaN is beyond, too
        marker = "o" if at == (x, y) else ">" if at[0] == right else "^"
        while marker != "o" and at in arrows:  # one below the other
            at = at[0], at[1] * (bottom / top) ** 0.075
        arrows.add(at)
        newest = name == [*runs][-1]
        look_of = {"lw": 0, "alpha": 1 if newest else 0.4, "zorder": 4, "clip_on": False}
        axes.scatter(*zip(at), s=70, color=BLUE, marker=marker, **look_of)
        if newest:
            axes.scatter(*zip(at), s=230, facecolors="none", edgecolors=BLUE, lw=2.4, zorder=5, clip_on=False)
        names.insert(1, _Name(name, look("LoRA").ink if newest else MUTED, [at], newest))  # the newest has first choice
        told.append(f"{name} {_pair((x, y))}{', the newest' * newest}")
    corner = axes.text(0.01, 0.02, "aim for this corner", transform=axes.transAxes, color=MUTED, fontsize=9)
    corner.set_style("italic")
    _write(axes, names, [[(left, bottom), (left * (right / left) ** 0.2, bottom)]])
    axes.set_title(title, loc="left")
    return Picture(figure, f"Dot plot. {title}. {ylabel}, and {xlabel}. {'; '.join(told)}.")


def compact(value: float) -> str:
    """Return a setting in few letters: 30, 0.05, 3e-4, 3.2e-4."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.3g}"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


@dataclass(frozen=True)
class _Name:
    """A name, and the dots beside one of which it may stand."""

    text: str
    ink: str
    dots: Sequence[tuple[float, float]]
    bold: bool = False


def _cross(axes: Axes, start: tuple[float, float], told: list[str]) -> _Name:
    """Mark where training set out, tell it, and return its name."""
    axes.scatter(*zip(start), s=90, color=DARK, marker="X", lw=0, zorder=4)
    told.append(f"base model {_pair(start)}")
    return _Name("base model", DARK, [start], bold=True)


def _pair(at: tuple[float, float]) -> str:
    """Return harm and loss in words."""
    return f"({at[1]:.2f} at {at[0]:,.{1 if at[0] < 1000 else 0}f})"


def _write(axes: Axes, names: Sequence[_Name], paths: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Write each name beside one of its dots, where as little as possible is in the way: dots, curves, other names."""
    from matplotlib.patheffects import Normal, Stroke

    places = [_place(axes.xaxis, *axes.get_xlim()), _place(axes.yaxis, *axes.get_ylim())]

    def inches(at: tuple[float, float]) -> list[float]:
        return [inside * place(value) for inside, place, value in zip(AXES_INCHES, places, at)]

    taken = [_box(*inches(dot), 0.14, 0.14) for name in names for dot in name.dots]
    for (ax, ay), (bx, by) in (map(inches, pair) for path in paths for pair in pairwise(path)):
        steps = int(hypot(bx - ax, by - ay) / 0.08) + 1
        taken += [_box(ax + (bx - ax) * i / steps, ay + (by - ay) * i / steps, 0.06, 0.06) for i in range(steps + 1)]
    for name in names:
        width, height = 0.078 * len(name.text) * (1.1 if name.bold else 1), 0.16  # about, at 9.5 points
        others = [inches(dot) for other in names for dot in other.dots if dot not in name.dots]
        choices = []
        for far, dot, (right, up) in product((0.13, 0.36), name.dots, SIDES):
            x, y = inches(dot)
            above = far * (0.9 if right else 1) + height / 2
            box = _box(x + right * (far + width / 2), y + up * above, width, height)
            outside = sum(
                max(0, -low, high - inside - 0.15) for low, high, inside in zip(box[:2], box[2:], AXES_INCHES)
            )
            # A thin line leads from a name to a dot further off; without it the nearest dot has to be the name's own.
            unclear = far < 0.2 and any(_gap(box, other) < 1.2 * _gap(box, (x, y)) for other in others)
            cost = 3 * outside + sum(_shared(box, other) for other in taken) + 0.03 * unclear + 0.02 * far
            choices.append((cost, len(choices), dot, box, far))
        _, _, dot, box, far = min(choices)
        taken.append(box)
        away = [36 * (low + high) - 72 * at for low, high, at in zip(box[:2], box[2:], inches(dot))]
        look_of = {"color": name.ink, "fontsize": 9.5, "weight": "bold" if name.bold else "normal", "zorder": 6}
        aligned = {"ha": "center", "va": "center", "textcoords": "offset points", "annotation_clip": False}
        if far > 0.2:
            aligned["arrowprops"] = {"arrowstyle": "-", "color": name.ink, "lw": 0.7, "shrinkA": 0, "shrinkB": 4}
        text = axes.annotate(name.text, dot, away, **aligned, **look_of)
        text.set_path_effects([Stroke(linewidth=2.5, foreground="white"), Normal()])


def _place(axis, low: float, high: float) -> Callable[[float], float]:
    """Return the function from a value to its place on an axis, from 0 to 1."""
    of = log if axis.get_scale() == "log" else float
    return lambda value: (of(value) - of(low)) / (of(high) - of(low))


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _shared(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    return max(0.0, width) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))


def _gap(box: tuple[float, ...], at: Sequence[float]) -> float:
    """Return how far a point is from a box."""
    left, low, right, high = box
    return hypot(max(left - at[0], 0, at[0] - right), max(low - at[1], 0, at[1] - high))


def _plain_ticks(axes: Axes) -> None:
    """Write the numbers of log scales as 20 and 0.5 rather than as powers of ten, about six on each."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log":
            wide = log(high / low)
            fine = (1, 1.5, 2, 2.5, 3, 4, 5, 7)
            steps = (1,) if wide > 8 else (1, 3) if wide > 5 else (1, 2, 5) if wide > 1.8 else fine
            axis.set_major_locator(LogLocator(10, steps))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_minor_locator(NullLocator())
