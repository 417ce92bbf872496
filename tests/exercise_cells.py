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
        names = defined(path)
        checked = (CHECKED.search(cell.source) for cell in code_cells(path))
        found |= {match[1]: names[match[2]] for match in checked if match}
    return found


def defined(path: Path) -> dict[str, Any]:
    """Run a notebook's cells but for the checks and the panel, and return what they define."""
    names: dict[str, Any] = {}
    for cell in code_cells(path):
        if not CHECKED.search(cell.source) and cell.source != "progress.panel()":
            exec(compile(cell.source, path.name, "exec"), names)
    return names
