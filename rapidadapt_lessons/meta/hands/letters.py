"""Draw five letters and one of them again, which one-shot learning reads (lesson 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BadData
from ...show.hand import Hand, hand
from ...show.looks import look
from ...show.plots import Picture, panel_canvas
from ..few_shot import PatchNet, read_drawing
from ..glyphs import SIZE, augment, centred, load_glyphs

Box = Mapping[str, Any]  # {"strokes": [[[x, y], ...], ...]} with x and y from 0 to 1, {"sample": number}, or {}
LETTER_BOXES = 5
PEN = 0.11  # the pen's width as a share of the letter's longer side, as in the fonts
FINE = 2 * SIZE  # pixels a side that strokes are drawn with first
LEAST_EXTENT = 0.1  # of the box: a smaller drawing, such as a dot, is not made as large as a letter
MOST_STROKE_POINTS = 3000


def draw_letters(net: PatchNet, *, script: str = "GEORGIAN") -> Hand:
    """Return five boxes to draw a letter in each, and a sixth in which one of them is drawn again and read.

    Args:
        net: as `train_protonet` leaves it.
        script: whose letters fill the boxes for an example; one of `glyphs.SCRIPTS`.

    Raises:
        CourseError: there is no such script.
    """
    samples = letter_samples(script)
    answer = partial(letters_answer, net, samples)
    examples = [letters_example(number, len(samples)) for number in range(4)]
    still = letters_picture(answer({"boxes": examples[0]}), script)
    fixed = {"examples": examples, "samples": len(samples), "side": SIZE, "colour": look("ProtoNet").colour}
    return hand(Path(__file__).with_name("letters.js"), answer, {"boxes": examples[0]}, still, **fixed)


def letter_samples(script: str) -> Tensor:
    """Return two pictures of every letter of a script that has two faces, [letters, 2, SIZE, SIZE], ink 1 on paper 0.

    The first is the letter's first face, the second its last, turned and stretched a little.
    """
    glyphs = load_glyphs([script])
    pairs = []
    for images, drawn in zip(glyphs.images.float() / 255, glyphs.drawn):
        faces = drawn.nonzero()[:, 0].tolist()
        if len(faces) > 1:
            pairs.append(images[[faces[0], faces[-1]]])
    both = torch.stack(pairs)
    warped = augment(both[:, 1:], torch.Generator().manual_seed(0))
    return torch.cat([both[:, :1], warped], dim=1)


def letters_example(number: int, samples: int) -> list[Box]:
    """Return six boxes with samples: five letters in a row, and one of them again."""
    chosen = [(LETTER_BOXES * number + i) % samples for i in range(LETTER_BOXES)]
    return [{"sample": i} for i in [*chosen, chosen[(2 * number + 1) % LETTER_BOXES]]]


def letters_answer(net: PatchNet, samples: Tensor, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands in the six boxes as the network sees it, and how probable it finds each of the first five.

    A picture is a text of SIZE * SIZE digits, 0 for paper to 9 for ink, or None; a probability is None where the box
    is empty, and all are where fewer than two of the five are filled, or the sixth is not. Raises BadData for other
    than six boxes, a sample that is not there, or strokes with too many points.
    """
    boxes = asked["boxes"]
    if len(boxes) != LETTER_BOXES + 1:
        raise BadData(f"there are {len(boxes)} boxes.", f"fill {LETTER_BOXES}, and one to be read.")
    pictures = [box_picture(box, samples[:, int(i == LETTER_BOXES)]) for i, box in enumerate(boxes)]
    filled = [i for i, picture in enumerate(pictures[:-1]) if picture is not None]
    shares: list[float | None] = [None] * LETTER_BOXES
    if len(filled) > 1 and pictures[-1] is not None:
        read = read_drawing(net, torch.stack([pictures[i] for i in filled]), pictures[-1])
        for i, share in zip(filled, read.tolist()):
            shares[i] = round(share, 4)
    return {"seen": [None if p is None else in_digits(p) for p in pictures], "shares": shares}


def box_picture(box: Box, samples: Tensor) -> Tensor | None:
    """Return a box's drawing as the fonts' letters are, [SIZE, SIZE], or None where it is empty."""
    if (number := box.get("sample")) is not None:
        if number not in range(len(samples)):
            raise BadData(f"there is no sample {number}.", f"choose one from 0 to {len(samples) - 1}.")
        return samples[number]
    strokes = box.get("strokes") or []
    return centred(ink(strokes)) if strokes else None


def ink(strokes: Sequence[Sequence[Sequence[float]]]) -> Tensor:
    """Return strokes in ink, [FINE, FINE]: as large as fits, with a pen as wide for a small letter as for a large one.

    strokes: for each its points, x and y. Raises BadData for more than MOST_STROKE_POINTS points.
    """
    if sum(map(len, strokes)) > MOST_STROKE_POINTS:
        raise BadData("there is more ink than a letter needs.", "clear the box and draw it again.")
    lines = [torch.tensor([*stroke, stroke[-1]], dtype=torch.float32) for stroke in strokes]  # a dot is a line too
    every = torch.cat(lines)
    low, high = every.amin(0), every.amax(0)
    scale = (1 - PEN) * FINE * 0.9 / (high - low).max().clamp_min(LEAST_EXTENT)
    lines = [(line - (low + high) / 2) * scale + FINE / 2 for line in lines]
    starts, ends = torch.cat([line[:-1] for line in lines]), torch.cat([line[1:] for line in lines])
    middle = torch.arange(FINE) + 0.5
    pixels = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), dim=-1)[:, :, None]  # [FINE, FINE, 1, 2]
    along = ends - starts
    share = ((pixels - starts) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)  # of the way along each line
    distance = (pixels - starts - share.clamp(0, 1)[..., None] * along).norm(dim=-1).amin(-1)
    return (PEN * FINE * 0.9 / 2 + 0.5 - distance).clamp(0, 1)


def in_digits(picture: Tensor) -> str:
    """Return a picture as a digit for each pixel, row by row: 0 for paper to 9 for ink."""
    return "".join(map(str, (picture.flatten() * 9).round().clamp(0, 9).int().tolist()))


def letters_picture(answer: Mapping[str, Any], script: str) -> Picture:
    """Draw what the widget shows at first. Its description holds no measured number."""
    figure, panels = panel_canvas(9.6, 2.3, LETTER_BOXES + 1)
    for i, (axes, seen) in enumerate(zip(panels, answer["seen"])):
        picture = torch.tensor([int(digit) for digit in seen]).view(SIZE, SIZE)
        axes.imshow((9 - picture).numpy(), cmap="gray", vmin=0, vmax=9)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        if i < LETTER_BOXES:
            share = answer["shares"][i]
            axes.set_title(f"letter {i + 1}", fontsize=10.5)
            axes.set_xlabel(f"{share:.2f}", labelpad=12)
            axes.barh(SIZE + 1.2, share * SIZE, left=-0.5, height=2, color=look("ProtoNet").colour, clip_on=False)
            axes.set(xlim=(-0.5, SIZE - 0.5), ylim=(SIZE - 0.5, -0.5))
        else:
            axes.set_title("which of them?", fontsize=10.5)
            axes.spines[:].set(linewidth=2)
    alt = (
        f"Five boxes, each with a {script.capitalize()} letter to be drawn over, a sixth with one of them in another "
        "face, and bars for how probable a ProtoNet finds each of the five."
    )
    return Picture(figure, alt)
