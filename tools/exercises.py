"""Make exercises/ from solutions/: the same notebooks without outputs, and without what stands between the marks.

    python tools/exercises.py            write exercises/*.ipynb anew
    python tools/exercises.py --check    write nothing; exit status 1 when a file is not what would be written

In a solution cell, the lines from `### BEGIN SOLUTION` to `### END SOLUTION` are replaced by nbgrader's own stub, at
the indent of the first mark, which is what `nbgrader generate_assignment` makes of the same file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS, EXERCISES = ROOT / "solutions", ROOT / "exercises"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")


class BadMarks(Exception):
    """A solution's marks are missing, or do not come in pairs."""


def main(arguments: Sequence[str], solutions: Path = SOLUTIONS, exercises: Path = EXERCISES) -> int:
    """Write the exercises, or compare them, and return the exit status."""
    if unknown := [argument for argument in arguments if argument != "--check"]:
        print(f"unknown option {unknown[0]!r}. What to do: use --check, or none.", file=sys.stderr)
        return 2
    try:
        wanted = {path.name: exercise_text(path) for path in sorted(solutions.glob("*.ipynb"))}
    except BadMarks as error:
        print(error, file=sys.stderr)
        return 1
    if "--check" in arguments:
        wrong = different(wanted, exercises)
        print(
            "\n".join([*wrong, "What to do: run `make exercises`."]) if wrong else "exercises/ agrees with solutions/."
        )
        return int(bool(wrong))
    exercises.mkdir(exist_ok=True)
    for name, text in wanted.items():
        (exercises / name).write_text(text, encoding="utf-8")
    for stray in (path for path in exercises.glob("*.ipynb") if path.name not in wanted):
        stray.unlink()
    print(f"{len(wanted)} exercise notebooks written.")
    return 0


def different(wanted: dict[str, str], exercises: Path) -> list[str]:
    """Return what is wrong with the exercises in a folder, one sentence each."""
    found = {path.name: path.read_text(encoding="utf-8") for path in exercises.glob("*.ipynb")}
    wrong = [f"exercises/{name} is missing." for name in wanted if name not in found]
    wrong += [f"exercises/{name} has no solution." for name in found if name not in wanted]
    changed = (name for name in wanted if name in found and found[name] != wanted[name])
    return wrong + [f"exercises/{name} is not what solutions/{name} gives." for name in changed]


def exercise_text(path: Path) -> str:
    """Return the exercise that belongs to a solution, as the text of its file.

    Raises:
        BadMarks: the marks of a solution cell are missing or not in pairs.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        is_solution = cell.metadata.get("nbgrader", {}).get("solution", False)
        if is_solution or BEGIN in cell.source or END in cell.source:
            if not is_solution:
                raise BadMarks(
                    f"{path.name}: there are marks in a cell that is no solution cell: {cell.source[:60]!r}."
                )
            cell.source = without_solution(cell.source, path.name)
    return nbformat.writes(notebook) + "\n"


def without_solution(source: str, name: str = "this cell") -> str:
    """Return a cell's source with the stub in place of each marked part.

    Raises:
        BadMarks: there is no marked part, or the marks are not in pairs.
    """
    lines, inside, parts = [], False, 0
    for line in source.split("\n"):
        if (mark := line.strip()) == (END if inside else BEGIN):
            if not inside:
                indent = re.match(r"\s*", line).group()
                lines += [indent + stub for stub in STUB]
                parts += 1
            inside = not inside
        elif mark in (BEGIN, END):
            raise BadMarks(f"{name}: {mark!r} has no partner.")
        elif not inside:
            lines.append(line)
    if inside or not parts:
        raise BadMarks(f"{name}: a solution cell has no {END if inside else BEGIN!r}: {source[:60]!r}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
