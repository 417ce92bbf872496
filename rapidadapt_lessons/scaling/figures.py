"""Figures of the lesson on scaling, and what its widgets show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from ..errors import CourseError
from ..guards import require_at_least, require_one_of, require_positive
from ..lm.types import Tokenizer
from ..prompting.scoring import count_tokens
from ..show.html import require_whole, table
from ..show.looks import COLOURS, LOOKS, MARKERS
from ..show.plots import Picture, canvas
from . import cost_model
from .cost_model import H100, LINKS, MODELS, REACH, TRAIN_ALL, TRAIN_LORA, Shape

HATCHES = ("", "//", "..", "xx")
MOST_LETTERS = 20_000  # of a row that is pasted


def efficiency(
    model: str, counts: Sequence[int], links: Sequence[str], *, tokens: int = 4096, rank: int = 8
) -> Picture:
    """Draw the share of a step's time in which GPUs compute, by their number: for both methods and each link.

    There are `tokens` on each GPU. A link's line ends at the number of GPUs that it joins (`cost_model.REACH`).
    """
    shape = _known(model, MODELS, "model")
    figure, axes = canvas(7.5, 4)
    described = []
    for method, hollow in ((TRAIN_LORA, True), (TRAIN_ALL, False)):
        for i, link in enumerate(links):
            bandwidth = _known(link, LINKS, "link")
            joined = [n for n in counts if n <= REACH.get(link, n)]
            times = [cost_model.step_time(shape, n * tokens, method, n, rank=rank, bandwidth=bandwidth) for n in joined]
            shares = [time.efficiency for time in times]
            look = {"color": COLOURS[i], "marker": MARKERS[i], "ls": "-" if hollow else LOOKS[1]}
            # LoRA's lines lie on one another: hollow markers, the first the largest, so that each can be seen.
            look |= {"mfc": "none", "ms": 6 + 4 * (len(links) - 1 - i)} if hollow else {"ms": 6}
            axes.plot([counts.index(n) for n in joined], shares, label=f"{method}, {link}", **look)
            described.append(f"{method} over {link}: " + ", ".join(f"{s:.2f} at {n}" for n, s in zip(joined, shares)))
    axes.set_xticks(range(len(counts)), [str(n) for n in counts])
    axes.set(xlabel="GPUs", ylabel="share of the time spent computing", ylim=(-0.03, 1.05))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelspacing=0.9)
    title = f"{model}, {tokens:,} tokens a GPU and step"
    axes.set_title(title, loc="left")
    return Picture(figure, f"Line chart, on paper. {title}. Share of time spent computing. {'; '.join(described)}.")


def cost_view(gpus: int, model: str, method: str, link: str, tokens: int, each: float) -> Picture:
    """Draw the memory of each GPU, an H100, and the seconds of a training step, on paper.

    There are `tokens` on each GPU, and all count. For `each` see `cost_model.step_memory`. Raises CourseError for an
    unknown model, method or link, or fewer than one GPU.
    """
    shape, bandwidth = _known(model, MODELS, "model"), _known(link, LINKS, "link")
    memory = cost_model.step_memory(shape, tokens, tokens, method, bits=16, each=each)
    time = cost_model.step_time(shape, gpus * tokens, method, gpus, bandwidth=bandwidth)
    return _step_picture(f"{model}, {method}", gpus, link, memory, time)


def own_step_view(
    tokenizer: Tokenizer,
    each: Mapping[str, float],
    text: str,
    rows: int,
    examples: int,
    gpus: int,
    layers: int,
    width: int,
    method: str,
    rank: int,
    gigabits: float,
) -> str:
    """Show what training a model of the reader's size on the reader's text would take, on paper, as HTML.

    The model is a decoder like LLaMA: feed-forward units 8/3 of the width, a vocabulary of 32,000, H100 GPUs.

    Args:
        each: for each method, see `cost_model.step_memory`.
        text: one row of the reader's data; all rows are taken to have as many tokens.
        rows: that each GPU takes in a step.
        examples: rows in all.
        gigabits: that a GPU sends a second.

    Raises CourseError where the text has no tokens or too many letters, a number makes no sense, or the method is
    unknown.
    """
    numbers = {"rows": rows, "examples": examples, "gpus": gpus, "layers": layers, "width": width, "rank": rank}
    for name, value in numbers.items():
        require_at_least(1, name, value)
    require_positive("gigabits", gigabits, "give the link's speed, such as 10 for ordinary Ethernet.")
    kept = _known(method, each, "method")
    require_whole(text)
    if len(text) > MOST_LETTERS:
        raise CourseError(f"your row has {len(text):,} letters; {MOST_LETTERS:,} is the most here.", "paste one row.")
    row = count_tokens(tokenizer, text) if text.strip() else 0
    if row < 2:
        raise CourseError(f"your row {text[:20]!r} has {row} tokens.", "paste a text: one to read, one to predict.")
    shape, tokens = Shape(layers, width, width, round(8 * width / 3), 32000, tied=False), rows * row
    memory = cost_model.step_memory(shape, tokens, tokens, method, rank=rank, bits=16, each=kept)
    time = cost_model.step_time(shape, gpus * tokens, method, gpus, rank=rank, bandwidth=gigabits * 1e9 / 8)
    name = f"{shape.weights / 1e9:.3g} billion weights, {method}"
    picture = _step_picture(name, gpus, f"{gigabits:g} gigabits a second", memory, time)
    steps, trained = math.ceil(examples / (rows * gpus)), shape.trained_weights(method, rank)
    total = steps * (time.computing + time.communicating)
    lines = {
        "tokens in your row, and of each GPU in a step": f"{row:,}, {tokens:,}",
        "trained numbers": f"{trained:,}: {trained / shape.weights:.2%} of the weights",
        "each GPU sends in a step": f"{cost_model.ring_bytes(2 * trained, gpus) / 1e6:,.1f} MB",
        "share of the time spent computing": f"{time.efficiency:.2f}",
        f"as fast as one GPU, times (at most {gpus})": f"{gpus * time.efficiency:.1f}",
        f"once through your {examples:,} rows": f"{steps:,} steps, "
        + (f"{total / 3600:,.1f} hours" if total >= 3600 else f"{total:,.1f} seconds"),
    }
    return picture.html() + table(("on paper", ""), lines.items())


def _step_picture(name: str, gpus: int, link: str, memory: cost_model.Memory, time: cost_model.StepTime) -> Picture:
    figure, _ = canvas(8, 3.2)
    figure.clear()
    upper, lower = figure.subplots(2, 1)
    limit, sizes = H100.memory / 1e9, {part: size / 1e9 for part, size in asdict(memory).items()}
    _stack(upper, sizes, COLOURS)
    upper.axvline(limit, color="#000000", ls="--", lw=1)
    upper.text(limit, 0.52, f" {limit:.0f} GB", va="bottom", fontsize=9)
    upper.set(xlabel="memory of each GPU (GB)", xlim=(0, 1.15 * max(limit, memory.total / 1e9)))
    _stack(lower, asdict(time), COLOURS[4:])
    lower.set(xlabel="seconds of a step", xlim=(0, 1.15 * (time.computing + time.communicating)))
    fits = "fits into" if memory.total <= H100.memory else "does not fit into"
    title = f"{name}, {gpus} GPU{'s' if gpus > 1 else ''}: {fits} {limit:.0f} GB"
    upper.set_title(title, loc="left", pad=20)  # above the limit's label
    each_part = ", ".join(f"{part} {size:.1f}" for part, size in sizes.items())
    return Picture(
        figure,
        f"Stacked bars, on paper. {title}. Memory of each GPU in GB: {each_part}, {memory.total / 1e9:.1f} in all. "
        f"Seconds of a step: computing {time.computing:.3g}, communicating over {link} {time.communicating:.3g}.",
    )


def two_curves(
    first: tuple[str, Sequence[float]], second: tuple[str, Sequence[float]], *, title: str, ylabel: str, alt: str
) -> Picture:
    """Draw two curves over the updates that may lie on each other: the first has large hollow circles."""
    figure, axes = canvas(7, 4)
    looks = ({"marker": "o", "ms": 12, "mfc": "none", "lw": 0, "mew": 1.8}, {"marker": "s", "ms": 4, "lw": 1.8})
    for i, ((name, values), look) in enumerate(zip((first, second), looks)):
        axes.plot(range(len(values)), list(values), color=COLOURS[i], label=name, **look)
    axes.set(xlabel="update", ylabel=ylabel)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left")
    return Picture(figure, alt)


def predicted_and_measured(rows: Mapping[str, tuple[float, float]], *, title: str, unit: str) -> Picture:
    """Draw (predicted, measured) for each name, on a logarithmic axis; CourseError unless each measured is above 0."""
    if not rows or min(measured for _, measured in rows.values()) <= 0:
        raise CourseError(f"the pairs are {dict(rows)}.", "give predicted and measured numbers, above zero.")
    figure, axes = canvas(7.5, 1.2 + 0.7 * len(rows))
    for row, pair in enumerate(rows.values()):
        for i, (value, label) in enumerate(zip(pair, ("predicted", "measured"))):
            place = row + (i - 0.5) * 0.38
            axes.barh(place, value, 0.36, color=COLOURS[i], hatch=HATCHES[i], ec="white", label=None if row else label)
            axes.text(value, place, f" {_three_digits(value)}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    shown = [value for pair in rows.values() for value in pair if value > 0]
    axes.set(xscale="log", xlabel=f"{unit} (logarithmic)", xlim=(min(shown) / 3, 3 * max(shown)))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_title(title, loc="left")
    ratios = "; ".join(f"{name}: predicted {p / m:.2f} times the measured" for name, (p, m) in rows.items())
    return Picture(figure, f"Bar chart. {title}. {unit}. {ratios}.")


def _three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.10g}"


def _stack(axes, sizes: Mapping[str, float], colours: Sequence[str]) -> None:
    left = 0.0
    for i, (name, size) in enumerate(sizes.items()):
        axes.barh(0, size, left=left, color=colours[i], hatch=HATCHES[i], ec="white", label=name)
        left += size
    axes.text(left, 0, f" {left:.3g}", va="center")
    axes.set_yticks([])
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _known(name: str, choices: Mapping[str, object], what: str):
    require_one_of(choices, what, name)
    return choices[name]
