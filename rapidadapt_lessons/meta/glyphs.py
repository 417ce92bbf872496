"""Few-shot classification of images as with Omniglot (Lake et al. 2015), without a download: letters of many scripts,
drawn from matplotlib's own fonts, and at the end scripts that were never seen. The pictures of one letter differ by
face (Sans, Serif or Mono, upright or oblique, light or bold) and by a random rotation, scale, shear and shift.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadData, MissingPackage, NotEnoughExamples
from ..guards import require_at_least, require_one_of, require_some
from .task_batch import TaskBatch

# Scripts by the word that their letters' Unicode names begin with. Those that share many shapes with Latin are all in
# training; what twins are left (an Armenian letter looks like an n) `load_split` takes out.
TRAIN_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "CANADIAN", "ARABIC", "LISU", "OLD", "OGHAM")
VALIDATION_SCRIPTS = ("TIFINAGH", "LAO")
TEST_SCRIPTS = ("ARMENIAN", "GEORGIAN", "HEBREW", "NKO")
SCRIPTS = TRAIN_SCRIPTS + VALIDATION_SCRIPTS + TEST_SCRIPTS

FACES = tuple(
    f"DejaVu{family}{style}"
    for family, slanted in (("Sans", "Oblique"), ("Serif", "Italic"), ("SansMono", "Oblique"))
    for style in ("", "-Bold", f"-{slanted}", f"-Bold{slanted}")
)
SIZE = 28  # pixels of a picture's side, as in Omniglot's usual reduction
_INK = 20  # pixels of a letter's longer side
# How far `augment` goes: degrees; a share of width and of height; pixels for each pixel of height; a share of the side.
_ROTATION, _SCALE, _SHEAR, _SHIFT = 20.0, 0.15, 0.25, 0.10


@dataclass(frozen=True)
class Glyphs:
    """Letters and how each face draws them."""

    letters: tuple[str, ...]  # one character each
    scripts: tuple[str, ...]  # each letter's
    images: Tensor  # [letters, faces, SIZE, SIZE], uint8: 0 is paper, 255 ink
    drawn: Tensor  # [letters, faces], bool: whether the face has the letter; its image is empty where not

    def __len__(self) -> int:
        return len(self.letters)

    def pick(self, keep: Sequence[int]) -> Glyphs:
        """Return some of the letters, by their numbers from 0."""
        letters, scripts = (tuple(names[i] for i in keep) for names in (self.letters, self.scripts))
        return Glyphs(letters, scripts, self.images[keep], self.drawn[keep])


def load_glyphs(scripts: Sequence[str]) -> Glyphs:
    """Draw every letter of some scripts in every face that has it. A second or two for all of them.

    Left out are capitals (many are only larger), letters that Unicode takes apart (an e with an accent), and a letter
    that looks exactly like an earlier one. Raises CourseError for an unknown script or none, and MissingPackage where
    matplotlib's font folder lacks a face.
    """
    require_some(scripts, "scripts", f"choose among {', '.join(SCRIPTS)}.")
    for name in scripts:
        require_one_of(SCRIPTS, "script", name)
    parts = [_draw_script(name) for name in scripts]
    return Glyphs(
        letters=tuple(letter for part in parts for letter in part.letters),
        scripts=tuple(script for part in parts for script in part.scripts),
        images=torch.cat([part.images for part in parts]),
        drawn=torch.cat([part.drawn for part in parts]),
    )


def load_split() -> tuple[Glyphs, Glyphs, Glyphs]:
    """Return the letters of the training, validation and test scripts, the last two `without_twins` in training."""
    train, *held_out = map(load_glyphs, (TRAIN_SCRIPTS, VALIDATION_SCRIPTS, TEST_SCRIPTS))
    return train, *(without_twins(part, train) for part in held_out)


def without_twins(glyphs: Glyphs, others: Glyphs) -> Glyphs:
    """Leave out the letters whose ink in the first face overlaps with that of one of `others` by more than 0.9, as
    intersection over union."""
    a, b = (part.images[:, 0].flatten(1).float() / 255 for part in (glyphs, others))
    both = a @ b.T
    shared = both / (a.square().sum(1)[:, None] + b.square().sum(1) - both)
    return glyphs.pick((shared.max(1).values <= 0.9).nonzero()[:, 0].tolist())


def centred(drawing: Tensor) -> Tensor:
    """Return a drawing as the fonts' letters are: [SIZE, SIZE], in the middle, its longer side _INK pixels.

    drawing [height, width]: ink 1 on paper 0, of any size. The fonts' strokes are about 2 pixels wide at _INK, so draw
    with a pen a tenth as wide as a letter is tall. Raises BadData for a drawing without ink.
    """
    rows, columns = ((drawing > 0.1).any(side).nonzero()[:, 0] for side in (1, 0))
    if not len(rows):
        raise BadData("a field has no drawing in it.", "draw a letter in each field.")
    ink = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
    height, width = (max(1, round(side * _INK / max(ink.shape))) for side in ink.shape)
    ink = F.interpolate(ink[None, None], (height, width), mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    return F.pad(ink, (left, SIZE - width - left, top, SIZE - height - top))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the pictures, each warped at random. Shape [n, 1, SIZE, SIZE] in and out, float from 0 to 1."""
    n = len(images)
    draw = 2 * torch.rand(n, 6, generator=generator) - 1  # six numbers from -1 to 1 for each picture
    angle = draw[:, 0] * math.radians(_ROTATION)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    one, zero = torch.ones(n), torch.zeros(n)
    slant = torch.stack([one, _SHEAR * draw[:, 1], zero, one], 1).view(n, 2, 2)
    stretch = torch.diag_embed(1 / (1 + _SCALE * draw[:, 2:4]))  # the map goes from the new picture to the old one
    offset = 2 * _SHIFT * draw[:, 4:6]  # affine_grid's picture runs from -1 to 1
    theta = torch.cat([turn @ slant @ stretch, offset[:, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def episodes(
    glyphs: Glyphs, ways: int, shots: int, *, tasks: int, generator: torch.Generator, n_query: int
) -> TaskBatch:
    """Draw tasks: in each, tell `ways` letters of one script apart, from `shots` pictures of each.

    The faces of a letter's pictures are drawn without replacement, support and query together, until all that have the
    letter are used; then they go round again, warped anew. support_x [tasks, ways * shots, 1, SIZE, SIZE] and support_y
    [tasks, ways * shots], int64, come letter by letter; query_x and query_y likewise, n_query of each. Raises
    NotEnoughExamples where no script has so many letters, CourseError for fewer than 2 ways, or no shot, query or task.
    """
    for name, value, least in (("ways", ways, 2), ("shots", shots, 1), ("n_query", n_query, 1), ("tasks", tasks, 1)):
        require_at_least(least, name, value)
    [(largest, most)] = Counter(glyphs.scripts).most_common(1)
    if most < ways:
        told = f"{ways}-way tasks were asked for, and the largest script here ({largest}) has {most} letters."
        raise NotEnoughExamples(told, f"choose at most {most} ways, or load a script with more letters.")
    members = [[i for i, s in enumerate(glyphs.scripts) if s == name] for name in dict.fromkeys(glyphs.scripts)]
    fit = [torch.tensor(index) for index in members if len(index) >= ways]
    # Every letter is as likely as any other: a script is drawn in proportion to its letters.
    weights = torch.tensor([float(len(index)) for index in fit])
    chosen = torch.multinomial(weights, tasks, replacement=True, generator=generator).tolist()
    letters = torch.stack([fit[c][torch.randperm(len(fit[c]), generator=generator)[:ways]] for c in chosen])
    per_letter = shots + n_query
    rank = torch.rand(tasks, ways, len(FACES), generator=generator).masked_fill(~glyphs.drawn[letters], 2.0)
    order = rank.argsort(-1)  # the faces that have the letter first, in random order
    count = glyphs.drawn[letters].sum(-1, keepdim=True)
    faces = order.gather(-1, torch.arange(per_letter).expand(tasks, ways, -1) % count)  # [tasks, ways, per_letter]
    x = glyphs.images[letters[..., None], faces].float().div(255).view(-1, 1, SIZE, SIZE)
    x = augment(x, generator).view(tasks, ways, per_letter, 1, SIZE, SIZE)
    y = torch.arange(ways).repeat_interleave(per_letter).view(1, ways, per_letter).expand(tasks, -1, -1)
    halves = (slice(None, shots), slice(shots, None))
    (support_x, query_x), (support_y, query_y) = ([part[:, :, h].flatten(1, 2) for h in halves] for part in (x, y))
    return TaskBatch(support_x, support_y, query_x, query_y)


@functools.cache
def _draw_script(script: str) -> Glyphs:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    try:
        fonts = [FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf"))) for face in FACES]
    except FileNotFoundError as error:
        remedy = "run `python -m pip install --force-reinstall matplotlib`, in the environment that runs the notebook."
        raise MissingPackage(f"matplotlib's font folder has no {Path(error.filename).name}.", remedy) from error
    known = [set(font.get_charmap()) for font in fonts]
    found: dict[bytes, tuple[str, np.ndarray, list[bool]]] = {}
    for letter in map(chr, sorted(known[0])):
        plain = unicodedata.category(letter) in ("Lo", "Ll") and unicodedata.normalize("NFKD", letter) == letter
        if plain and unicodedata.name(letter, "").split(" ")[0] == script:
            drawn = [ord(letter) in codes for codes in known]
            images = np.stack([_draw(font, letter if has else " ") for font, has in zip(fonts, drawn)])
            if images[0].any():
                found.setdefault(images[0].tobytes(), (letter, images, drawn))
    letters, images, drawn = zip(*found.values())
    return Glyphs(letters, (script,) * len(letters), torch.from_numpy(np.stack(images)), torch.tensor(drawn))


def _draw(font, letter: str) -> np.ndarray:
    """Draw a letter in the middle of a picture, its longer side _INK pixels at most; a space is an empty picture."""
    points, image = float(_INK), np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(3):  # drawn once to measure it, and again at the size that fits
        font.set_size(points, 72)
        font.set_text(letter, 0.0)
        font.draw_glyphs_to_bitmap(antialiased=True)
        bitmap = np.asarray(font.get_image())
        rows, columns = bitmap.any(1).nonzero()[0], bitmap.any(0).nonzero()[0]
        if not len(rows):
            return image
        bitmap = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if max(bitmap.shape) == _INK:
            break
        points *= _INK / max(bitmap.shape)
    bitmap = bitmap[:SIZE, :SIZE]
    top, left = ((SIZE - side) // 2 for side in bitmap.shape)
    image[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap
    return image
