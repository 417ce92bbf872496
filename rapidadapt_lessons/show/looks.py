"""One colour, marker and line for each method, the same in every figure of the course."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Okabe and Ito's palette (2008), which stays apart under the common kinds of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK, GREY = COLOURS
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LOOKS = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Look:
    """How a method is drawn. Two methods that one figure may compare differ in colour and in marker."""

    colour: str
    marker: str
    line: str = "-"

    @property
    def ink(self) -> str:
        """The colour for text: darkened until it can be read on white (contrast 4.5, WCAG 2.2)."""
        channels = [int(self.colour[i : i + 2], 16) for i in (1, 3, 5)]
        while contrast(channels) < 4.5:
            channels = [int(0.95 * value) for value in channels]
        return "#" + "".join(f"{value:02X}" for value in channels)


# None is grey: that is for what all are compared to, and too near to the green for one viewer in twenty.
METHOD_LOOKS = {
    # to adapt the model at all
    "zero-shot": Look(BLACK, "X"),
    "few-shot": Look(GREEN, "o"),
    "calibrated few-shot": Look(PURPLE, "D"),
    "lora": Look(BLUE, "s"),
    "meta-learned lora": Look(ORANGE, "P"),
    "continual updating": Look(SKY, "v"),
    "full fine-tuning": Look(VERMILION, "^"),
    # LoRA and where it sits
    "lora, all linear": Look(BLUE, "s"),
    "lora, q and v": Look(SKY, "d", "--"),
    "lora, attention": Look(PURPLE, "D", "-."),
    "lora, feed-forward": Look(GREEN, "o", ":"),
    # to learn to adapt
    "maml": Look(VERMILION, "s"),
    "first-order maml": Look(GREEN, "D"),
    "fomaml": Look(GREEN, "D"),
    "anil": Look(SKY, "v"),
    "reptile": Look(PURPLE, "^"),
    "average task": Look(BLUE, "o"),
    "pretrained": Look(BLUE, "o"),
    "joint": Look(BLACK, "*"),
    "random": Look(ORANGE, "X"),
    # to go on learning
    "fine-tuning": Look(VERMILION, "X"),
    "replay": Look(GREEN, "o"),
    "ewc": Look(PURPLE, "D"),
    "online ewc": Look(ORANGE, "v", "--"),
    "lwf": Look(SKY, "^"),
    "nearest class mean": Look(ORANGE, "P"),
    "adapter each": Look(BLUE, "s"),
    "joint training": Look(BLACK, "*"),
}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return how each name is drawn: a method as everywhere, other names with the colours that are left, in order.

    A remark in brackets or behind a comma is no part of a method's name: "replay (24)" is drawn as "replay".
    """
    names = list(names)
    known = {name: found for name in names if (found := _method(name))}
    taken = {found.colour for found in known.values()}
    left = [i for i, colour in enumerate(COLOURS) if colour not in taken] or range(len(COLOURS))
    for place, name in enumerate(name for name in names if name not in known):
        i = left[place % len(left)]
        known[name] = Look(COLOURS[i], MARKERS[i], LOOKS[place // len(left) % len(LOOKS)])
    return {name: known[name] for name in names}


def look(name: str) -> Look:
    """Return how one name is drawn. Example: `look("LoRA").colour`."""
    return looks([name])[name]


def _method(name: str) -> Look | None:
    bare = name.split(" (")[0].strip().lower()
    return METHOD_LOOKS.get(bare) or METHOD_LOOKS.get(bare.split(", ")[0])


def contrast(channels: Iterable[int]) -> float:
    """Return the contrast of a colour, as red, green and blue from 0 to 255, with white (WCAG 2.2): from 1 to 21."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in channels)]
    return 1.05 / (sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear)) + 0.05)
