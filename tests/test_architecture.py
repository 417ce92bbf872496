"""docs/architecture.md names every module and no other, and no module imports itself by a detour."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rapidadapt_lessons"


def modules() -> set[str]:
    return {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}


def named(page: str) -> set[str]:
    """Return the modules in the first column of the page's table."""
    rows = re.findall(r"^\| (`[^|]*`) \|", page, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def at_import(path: Path) -> set[str]:
    """Return the package's modules that a module imports as soon as it is imported itself."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
    return found & modules()


def on_a_cycle(imports: dict[str, set[str]]) -> set[str]:
    """Return the modules from which a chain of imports leads back to them."""

    def reached(start: str) -> set[str]:
        seen, todo = set(), list(imports[start])
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                todo += imports[name]
        return seen

    return {name for name in imports if name in reached(name)}


def test_the_table_names_every_module_and_no_other():
    assert named((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")) == modules()


def test_there_are_no_import_cycles():
    imports = {name: at_import(PACKAGE / f"{name}.py") for name in modules()}
    assert imports["scoring"] >= {"errors", "models"}, "the look for imports finds nothing"
    assert on_a_cycle(imports) == set()
    assert on_a_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}
