"""Schematics: each file is whole, readable and in the course's one style, and each is shown once, in some lesson.

Each check is a function that returns what is wrong. Further down, a spoilt drawing proves that each one bites.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties, findfont
from PIL import ImageFont

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.show import schematic
from rapidadapt_lessons.show.looks import COLOURS, GREY
from rapidadapt_lessons.show.svg import NAMESPACE

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "rapidadapt_lessons" / "show" / "schematics").glob("*.svg"))
MEANINGS = {"frozen": GREY, "trained": COLOURS[0], "data": COLOURS[5], "query": COLOURS[2]}
INKS = {"#FFFFFF", "#222222", "#5F5F5F"}
ELEMENTS = {
    "svg",
    "title",
    "desc",
    "style",
    "defs",
    "marker",
    "g",
    "rect",
    "circle",
    "ellipse",
    "path",
    "text",
    "tspan",
}
LICENCE = "<!-- SPDX-License-Identifier: CC-BY-4.0 -->"
SMALLEST, LARGEST_FILE = 12, 6 * 1024
CHECKS: dict[str, Callable[[str], list[str]]] = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


class Box(NamedTuple):
    """A rectangle in the drawing's units; `what` says whose it is."""

    left: float
    top: float
    right: float
    bottom: float
    what: str = ""

    def meets(self, other: Box) -> bool:
        across, down = self.left < other.right and other.left < self.right, self.top < other.bottom
        return across and down and other.top < self.bottom

    def holds(self, other: Box) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def rules(svg: str) -> dict[str, dict[str, str]]:
    """Return the properties that each selector of the style sets."""
    style = ElementTree.fromstring(svg).findtext(f"{NAMESPACE}style") or ""
    parts = re.findall(r"([^{}]+)\{([^{}]*)\}", style)
    return {name.strip(): dict(re.findall(r"([\w-]+)\s*:\s*([^;]+?)\s*(?:;|$)", body)) for name, body in parts}


def texts(svg: str) -> Iterator[tuple[ElementTree.Element, dict[str, str]]]:
    """Yield each text with what the style says of it: its own classes before those of the groups around it."""
    style = rules(svg)
    size, family = style["svg"]["font"].split(" ", 1)
    start = {"font-size": size, "font-family": family, "text-anchor": style["svg"]["text-anchor"]}

    def walk(element: ElementTree.Element, inherited: dict[str, str]) -> Iterator:
        known = dict(inherited)
        for selector, found in style.items():
            if selector.removeprefix(".") in element.get("class", "").split():
                known |= found
        if element.tag == f"{NAMESPACE}text":
            yield element, known
        for child in element:
            yield from walk(child, known)

    yield from walk(ElementTree.fromstring(svg), start)


@cache
def font(family: str, weight: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont(FontProperties(family=family, weight=weight)), size)


def text_boxes(svg: str) -> Iterator[Box]:
    """Yield the room of each text in DejaVu, which is wider than the fonts that readers mostly have."""
    for element, style in texts(svg):
        size = int(style["font-size"].removesuffix("px"))
        family = "DejaVu Sans Mono" if "monospace" in style["font-family"] else "DejaVu Sans"
        weight = "bold" if "font-weight" in style else "normal"
        words = " ".join("".join(element.itertext()).split())
        places = [float(x) for x in element.get("x", "0").split()]
        for x, part in zip(places, words if len(places) > 1 else [words]):
            width = font(family, weight, size).getlength(part)
            left = x - width * {"start": 0, "middle": 0.5, "end": 1}[style["text-anchor"]]
            y = float(element.get("y", 0))
            yield Box(left, y - 0.76 * size, left + width, y + 0.24 * size, part)


def rectangles(svg: str) -> Iterator[Box]:
    for element in ElementTree.fromstring(svg).iter(f"{NAMESPACE}rect"):
        x, y, width, height = (float(element.get(name, 0)) for name in ("x", "y", "width", "height"))
        yield Box(x, y, x + width, y + height)


def sheet(svg: str) -> Box:
    return Box(*map(float, ElementTree.fromstring(svg).get("viewBox").split()))


