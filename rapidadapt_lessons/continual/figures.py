"""What the lesson on continual learning shows: results in, figure out; CourseError where there is nothing to draw.

Descriptions give numbers where they repeat from one machine to the next, and orderings in words where they do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CourseError
from ..guards import require_one_of, require_some
from ..show.looks import COLOURS, GREY, MARKERS, looks
from ..show.plots import SHARES, Picture, canvas, heat_map
from .online import PrequentialReport
from .stream import StreamResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = Mapping[str, Sequence[StreamResult]]  # method -> one result for each seed


def matrix_picture(result: StreamResult, title: str = "") -> Picture:
    """Draw the accuracy matrix: a row after each experience, a column for each measured. What is not yet is blank."""
    rows, title = [f"after {name}" for name in result.experiences], title or f"R: {result.method}"
    picture = heat_map(result.matrix.tolist(), rows, result.experiences, title=title, label="score (share right)")
    _name_columns(picture, "measured on", result.experiences)
    for text in picture.figure.axes[0].texts:
        if text.get_text() == "nan":
            text.set_text("")
    return Picture(picture.figure, picture.alt.replace(" nan", " not measured yet"))


class LiveMatrix:
    """Shows the matrix while it fills in: `run_stream(..., on_experience=LiveMatrix())`. It goes after the last row.

    It draws into a widget: what a notebook stores is the same with and without a browser.
    """

    _shown: Any = None

    def __call__(self, result: StreamResult) -> None:
        if self._shown is None:
            from IPython.display import display
            from ipywidgets import HTML

            self._shown = HTML()
            display(self._shown)
        done = bool(torch.isfinite(result.matrix).all())
        self._shown.value = "" if done else matrix_picture(result).html()


class Varying(Picture):
    """A picture of numbers that differ between processors: the stored plain text, to compare runs by, has none."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        data, described = super()._repr_mimebundle_(include, exclude)
        text = f"{self.alt.partition('.')[0]}. Its numbers, in the picture, differ between processors."
        return data | {"text/plain": text}, described


def varying(picture: Picture) -> Varying:
    """Return the picture as a `Varying` one."""
    return Varying(picture.figure, picture.alt)


def plane(results: Results, title: str = "Stability against plasticity") -> Picture:
    """Draw every method's plasticity (across) and stability, 1 - forgetting (up): small marks are the seeds."""
    require_some(results, "results to draw")
    figure, axes = canvas(7.2, 4.6)
    described = []
    for name, style in looks(results).items():
        runs, colour, marker = results[name], style.colour, style.marker
        xs, ys = [run.plasticity for run in runs], [1 - run.forgetting for run in runs]
        axes.scatter(xs, ys, s=14, marker=marker, alpha=0.5, color=colour)
        label = f"{name}: ACC {mean(run.acc for run in runs):.2f}"
        axes.scatter([mean(xs)], [mean(ys)], s=90, marker=marker, label=label, color=colour)
        described.append(f"{name}: plasticity {mean(xs):.2f}, stability {mean(ys):.2f}")
    _finish_plane(axes, title)
    return Picture(figure, f"Scatter plot. {title}; the upper right corner is best. {'; '.join(described)}.")


def trace(curve: Mapping[float, Sequence[StreamResult]], value: float, label: str, reference: Results) -> Picture:
    """Draw how a method moves in the plane as one of its settings, called `label`, grows; pick out one value.

    In `curve`: setting -> its runs, one for each seed. CourseError where `value` was not run.
    """
    require_one_of(curve, f"run with {label}", value)
    figure, axes = canvas(7.2, 4.4)
    points = {setting: _place(curve[setting]) for setting in sorted(curve)}
    axes.plot(*zip(*points.values()), color=COLOURS[0], marker="o", ms=4, lw=1.4, label=f"{label}: all that were run")
    for name, style in looks(reference).items():
        axes.scatter(*_place(reference[name]), s=70, color=style.colour, marker=style.marker, label=name)
    axes.scatter(*points[value], s=190, facecolors="none", edgecolors=COLOURS[1], lw=2.5, label=f"{label} {value:g}")
    _finish_plane(axes, f"{label} {value:g}: ACC {mean(run.acc for run in curve[value]):.2f}")
    every = "; ".join(f"{s:g}: plasticity {px:.2f}, stability {py:.2f}" for s, (px, py) in points.items())
    return Picture(figure, f"Line in the plane of stability and plasticity, by {label}. {every}. Picked: {value:g}.")


