"""The cells of the exercise and solution notebooks, for tests: what is checked, and the functions that they define."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS, EXERCISES = ROOT / "solutions", ROOT / "exercises"
CHECKED = re.compile(r'check\("([\w.]+)", (\w+)\)\.require\(\)')


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def functions(folder: Path) -> dict[str, Any]:
    """Run the notebooks' cells but for the checks, and return the function that each exercise's check is handed."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        names: dict[str, Any] = {}
        wanted = {}
        for cell in code_cells(path):
            if checked := CHECKED.search(cell.source):
                wanted[checked[1]] = checked[2]
            elif cell.source != "progress.panel()":
                exec(compile(cell.source, path.name, "exec"), names)
        found |= {exercise: names[function] for exercise, function in wanted.items()}
    return found
