"""Make slides from lessons: build/slides/01_prompting.slides.html and so on. Nothing is run; stored outputs are shown.

    python tools/slides.py                                     every lesson
    python tools/slides.py notebooks/01_prompting.ipynb        the lessons named
    python tools/slides.py --reveal-prefix ../reveal.js        reveal.js from a local copy, not from the network
    python tools/slides.py --libraries ../node_modules         all that the pages load, from a local copy

How a lesson becomes slides is worked out here, so lessons carry no tags for it: each `## ` heading begins a slide
(press →), and what does not fit on it goes below (press ↓). A question and its answer never share a slide.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import re
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).resolve().parents[1]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
HIDE_CODE = "slides-hide-code"
PLACES = "places-"  # how the ids of the cells begin that say where a lesson opens; a slide has no use for them

# What a page loads: nbconvert's setting, and the file in npm's folder of packages.
LIBRARIES = {
    "reveal_url_prefix": "reveal.js",
    "jquery_url": "jquery/dist/jquery.min.js",
    "require_js_url": "requirejs/require.js",
    "mathjax_url": "mathjax/MathJax.js?config=TeX-AMS_CHTML-full,Safe",
}

# Lessons have no Mermaid diagrams, so no page asks the network for that library.
NO_MERMAID = "data:text/javascript,export default {initialize() {}}"

# Code of up to 120 letters a line has to fit; a longer line goes on below.
STYLE = "<style>:root { --jp-code-font-size: 15px; } .highlight pre { white-space: pre-wrap; }</style>"

# Lines of text that fit on one slide, and what things take of it.
SLIDE_LINES, LINE_LETTERS, FIGURE_LINES = 17, 80, 14
LONG_HELPER = 12  # a cell that only defines things, and shows nothing, is left out from this many lines on
CODE_BY_A_FIGURE = 3  # with more lines than this, a figure stands without its code


def main(arguments: Sequence[str]) -> int:
    """Write the slides of the lessons named, or of all, and return the exit status."""
    parser = argparse.ArgumentParser(description="Make slides from lessons.")
    parser.add_argument("lessons", nargs="*", type=Path, help="notebooks; all lessons when left out")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "slides", help="the folder to write to")
    parser.add_argument("--libraries", help="where npm put reveal.js, jquery, requirejs and mathjax: URL or path")
    parser.add_argument("--reveal-prefix", help="where reveal.js lies; paths are relative to the slides")
    options = parser.parse_args(arguments)
    lessons = options.lessons or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if absent := [str(path) for path in lessons if not path.is_file()]:
        print(f"There is no {', '.join(absent)}. What to do: name lessons in notebooks/.", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    for path in lessons:
        html = to_html(path, options.out, options.reveal_prefix, options.libraries)
        target = options.out / f"{path.stem}.slides.html"
        target.write_text(html, encoding="utf-8")
        print(f"{target.relative_to(ROOT) if target.is_relative_to(ROOT) else target}", flush=True)
    return 0


def to_html(path: Path, out: Path, reveal_prefix: str | None = None, libraries: str | None = None) -> str:
    """Return the slides of a lesson as one HTML page, whose links are right when it lies in the folder `out`.

    Args:
        reveal_prefix, libraries: as `--reveal-prefix` and `--libraries`; without them the page asks the network.
    """
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    settings = {"reveal_scroll": True, "reveal_number": "c/t", "exclude_input_prompt": True}
    settings |= {"exclude_output_prompt": True, "reveal_theme": "simple"}
    if libraries:
        settings |= {name: f"{libraries.rstrip('/')}/{file}" for name, file in LIBRARIES.items()}
    if reveal_prefix:
        settings["reveal_url_prefix"] = reveal_prefix.rstrip("/")
    config = Config(SlidesExporter=settings, TagRemovePreprocessor={"enabled": True, "remove_input_tags": {HIDE_CODE}})
    notebook = arrange(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_links_from(out, path.parent, cell.source)
    exporter = SlidesExporter(config=config)
    exporter.mermaid_js_url = NO_MERMAID  # one that a config does not reach
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    return html.replace("</head>", f"{STYLE}\n</head>", 1)


def arrange(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of the notebook, cut into cells that carry `slide_type`: slide, subslide, "-" or skip.

    Figures and widgets become images in HTML, with their alt text, so that they need no program to show them.
    """
    cells: list[NotebookNode] = []
    room, after_question = 0, False
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for cell in pieces(copy.deepcopy(notebook)):
        if cell.cell_type == "code":
            cell.outputs = [shown(output, state) for output in cell.outputs]
            if is_long_helper(cell):
                cell.metadata.slideshow = {"slide_type": "skip"}
                cells.append(cell)
                continue
            # The code of `predict` holds the answer.
            if asks(cell) or (has_figure(cell) and len(code_lines(cell)) > CODE_BY_A_FIGURE):
                cell.metadata.tags = [*cell.metadata.get("tags", []), HIDE_CODE]
        size = height(cell)
        if is_heading(cell) or not any(is_shown(before) for before in cells):
            kind = "slide"
        elif size > room or (after_question and cell.cell_type == "code" and cell.outputs):
            kind = "subslide"
        else:
            kind = "-"
        room = (room if kind == "-" else SLIDE_LINES) - size
        after_question = asks(cell) or (after_question and kind == "-")
        cell.metadata.slideshow = {"slide_type": kind}
        cells.append(cell)
    arranged = copy.copy(notebook)
    arranged.cells = cells
    arranged.metadata = nbformat.from_dict({k: v for k, v in notebook.metadata.items() if k != "widgets"})
    return arranged


