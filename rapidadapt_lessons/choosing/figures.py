"""Figures of the capstone: what each method achieved and cost, and which one wins where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..guards import require_some
from ..show.intervals import wilson
from ..show.looks import look
from ..show.plots import STYLE, Picture, canvas, label_ends
from .choose import Limits, choose
from .methods import Trial, by_method


def quality_and_costs(trials: Sequence[Trial], title: str) -> Picture:
    """Draw quality against the number of examples, and below it what each method costs at its largest number.

    The description leaves seconds out, since they differ from machine to machine. Raises CourseError without trials.
    """
    require_some(trials, "trials to draw", "run methods.try_each_method first.")
    import matplotlib
    from matplotlib.figure import Figure

    last = [of_method[-1] for of_method in by_method(trials).values()]
    panels = [
        ("seconds to prepare", [t.prepare_seconds for t in last], "{:.1f}"),
        ("milliseconds a query,\nall scored together", [t.answer_seconds * 1e3 for t in last], "{:.0f}"),
        ("memory beside\nthe weights (MB)", [t.memory_bytes / 1e6 for t in last], "{:.0f}"),
        ("stored (kB)", [t.stored_bytes / 1e3 for t in last], "{:,.0f}"),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 7), layout="constrained")
        grid = figure.subplot_mosaic([["quality"] * len(panels), range(len(panels))], height_ratios=[1.7, 1])
    words = _quality(grid["quality"], trials)
    for i, (label, values, form) in enumerate(panels):
        axes = grid[i]
        axes.barh(range(len(last)), values, color=[look(t.method).colour for t in last])
        for row, value in enumerate(values):
            axes.text(value, row, " " + form.format(value), va="center", fontsize=9)
        axes.set_yticks(range(len(last)), [t.method for t in last] if i == 0 else [])
        axes.set(xlabel=label, xlim=(0, max(values) * 1.4 or 1))
        axes.locator_params(axis="x", nbins=3)
        axes.invert_yaxis()
    grid[0].set_title(f"What it costs with {last[-1].examples} examples", loc="left", fontsize=10.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    costs = "; ".join(
        f"{t.method}, {t.examples} examples: {t.memory_bytes / 1e6:.0f} MB, {t.stored_bytes / 1e3:,.0f} kB"
        for t in last
    )
    alt = f"Line chart and bar charts. {title}. Quality by examples. {words}. Memory and what is stored: {costs}."
    return Picture(figure, alt)


def _quality(axes, trials: Sequence[Trial]) -> str:
    """Draw the lines, and return them in words."""
    sizes = sorted({t.examples for t in trials})
    words, ends = [], []
    for i, (method, of_method) in enumerate(by_method(trials).items()):
        xs = [sizes.index(t.examples) + 0.07 * (i - 2.5) for t in of_method]
        ys = [t.quality for t in of_method]
        spans = [wilson(sum(t.right), len(t.right)) for t in of_method]
        error = [[y - low for y, (low, _) in zip(ys, spans)], [high - y for y, (_, high) in zip(ys, spans)]]
        style = look(method)
        axes.errorbar(
            xs, ys, yerr=error, capsize=3, elinewidth=0.8, color=style.colour, marker=style.marker, ms=5, lw=1.8
        )
        if of_method[-1].examples == sizes[-1]:
            ends.append((ys[-1], method, style.ink))
        else:
            place = (8, 6 if ys[-1] < 0.1 else -12)  # clear of the axis, and of the bar
            axes.annotate(method, (xs[-1], ys[-1]), place, textcoords="offset points", color=style.ink)
        words.append(f"{method}: " + ", ".join(f"{t.quality:.2f} at {t.examples}" for t in of_method))
    axes.set_xticks(range(len(sizes)), [f"{size}" for size in sizes])
    low = min(wilson(sum(t.right), len(t.right))[0] for t in trials)
    axes.set(xlabel="examples (points moved apart sideways)", ylabel="share of queries right", ylim=(low - 0.05, 1.05))
    label_ends(axes, ends, len(sizes) - 0.85)
    return "; ".join(words)


def decision_chart(
    trials: Sequence[Trial], seconds: Sequence[float] = (0, 2, 5, 10, 20, 60), *,
    lost: Mapping[str, float] | None = None, title: str = "What to use",
) -> Picture:  # fmt: skip
    """Draw the winner of `choose` for each number of examples and each number of seconds to prepare.

    With `lost`, what each method loses when a second task is learned, such a task is to come. The description gives
    the winners for no time at all and for unlimited time: the rest depends on the machine. Raises as `choose`.
    """
    require_some(trials, "trials to draw", "run methods.try_each_method first.")
    from matplotlib.patches import Rectangle

    sizes = sorted({t.examples for t in trials})
    figure, axes = canvas(7.6, 0.9 + 0.5 * len(seconds))

    def winner_of(size: int, limit: float) -> Trial:
        return choose(trials, Limits(size, prepare_seconds=limit, changing=lost is not None), lost).trial

    for j, limit in enumerate(seconds):
        for i, size in enumerate(sizes):
            winner = winner_of(size, limit)
            axes.add_patch(
                Rectangle((i - 0.5, j - 0.5), 1, 1, fc=look(winner.method).colour, ec="white", lw=2, alpha=0.45)
            )
            text = f"{winner.method}\n{winner.quality:.2f}"
            axes.text(i, j, text, ha="center", va="center", color="black", fontsize=9)
    axes.set(xlim=(-0.5, len(sizes) - 0.5), ylim=(-0.5, len(seconds) - 0.5))
    axes.set_xticks(range(len(sizes)), [f"{size}" for size in sizes])
    axes.set_yticks(range(len(seconds)), [f"{limit:g}" for limit in seconds])
    axes.set(xlabel="examples at hand", ylabel="seconds to prepare, at most")
    axes.tick_params(length=0)
    axes.set_title(title, loc="left")
    winners = []
    for time, limit in (("With no time to prepare", 0.0), ("with any time", float("inf"))):
        wins = (f"{winner_of(size, limit).method} at {size} examples" for size in sizes)
        winners.append(f"{time}: " + ", ".join(wins))
    return Picture(figure, f"Chart of cells. {title}. " + "; ".join(winners) + ".")


def choice_view(
    trials: Sequence[Trial], lost: Mapping[str, float],
    examples: int, seconds: float, megabytes: float, kilobytes: float, changing: bool,
) -> str:  # fmt: skip
    """Return the winner within the limits as HTML, with every method's score, or why it is out. Raises as `choose`."""
    choice = choose(trials, Limits(examples, seconds, megabytes * 1e6, kilobytes * 1e3, changing), lost)
    left, rows = "<td style='text-align:left'>", []
    for method, of_method in by_method(trials).items():
        won = choice.trial is not None and choice.trial.method == method
        name = f"<b>{escape(method)}</b> &#10003;" if won else escape(method)
        used = max((t.examples for t in of_method if t.examples <= examples), default="")
        score = f"{choice.scores[method]:.2f}" if method in choice.scores else f"out: {escape(choice.excluded[method])}"
        rows.append(f"<tr>{left}{name}</td><td>{used}</td>{left}{score}</td></tr>")
    head = "score: share right" + (", less what a second task costs" if changing else "")
    return (
        f"<p><b>{escape(choice.reason)}</b></p><table><tr><th style='text-align:left'>way</th>"
        f"<th>examples</th><th style='text-align:left'>{head}</th></tr>{''.join(rows)}</table>"
    )
