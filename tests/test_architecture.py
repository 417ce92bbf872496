"""The package's folders stand in one order, each imports only those before it, and no two files import each other."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rapidadapt_lessons"
# A folder, or a file beside the folders, imports itself and those that stand before it here.
ORDER = [
    "lazy", "errors", "guards", "files", "learner", "show", "lm", "setup", "prompting", "training", "lora", "meta",
    "continual", "scaling", "choosing", "tool", "exercises", "studies", "cli", "__main__",
]  # fmt: skip
# Public names that two modules give to two things on purpose, each with its reason.
TWICE = {
    "adapt": "the command, and what it runs",
    "CHECKS": "the checks of one exercise notebook each: `exercises.check` looks the name up",
}


def modules(package: Path) -> dict[str, Path]:
    """Return the package's files by dotted name below it; a folder's `__init__` goes by the folder's name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts:
            found[".".join(parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int, bool]]:
    """Yield what a file imports of the package, the line, and whether the import stands inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    folder = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [a.name.split(".")[1:] for a in node.names if a.name.split(".")[0] == "rapidadapt_lessons"]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) + 1 - node.level] + (node.module.split(".") if node.module else [])
            targets = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rapidadapt_lessons":
            targets = [[*node.module.split(".")[1:], alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            while target and ".".join(target) not in known:
                target = target[:-1]
            if target:
                yield ".".join(target), node.lineno, id(node) in inside


def graph(package: Path) -> dict[str, set[str]]:
    known = modules(package)
    return {name: {other for other, _, _ in imported(name, path, known)} for name, path in known.items()}


def upwards(imports: dict[str, set[str]]) -> list[str]:
    """Return the imports that lead to a folder further down in `ORDER`."""
    place = {name: i for i, name in enumerate(ORDER)}
    return sorted(
        f"{name} imports {other}"
        for name, others in imports.items()
        for other in others
        if place[other.partition(".")[0]] > place[name.partition(".")[0]]
    )


def on_a_cycle(imports: dict[str, set[str]]) -> set[str]:
    """Return the files from which a chain of imports leads back to them."""

    def reached(start: str) -> set[str]:
        seen, todo = set(), list(imports[start])
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                todo += imports[name]
        return seen

    return {name for name in imports if name in reached(name)}


def public_names(path: Path) -> set[str]:
    """Return what a file defines at its top and does not mark as private."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def private_uses(path: Path, known: dict[str, Path]) -> list[str]:
    """Return the private names of other modules that a file imports, or reaches through a module that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found, lent = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("rapidadapt_lessons")):
            found += [alias.name for alias in node.names if re.match(r"_(?!_)", alias.name)]
            lent |= {alias.asname or alias.name for alias in node.names if any(k.endswith(alias.name) for k in known)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr) and isinstance(node.value, ast.Name):
            if node.value.id in lent:
                found.append(f"{node.value.id}.{node.attr}")
    return found


def test_a_folder_imports_only_those_before_it():
    imports = graph(PACKAGE)
    assert imports["prompting.scoring"] >= {"errors", "lm.model"}, "the look for imports finds nothing"
    assert upwards(imports) == []


def test_no_two_files_import_each_other():
    assert on_a_cycle(graph(PACKAGE)) == set()
    assert on_a_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {"b", "c"}


@pytest.mark.parametrize("indent", ["", "def late():\n    "])
def test_a_forbidden_import_is_seen_at_the_top_and_inside_a_function(tmp_path, indent):
    """The rule itself: a package in which `lm` reaches up to `lora`, and two files that need each other."""
    for name, text in {
        "__init__": "", "lm/__init__": "", "lm/model": f"{indent}from ..lora.layers import inject",
        "lora/__init__": "", "lora/layers": f"{indent}from . import files", "lora/files": "from . import layers",
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    imports = graph(tmp_path)
    assert upwards(imports) == ["lm.model imports lora.layers"]
    assert on_a_cycle(imports) == {"lora.layers", "lora.files"}


def test_an_import_of_the_package_inside_a_function_has_its_reason_beside_it():
    known = modules(PACKAGE)
    bare = []
    for name, path in known.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        for other, line, late in imported(name, path, known):
            if late and not any("#" in text for text in lines[line - 2 : line]):
                bare.append(f"{name}, line {line}: {other}")
    assert bare == []


def test_no_private_name_crosses_a_module():
    known = modules(PACKAGE)
    assert {name: found for name, path in known.items() if (found := private_uses(path, known))} == {}


def test_one_public_name_means_one_thing():
    where = defaultdict(list)
    for name, path in modules(PACKAGE).items():
        for public in public_names(path):
            where[public].append(name)
    assert {name: found for name, found in where.items() if len(found) > 1 and name not in TWICE} == {}
    assert {name for name in TWICE if len(where[name]) < 2} == set(), "these occur once by now"


def test_no_module_is_longer_than_350_lines():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(PACKAGE).items()}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}


def test_the_page_names_every_folder_in_this_order_and_no_other():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = [name for name in ORDER if (PACKAGE / name).is_dir()]
    assert re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE) == folders
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(folders)
