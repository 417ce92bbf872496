"""Schematics: pictures of an idea, without data."""

from __future__ import annotations

from .looks import COLOURS
from .picture import Picture
from .plots import canvas


def course_map() -> Picture:
    """Draw where each of the four ways of adapting acts on a model."""
    from matplotlib.patches import FancyBboxPatch

    figure, axes = canvas(8.6, 3.9)
    axes.set(xlim=(0, 10), ylim=(0, 5.2))
    axes.axis("off")
    boxes = (
        ((0.1, 2.1, 2.4, 1.2), COLOURS[0], "1  Prompting", "change the text\nthat it reads"),
        ((3.8, 4.0, 2.4, 0.95), COLOURS[1], "2  LoRA", "add a few weights"),
        ((3.8, 0.15, 2.4, 0.95), COLOURS[2], "3  MAML", "choose where\ntraining starts"),
        ((7.5, 2.1, 2.4, 1.2), COLOURS[3], "4  Continual", "keep learning\nas the data change"),
    )
    middle = FancyBboxPatch((3.5, 1.75), 3, 1.6, "round,pad=0.08", fc="#EDEDED", ec="#444444")
    axes.add_patch(middle)
    axes.text(5, 2.55, "pretrained model\n135 million weights", ha="center", va="center", fontsize=11)
    for (x, y, width, height), colour, name, what in boxes:
        axes.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0.08", fc="white", ec=colour, lw=2.5))
        axes.text(x + width / 2, y + height * 0.72, name, color="#222222", ha="center", va="center", weight="bold")
        axes.text(x + width / 2, y + height * 0.3, what, color="#222222", ha="center", va="center", fontsize=9)
    arrow = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.6}
    for start, end in (((2.6, 2.7), (3.4, 2.7)), ((5, 3.95), (5, 3.45)), ((5, 1.2), (5, 1.65))):
        axes.annotate("", end, start, arrowprops=arrow)
    axes.annotate("", (7.6, 3.45), (6.4, 3.45), arrowprops=arrow | {"connectionstyle": "arc3,rad=-0.5"})
    axes.annotate("", (6.4, 1.65), (7.6, 1.95), arrowprops=arrow | {"connectionstyle": "arc3,rad=-0.5"})
    alt = (
        "Diagram. In the middle a pretrained model with 135 million weights. Prompting changes the text that it "
        "reads. LoRA adds a few weights. MAML chooses where training starts. Continual learning keeps changing "
        "it as the data change."
    )
    return Picture(figure, alt)
