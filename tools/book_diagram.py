"""Flow charts in Mermaid's notation, drawn by Graphviz as SVG: a picture that no program is needed to show.

Read is what the docs use: `flowchart TD`, boxes `A["text"]`, and arrows `A & B --> C["text"] & D`.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from textwrap import wrap

NODE = re.compile(r"(?P<name>\w+)(?:\[(?P<quote>\"?)(?P<text>.*?)(?P=quote)\])?$")
LINE_LETTERS = 28  # in a box; longer lines go on below, so that the picture fits a page
STYLE = """graph [bgcolor="transparent", ranksep=0.5, nodesep=0.15];
node [shape=box, style="rounded,filled", fontname="Arial", fontsize=12, margin="0.2,0.08"];
edge [arrowsize=0.7];"""


class Unreadable(Exception):
    """A diagram, or a line of it, is in a notation that is not read here."""


@dataclass
class Chart:
    """Boxes by name, each with its text (`<b>` and `<br>` in it), and arrows."""

    direction: str = "TD"
    boxes: dict[str, str] = field(default_factory=dict)
    arrows: list[tuple[str, str]] = field(default_factory=list)


def diagram_html(mermaid: str, drawer: Path, packages: Path) -> str:
    """Return a diagram as HTML: the picture, with a description made of its arrows.

    Args:
        drawer: a program for node, that turns DOT into SVG; `packages` is its argument.

    Raises:
        Unreadable: the notation is not read here, or nothing could be drawn from it.
    """
    chart = read(mermaid)
    command = ["node", str(drawer), str(packages)]
    result = subprocess.run(command, input=dot(chart), capture_output=True, text=True, encoding="utf-8")
    if result.returncode or "<svg" not in result.stdout:
        raise Unreadable(f"a diagram could not be drawn: {result.stderr.strip()[-500:]}")
    svg = re.sub(r"<title>.*?</title>|<!--.*?-->", "", result.stdout, flags=re.DOTALL)
    svg = re.sub(r'(width|height)="(\d+)pt"', r'\1="\2"', svg.replace("<svg", '<svg aria-hidden="true"', 1))
    svg = re.sub(r"\n+", "\n", svg)
    return f'<div class="diagram" role="img" aria-label="{escape(in_words(chart))}">\n{svg.strip()}\n</div>'


def read(mermaid: str) -> Chart:
    """Return a flow chart. Raises `Unreadable`, with the line, where it holds anything else."""
    lines = [line.strip() for line in mermaid.strip().splitlines() if line.strip()]
    head = re.fullmatch(r"(?:flowchart|graph) (TD|TB|LR)", lines[0] if lines else "")
    if not head:
        raise Unreadable(f"only flow charts are drawn in the book, and this begins with {lines[:1]}.")
    chart = Chart(head[1])
    for line in lines[1:]:
        before: list[str] = []
        for side in re.split(r"\s*-->\s*", line):
            names = [_box(chart, part, line) for part in _parts(side)]
            chart.arrows += [(start, end) for start in before for end in names]
            before = names
    return chart


def _parts(side: str) -> list[str]:
    """Split at every `&` that is not between quotes."""
    return [part.strip() for part in re.split(r"&(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", side)]


def _box(chart: Chart, part: str, line: str) -> str:
    found = NODE.match(part)
    if not found:
        raise Unreadable(f"this line of a diagram is not understood: {line}")
    if found["text"] is not None or found["name"] not in chart.boxes:
        chart.boxes[found["name"]] = found["text"] if found["text"] is not None else found["name"]
    return found["name"]


def dot(chart: Chart) -> str:
    """Return the chart in Graphviz's notation."""
    boxes = "\n".join(f"{name} [label=<{_label(text)}>];" for name, text in chart.boxes.items())
    arrows = "\n".join(f"{start} -> {end};" for start, end in chart.arrows)
    return f"digraph {{\nrankdir={chart.direction.replace('TD', 'TB')};\n{STYLE}\n{boxes}\n{arrows}\n}}\n"


def _label(text: str) -> str:
    text = re.sub(r",\s*<br\s*/?>", ", ", text)  # the writer's breaks in a list give way to those that fit here
    lines = [line for part in re.split(r"<br\s*/?>", text) for line in wrap(part, LINE_LETTERS)]
    plain = escape("<br>".join(lines), quote=False)
    return re.sub(r"&lt;(/?b|br)\s*/?&gt;", lambda found: "<BR/>" if found[1] == "br" else f"<{found[1]}>", plain)


def in_words(chart: Chart) -> str:
    """Return the chart as sentences: where arrows lead from each box."""
    names = {name: re.sub(r"<br\s*/?>", ": ", text, count=1) for name, text in chart.boxes.items()}
    names = {name: re.sub(r"<[^>]+>", " ", text).replace("  ", " ") for name, text in names.items()}
    short = {name: text.split(":")[0].strip() for name, text in names.items()}
    said = [f"Boxes: {'; '.join(names.values())}."]
    for name in chart.boxes:
        if ends := [short[end] for start, end in chart.arrows if start == name]:
            said.append(f"Arrows from {short[name]} to {', '.join(ends)}.")
    return "Diagram. " + " ".join(said)