def is_shown(cell: NotebookNode) -> bool:
    return cell.metadata.slideshow["slide_type"] != "skip"


def is_heading(cell: NotebookNode) -> bool:
    return cell.cell_type == "markdown" and cell.source.startswith("## ")


def asks(cell: NotebookNode) -> bool:
    """Whether the cell puts a question before a result: with `predict`, or in italics."""
    if cell.cell_type == "code":
        return bool(re.search(r"^predict\(", cell.source, re.MULTILINE))
    text = re.sub(r"\*\*.*?\*\*", "", cell.source, flags=re.DOTALL)
    return bool(re.search(r"\?\s*\*|\*(Predict|Before you|Guess)\b", text))


def pieces(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Yield the cells, those of text cut at headings and then between paragraphs where they are too high."""
    for cell in notebook.cells:
        if cell.get("id", "").startswith(PLACES):
            continue
        if cell.cell_type != "markdown":
            yield cell
            continue
        part: list[str] = []
        for block in blocks(cell.source):
            full = part and lines_of("\n\n".join([*part, block])) > SLIDE_LINES
            if part and (full or re.match(r"##+ ", block)):
                yield new_markdown_cell("\n\n".join(part))
                part = []
            part.append(block)
        yield new_markdown_cell("\n\n".join(part))


def blocks(text: str) -> list[str]:
    """Return a text's paragraphs; code between fences and displayed formulas stay whole."""
    found: list[str] = []
    is_open = False
    for block in re.split(r"\n\s*\n", text.strip()):
        found[-1:] = [f"{found[-1]}\n\n{block}"] if is_open else [*found[-1:], block]
        is_open = len(re.findall(r"^```", found[-1], re.MULTILINE)) % 2 == 1 or found[-1].count("$$") % 2 == 1
    return found


def lines_of(text: str) -> int:
    """Return about how many lines a text takes on a slide."""
    lines = (max(1, -(-len(line) // LINE_LETTERS)) for line in text.split("\n"))
    return sum(lines) + 2 * text.count("\n#") + text.count("$$") + 2 * text.startswith("#")


def height(cell: NotebookNode) -> int:
    """Return about how many lines a cell and its outputs take on a slide."""
    if cell.cell_type != "code":
        return lines_of(cell.source) + 1
    hidden = HIDE_CODE in cell.metadata.get("tags", [])
    total = 0 if hidden else len(cell.source.split("\n")) + 1
    for output in cell.outputs:
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain", "")
        total += FIGURE_LINES if "text/html" in data else min(FIGURE_LINES, lines_of(text)) + 1
    return total


def code_lines(cell: NotebookNode) -> list[str]:
    return [line for line in cell.source.split("\n") if line.strip()]


def has_figure(cell: NotebookNode) -> bool:
    return any("text/html" in output.get("data", {}) for output in cell.outputs)


def is_long_helper(cell: NotebookNode) -> bool:
    """Whether a cell shows nothing, does nothing but define and import, and is long."""
    if cell.outputs or len(code_lines(cell)) < LONG_HELPER:
        return False
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:  # a magic command
        return False
    return all(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom) for node in body)


def shown(output: NotebookNode, state: dict) -> NotebookNode:
    """Return an output with its picture, or the state in which its widget was stored, as HTML."""
    data = output.get("data", {})
    if "image/png" in data:
        alt = output.metadata.get("image/png", {}).get("alt", "")
        pixels = data["image/png"].replace("\n", "")
        html = f'<img alt="{escape(alt)}" src="data:image/png;base64,{pixels}">'
    elif WIDGET_VIEW in data:
        still = "\n".join(widget_html(data[WIDGET_VIEW]["model_id"], state)) or "<i>A widget: see the lesson.</i>"
        html = data.get("text/html", still)
    else:
        return output
    output.data = nbformat.from_dict({"text/html": html, "text/plain": data.get("text/plain", "")})
    return output


def widget_html(name: str, state: dict) -> Iterator[str]:
    """Yield what a stored widget shows: its HTML, and the name and value of each of its controls."""
    model = state.get(name, {"model_name": "", "state": {}})
    values = model["state"]
    if model["model_name"] in ("HTMLModel", "HTMLMathModel"):
        yield values.get("value", "")
    elif "children" in values:
        for child in values["children"]:
            yield from widget_html(child.removeprefix("IPY_MODEL_"), state)
    elif values.get("description"):
        value = values.get("value")
        if "index" in values and "_options_labels" in values:
            value = values["_options_labels"][values["index"]] if values["index"] is not None else ""
        yield f"<code>{escape(values['description'])}{'' if value is None else f' = {escape(str(value))}'}</code>"


def with_links_from(out: Path, folder: Path, text: str) -> str:
    """Return a lesson's text with its links to files made right for a page in the folder `out`.

    A link to another lesson leads to that lesson's slides.
    """

    def moved(found: re.Match) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or re.match(r"[a-z][a-z0-9+.-]*:", target):
            return found[0]
        file = (folder / target).resolve()
        if file.suffix == ".ipynb" and file.parent == folder.resolve():
            return f"{found[1]}{file.stem}.slides.html{found[3]}"
        path = Path(os.path.relpath(file, out.resolve())).as_posix()
        return f"{found[1]}{path}{'#' + anchor if anchor else ''}{found[3]}"

    return re.sub(r"(\]\()([^)\s]+)(\))", moved, text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
