"""Figures of the lesson on LoRA, and what its widgets show. No state, no browser: tests call these directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import CourseError
from ..show.looks import COLOURS, LOOKS
from ..show.plots import STYLE, Picture, canvas, lines
from ..training.loop import TrainConfig, train
from ..training.rows import Row, exact_rows
from . import layers as lora
from .layers import LoRAConfig
from .quantise import nf4_levels
from .targets import weight_shape

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
    axes.set(
        xlabel="number of the singular value", ylabel="size, relative to the largest", ylim=(0, 1.05), xlim=(0, most)
    )
    axes.set_title(title, loc="left")
    axes.plot([], [], "o", color="#7F7F7F", ms=8, label="up to here: 90% of the squared length")
    axes.legend(frameon=False, fontsize=9)
    return Picture(figure, f"Line chart. {title}. " + "; ".join(told) + ".")


def module_map(model: nn.Module) -> Picture:
    """Draw one block's linear layers to scale, and which of all blocks' layers have LoRA beside them.

    Raises CourseError where the model has no LoRA layers.
    """
    adapted = lora.lora_layers(model)
    if not adapted:
        raise CourseError("this model has no LoRA layers to draw.", "call lora.inject(model, LoRAConfig(...)) first.")
    shapes: dict[str, tuple[int, int]] = {}
    blocks: dict[int, set[str]] = {}
    for name, layer in model.named_modules():
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        if isinstance(layer, nn.Linear | Conv1D) and numbers:  # the output layer is in no block
            name = name.removesuffix(".base")
            kind = name.rpartition(".")[2]
            shapes.setdefault(kind, weight_shape(layer))
            blocks.setdefault(numbers[0], set()).update({kind} if name in adapted else ())
    kinds = sorted(set().union(*blocks.values()))
    figure, axes = canvas(9, 4.6)
    axes.axis("off")
    scale, x, rank = 1 / 700, 0.0, next(iter(adapted.values())).lora_A.shape[0]
    for kind, (n_out, n_in) in shapes.items():
        width, height = n_in * scale, n_out * scale
        axes.add_patch(Rectangle((x, -height), width, height, fc="#E3E3E3", ec="#666666"))
        axes.text(x + width / 2, 0.12, kind, ha="center", va="bottom", fontsize=9)
        size = f"{n_out}\n× {n_in}" if height > 0.5 else f"{n_out} × {n_in}"
        axes.text(x + width / 2, -height / 2, size, ha="center", va="center", fontsize=8)
        if kind in kinds:  # B is right of W, A below it; three times as thick as to scale, or they would vanish
            thick = 3 * rank * scale
            axes.add_patch(Rectangle((x + width + 0.04, -height), thick, height, fc=COLOURS[1]))
            axes.add_patch(Rectangle((x, -height - 0.04 - thick), width, thick, fc=COLOURS[0]))
            axes.text(x + width + 0.06 + thick, -height / 2, "B", color=COLOURS[1], va="center", weight="bold")
            axes.text(x + width / 2, -height - 0.1 - thick, "A", color=COLOURS[0], ha="center", va="top", weight="bold")
        x += width + 0.55
    pitch = (x - 1.85) / len(blocks)
    for row, kind in enumerate(shapes):
        axes.text(1.2, -3.32 - row * 0.2, kind, ha="right", va="center", fontsize=8)
        for column, number in enumerate(sorted(blocks)):
            colour = COLOURS[1] if kind in blocks[number] else "#E3E3E3"
            axes.add_patch(Rectangle((column * pitch + 1.3, -3.4 - row * 0.2), 0.85 * pitch, 0.17, fc=colour))
    axes.text(1.3, -3.1, f"blocks 0 to {max(blocks)}: orange where LoRA is attached", fontsize=9, va="bottom")
    axes.set(xlim=(-0.1, x), ylim=(-3.5 - 0.2 * len(shapes), 0.5), aspect="equal")
    axes.set_title("Where the adapter sits", loc="left")
    layers = ", ".join(f"{kind} {a} by {b}" for kind, (a, b) in shapes.items())
    where = f"{' and '.join(kinds)} in {sum(bool(v) for v in blocks.values())} of {len(blocks)} blocks"
    alt = f"Diagram. Where the adapter sits. A block has {len(shapes)} linear layers: {layers}."
    return Picture(figure, f"{alt} LoRA of rank {rank} sits beside {where}.")


def family_panels(results: Mapping[str, Mapping[str, float]], title: str) -> Picture:
    """Draw methods as rows and what was measured as panels: accuracy, seconds and memory of a step, trained numbers.

    Those may be left out of all. The description has neither seconds nor memory, which differ between machines.
    """
    panels = {
        "accuracy": ("accuracy\n(share of queries)", "{:.2f}"),
        "trainable": ("trained numbers\n(thousands, log scale)", "{:,.0f}"),
        "seconds": ("seconds a step", "{:.2f}"),
        "megabytes": ("memory of a step,\nwithout the weights (MB)", "{:,.0f}"),
    }
    panels = {key: panel for key, panel in panels.items() if all(key in r for r in results.values())}
    with rc_context(STYLE):
        figure = Figure(figsize=(2.5 * len(panels), 1 + 0.4 * len(results)), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True)
    for i, (axes, (key, (label, form))) in enumerate(zip(grid, panels.items())):
        log = key == "trainable"
        values = [r[key] / (1000 if log else 1) for r in results.values()]
        if log:  # dots: a bar's length would say nothing, as a log scale has no zero
            axes.plot(values, range(len(values)), "o", color=COLOURS[i])
            axes.set_xscale("log")
            axes.set_xlim(left=min(values) / 3)
        else:
            axes.barh(range(len(values)), values, color=COLOURS[i])
        for row, value in enumerate(values):
            axes.text(value, row, ("  " if log else " ") + form.format(value), va="center", fontsize=9)
        axes.set_xlabel(label)
        axes.set_xlim(right=max(values) * (30 if log else 1.35))
    grid[0].set_yticks(range(len(results)), list(results))
    grid[0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    sizes = {n: f", {r['trainable']:,.0f} numbers" if "trainable" in panels else "" for n, r in results.items()}
    told = "; ".join(f"{n}: accuracy {r['accuracy']:.2f}{sizes[n]}" for n, r in results.items())
    return Picture(figure, f"Bar charts, one panel a measurement. {title}. {told}.")


def levels_picture(weight: Tensor) -> Picture:
    """Draw how a layer's weights are spread within blocks of 64, and the 16 levels that 4 bits can hold."""
    levels = nf4_levels()
    blocks = weight.detach().float().cpu().reshape(-1, 64)
    values = (blocks / blocks.abs().amax(1, keepdim=True)).flatten()
    figure, axes = canvas(7, 3.4)
    axes.hist(values.numpy(), bins=120, range=(-1, 1), density=True, color="#9CC3DE")
    axes.vlines(levels.numpy(), 0, axes.get_ylim()[1], color=COLOURS[1], lw=1)
    axes.set(xlabel="weight, relative to the largest of its block", ylabel="density", xlim=(-1.02, 1.02))
    axes.set_title("A layer's weights, and the 16 levels of NF4", loc="left")
    apart = f"{levels.diff().min():.2f} apart near zero, {levels.diff().max():.2f} apart at the ends"
    alt = "A layer's weights relative to the largest of their block, a bell around zero, with 16 vertical lines"
    return Picture(figure, f"Histogram. {alt} at the levels of NF4: {apart}.")


def live_run(
    model: nn.Module,
    rows: Sequence[Row],
    queries: Sequence[Row],
    rank: int,
    lora_alpha: float,
    lr: float,
    target_modules: str,
    steps: int = 10,
) -> Picture:
    """Train a fresh adapter, show its losses and its accuracy on the queries, and take it out again.

    `target_modules` are names with commas between them. Raises as `lora.inject` and `loop.train`; the model is the base
    model again in any case.
    """
    targets = tuple(name.strip() for name in target_modules.split(",") if name.strip())
    lora.inject(model, LoRAConfig(rank, lora_alpha, target_modules=targets))
    try:
        history = train(model, rows, TrainConfig(steps, lr=lr), progress=False)
        right = exact_rows(model, queries)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    finally:
        lora.remove(model)
    title = f"{trained:,} trained numbers: {sum(right)} of {len(right)} queries right"
    return lines({"loss": dict(enumerate(history.losses))}, title=title, xlabel="update", ylabel="loss (nats a token)")