def _place(runs: Sequence[StreamResult]) -> tuple[float, float]:
    """Return the runs' mean plasticity and stability."""
    return mean(run.plasticity for run in runs), mean(1 - run.forgetting for run in runs)


def _finish_plane(axes: Axes, title: str) -> None:
    """Name the axes of the plane, and leave room for the markers at its edges."""
    axes.set(xlabel="plasticity: score just after learning (share right)", ylabel="stability: 1 - forgetting")
    axes.set_xlim(axes.get_xlim()[0] - 0.03, 1.02)
    axes.set_ylim(top=1.04)
    _finish(axes, title)


def fisher_picture(fisher: Mapping[str, Tensor], title: str = "Where the Fisher information is") -> Picture:
    """Draw `fisher_diagonal`'s sums over LoRA's matrices ("...layers.3.self_attn.q_proj.lora_B"), by layer and kind."""
    lines: dict[str, dict[int, float]] = {}
    for name, value in fisher.items():
        if found := re.search(r"\.(\d+)\..*?(\w+)\.lora_([AB])$", name):
            lines.setdefault(f"{found[2]} {found[3]}", {})[int(found[1])] = value.sum().item()
    require_some(lines, "names of a LoRA matrix in a layer among these", "give fisher_diagonal's result.")
    figure, axes = canvas(7.2, 3.8)
    for i, (kind, line) in enumerate(lines.items()):
        axes.plot(list(line), list(line.values()), color=COLOURS[i], marker=MARKERS[i], ms=4, lw=1.3, label=kind)
    axes.set_yscale("log")
    axes.set(xlabel="layer", ylabel="sum of F over the matrix (nats²)")
    _finish(axes, title, legend="matrix")
    sums = {kind: sum(line.values()) for kind, line in lines.items()}
    order = ", ".join(sorted(sums, key=sums.__getitem__, reverse=True))
    return Picture(figure, f"Line chart, logarithmic axis. {title}, by layer. From most to least: {order}.")


