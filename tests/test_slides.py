"""Slides are made from lessons as they are stored; nothing is run, so this stays quick."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import slides
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "01_prompting.ipynb"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ALT = 'Bars: "go" < "gone" & more.'


def picture(lines: int = 1) -> NotebookNode:
    output = new_output("display_data", {"image/png": PIXEL, "text/plain": ALT}, metadata={"image/png": {"alt": ALT}})
    return new_code_cell("\n".join(f"draw_{i}()" for i in range(lines)), outputs=[output])


def said(text: str, code: str = "say()") -> NotebookNode:
    return new_code_cell(code, outputs=[new_output("stream", text=text)])


def small() -> NotebookNode:
    helper = "\n".join(["def helper():", *(f"    a_{i} = {i}" for i in range(12))])
    widget = new_output("display_data", {slides.WIDGET_VIEW: {"model_id": "c"}, "text/plain": "VBox()"})
    cells = [
        new_markdown_cell("# Small\n\n**Goal.** Little."),
        new_markdown_cell("## One\n\nWords.\n\n*Predict: what comes?*"),
        said("the answer"),
        new_markdown_cell("So that was it."),
        new_markdown_cell("Before.\n\n## Two\n\nSee [one](01_prompting.ipynb#x), [the readme](../README.md), [a](#b)."),
        picture(),
        picture(lines=6),
        new_code_cell(helper),
        new_code_cell("def short():\n    return 1"),
        new_code_cell("", outputs=[widget]),
    ]
    state = {
        "a": {"model_name": "IntSliderModel", "state": {"description": "shots", "value": 4}},
        "b": {"model_name": "HTMLModel", "state": {"value": "<img alt='A stored state.' src='data:,'>"}},
        "c": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_a", "IPY_MODEL_b"]}},
    }
    return new_notebook(cells=cells, metadata={"widgets": {slides.WIDGET_STATE: {"state": state}}})


def kinds(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Return of each cell how it is placed, and how its source begins."""
    arranged = slides.arrange(notebook)
    return [(cell.metadata.slideshow["slide_type"], cell.source[:8].split("\n")[0]) for cell in arranged.cells]


