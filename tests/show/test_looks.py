"""The one look: a method is drawn alike everywhere, and what is compared can be told apart."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.colors import to_rgb

from rapidadapt_lessons.choosing.methods import METHODS
from rapidadapt_lessons.continual.distillation import LwF
from rapidadapt_lessons.continual.ewc import EWC
from rapidadapt_lessons.continual.replay import Replay
from rapidadapt_lessons.continual.stream import Joint, Method
from rapidadapt_lessons.meta.landscape import START_METHODS
from rapidadapt_lessons.show.looks import COLOURS, MARKERS, METHOD_LOOKS, Look, contrast, look, looks

# What one figure or another compares, by the names that the package itself gives.
COMPARED = {
    "choosing": METHODS,
    "starts": START_METHODS,
    "sinusoids": ("MAML", "FOMAML", "ANIL", "Reptile", "pretrained", "random"),
    "continual": (*(m.name for m in (Method(), Replay(4), EWC(), LwF(), Joint(), EWC(online=True))), "adapter each"),
    "rates": ("full fine-tuning", "LoRA, all linear", "LoRA, q and v"),
    "scenarios": ("fine-tuning", "EWC", "LwF", "replay", "nearest class mean", "joint"),
}


def linear(colour: str) -> list[float]:
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]


def as_seen(colour: str, matrix) -> list[float]:
    """Return a colour as a colour-blind viewer sees it, in linear light."""
    return [sum(weight * value for weight, value in zip(row, linear(colour))) for row in matrix]


# Full protanopia and deuteranopia (Machado, Oliveira and Fernandes 2009, table 1).
BLIND = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
)


@pytest.mark.parametrize("names", COMPARED.values(), ids=COMPARED)
def test_methods_of_one_figure_differ_in_colour_and_in_marker(names):
    found = looks(names)
    assert all(name.split(", centroid")[0].lower() in METHOD_LOOKS for name in names), names
    assert len({one.colour for one in found.values()}) == len(found)
    assert len({one.marker for one in found.values()}) == len(found)


@pytest.mark.parametrize("names", COMPARED.values(), ids=COMPARED)
@pytest.mark.parametrize("matrix", BLIND, ids=["protanopia", "deuteranopia"])
def test_they_stay_apart_for_colour_blind_viewers(names, matrix):
    for one, other in combinations(looks(names).values(), 2):
        distance = max(abs(a - b) for a, b in zip(as_seen(one.colour, matrix), as_seen(other.colour, matrix)))
        assert distance > 0.05, (one, other)


def test_a_method_looks_the_same_alone_in_company_and_with_a_remark():
    alone = look("replay")
    assert looks(["x", "replay", "LoRA"])["replay"] == looks(["replay (24 kept)"])["replay (24 kept)"] == alone
    assert look("adapter each, centroid") == look("adapter each") and look("Replay") == alone
    assert look("LoRA, q and v") != look("LoRA, all linear") == look("LoRA")


def test_other_names_take_the_colours_that_are_left():
    found = looks(["LoRA", "one", "two"])
    assert found["LoRA"].colour not in {found["one"].colour, found["two"].colour}
    many = looks([f"line {i}" for i in range(20)])
    assert len(set(many.values())) == 20


def test_text_in_a_methods_colour_can_be_read_on_white():
    assert contrast((255, 255, 255)) == pytest.approx(1) and contrast((0, 0, 0)) == pytest.approx(21)
    for one in METHOD_LOOKS.values():
        ink = [int(one.ink[i : i + 2], 16) for i in (1, 3, 5)]
        assert contrast(ink) >= 4.5, one
    assert Look("#000000", "o").ink == "#000000"


def test_colours_and_markers_are_all_different():
    assert len(set(COLOURS)) == len(COLOURS) == 8 == len(set(MARKERS))
