"""Figures for the lessons, each with a description that tells its numbers. Without values they raise CourseError."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import mean
from textwrap import fill
from typing import TYPE_CHECKING

from ..guards import require_some
from .looks import COLOURS, GREY, LOOKS, looks
from .picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACY = "accuracy (share of queries)"
SHARES = (-0.03, 1.03)  # the y axis for shares: from 0 to 1, with room for the markers
STYLE = {
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.labelsize": 10.5,
    "font.size": 10.5,
}


def horizontal_bars(
    values: Mapping[str, float], *, title: str, xlabel: str, highlight: Sequence[str] = (), limit: float | None = None
) -> Picture:
    """Draw one bar for each name, the first on top; highlighted names in the second colour."""
    require_some(values, "values to draw")
    figure, axes = canvas(7, 0.6 + 0.33 * len(values))
    colours = [COLOURS[name in highlight] for name in values]
    axes.barh(range(len(values)), list(values.values()), color=colours)
    for row, value in enumerate(values.values()):
        axes.text(value, row, f" {_short(value)} ", va="center", ha="left" if value >= 0 else "right")
    # Between two plain "$" of a learner's text matplotlib would set mathematics.
    axes.set_yticks(range(len(values)), [name.replace("$", r"\$") for name in values])
    axes.set_title(title.replace("$", r"\$"), loc="left")
    axes.invert_yaxis()
    low, high = min(0, *values.values()) * 1.15, limit or max(0, *values.values()) * 1.15
    axes.set(xlabel=xlabel, xlim=(low, high if high > low else 1))
    listed = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
    return Picture(figure, f"Bar chart. {title}. {xlabel}: {listed}.")


def curves(
    results: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str = ACCURACY,
    chance: float | None = None,
    limits: tuple[float, float | None] | None = SHARES,
    even: bool = True,
    live: Mapping[str, tuple[float, float]] = {},
    label_at: str = "end",
) -> Picture:
    """Draw one line for each name through the means over runs, every run as a dot, and a ring around a live run.

    Args:
        results: for each name, for each x, the values of the runs.
        chance: where to draw a dashed line for guessing.
        limits: range of the y axis; None leaves it, or its upper end, to matplotlib.
        even: space the x values evenly; False puts each at its true place.
        live: for some of the names, the x and y of the run that was just made in front of the reader.
        label_at: where a line's name stands: at its right "end", or over the "higher end" of a valley.
    """
    require_some(results, "values to draw")
    figure, axes = canvas(7, 4.2)
    positions = sorted({x for line in results.values() for x in line} | {x for x, _ in live.values()})
    scale = (len(positions) - 1) / (positions[-1] - positions[0] or 1)
    place = {x: i if even else (x - positions[0]) * scale for i, x in enumerate(positions)}
    told, ends, styles = [], [], looks(results)
    for i, (name, line) in enumerate(results.items()):
        means, style = {x: mean(line[x]) for x in sorted(line)}, styles[name]
        aside = 0.04 * (i - len(results) / 2) if even else 0  # side by side, so that dots do not hide dots
        xs = [place[x] + aside for x in means]
        axes.plot(xs, list(means.values()), color=style.colour, marker=style.marker, ls=style.line, lw=1.8, ms=6)
        runs = [(place[x] + aside, value) for x in means for value in line[x] if len(line[x]) > 1]
        if runs:
            axes.scatter(*zip(*runs), s=13, color=style.colour, alpha=0.6, lw=0)
        at = max(means) if label_at == "end" else max(min(means), max(means), key=means.get)
        ends.append((means[at] if label_at == "end" else max(line[at]), name, style.ink, place[at] + aside))
        told.append((name, [f"{value:.2f} at {x:g}" for x, value in means.items()]))
    if chance is not None:
        axes.axhline(chance, color=GREY, ls="--", lw=1)
        axes.text(-0.1, chance, "guessing", color="#5F5F5F", va="bottom", fontsize=9)
    axes.set_xticks(list(place.values()), [f"{x:g}" for x in positions])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if limits:
        axes.set_ylim(*limits)
    if label_at == "end":  # after the limits, which say how far apart two lines are
        label_ends(axes, [end[:3] for end in ends], len(positions) - 1)
    else:
        for y, name, ink, x in ends:
            axes.annotate(name, (x, y), (0, 7), textcoords="offset points", color=ink, ha="center")
        axes.margins(x=0.12, y=0.14)  # room for the names
    for name, (x, y) in live.items():
        _ring(axes, place[x], y, styles[name].ink, above=y > mean(results[name].get(x, [y])))
    axes.set_title(title, loc="left")
    ring = [f" Your run: {name} {y:.2f} at {x:g}." for name, (x, y) in live.items()]
    return Picture(figure, f"Line chart. {title}. {ylabel} by {xlabel}. {_in_words(told)}{''.join(ring)}")


def heat_map(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    label: str = ACCURACY,
    limits: tuple[float, float] = (0, 1),
    framed: Sequence[tuple[int, int]] = (),
) -> Picture:
    """Draw a table of numbers as a coloured grid, each number written in its cell.

    Args:
        limits: the values of the colour scale's ends.
        framed: the row and the column of each cell to frame, counted from 0.
    """
    from matplotlib.patches import Rectangle

    require_some(values, "values to draw")
    figure, axes = canvas(1.6 + 1.25 * len(columns), 1.2 + 0.5 * len(rows))
    image = axes.imshow(values, cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto")
    middle = (limits[0] + limits[1]) / 2
    for i, line in enumerate(values):
        for j, value in enumerate(line):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < middle else "black")
    for i, j in framed:
        axes.add_patch(Rectangle((j - 0.47, i - 0.44), 0.94, 0.88, fill=False, edgecolor=COLOURS[1], linewidth=3))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), [name.replace(" ", "\n", 1) for name in columns])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(title, loc="left")
    figure.colorbar(image, ax=axes, label=label)
    told = [(name, [f"{c} {value:.2f}" for c, value in zip(columns, line)]) for name, line in zip(rows, values)]
    return Picture(figure, f"Heat map. {title}. {label}. {_in_words(told)}")


def strips(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str,
    xlabel: str,
    line: float | None = None,
    line_label: str = "",
    limits: tuple[float, float] = SHARES,
    means: bool = True,
    live: Mapping[str, Mapping[str, float]] = {},
) -> Picture:
    """Draw every single value as a dot: one row for each outer name, one colour for each inner name.

    Dots that would hide one another are stacked, unless there are more than four colours. A tick marks each row's
    mean. Without `means` the ticks go, and the description lists the values: for values in clumps, where a mean lies
    in none of them. `live` holds values that were just computed in front of the reader: each gets a ring.
    """
    require_some(groups, "values to draw")
    kinds = list(dict.fromkeys(chain.from_iterable(groups.values())))
    same = (limits[1] - limits[0]) * 0.013  # the width of a dot
    stacked = _stacked if len(kinds) <= 4 else lambda values, width: [0] * len(values)
    stacks = {(name, kind): stacked(group[kind], same) for name, group in groups.items() for kind in group}
    highest = max((abs(level) for levels in stacks.values() for level in levels), default=0)
    step = min(0.08, 0.28 / max(1, highest))  # inches from level to level: high stacks have smaller dots
    reach = highest * step  # inches from the middle
    lane = max(0.2, 2 * reach + 0.1)  # inches for each kind
    height = max(0.62, lane * len(kinds) + 0.14)  # inches for each row, which is 1 on the axis
    figure, axes = canvas(7.5, 1.1 + height * len(groups))
    told, styles = [], looks(kinds)
    for row, (name, group) in enumerate(groups.items()):
        for kind, values in group.items():
            i, colour, marker = kinds.index(kind), styles[kind].colour, styles[kind].marker
            y = row + (i - (len(kinds) - 1) / 2) * lane / height
            places = [y - step / height * level for level in stacks[name, kind]]
            axes.scatter(
                values, places, color=colour, marker=marker, s=28 * (step / 0.08) ** 2, alpha=0.8, lw=0.5, ec="white"
            )
            if means:
                tick = max(0.1, reach + 0.06) / height
                axes.plot([mean(values)] * 2, [y - tick, y + tick], color=colour, lw=2.5)
                spread = f"mean {mean(values):.2f}, from {min(values):.2f} to {max(values):.2f}"
            else:
                found = Counter(f"{value:.2f}" for value in sorted(values))
                spread = ", ".join(text if times == 1 else f"{text} ({times} times)" for text, times in found.items())
            if kind in live.get(name, {}):
                _ring(axes, live[name][kind], y, styles[kind].ink)
                spread += f", your run {live[name][kind]:.2f}"
            told.append((f"{name} ({kind})" if len(kinds) > 1 else name, [spread]))
    if line is not None:
        axes.axvline(line, color=GREY, ls="--", lw=1)
        axes.text(line, -0.5 - 0.22 / height, f" {line_label}", color="#5F5F5F", fontsize=9, va="top")
    if len(kinds) > 1:
        handles = [axes.scatter([], [], color=s.colour, marker=s.marker, label=kind) for kind, s in styles.items()]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5 - 0.24 / height)
    axes.set(xlabel=xlabel, xlim=limits)
    axes.set_title(title, loc="left")
    return Picture(figure, f"Dot plot. {title}. {xlabel}. {_in_words(told)}")


def grouped_bars(groups: Mapping[str, Mapping[str, float]], *, title: str, ylabel: str = ACCURACY) -> Picture:
    """Draw bars side by side: one cluster for each outer name, one colour for each inner name."""
    require_some(groups, "values to draw")
    figure, axes = canvas(max(5.5, 1.7 * len(groups) + 1), 3.8)
    kinds = list(dict.fromkeys(chain.from_iterable(groups.values())))
    width, styles = 0.8 / len(kinds), looks(kinds)
    for i, kind in enumerate(kinds):
        xs = [g + (i - (len(kinds) - 1) / 2) * width for g in range(len(groups))]
        ys = [group.get(kind, float("nan")) for group in groups.values()]
        colour, hatch = styles[kind].colour, ("", "//", "..", "xx")[i % 4]
        axes.bar(xs, ys, width * 0.94, color=colour, label=kind, hatch=hatch, ec="white")
        for x, y in zip(xs, ys):
            if y == y:  # a cluster without this kind holds NaN there
                axes.text(x, y, _short(y), ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(len(groups)), [name if len(name) <= 16 else fill(name, 13) for name in groups])
    axes.set(ylabel=ylabel, ylim=(0, 1.08))
    if len(kinds) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_title(title, loc="left")
    told = [(name, [f"{kind} {_short(value)}" for kind, value in group.items()]) for name, group in groups.items()]
    return Picture(figure, f"Bar chart. {title}. {ylabel}. {_in_words(told)}")


def _stacked(values: Sequence[float], width: float) -> list[int]:
    """Return a level for each value, 0, 1, -1, 2, -2, ...: no two closer than `width` are on the same level."""
    levels = [0] * len(values)
    last: dict[int, float] = {}  # the rightmost value of each level so far
    for i in sorted(range(len(values)), key=values.__getitem__):
        level = 0
        while values[i] - last.get(level, float("-inf")) < width:
            level = 1 - level if level <= 0 else -level
        levels[i], last[level] = level, values[i]
    return levels


def _ring(axes: Axes, x: float, y: float, colour: str, above: bool = False) -> None:
    """Mark the reader's own run over the recorded ones, and name it above or below."""
    from matplotlib.patheffects import Normal, Stroke

    axes.scatter([x], [y], s=210, facecolors="none", edgecolors=colour, lw=2.4, zorder=5)
    look = {"color": colour, "weight": "bold", "ha": "center", "va": "bottom" if above else "top", "zorder": 6}
    named = axes.annotate("your run", (x, y), (0, 10 if above else -12), textcoords="offset points", **look)
    named.set_path_effects([Stroke(linewidth=3, foreground="white"), Normal()])  # readable over lines and dots


