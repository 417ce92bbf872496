"""Every stored lesson, whatever its number: complete, in order, readable by everyone, and compared when it is run.

Each check is a function that returns what is wrong. Further down, a small bad notebook proves that each one bites.
"""

from __future__ import annotations

import copy
import dis
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import CodeType
from urllib.parse import unquote

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import links
from run_notebooks import WIDGET_STATE, machine_paths

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

UNCOMPARED_TAGS = {"nbval-skip", "nbval-ignore-output"}
UNCOMPARED_COMMENT = re.compile(r"#.*?(NBVAL_SKIP|NBVAL_IGNORE_OUTPUT|PYTEST_VALIDATE_IGNORE_OUTPUT)")
CHECKS: dict[str, Callable[[NotebookNode, Path, str], list[str]]] = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    for cell in code_cells(notebook):
        yield from cell.outputs


def html_shown(notebook: NotebookNode) -> Iterator[str]:
    """Yield all HTML: in the text, in outputs, and in stored widgets."""
    yield from (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    yield from (output.data["text/html"] for output in outputs(notebook) if "text/html" in output.get("data", {}))
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    html = [widget["state"] for widget in state.values() if widget["model_name"] in ("HTMLModel", "HTMLMathModel")]
    yield from (widget.get("value", "") for widget in html)


def is_uncompared(cell: NotebookNode) -> bool:
    return bool(UNCOMPARED_COMMENT.search(cell.source) or UNCOMPARED_TAGS & set(cell.metadata.get("tags", [])))


@check
def is_a_valid_notebook(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [str(error).splitlines()[0]]
    return []


@check
def few_cells_skip_comparison(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    cells = code_cells(notebook)
    skipping = [cell for cell in cells if is_uncompared(cell)]
    if len(skipping) * 10 > len(cells):
        return [f"{len(skipping)} of {len(cells)} code cells skip comparison; at most 1 in 10 may"]
    return []


@check
def what_skips_comparison_says_why(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    """A reason is a comment of at least three words besides the marker, in the same cell."""
    wrong = []
    for cell in filter(is_uncompared, code_cells(notebook)):
        comments = " ".join(re.findall(r"^\s*#(.*)$", cell.source, re.MULTILINE))
        words = re.findall(r"[a-z]{2,}", re.sub(r"(NBVAL|PYTEST)_\w+", "", comments).lower())
        if len(words) < 3:
            wrong.append(f"no reason is given for not comparing: {cell.source[:60]!r}")
    return wrong


@check
def was_run_in_order(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    wrong = [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}"]
    if not any(True for _ in outputs(notebook)):
        wrong.append("no outputs are stored")
    return wrong


@check
def holds_no_error(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    return [
        f"a cell failed with {output.ename}: {output.evalue[:60]}"
        for cell in code_cells(notebook)
        if "raises-exception" not in cell.metadata.get("tags", [])
        for output in cell.outputs
        if output.output_type == "error"
    ]


class _Images(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))


@check
def every_image_has_alt_text(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    """Images in outputs and widgets, and those in the text, in HTML or Markdown."""
    alts: list[str | None] = []
    for output in outputs(notebook):
        for kind in output.get("data", {}):
            if kind.startswith("image/"):
                alts.append(output.metadata.get(kind, {}).get("alt"))
    for html in html_shown(notebook):
        images = _Images()
        images.feed(html)
        alts += images.alts
    alts += re.findall(r"!\[([^\]]*)\]\(", text_of(notebook))
    missing = sum(not (alt or "").strip() for alt in alts)
    return [f"{missing} of {len(alts)} images have no alt text"] if missing else []


@check
def names_no_folder_of_a_machine(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    """Pixels are left out: a path can stand in base64 by chance, and tells nobody anything."""
    bare = copy.deepcopy(notebook)
    for output in outputs(bare):
        for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
            output.data[kind] = ""
    bare = nbformat.from_dict(json.loads(re.sub(r"base64,[A-Za-z0-9+/=]+", "", json.dumps(bare))))
    texts = [json.dumps(list(outputs(bare)), ensure_ascii=False), json.dumps(bare.metadata, ensure_ascii=False)]
    places = re.compile(r"(?<![\w.~/])/(home|Users|root|tmp|var|opt|usr|work|mnt|content)/[\w.-]+|\b[A-Z]:\\\\+\w+")
    found = [match.group() for text in texts for match in places.finditer(text)]
    return [f"an output names {place!r}" for place in [*found, *machine_paths(bare)]]


@check
def begins_with_goal_time_and_needs(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    first = notebook.cells[0] if notebook.cells else new_markdown_cell("")
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        return ["the first cell is not a title"]
    heads = ("Goal", "Time", "You need")
    lacking = [head for head in heads if not re.search(rf"^\*\*{head}\.\*\* \S", first.source, re.MULTILINE)]
    wrong = [f"the first cell has no **{head}.**" for head in lacking]
    if "Time" not in lacking and not re.search(r"\*\*Time\.\*\*.*\d+.* minutes", first.source):
        wrong.append("the time is not given in minutes")
    return wrong


@check
def ends_with_what_to_remember_and_where_to_go(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    text = text_of(notebook)
    wrong = [] if re.search(r"^## To remember\n+- \S", text, re.MULTILINE) else ['there is no list "To remember"']
    references = re.search(r"^## References\n+- \S", text, re.MULTILINE)
    if not references and not re.search(r"^\*\*Next:?\*\*:? \[", text, re.MULTILINE):
        wrong.append("there are neither references nor a link to what comes next")
    return wrong


@check
def has_short_code_cells(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    sizes = [(sum(bool(line.strip()) for line in cell.source.splitlines()), cell) for cell in code_cells(notebook)]
    return [f"a cell has {n} lines: {cell.source[:40]!r}" for n, cell in sizes if n > 20]


@check
def predictions_hide_their_code(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    """The code of `predict` names the answer: JupyterLab folds it up, and the book leaves it out."""
    asking = [cell for cell in code_cells(notebook) if re.search(r"^predict\(", cell.source, re.MULTILINE)]
    tags = [set(cell.metadata.get("tags", [])) | set(cell.metadata.get("jupyter", {})) for cell in asking]
    return [
        f"the code shows the answer: {cell.source[:60]!r}"
        for cell, found in zip(asking, tags)
        if not {"remove-input", "source_hidden"} <= found
    ]


@check
def no_later_cell_changes_what_controls_use(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    """A view runs again when a control is moved, after all cells: what it looks up by name has to be the same then."""
    sources = [re.sub(r"(?m)^(\s*)%.*", r"\1pass", cell.source) for cell in code_cells(notebook)]
    codes = [compile(source, path.name, "exec") for source in sources]
    wrong = []
    for i, source in enumerate(sources):
        if re.search(r"^(explore|on_demand)\(", source, re.MULTILINE):
            used = looked_up(codes[i], inside=False)
            later = {
                step.argval
                for code in codes[i + 1 :]
                for step in dis.get_instructions(code)
                if step.opname == "STORE_NAME"
            }
            wrong += [f"{name!r} gets another value after the controls that use it" for name in sorted(used & later)]
    return wrong


def looked_up(code: CodeType, inside: bool) -> set[str]:
    """Return the global names that the functions of a cell look up; `inside`, those of `code` itself too."""
    own = {step.argval for step in dis.get_instructions(code) if inside and step.opname == "LOAD_GLOBAL"}
    return own.union(*(looked_up(const, True) for const in code.co_consts if isinstance(const, CodeType)))


@check
def links_lead_somewhere(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    """Links to files of the project, in Markdown and in HTML."""
    wrong = []
    for target in links.targets(text_of(notebook)):
        if re.match(r"[a-z][a-z0-9+.-]*:|#", target):
            continue
        file = (path.parent / unquote(target.partition("#")[0])).resolve()
        if not file.exists() or not file.is_relative_to(ROOT):
            wrong.append(f"{target!r} leads nowhere")
    return wrong


@check
def stands_in_the_table_of_the_readme(notebook: NotebookNode, path: Path, readme: str) -> list[str]:
    # The row that begins with it: other tables point to lessons too.
    rows = re.findall(rf"(?m)^\| *\[[^\]]*\]\(notebooks/{re.escape(path.name)}\) *\|", readme)
    return [] if len(rows) == 1 else [f"{path.name} stands {len(rows)} times in README.md's table"]


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.name)
def lesson(request) -> tuple[NotebookNode, Path]:
    return nbformat.read(request.param, as_version=4), request.param


@pytest.mark.parametrize("name", CHECKS)
def test_lesson(lesson, name):
    notebook, path = lesson
    assert CHECKS[name](notebook, path, README) == []


def test_there_are_lessons_and_each_is_named_for_its_place():
    assert {"00_start_here.ipynb", "01_prompting.ipynb"} <= {path.name for path in LESSONS}
    assert all(re.fullmatch(r"\d\d[a-z]?_[a-z0-9_]+\.ipynb", path.name) for path in LESSONS)


def broken_links(page: str) -> list[str]:
    """Return the local files, pictures included, that a page at the top names and that are not there."""
    named = re.findall(r"\]\((?!https?:|#)([^)#]+)", page)
    return [name for name in named if not (ROOT / name).exists()]


def test_everything_that_the_readme_links_to_is_there():
    assert "](notebooks/00_start_here.ipynb)" in README and "](docs/lesson.png)" in README
    assert broken_links(README) == []
    assert broken_links("![a](docs/none.png) [b](https://x.example) [c](README.md#top)") == ["docs/none.png"]


def test_make_test_compares_every_output():
    """--nbval compares; --nbval-lax would compare only the cells that ask for it."""
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert "notebooks/*.ipynb" in recipe and re.search(r"--nbval\s", recipe) and "--nbval-lax" not in recipe


# The checks bite

GOOD_README = "| lesson | time |\n|---|---|\n| [09 Small](notebooks/09_small.ipynb) | 1 min |\n"
GOOD_PATH = ROOT / "notebooks" / "09_small.ipynb"
FIRST = "# Small\n\n**Goal.** Test.\n\n**Time.** 1 minute to 2 minutes.\n\n**You need.** Nothing."
LAST = "## To remember\n\n- All of it.\n\n## References\n\n- A. Author (2020), *Title*."
WHY = ": the time differs on every machine"
PICTURE = {"image/png": "iVBORw0KGgo=", "text/plain": "A chart."}


def good() -> NotebookNode:
    """Return a small notebook with which nothing is wrong."""
    picture = new_output("execute_result", PICTURE, execution_count=1, metadata={"image/png": {"alt": "A chart."}})
    cells = [
        new_markdown_cell(FIRST),
        new_code_cell("draw()", execution_count=1, outputs=[picture]),
        *(
            new_code_cell(f"print({i})", execution_count=i, outputs=[new_output("stream", text=f"{i}\n")])
            for i in range(2, 10)
        ),
        new_code_cell(
            f"# NBVAL_IGNORE_OUTPUT{WHY}\nprint(seconds)",
            execution_count=10,
            outputs=[new_output("stream", text="0.1\n")],
        ),
        new_markdown_cell(
            "See [the start](00_start_here.ipynb#top), [here](#small) and [a paper](https://example.org)."
        ),
        new_markdown_cell(LAST),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def with_widget(value: str) -> NotebookNode:
    notebook = good()
    state = {"1": {"model_name": "HTMLModel", "model_module": "x", "state": {"value": value}}}
    notebook.metadata["widgets"] = {WIDGET_STATE: {"state": state, "version_major": 2, "version_minor": 0}}
    return notebook


@pytest.mark.parametrize("name", CHECKS)
def test_nothing_is_wrong_with_a_good_notebook(name):
    assert CHECKS[name](good(), GOOD_PATH, GOOD_README) == []
    widget = with_widget("<img alt='A chart.' src='data:image/png;base64,/tmp/x'>")
    assert CHECKS[name](widget, GOOD_PATH, GOOD_README) == []


def cell(index: int, **changes) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[index].update(changes)


def replace(index: int, old: str, new: str) -> Callable[[NotebookNode], None]:
    def change(notebook: NotebookNode) -> None:
        assert old in notebook.cells[index].source
        notebook.cells[index].source = notebook.cells[index].source.replace(old, new)

    return change


def tag(index: int, *tags: str) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[index].metadata.update(tags=list(tags))


def output(made: NotebookNode) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells[2].outputs.append(made)


def error() -> NotebookNode:
    return new_output("error", ename="ValueError", evalue="no", traceback=[])


HTML_IMAGE = new_output("display_data", {"text/html": "<img src='x.png'>"})
BAD = {
    "an unknown kind of cell": ("is_a_valid_notebook", cell(1, cell_type="cod")),
    "a second skip": ("few_cells_skip_comparison", replace(2, "print", "# NBVAL_SKIP: it is too slow here\nprint")),
    "a second skip, by tag": ("few_cells_skip_comparison", tag(2, "nbval-skip")),
    "a second skip, by another tag": ("few_cells_skip_comparison", tag(2, "nbval-ignore-output")),
    "a skip without a reason": ("what_skips_comparison_says_why", replace(10, WHY, "")),
    "a skip with one word": ("what_skips_comparison_says_why", replace(10, WHY, ": slow")),
    "a tag without a reason": ("what_skips_comparison_says_why", tag(3, "nbval-skip")),
    "cells run out of order": ("was_run_in_order", cell(2, execution_count=7)),
    "a cell never run": ("was_run_in_order", cell(3, execution_count=None)),
    "no outputs": ("was_run_in_order", lambda notebook: [c.update(outputs=[]) for c in code_cells(notebook)]),
    "an error": ("holds_no_error", output(error())),
    "an image without alt text": ("every_image_has_alt_text", lambda nb: nb.cells[1].outputs[0].update(metadata={})),
    "an image with empty alt text": (
        "every_image_has_alt_text",
        lambda nb: nb.cells[1].outputs[0].metadata["image/png"].update(alt=" "),
    ),
    "an HTML image without alt text": ("every_image_has_alt_text", output(HTML_IMAGE)),
    "an image in the text without alt text": ("every_image_has_alt_text", replace(12, "- All", "![](x.png)\n- All")),
    "a path in printed text": (
        "names_no_folder_of_a_machine",
        output(new_output("stream", text="saved in /home/ada/model\n")),
    ),
    "a Windows path": ("names_no_folder_of_a_machine", output(new_output("stream", text="C:\\Users\\ada\\x"))),
    "this machine's home": (
        "names_no_folder_of_a_machine",
        output(new_output("stream", text=str(Path.home() / "x.txt"))),
    ),
    "no title": ("begins_with_goal_time_and_needs", replace(0, "# Small", "Small")),
    "code first": ("begins_with_goal_time_and_needs", lambda notebook: notebook.cells.pop(0)),
    "no goal": ("begins_with_goal_time_and_needs", replace(0, "**Goal.**", "Goal:")),
    "no time": ("begins_with_goal_time_and_needs", replace(0, "**Time.** 1 minute to 2 minutes.", "")),
    "a time without minutes": ("begins_with_goal_time_and_needs", replace(0, "1 minute to 2 minutes", "Not long")),
    "no needs": ("begins_with_goal_time_and_needs", replace(0, "**You need.** Nothing.", "")),
    "nothing to remember": ("ends_with_what_to_remember_and_where_to_go", replace(12, "## To remember", "## End")),
    "an empty list": ("ends_with_what_to_remember_and_where_to_go", replace(12, "- All of it.", "")),
    "nowhere to go": ("ends_with_what_to_remember_and_where_to_go", replace(12, "## References", "## Thanks")),
    "a prediction with its code open": ("predictions_hide_their_code", cell(2, source="predict('?', answer='!')")),
    "a long cell": ("has_short_code_cells", cell(2, source="\n\n".join(["x = 1"] * 21))),
    "a name that a view uses, given away": (
        "no_later_cell_changes_what_controls_use",
        lambda nb: (
            nb.cells[2].update(source="explore(lambda n: [x + i for x in range(n)], n=2)")
            or nb.cells[3].update(source="i = 3")
        ),
    ),
    "a dead link": ("links_lead_somewhere", replace(11, "00_start_here.ipynb", "00_gone.ipynb")),
    "a dead image": ("links_lead_somewhere", replace(11, "See", '<img alt="x" src="gone.png"> See')),
    "a link out of the project": ("links_lead_somewhere", replace(11, "00_start_here.ipynb", "../..")),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_found(case):
    name, change = BAD[case]
    notebook = good()
    change(notebook)
    assert CHECKS[name](notebook, GOOD_PATH, GOOD_README) != []


def test_an_image_in_a_widget_needs_alt_text():
    assert every_image_has_alt_text(with_widget("<p><img src='data:,'></p>"), GOOD_PATH, GOOD_README) != []


def test_a_path_in_a_widget_is_found():
    assert names_no_folder_of_a_machine(with_widget("<p>/tmp/abc</p>"), GOOD_PATH, GOOD_README) != []


def test_a_lesson_that_the_readme_leaves_out_or_only_mentions_is_found():
    mention = "Read [09 Small](notebooks/09_small.ipynb) first."
    for readme in ("", mention, GOOD_README.replace("09_", "08_")):
        assert stands_in_the_table_of_the_readme(good(), GOOD_PATH, readme) != []


def test_what_is_allowed():
    """One error that was announced, twenty lines of code, and a next link in place of references."""
    notebook = good()
    notebook.cells[2].outputs.append(error())
    notebook.cells[2].metadata.tags = ["raises-exception"]
    notebook.cells[3].source = "\n\n".join(["x = 1"] * 20)
    notebook.cells[12].source = LAST.partition("## References")[0] + "**Next:** [1. More](01_prompting.ipynb)"
    for name, function in CHECKS.items():
        assert function(notebook, GOOD_PATH, GOOD_README) == [], name


def test_every_check_has_a_bad_notebook():
    assert set(CHECKS) - {name for name, _ in BAD.values()} == {"stands_in_the_table_of_the_readme"}