@check
def says_what_it_shows(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    title, description = (root.findtext(f"{NAMESPACE}{tag}") or "" for tag in ("title", "desc"))
    named = {child.get("id") for child in root} >= set(root.get("aria-labelledby", "title desc").split())
    wrong = [] if re.fullmatch(r"\S.{10,60}[^.?!\s]", title) else [f"the title is {title!r}"]
    wrong += [] if len(description) > 80 and description.endswith(".") else [f"the description is {description!r}"]
    return wrong + ([] if named and root.get("role") == "img" else ["title and description are not the image's name"])


@check
def writes_its_title_on_top(svg: str) -> list[str]:
    written = ["".join(element.itertext()) for element, _ in texts(svg)]
    return [] if written[0] == ElementTree.fromstring(svg).findtext(f"{NAMESPACE}title") else [f"it is {written[0]!r}"]


@check
def names_its_licence(svg: str) -> list[str]:
    return [] if LICENCE in svg.splitlines()[1] else ["the second line does not name the licence"]


@check
def has_the_common_style(svg: str) -> list[str]:
    """The style and the arrow's head are the same letters in every file."""
    common = re.search(r"<style>.*</defs>", FILES[0].read_text(encoding="utf-8"), re.DOTALL)[0]
    return [] if common in svg else [f"style and defs are not those of {FILES[0].name}"]


@check
def has_only_the_colours_of_the_course(svg: str) -> list[str]:
    used = re.findall(r"\b(?:fill|stroke)\s*[:=]\s*\"?([^\s;\"}]+)", svg)
    return [f"{colour}" for colour in used if colour not in {*MEANINGS.values(), *INKS, "none"}]


@check
def has_colours_with_one_meaning(svg: str) -> list[str]:
    return [name for name, colour in MEANINGS.items() if rules(svg).get(f".{name}", {}).get("fill") != colour]


@check
def refers_to_nothing_outside(svg: str) -> list[str]:
    used = {element.tag.removeprefix(NAMESPACE) for element in ElementTree.fromstring(svg).iter()} - ELEMENTS
    bare = svg.replace('xmlns="http://www.w3.org/2000/svg"', "", 1).replace("url(#arrow)", "")
    return [*used, *re.findall(r"href|url\(|@import|://|<!DOCTYPE|<!ENTITY|\bon\w+=|\bdata:", bare)]


@check
def grows_and_shrinks(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    wrong = [] if re.fullmatch(r"0 0 720 \d+", root.get("viewBox", "")) else ["the viewBox is not 720 wide"]
    return wrong + (["the height is fixed"] if root.get("height") else [])


@check
def is_small(svg: str) -> list[str]:
    return [f"{size} bytes"] if (size := len(svg.encode())) > LARGEST_FILE else []


@check
def has_no_tiny_text(svg: str) -> list[str]:
    sizes = {style["font-size"] for _, style in texts(svg)}
    sizes |= set(re.findall(r"(?:font-size=\"|font-size:\s*|font:\s*)([\d.]+(?:px)?)", svg))
    return [size for size in sizes if float(size.removesuffix("px")) < SMALLEST]


@check
def has_texts_inside(svg: str) -> list[str]:
    return [box.what for box in text_boxes(svg) if not sheet(svg).holds(box)]


@check
def has_texts_apart(svg: str) -> list[str]:
    return [f"{a.what!r} meets {b.what!r}" for a, b in combinations(text_boxes(svg), 2) if a.meets(b)]


@check
def has_texts_in_their_frames(svg: str) -> list[str]:
    """A text whose middle lies in a rectangle lies in it altogether."""
    wrong = []
    for box in text_boxes(svg):
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        around = [frame for frame in rectangles(svg) if frame.holds(Box(x, y, x, y))]
        wrong += [box.what for frame in around if not frame.holds(box)]
    return wrong


@check
def moves_nothing_by_transform(svg: str) -> list[str]:
    """The checks of places above read x and y as they stand."""
    return ["there is a transform"] if "transform" in svg else []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", CHECKS)
def test_schematic(path, name):
    assert CHECKS[name](path.read_text(encoding="utf-8")) == []


# The checks bite

GOOD = "text-or-weights"
BAD = {
    "no title": ("says_what_it_shows", r"<title.*</title>", ""),
    "a question as title": ("says_what_it_shows", "</title>", "?</title>"),
    "no description": ("says_what_it_shows", r"<desc.*</desc>", ""),
    "a description of no use": ("says_what_it_shows", r">Two panels.*</desc>", ">A schematic.</desc>"),
    "no name": ("says_what_it_shows", 'id="desc"', ""),
    "another title": ("writes_its_title_on_top", r"</title>", "s</title>"),
    "no licence": ("names_its_licence", "CC-BY-4.0", "MIT"),
    "a style of its own": ("has_the_common_style", "stroke-width: 2 ", "stroke-width: 3 "),
    "a colour of its own": ("has_only_the_colours_of_the_course", 'class="data" x', 'fill="#FF0000" x'),
    "a colour by name": ("has_only_the_colours_of_the_course", "stroke: #222222", "stroke: black"),
    "frozen in blue": ("has_colours_with_one_meaning", "fill: #7F7F7F", "fill: #0072B2"),
    "a picture": ("refers_to_nothing_outside", "</svg>", '<image x="1"/></svg>'),
    "a link": ("refers_to_nothing_outside", "</svg>", '<g href="x.svg"/></svg>'),
    "a style from elsewhere": ("refers_to_nothing_outside", "<style>", "<style>@import 'x.css';"),
    "a script": ("refers_to_nothing_outside", "</svg>", '<g onclick="x"/></svg>'),
    "a fixed height": ("grows_and_shrinks", 'width="720"', 'width="720" height="300"'),
    "another width": ("grows_and_shrinks", "0 0 720", "0 0 800"),
    "a large file": ("is_small", "</svg>", f"<!-- {'x' * LARGEST_FILE} --></svg>"),
    "tiny text": ("has_no_tiny_text", "font-size: 14px", "font-size: 11px"),
    "text off the sheet": ("has_texts_inside", r'start" x="384" y="76"', 'start" x="640" y="76"'),
    "text on text": ("has_texts_apart", r'x="182" y="250"', 'x="182" y="240"'),
    "text wider than its frame": ("has_texts_in_their_frames", ">new weights<", ">altogether new weights<"),
    "a transform": ("moves_nothing_by_transform", "<g ", '<g transform="scale(2)" '),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_found(case):
    name, old, new = BAD[case]
    svg = schematic(GOOD).svg.replace("</svg>", "<g /></svg>")
    spoilt = re.sub(old, new, svg, count=1)
    assert spoilt != svg and CHECKS[name](svg) == [] and CHECKS[name](spoilt) != []


def test_every_check_has_a_spoilt_drawing():
    assert {name for name, *_ in BAD.values()} == set(CHECKS)


# What shows them


def test_it_shows_itself_with_its_description_and_needs_no_file():
    shown = schematic("course-map")
    bundle = shown._repr_mimebundle_()
    alt, data = re.fullmatch(
        r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]+)" style="max-width:100%">', bundle["text/html"]
    ).groups()
    assert html.unescape(alt) == bundle["text/plain"] == shown.alt
    assert base64.b64decode(data) == FILES[[path.stem for path in FILES].index("course-map")].read_bytes()
    for name in ("Prompting", "LoRA", "MAML", "Continual", "135 million"):
        assert name in shown.alt and name in shown.svg.partition("</desc>")[2]


def test_an_unknown_name_lists_those_there_are_with_the_closest_first():
    with pytest.raises(CourseError, match="no schematic 'lora-beside'") as raised:
        schematic("lora-beside")
    listed = raised.value.remedy.removeprefix("choose among ").removesuffix(".").split(", ")
    assert listed[0] == "lora-beside-w" and sorted(listed) == [path.stem for path in FILES]


def test_each_is_shown_once_in_some_lesson_and_each_that_is_shown_exists():
    lessons = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    code = ["".join(cell["source"]) for lesson in lessons for cell in lesson["cells"] if cell["cell_type"] == "code"]
    shown = Counter(name for source in code for name in re.findall(r'\bschematic\("([^"]*)"\)', source))
    assert shown == Counter(path.stem for path in FILES) and len(shown) == 16
