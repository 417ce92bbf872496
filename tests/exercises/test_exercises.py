"""The exercise notebooks: made from the solutions, complete, and readable for nbgrader."""

from __future__ import annotations

import re
from urllib.parse import unquote

import nbformat
import pytest
from exercise_cells import CHECKED, EXERCISES, ROOT, SOLUTIONS, code_cells
from nbformat.v4 import new_code_cell, new_notebook

import exercises
from exercises import BadMarks, without_solution
from rapidadapt_lessons.exercises.catalogue import EXERCISES as CATALOGUE
from rapidadapt_lessons.exercises.catalogue import LESSONS
from run_notebooks import machine_paths

PATHS = sorted(SOLUTIONS.glob("*.ipynb"))
FIELDS = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}


def marks(cell):
    return cell.metadata.get("nbgrader", {})


def texts(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def test_the_exercises_are_what_the_solutions_give():
    assert exercises.main(["--check"]) == 0, "run `make exercises`"


@pytest.fixture
def folders(tmp_path):
    """A small course of one notebook, and its exercise."""
    source = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
    cell = new_code_cell(source, metadata={"nbgrader": {"solution": True}}, execution_count=1)
    solutions, made = tmp_path / "solutions", tmp_path / "exercises"
    solutions.mkdir()
    nbformat.write(new_notebook(cells=[cell]), solutions / "ex.ipynb")
    assert exercises.main([], solutions, made) == 0
    return solutions, made


def test_an_exercise_is_its_solution_without_what_stands_between_the_marks(folders):
    solutions, made = folders
    cell = nbformat.read(made / "ex.ipynb", as_version=4).cells[0]
    assert cell.source == "def f():\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    assert cell.execution_count is None and cell.outputs == []
    assert exercises.main(["--check"], solutions, made) == 0


def test_a_difference_between_the_folders_is_found(folders, capsys):
    solutions, made = folders
    whole = (made / "ex.ipynb").read_text()
    for change, said in (
        (lambda: (made / "ex.ipynb").write_text(whole.replace("YOUR", "OUR")), "is not what"),
        (lambda: (made / "ex.ipynb").unlink(), "is missing"),
        (lambda: (made / "stray.ipynb").write_text(whole), "has no solution"),
    ):
        change()
        assert exercises.main(["--check"], solutions, made) == 1
        assert said in capsys.readouterr().out
        assert exercises.main([], solutions, made) == 0
        assert sorted(path.name for path in made.iterdir()) == ["ex.ipynb"]


@pytest.mark.parametrize(
    "source",
    ["x = 1", "### BEGIN SOLUTION\nx = 1", "x = 1\n### END SOLUTION", "### BEGIN SOLUTION\n### BEGIN SOLUTION\nx = 1"],
)
def test_marks_that_do_not_come_in_pairs_are_refused(source):
    with pytest.raises(BadMarks):
        without_solution(source)


def test_marks_outside_a_solution_cell_are_refused(folders, capsys):
    solutions, made = folders
    cell = new_code_cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION")
    nbformat.write(new_notebook(cells=[cell]), solutions / "ex.ipynb")
    assert exercises.main([], solutions, made) == 1 and "no solution cell" in capsys.readouterr().err


def test_the_catalogue_and_the_notebooks_name_the_same_exercises_in_the_same_order():
    found = []
    for path in PATHS:
        for cell in code_cells(path):
            if checked := CHECKED.search(cell.source):
                found.append((checked[1], path.name, marks(cell).get("points")))
    assert found == [(e.name, e.notebook, e.points) for e in CATALOGUE]
    assert [path.name for path in PATHS] == list(LESSONS)
    assert all(sum(e.notebook == name for e in CATALOGUE) >= 2 for name in LESSONS)


def test_nbgrader_can_read_every_mark():
    seen = set()
    for path in PATHS:
        cells = code_cells(path)
        for cell in (cell for cell in cells if marks(cell)):
            mark = marks(cell)
            assert set(mark) >= FIELDS and mark.schema_version == 3 and mark.task is False
            assert re.fullmatch(r"[a-zA-Z0-9_\-]+", mark.grade_id) and mark.grade_id not in seen
            seen.add(mark.grade_id)
            assert mark.locked is not mark.solution and not (mark.grade and mark.solution)
            assert ("points" in mark) == mark.grade
        for work, graded in zip(cells, cells[1:]):
            if marks(graded).get("grade"):
                assert marks(work).solution and f"def {CHECKED.search(graded.source)[2]}(" in work.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_exercise_has_a_goal_a_time_and_one_to_three_hints(path):
    headings = [text for text in texts(path) if re.search(r"^`[a-z]+\.[a-z_]+` · ", text, re.MULTILINE)]
    named = [re.search(r"`([a-z_.]+)` · (\d+) minutes · (\d) points?", text).groups() for text in headings]
    assert named == [(e.name, str(e.minutes), str(e.points)) for e in CATALOGUE if e.notebook == path.name]
    for text in headings:
        hints = re.findall(r"<details><summary>Hint (\d)</summary>\n\n.+?\n\n</details>", text, re.DOTALL)
        assert hints in (["1"], ["1", "2"], ["1", "2", "3"]) and "**Goal.** " in text
        assert text.count("<details") == len(hints) and "<details open" not in text
    top = texts(path)[0]
    assert all(part in top for part in ("# ", "**Goal.** ", "**Time.** ", "**You need.** "))


@pytest.mark.parametrize(
    "path", [*PATHS, *sorted(EXERCISES.glob("*.ipynb"))], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_local_links_lead_somewhere(path):
    links = [link for text in texts(path) for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)]
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert local and [link for link in local if not (path.parent / unquote(link)).is_file()] == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_stored_solutions_ran_in_order_and_every_check_passed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert machine_paths(notebook) == []
    for cell in cells:
        assert all(
            output.output_type not in ("error", "stream") or output.get("name") == "stdout" for output in cell.outputs
        )
        if checked := CHECKED.search(cell.source):
            assert cell.outputs[0].data["text/plain"].startswith(f"{checked[1]}: solved.")


def test_code_cells_are_short_and_no_solution_is_left_in_an_exercise():
    for path in PATHS:
        assert [cell.source for cell in code_cells(path) if len(cell.source.splitlines()) > 20] == []
    for path in EXERCISES.glob("*.ipynb"):
        for cell in code_cells(path):
            assert "SOLUTION" not in cell.source and cell.outputs == []
            assert ("raise NotImplementedError()" in cell.source) == bool(marks(cell).get("solution"))


def test_nothing_that_is_run_among_the_solutions_is_written_down():
    assert (SOLUTIONS / ".no-progress").is_file() and not (EXERCISES / ".no-progress").exists()
    assert (ROOT / "solutions" / "README.md").is_file()


def test_the_pages_count_the_exercises_right():
    count, points = len(CATALOGUE), sum(exercise.points for exercise in CATALOGUE)
    assert f"exercises](exercises/README.md): {count} of them, two of which" in (ROOT / "README.md").read_text()
    page = (SOLUTIONS / "README.md").read_text()
    assert f"{count} solution cells" in page and f"{points} in all" in page
    overview = (EXERCISES / "README.md").read_text()
    for name, title in LESSONS.items():
        link = re.escape(f"{title.lstrip('0123456789 ')}]({name})")
        minutes = re.search(rf"{link} \| .+ \| (\d+) min \|", overview)
        assert minutes and sum(e.minutes for e in CATALOGUE if e.notebook == name) <= int(minutes[1])