def _in_words(told: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return the end of a description."""
    return "; ".join(f"{name}: {', '.join(parts)}" for name, parts in told) + "."


def _short(value: float) -> str:
    """Return a bar's value: a count as it is, others with two digits, and what is not zero never as 0.00."""
    if isinstance(value, int):
        return str(value)
    return "<0.005" if 0 < value < 0.005 else f"{value:.2f}"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure that belongs to no global state, so nothing is drawn twice or left open."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def panel_canvas(width: float, height: float, columns: int, rows: int = 1, **options) -> tuple[Figure, list[Axes]]:
    """Return a figure that belongs to no global state, and its panels row by row; options are `Figure.subplots`'."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], x: float) -> None:
    """Write each line's name at its right end, moved apart where they would overlap, none above the axes."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.055
    heights: list[float] = []
    for y, _, _ in sorted(ends):
        heights.append(max(y, heights[-1] + gap) if heights else y)
    ceiling = high
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - gap
    for (y, name, colour), height in zip(sorted(ends), heights):
        axes.annotate(name, (x, y), (x + 0.2, height), color=colour, va="center", annotation_clip=False)


def lines(
    series: Mapping[str, Mapping[float, float]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
    points: bool = True,
    levels: Mapping[str, float] = {},
    alt: str | None = None,
) -> Picture:
    """Draw one line for each name over true distances in x.

    Args:
        points: mark each value.
        levels: what does not depend on x, drawn as thin lines from side to side; the scale then starts at 0.
        alt: the description; None lists every value, to two digits after the point.
    """
    figure, axes = canvas(7, 4)
    styles = looks([*series, *levels])
    for i, (name, values) in enumerate(series.items()):
        style = {"color": styles[name].colour, "marker": styles[name].marker if points else None}
        axes.plot(list(values), list(values.values()), ls=LOOKS[i % len(LOOKS)], lw=1.8, ms=5, label=name, **style)
    if log_x:
        axes.set_xscale("log")
        ticks = sorted({x for values in series.values() for x in values if x > 0})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    for i, (name, level) in enumerate(levels.items()):
        axes.axhline(level, color=styles[name].colour, ls=(0, (2, 2 + 2 * i)), lw=1.4, label=name)
    if levels:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left")
    if len(series) > 1 or levels:
        axes.legend(frameon=False)
    if alt is None:
        told = [(name, [f"{y:.2f} at {x:g}" for x, y in values.items()]) for name, values in series.items()]
        told += [(name, [f"{level:.2f}"]) for name, level in levels.items()]
        alt = f"Line chart. {title}. {ylabel} by {xlabel}. {_in_words(told)}"
    return Picture(figure, alt)
