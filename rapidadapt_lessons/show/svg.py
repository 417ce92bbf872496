"""Schematics: pictures of an idea, without data. Each is a file in schematics/, drawn by hand, all in one style."""

from __future__ import annotations

import base64
import difflib
import html
from dataclasses import dataclass
from importlib import resources
from typing import Any
from xml.etree import ElementTree

from ..errors import CourseError

NAMESPACE = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Schematic:
    """A drawing, as the text of an SVG file, and its description. Shows itself as the last value of a cell."""

    svg: str
    alt: str

    def html(self) -> str:
        """Return an HTML image with its alt text. A data URI needs no file, and shows where markup is not trusted."""
        data = base64.b64encode(self.svg.encode()).decode("ascii")
        return f'<img alt="{html.escape(self.alt)}" src="data:image/svg+xml;base64,{data}" style="max-width:100%">'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.alt}


def schematic(name: str) -> Schematic:
    """Return the schematic of this name, such as "lora-beside-w".

    Raises CourseError where there is none.
    """
    folder = resources.files(__package__) / "schematics"
    names = sorted(file.name.removesuffix(".svg") for file in folder.iterdir())
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)
        listed = ", ".join([*near, *(other for other in names if other not in near)])
        raise CourseError(f"there is no schematic {name!r}.", f"choose among {listed}.")
    svg = (folder / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(svg)
    title, description = (root.findtext(f"{NAMESPACE}{tag}") for tag in ("title", "desc"))
    return Schematic(svg, f"{title}. {description}")
