"""The web book: what changes on the way from a lesson to its page, what the checker finds, and the book as it is built.

Building takes Sphinx and npm, which learners do not have: those tests are left out where they are missing, except in
continuous integration. All others need neither.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import book_check
import book_diagram
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from slides import WIDGET_STATE, WIDGET_VIEW

import book
from rapidadapt_lessons.show import schematic

ROOT = Path(__file__).resolve().parents[1]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
LESSON_PAGE = Path("notebooks/01_prompting.ipynb")
GLOSSARY = """# Glossary

- **backward transfer (BWT)**: what later parts did to a *support*. [Lesson 8](../notebooks/08_continual_learning.ipynb)
- **support**: the few examples, and not the *data*. [Lesson 1](../notebooks/01_prompting.ipynb)
"""
TERMS = book.glossary_terms(GLOSSARY)


# Links, terms


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("03_lora.ipynb", "03_lora.ipynb"),
        ("03_lora.ipynb#a", "03_lora.ipynb#a"),
        ("../README.md", "../index.md"),
        ("../exercises/README.md", "../exercises/index.md"),
        ("../docs/glossary.md", "../docs/glossary.md"),
        ("../rapidadapt_lessons/lora/layers.py", f"{book.repository()}/blob/main/rapidadapt_lessons/lora/layers.py"),
        ("../solutions/ex01_prompting.ipynb", f"{book.repository()}/blob/main/solutions/ex01_prompting.ipynb"),
        ("../solutions/", f"{book.repository()}/tree/main/solutions"),
        ("https://arxiv.org/abs/2106.09685", "https://arxiv.org/abs/2106.09685"),
        ("#here", "#here"),
        ("../gone.py", "../gone.py"),
    ],
)
def test_a_link_leads_to_the_page_or_to_the_repository(target, leads_to):
    assert book.with_book_links(f"See [`it`]({target}).", LESSON_PAGE) == f"See [`it`]({leads_to})."


def test_code_is_no_link_and_pictures_of_other_hosts_become_their_descriptions():
    fenced = "```\n[a](../README.md)\n```"
    assert book.with_book_links(fenced, LESSON_PAGE) == fenced
    badge = "[![Open](https://example.org/badge.svg)](https://example.org/run) ![own](../docs/lesson.png)"
    assert book.with_book_links(badge, LESSON_PAGE) == "[Open](https://example.org/run) ![own](../docs/lesson.png)"


def test_the_badge_that_leads_to_the_book_is_left_out_of_it():
    badges = "[![Open in Colab](../docs/badges/colab.svg)](https://a.b) [![Read](../docs/badges/book.svg)](https://c.d)"
    assert book.with_book_links(badges, LESSON_PAGE).strip() == badges.split(" [![Read")[0]


def test_a_term_leads_to_the_glossary_once_a_lesson_and_never_from_code_mathematics_or_headings():
    linked: set[str] = set()
    text = "## **support**\n\n`**support**` $**support**$ $$**support**$$ **Support** and **support**, **other**"
    changed = book.with_terms(text, TERMS, linked)
    assert changed.startswith("## **support**\n\n`**support**` ") and "$$**support**$$" in changed
    assert changed.endswith("**{term}`Support <support>`** and **support**, **other**")
    assert book.with_terms("**supports** **BWT**", TERMS, linked) == "**supports** **{term}`BWT <backward transfer>`**"


def test_the_glossary_becomes_one_with_anchors():
    text = book.as_glossary(GLOSSARY, TERMS)
    assert "```{glossary}\nbackward transfer\nBWT\n  what later parts did to a *{term}`support <support>`*." in text
    assert "not the *data*" in text and "- **" not in text


# Figures and widgets


def staged(tmp_path, *outputs, state=None):
    """Return the outputs of a notebook with one cell, as the book has them."""
    metadata = {"widgets": {WIDGET_STATE: {"state": state or {}}}}
    notebook = new_notebook(cells=[new_code_cell("", outputs=list(outputs))], metadata=metadata)
    figures = book.Figures(tmp_path, LESSON_PAGE)
    return book.staged_notebook(notebook, LESSON_PAGE, TERMS, figures).cells[0].outputs


def test_a_figure_becomes_a_file_with_its_description_and_size(tmp_path):
    data = {"image/png": PIXEL, "text/plain": "x"}
    (output,) = staged(tmp_path, new_output("display_data", data, metadata={"image/png": {"alt": 'A "dot" < 1.'}}))
    html = output.data["text/html"]
    assert 'alt="A &quot;dot&quot; &lt; 1."' in html and "base64" not in html
    assert 'src="../figures/01_prompting/01.png" width="1" height="1" loading="lazy"' in html
    assert (tmp_path / "figures" / "01_prompting" / "01.png").read_bytes().startswith(b"\x89PNG")


def test_a_schematic_becomes_a_file_with_its_description_and_size(tmp_path):
    shown = schematic("course-map")
    (output,) = staged(tmp_path, new_output("execute_result", shown._repr_mimebundle_(), execution_count=1))
    image = 'src="../figures/01_prompting/01.svg" width="720" height="520" loading="lazy"'
    assert image in output.data["text/html"] and "base64" not in output.data["text/html"]
    assert (tmp_path / "figures" / "01_prompting" / "01.svg").read_text(encoding="utf-8") == shown.svg


def test_a_widget_becomes_a_picture_of_its_state_with_its_controls(tmp_path):
    state = {
        "a": {"model_name": "IntSliderModel", "state": {"description": "shots", "value": 4}},
        "b": {"model_name": "HTMLModel", "state": {"value": f'<img alt="It." src="data:image/png;base64,{PIXEL}">'}},
        "c": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_a", "IPY_MODEL_b"]}},
    }
    view = new_output("display_data", {WIDGET_VIEW: {"model_id": "c"}, "text/plain": "VBox()"})
    (output,) = staged(tmp_path, view, state=state)
    assert set(output.data) == {"text/html"}
    assert "<code>shots = 4</code>" in output.data["text/html"] and 'alt="It."' in output.data["text/html"]
    assert (tmp_path / "figures" / "01_prompting" / "01.png").is_file()


def test_a_widget_that_tells_the_same_in_html_is_that_html(tmp_path):
    told = {"text/html": "<details>folded</details>", "text/plain": "?"}
    (output,) = staged(tmp_path, new_output("display_data", {WIDGET_VIEW: {"model_id": "gone"}, **told}))
    assert output.data == told


@pytest.mark.parametrize("model", ["FloatProgressModel", "HTMLModel"])
def test_progress_bars_and_empty_widgets_are_left_out(tmp_path, model):
    state = {
        "a": {"model_name": "HTMLModel", "state": {"value": " 3/3" if "Progress" in model else " "}},
        "b": {"model_name": model, "state": {"value": ""}},
        "c": {"model_name": "HBoxModel", "state": {"children": ["IPY_MODEL_a", "IPY_MODEL_b"]}},
    }
    view = new_output("display_data", {WIDGET_VIEW: {"model_id": "c"}, "text/plain": "HBox()"})
    text = new_output("stream", text="after")
    assert staged(tmp_path, view, text, state=state) == [text]


def test_the_cell_that_sets_up_colab_is_left_out(tmp_path):
    cells = [new_code_cell("%pip", id=book.SETUP), new_markdown_cell("A **support** set.")]
    notebook = book.staged_notebook(new_notebook(cells=cells), LESSON_PAGE, TERMS, book.Figures(tmp_path, LESSON_PAGE))
    assert [cell.source for cell in notebook.cells] == ["A **{term}`support <support>`** set."]


# Diagrams

CHART = 'flowchart TD\n  A["one & two<br>three"] --> B & C\n  B["<b>bold</b>"] --> D["end"]\n'


def test_a_diagram_is_read_and_said_in_words():
    chart = book_diagram.read(CHART)
    assert chart.boxes == {"A": "one & two<br>three", "B": "<b>bold</b>", "C": "C", "D": "end"}
    assert chart.arrows == [("A", "B"), ("A", "C"), ("B", "D")]
    assert "A [label=<one &amp; two<BR/>three>];" in book_diagram.dot(chart)
    assert "Arrows from one & two to bold, C." in book_diagram.in_words(chart)


@pytest.mark.parametrize("text", ["", "sequenceDiagram\n a->>b", "flowchart TD\n A -.-> B", "flowchart TD\n A(B)"])
def test_a_diagram_in_another_notation_is_refused(text):
    with pytest.raises(book_diagram.Unreadable):
        book_diagram.read(text)


# The checker

GOOD = """<html lang="en"><head><title>T</title><link rel="stylesheet" href="s.css"></head><body><main>
<div id="jb-print-docs-body"><h1>T</h1></div>
<article><h1>T</h1><h2 id="a">A</h2><img src="p.png" alt="P"><a href="#a">a</a><a href="b.html#b">b</a>
<a href="https://example.org">out</a></article></main></body></html>"""
OTHER = '<html lang="en"><head><title>B</title></head><body><main><h1 id="b">B</h1></main></body></html>'


def small_book(folder, page=GOOD, style="p { background: url(p.png) }"):
    (folder / "p.png").write_bytes(b"")
    (folder / "s.css").write_text(style)
    (folder / "b.html").write_text(OTHER)
    (folder / "a.html").write_text(page)
    return book_check.problems(folder)


def test_nothing_is_wrong_with_a_good_book(tmp_path):
    assert small_book(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('href="b.html#b"', 'href="c.html"', "a link leads nowhere: c.html"),
        ('href="b.html#b"', 'href="b.html#c"', "anchor is not there: b.html#c"),
        ('href="#a"', 'href="#z"', "anchor is not there: #z"),
        ('href="b.html#b"', 'href="../../etc/passwd"', "a link leads nowhere"),
        ('src="p.png"', 'src="q.png"', "a file that is not there: q.png"),
        ('src="p.png"', 'src="https://cdn.example.org/p.png"', "loads from another host"),
        ("<main>", '<main><script src="//cdn.example.org/x.js"></script>', "loads from another host"),
        ('href="s.css"', 'href="https://cdn.example.org/s.css"', "loads from another host"),
        ("<main>", "<main><style>@import 'https://example.org/f.css';</style>", "loads from another host"),
        ("<main>", '<main><p style="background: url(http://example.org/x.png)">', "loads from another host"),
        (' alt="P"', ' alt=" "', "a picture has no description: p.png"),
        ('<html lang="en">', "<html>", "does not say its language"),
        ("<title>T</title>", "", "has no title"),
        ("<h1>T</h1><h2", "<h2", "one heading of the first rank"),
        ('<h2 id="a">', '<h3 id="a">', "a heading of rank 3 follows one of rank 1"),
    ],
)
def test_the_checker_finds(tmp_path, old, new, said):
    assert GOOD.count(old) >= 1
    page = GOOD.replace(old, new) if "first rank" not in said else GOOD.replace(f"<article>{old}", f"<article>{new}")
    wrong = small_book(tmp_path, page)
    assert len(wrong) == 1 and said in wrong[0] and wrong[0].startswith("a.html: ")


def test_the_checker_reads_stylesheets_and_wants_pages(tmp_path):
    assert "s.css: loads from another host" in small_book(tmp_path, style="@import url('https://example.org/f.css')")[0]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no pages" in book_check.problems(empty)[0]


# The book


def missing() -> list[str]:
    """Return what building the book takes and this machine lacks."""
    packages = [name for name in ("sphinx", "myst_nb", "sphinx_book_theme") if not importlib.util.find_spec(name)]
    return packages + [program for program in ("node", "npm") if not shutil.which(program)]


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    if (absent := missing()) and not os.environ.get("CI"):
        pytest.skip(f"the book needs {', '.join(absent)}: make book installs the packages")
    out = tmp_path_factory.mktemp("book")
    book.make(out)  # raises where Sphinx warns, and for what the checker finds
    return out / "html"


def page(html: Path, name: str) -> str:
    return (html / f"{name}.html").read_text(encoding="utf-8")


def test_every_page_is_there_and_leads_on(html):
    names = [book.page_name(path).with_suffix("").as_posix() for path in book.pages()]
    assert len(names) == len(set(names)) and "index" in names and len(names) > len(LESSONS) + 8
    reached = {re.sub(r"\.html.*", "", link) for link in re.findall(r'href="([^"#:]+\.html)', page(html, "index"))}
    assert {name for name in names if name != "index"} <= reached
    for before, after in zip(LESSONS, LESSONS[1:]):
        assert re.search(rf'class="right-next"\s+href="{after}.html"', page(html, f"notebooks/{before}"))
        assert re.search(rf'class="left-prev"\s+href="{before}.html"', page(html, f"notebooks/{after}"))


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_has_its_figures_downloads_and_launch_buttons(html, lesson):
    text = page(html, f"notebooks/{lesson}")
    source = ROOT / "notebooks" / f"{lesson}.ipynb"
    cells = nbformat.read(source, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    stored = sum("image/png" in output.get("data", {}) for output in outputs)
    assert len(re.findall(r'<img alt="[^"]{20,}" src="\.\./figures/', text)) >= stored > 0
    assert "base64" not in text and "widget-view" not in text and "jupyter-widgets" not in text
    assert (html / "_sources" / "notebooks" / source.name).read_bytes() == source.read_bytes()
    owner_and_name = book.repository().removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{source.name}" in text
    assert f"https://mybinder.org/v2/gh/{owner_and_name}/main?urlpath=lab/tree/notebooks/{source.name}" in text


def test_a_lesson_with_widgets_shows_them_still(html):
    assert page(html, "notebooks/01_prompting").count('class="widget-still"') == 2


def test_lessons_and_glossary_lead_to_one_another(html):
    lesson, glossary = page(html, "notebooks/05_maml_math"), page(html, "docs/glossary")
    assert 'href="../docs/glossary.html#term-support"' in lesson and 'id="term-support"' in glossary
    assert 'href="../notebooks/05_maml_math.html"' in glossary and 'href="#term-Hessian"' in glossary


def test_mathematics_is_set_by_the_books_own_library(html):
    assert (html / "_static" / "mathjax" / "tex-svg.js").stat().st_size > 10**6
    assert re.search(r'<script [^>]*src="\.\./_static/mathjax/tex-svg\.js', page(html, "notebooks/05_maml_math"))


def test_the_diagram_is_a_picture_with_its_words(html):
    text = page(html, "docs/architecture")
    label = re.search(r'<div class="diagram" role="img" aria-label="([^"]+)">\s*<svg', text)
    assert label and "Arrows from notebooks/*.ipynb to" in label[1]
    assert "flowchart TD" not in text


def test_the_search_knows_the_lessons_and_no_page_asks_for_widgets(html):
    index = (html / "searchindex.js").read_text(encoding="utf-8")
    names = json.loads(re.search(r'"?docnames"?:\s*(\[[^\]]*\])', index)[1])
    assert {f"notebooks/{lesson}" for lesson in LESSONS} <= set(names)
    assert "require.min.js" not in page(html, "notebooks/08_continual_learning")