def tug_of_war(
    points: Mapping[str, Mapping[float, tuple[float, float]]], old: str, new: str, title: str = "Old against new"
) -> Picture:
    """Draw how much of an old experience a method keeps against how much of a new one it learns, by its strength.

    In `points`: method -> strength -> (score on the old experience, score on the new one).
    """
    require_some([place for line in points.values() for place in line], "points to draw")
    figure, axes = canvas(6.8, 4.4)
    described = []
    for i, (name, line) in enumerate(points.items()):
        strengths = sorted(line)
        ys, xs = zip(*(line[strength] for strength in strengths))
        axes.plot(xs, ys, color=COLOURS[i], marker=MARKERS[i], ms=7, lw=1.2, label=name)
        for place in dict.fromkeys(line.values()):  # strengths that end at one place share a label
            here = ", ".join(_short(strength) for strength in strengths if line[strength] == place)
            look = {"color": COLOURS[i], "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
            axes.annotate(here, place[::-1], textcoords="offset points", xytext=(8, 6), **look)
        each = (f"{s:g}: {old} {y:.2f}, {new} {x:.2f}" for s, x, y in zip(strengths, xs, ys))
        described.append(f"{name}: {', '.join(each)}")
    axes.set(xlabel=f"score on the new part, {new} (share right)", xlim=(-0.04, 1.04))
    axes.set(ylabel=f"score on the old part,\n{old} (share right)", ylim=(-0.04, 1.04))
    _finish(axes, title, legend="method, by strength")
    return Picture(figure, f"Line chart. {title}; the upper right corner is best. By strength, {'; '.join(described)}.")


def _short(number: float) -> str:
    """Return a number as it is, or as a power of ten where it is a large one."""
    power = round(math.log10(number)) if number >= 1000 else 0
    return f"$10^{power}$" if power and number == 10**power else f"{number:g}"


def cost_picture(results: Results, memory: Mapping[str, int], title: str = "What each method costs") -> Picture:
    """Draw bars: time as a multiple of fine-tuning's, numbers and examples stored, and the peak of memory.

    The description gives what is stored, and whose peak of memory is the highest: the same everywhere. It has no time.
    In `memory`: method -> bytes, from `learning_bytes`. Raises CourseError where a method has none, or the results
    lack fine-tuning.
    """
    require_one_of(results, "result of", baseline := "fine-tuning")
    if lacking := [name for name in results if name not in memory]:
        raise CourseError(f"the memory of {lacking[0]!r} was not measured.", "measure all methods.")
    from matplotlib.figure import Figure

    names, first = list(results), [runs[0] for runs in results.values()]
    # The fastest of the seeds: whatever else the machine did can only have added to it.
    seconds = {name: min(sum(run.seconds) for run in runs) for name, runs in results.items()}
    form = "{:,.0f}" if max(memory.values()) > 1e7 else "{:.2f}"
    panels = [
        (f"time to learn, as a multiple\nof {baseline}'s", [seconds[n] / seconds[baseline] for n in names], "{:.1f}"),
        ("numbers stored\n(thousands)", [run.stored_numbers / 1000 for run in first], "{:,.0f}"),
        ("examples stored", [run.stored_examples for run in first], "{:,.0f}"),
        ("peak of memory while\nlearning (MB)", [memory[n] / 1e6 for n in names], form),
    ]
    figure = Figure(figsize=(2.2 + 2.4 * len(panels), 1 + 0.36 * len(names)), layout="constrained")
    for i, (axes, (label, values, form)) in enumerate(zip(figure.subplots(1, len(panels), sharey=True), panels)):
        bars = axes.barh(range(len(names)), values, color=COLOURS[i])
        axes.bar_label(bars, [" " + form.format(value) for value in values], fontsize=9)
        axes.set(xlabel=label, xlim=(0, max(max(values), 1e-9) * 1.4))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left")
    stored = [f"{n} {run.stored_numbers} numbers and {run.stored_examples} examples" for n, run in zip(names, first)]
    most = f"The highest peak of memory: {max(names, key=memory.__getitem__)}."
    alt = f"Bar charts in {len(panels)} panels. {title}. Time, measured here. {most} Stored: {'; '.join(stored)}."
    return Picture(figure, alt)


def prequential_picture(
    policies: Mapping[str, Sequence[PrequentialReport]],
    drift_at: Sequence[int] = (),
    title: str = "Tested, then trained",
) -> Picture:
    """Draw each policy's recent score along a stream: ticks mark detections, dashed lines the real changes."""
    require_some([report for reports in policies.values() for report in reports], "reports to draw")
    figure, axes = canvas(7.6, 4.2)
    described, styles = [], looks(policies)
    for i, (name, reports) in enumerate(policies.items()):
        colour = styles[name].colour
        axes.plot([r.seen for r in reports], [r.recent for r in reports], color=colour, lw=1.7, label=name)
        found = [r.seen for r in reports if r.drift]
        axes.scatter(found, [-0.01 - 0.035 * i] * len(found), color=colour, marker="|", s=70)
        described.append(f"{name}: overall {reports[-1].overall:.2f}")
    for place in drift_at:
        axes.axvline(place, color=GREY, ls="--", lw=1)
    axes.set(xlabel="examples seen", ylabel="score over the last examples\n(share right)")
    axes.set_ylim(SHARES[0] - 0.1, SHARES[1])
    _finish(axes, title)
    changes = f" Dashed: the stream changes at {', '.join(map(str, drift_at))}." if drift_at else ""
    return Picture(figure, f"Line chart. {title}.{changes} Ticks mark detections. {'; '.join(described)}.")


def routing_picture(routes: Mapping[str, Sequence[int]], title: str) -> Picture:
    """Draw to which adapter each experience's inputs were sent: a row for each, of shares that add up to 1.

    In `routes`: experience -> the adapter's number for each of its inputs, in the order of the experiences.
    """
    names = list(routes)
    shares = [[list(chosen).count(k) / len(chosen) for k in range(len(names))] for chosen in routes.values()]
    rows, label = [f"inputs of {name}" for name in names], "share of the inputs sent there"
    picture = heat_map(shares, rows, names, title=title, label=label)
    _name_columns(picture, "adapter", names)
    return picture


def _name_columns(picture: Picture, xlabel: str, names: Sequence[str]) -> None:
    """Make room for long names side by side, and for the label of the colours."""
    axes = picture.figure.axes[0]
    axes.set(xlabel=xlabel, ylabel="")
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    picture.figure.set_size_inches(4 + 1.1 * len(names), 2.2 + 0.45 * len(names))


def _finish(axes: Axes, title: str, legend: str | None = None) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title=legend)
    axes.set_title(title, loc="left")