class _Page(HTMLParser):
    """The pictures' alt texts, the links, and the depths of nested sections."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.alts, self.links, self.scripts, self.depth = [], [], [], 0
        self.slides = self.experiences = 0
        self.feed(html)
        assert self.depth == 0, "sections are not closed"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.alts.append(attrs.get("alt"))
        elif tag == "a":
            self.links.append(attrs.get("href"))
        elif tag in ("script", "link") and (attrs.get("src") or attrs.get("href")):
            self.scripts.append(attrs.get("src") or attrs.get("href"))
        elif tag == "section":
            self.depth += 1
            self.slides += self.depth == 1
            self.experiences += self.depth == 2

    def handle_endtag(self, tag):
        self.depth -= tag == "section"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("slides")
    nbformat.write(small(), folder / "small.ipynb")
    assert slides.main([str(folder / "small.ipynb"), "--out", str(folder / "out")]) == 0
    return (folder / "out" / "small.slides.html").read_text(encoding="utf-8")


def test_each_heading_begins_a_slide_even_within_a_cell():
    placed = kinds(small())
    assert [source for kind, source in placed if kind == "slide"] == ["# Small", "## One", "## Two"]
    assert ("-", "Before.") in placed or ("subslide", "Before.") in placed


def test_a_question_and_its_answer_never_share_a_slide():
    assert ("subslide", "say()") in kinds(small())
    told = new_notebook(cells=[new_markdown_cell("## One\n\nNo question."), said("x")])
    assert kinds(told) == [("slide", "## One"), ("-", "say()")]


def test_a_prediction_stands_without_its_code_and_before_its_answer():
    fold_out = {"text/html": "<details>folded</details>", "text/plain": "?", slides.WIDGET_VIEW: {"model_id": "gone"}}
    code = "from x import predict\n\npredict('?', answer='the code tells')"
    asked = new_code_cell(code, outputs=[new_output("display_data", fold_out)])
    arranged = slides.arrange(new_notebook(cells=[new_markdown_cell("## One"), asked, said("x")])).cells
    assert slides.asks(asked) and not slides.asks(said("x"))
    assert [slides.HIDE_CODE in cell.metadata.get("tags", []) for cell in arranged] == [False, True, False]
    assert arranged[1].outputs[0].data == {"text/html": "<details>folded</details>", "text/plain": "?"}


def test_what_does_not_fit_goes_below():
    long = new_notebook(cells=[new_markdown_cell("## Long\n\n" + "\n\n".join(["word " * 60] * 12))])
    placed = kinds(long)
    assert [kind for kind, _ in placed][:2] == ["slide", "subslide"] and len(placed) > 2
    cut = slides.arrange(long).cells
    assert all(slides.lines_of(cell.source) <= slides.SLIDE_LINES for cell in cut)
    assert "\n\n".join(cell.source for cell in cut) == long.cells[0].source.rstrip(), "words were lost"


def test_formulas_and_code_fences_stay_whole():
    text = "A\n\n$$x\n\n= 1$$\n\nB\n\n```\nc\n\nd\n```\n\nE"
    assert slides.blocks(text) == ["A", "$$x\n\n= 1$$", "B", "```\nc\n\nd\n```", "E"]


def test_long_helpers_are_left_out_and_short_ones_stay():
    assert ("skip", "def help") in kinds(small())
    assert not any(kind == "skip" for kind, source in kinds(small()) if source != "def help")


@pytest.mark.parametrize(
    ("cell", "left_out"),
    [
        (new_code_cell("def f():\n" + "\n".join(["    x = 1"] * 12)), True),
        (new_code_cell("def f():\n" + "\n".join(["    x = 1"] * 12) + "\nf()"), False),
        (new_code_cell("def f():\n" + "\n".join(["    x = 1"] * 3)), False),
        (said("x", "def f():\n" + "\n".join(["    x = 1"] * 12)), False),
        (new_code_cell("%magic\n" + "\n".join(["x = 1"] * 12)), False),
    ],
)
def test_only_long_definitions_that_show_nothing_are_left_out(cell, left_out):
    assert slides.is_long_helper(cell) == left_out


def test_the_page_keeps_alt_texts_and_shows_a_widgets_stored_state(page):
    assert _Page(page).alts == [ALT, ALT, "A stored state."]
    assert "shots = 4" in page and slides.WIDGET_VIEW not in page and "html-manager" not in page


def test_the_page_shows_code_beside_a_figure_only_where_it_is_short(page):
    text = re.sub(r"<[^>]+>", "", page)
    assert "draw_0()" in text and "draw_5()" not in text
    assert "helper" not in text and "short" in text


def test_the_page_has_a_slide_for_each_heading(page):
    found = _Page(page)
    assert found.slides == 3 and found.experiences >= 4


def test_links_lead_to_slides_and_to_files():
    out, folder = ROOT / "build" / "slides", ROOT / "notebooks"
    text = "[a](01_prompting.ipynb#x) [b](../README.md#y) [c](#d) [e](https://example.org/x.ipynb)"
    moved = slides.with_links_from(out, folder, text)
    assert moved == "[a](01_prompting.slides.html) [b](../../README.md#y) [c](#d) [e](https://example.org/x.ipynb)"


def test_the_notebook_is_left_as_it_was(tmp_path):
    path = tmp_path / "small.ipynb"
    nbformat.write(small(), path)
    before, notebook = path.read_bytes(), small()
    as_it_was = json.dumps(notebook)
    slides.to_html(path, tmp_path)
    slides.arrange(notebook)
    assert path.read_bytes() == before and json.dumps(notebook) == as_it_was


def test_libraries_can_come_from_a_local_copy(tmp_path):
    nbformat.write(small(), tmp_path / "small.ipynb")
    plain = slides.to_html(tmp_path / "small.ipynb", tmp_path)
    assert any(script.startswith("https://") and "reveal.js" in script for script in _Page(plain).scripts)
    reveal = slides.to_html(tmp_path / "small.ipynb", tmp_path, reveal_prefix="../mine/")
    assert not any("reveal" in script for script in _Page(reveal).scripts if "://" in script)
    assert '"../mine/dist/reveal.js"' in reveal
    local = slides.to_html(tmp_path / "small.ipynb", tmp_path, libraries="../lib")
    assert [script for script in _Page(local).scripts if "://" in script] == []
    assert [line for line in local.splitlines() if re.search(r"""(import|from) .*['"]https?:""", line)] == []


def test_a_missing_lesson_is_named_and_nothing_is_written(tmp_path, capsys):
    assert slides.main([str(tmp_path / "99_gone.ipynb"), "--out", str(tmp_path / "out")]) == 1
    assert "99_gone.ipynb" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_lesson_1_becomes_slides(tmp_path, capsys):
    assert slides.main([str(LESSON), "--out", str(tmp_path)]) == 0
    assert "01_prompting.slides.html" in capsys.readouterr().out
    html = (tmp_path / "01_prompting.slides.html").read_text(encoding="utf-8")
    lesson = nbformat.read(LESSON, as_version=4)
    text = "\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^##? ", text, re.MULTILINE)
    figures = sum("image/png" in o.get("data", {}) for c in lesson.cells for o in c.get("outputs", []))
    found = _Page(html)
    assert found.slides == len(headings)
    assert len(found.alts) >= figures > 0 and all(alt and not alt.startswith("No description") for alt in found.alts)


def test_no_lesson_stores_slide_tags():
    stored = [path.name for path in (ROOT / "notebooks").glob("*.ipynb") if '"slideshow"' in path.read_text("utf-8")]
    assert stored == []
