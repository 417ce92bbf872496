"""Figures of the lesson on LoRA, and what its widgets show. No state, no browser: tests call these directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from ..show.looks import COLOURS, LOOKS, look
from ..show.plots import Picture, canvas, panel_canvas
from .quantise import nf4_levels

PARTS = {"weights": "", "activations": "//", "gradients": "..", "optimiser": "xx"}  # each with its hatch


def memory_bars(costs: Mapping[str, Mapping[str, int]], title: str) -> Picture:
    """Draw what `cost.training_bytes` counted, as one stacked bar for each method."""
    figure, axes = canvas(7.5, 1.2 + 0.6 * len(costs))
    told = []
    for row, (name, parts) in enumerate(costs.items()):
        left = 0.0
        for (part, hatch), colour in zip(PARTS.items(), COLOURS):
            size = parts[part] / 1e6
            axes.barh(row, size, left=left, color=colour, hatch=hatch, ec="white", label=None if row else part)
            left += size
        axes.text(left, row, f" {left:,.0f} MB", va="center")
        each = ", ".join(f"{part} {parts[part] / 1e6:,.0f}" for part in PARTS)
        told.append(f"{name}: {each}, {left:,.0f} in all")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.28), ncol=4, frameon=False)
    axes.set_yticks(range(len(costs)), list(costs))
    axes.invert_yaxis()
    axes.set(xlabel="megabytes", xlim=(0, 1.15 * max(sum(parts.values()) for parts in costs.values()) / 1e6))
    axes.set_title(title, loc="left")
    return Picture(figure, f"Stacked bars. {title}. Megabytes. " + "; ".join(told) + ".")


def spectrum(deltas: Mapping[str, Tensor], title: str, most: int = 60) -> Picture:
    """Draw the first singular values of updates of weights, [out, in], each relative to its largest.

    The description says how many of them hold 90% of the sum of squares (of the update's squared length).
    """
    figure, axes = canvas(7, 3.4)
    told = []
    for i, (name, delta) in enumerate(deltas.items()):
        values = torch.linalg.svdvals(delta.float())
        share = values.square().cumsum(0) / values.square().sum()
        enough = int((share < 0.9).sum()) + 1
        told.append(f"{name}: {enough} of {len(values)} hold 90% of the squared length")
        sizes = (values / values[0]).tolist()
        colour = COLOURS[i % len(COLOURS)]
        first = sizes[:most]
        axes.plot(range(1, len(first) + 1), first, color=colour, ls=LOOKS[i % len(LOOKS)], lw=1.8, label=name)
        axes.plot(enough, sizes[enough - 1], "o", color=colour, ms=8, mec="white")
    axes.set(xlabel="index of the singular value", ylabel="singular value, relative to the largest")
    axes.set(ylim=(0, 1.05), xlim=(0, most))
    axes.set_title(title, loc="left")
    axes.plot([], [], "o", color="#7F7F7F", ms=8, label="90% of the squared norm is to the left")
    axes.legend(frameon=False, fontsize=9)
    return Picture(figure, f"Line chart. {title}. " + "; ".join(told) + ".")


def family_dots(
    numbers: Mapping[str, float],
    measured: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    live: Mapping[str, Mapping[str, float]] = {},
) -> Picture:
    """Draw methods as rows, the one with the fewest trained numbers on top, and each thing measured as a panel.

    Args:
        numbers: trained numbers of each method, one of them "LoRA"; the first panel, on a log scale.
        measured: for each panel's label, each method's runs, a dot each. A bar marks their mean, and a dashed line
            carries LoRA's through all rows.
        live: for some of the labels and methods, the run that was just made in front of the reader: a ring.
    """
    names = sorted(numbers, key=numbers.__getitem__)
    inks = {name: look(name).ink if name == "LoRA" else "#4D4D4D" for name in names}
    told = {name: [f"{numbers[name]:,.0f} trained numbers"] for name in names}
    middle = {"ha": "center", "va": "center"}
    widths = {"width_ratios": [1.2] + [2] * len(measured)}
    size = 3 + 2.8 * len(measured), 1.1 + 0.4 * len(names)
    figure, panels = panel_canvas(*size, 1 + len(measured), sharey=True, gridspec_kw=widths)
    for row, (name, ink) in enumerate(inks.items()):
        panels[0].plot(numbers[name], row, "o", color=ink)
        panels[0].text(numbers[name], row - 0.3, f"{numbers[name]:,.0f}", color=ink, fontsize=9, **middle)
    for axes, (label, runs) in zip(panels[1:], measured.items()):
        axes.axvline(fmean(runs["LoRA"]), color=inks["LoRA"], ls="--", lw=1)
        for row, (name, ink) in enumerate(inks.items()):
            mean = fmean(runs[name])
            axes.scatter(runs[name], [row] * len(runs[name]), s=30, color=ink, alpha=0.45, lw=0)
            axes.plot([mean, mean], [row - 0.27, row + 0.27], color=ink, lw=2.5)
            told[name].append(f"{label} {mean:.2f}")
            if (value := live.get(label, {}).get(name)) is not None:
                axes.plot(value, row, "o", ms=13, mfc="none", mec=COLOURS[1], mew=2.2)
                axes.text(value, row + 0.42, "your run", color=COLOURS[1], weight="bold", **middle)
                told[name].append(f"your run {value:.2f}")
        axes.set_xlabel(label)
    for axes in panels:
        axes.hlines(range(len(names)), 0, 1, color="#E8E8E8", lw=1, zorder=0, transform=axes.get_yaxis_transform())
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set(xscale="log", xlabel="trained numbers\n(log scale)")
    panels[0].margins(x=0.25)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    each = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in told.items())
    return Picture(figure, f"Dot plots, one panel a measurement. {title}. {each}.")


def levels_picture(weight: Tensor) -> Picture:
    """Draw how a layer's weights are spread within blocks of 64, and the 16 levels that 4 bits can hold."""
    levels = nf4_levels()
    blocks = weight.detach().float().cpu().reshape(-1, 64)
    values = (blocks / blocks.abs().amax(1, keepdim=True)).flatten()
    figure, axes = canvas(7, 3.4)
    axes.hist(values.numpy(), bins=120, range=(-1, 1), density=True, color="#9CC3DE")
    axes.vlines(levels.numpy(), 0, axes.get_ylim()[1], color=COLOURS[1], lw=1)
    axes.set(xlabel="weight, relative to the largest of its block", ylabel="density", xlim=(-1.02, 1.02))
    axes.set_title("NF4 puts its 16 levels where the weights are", loc="left")
    apart = f"{levels.diff().min():.2f} apart near zero, {levels.diff().max():.2f} apart at the ends"
    alt = "A layer's weights relative to the largest of their block, a bell around zero, with 16 vertical lines"
    return Picture(figure, f"Histogram. {alt} at the levels of NF4: {apart}.")
