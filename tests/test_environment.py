"""pyproject.toml, requirements.lock and environment.yml agree, and describe what is installed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import bootstrap
from rapidadapt_lessons import __version__
from rapidadapt_lessons.setup import doctor, learn2learn

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK_TEXT = (ROOT / "requirements.lock").read_text(encoding="utf-8")
CONDA_TEXT = (ROOT / "environment.yml").read_text(encoding="utf-8")
CONDA = yaml.safe_load(CONDA_TEXT)
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def by_name(lines: list[str]) -> dict[str, Requirement]:
    """Return requirement lines by package; a package that is named twice is an error."""
    parsed = [Requirement(line) for line in lines]
    named = {canonicalize_name(requirement.name): requirement for requirement in parsed}
    assert len(named) == len(parsed), "a package is named twice"
    return named


def pins(lines: list[str]) -> dict[str, str]:
    """Return exact pins by package; anything that is not an exact pin is an error."""
    found = {}
    for name, requirement in by_name(lines).items():
        (only,) = requirement.specifier
        assert only.operator == "==" and "*" not in only.version, f"{requirement} is not an exact pin"
        found[name] = only.version
    return found


RUNTIME = by_name(PYPROJECT["project"]["dependencies"])
DIRECT = by_name([*map(str, RUNTIME.values()), *(line for extra in EXTRAS.values() for line in extra)])
LOCK = pins([line for line in LOCK_TEXT.splitlines() if line and not line.startswith("#")])
PIP_SECTION = next(part["pip"] for part in CONDA["dependencies"] if isinstance(part, dict))
CONDA_PINS = pins([line for line in PIP_SECTION if not line.startswith("-")])


@pytest.mark.parametrize("name", sorted(DIRECT))
def test_the_lock_pins_every_direct_package_within_its_range(name):
    assert name in LOCK, f"{name} is in pyproject.toml and not in requirements.lock: run `make lock`"
    assert DIRECT[name].specifier.contains(LOCK[name]), f"{DIRECT[name]} does not admit the lock's {LOCK[name]}"


def test_every_range_has_a_lower_bound():
    bare = [str(requirement) for requirement in DIRECT.values() if ">=" not in str(requirement.specifier)]
    assert bare == []


def test_environment_yml_pins_the_direct_packages_and_no_others():
    assert set(CONDA_PINS) == set(DIRECT)


@pytest.mark.parametrize("name", sorted(CONDA_PINS))
def test_environment_yml_has_the_locks_version(name):
    assert CONDA_PINS[name] == LOCK.get(name)


def test_environment_yml_holds_the_rest_to_the_lock():
    assert any(re.fullmatch(r"(-c|--constraint) requirements\.lock", line) for line in PIP_SECTION)


def test_no_pin_names_one_build_of_a_version():
    """torch==2.13.0+cpu would shut out everyone with another build of that version."""
    assert [name for name, version in (LOCK | CONDA_PINS).items() if "+" in version] == []


@pytest.mark.parametrize("where", [LOCK_TEXT, CONDA_TEXT, *PYPROJECT["tool"]["rapidadapt"]["built-separately"]])
def test_learn2learn_has_one_version_everywhere(where):
    assert set(re.findall(r"learn2learn==([\w.]+)", where)) == {learn2learn.VERSION}


def test_learn2learn_is_never_given_to_pip_to_build_unaided():
    assert "learn2learn" not in {*DIRECT, *LOCK, *CONDA_PINS}


def test_the_build_tools_are_those_that_l2l_asks_for():
    assert by_name(EXTRAS["build"]) == by_name(list(learn2learn.BUILD_TOOLS))


def test_python_versions_agree():
    allowed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    (python,) = (part for part in CONDA["dependencies"] if isinstance(part, str) and part.startswith("python="))
    oldest = python.removeprefix("python=")
    assert str(allowed) == f">={oldest}"
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert [".".join(map(str, pair)) for pair in (bootstrap.MINIMUM, doctor.MINIMUM_PYTHON)] == [oldest, oldest]
    assert allowed.contains(".".join(map(str, sys.version_info[:3])))


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_every_locked_package_admits_the_pythons_that_the_course_admits(python):
    """Debian 12 has Python 3.11.2, Colab 3.12; a package that wants more belongs into `held-back` in pyproject.toml."""
    wanted = {name: metadata.metadata(name)["Requires-Python"] for name in {*LOCK, "rapidadapt-lessons"}}
    assert len(wanted) > 100
    assert {name: what for name, what in wanted.items() if what and not SpecifierSet(what).contains(python)} == {}


def test_what_is_held_back_is_held_back():
    for requirement in by_name(PYPROJECT["tool"]["rapidadapt"]["held-back"]).values():
        assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])


def test_the_package_has_one_version():
    assert PYPROJECT["project"]["version"] == __version__


@pytest.mark.parametrize("name", sorted({*DIRECT, "learn2learn"}))
def test_what_is_installed_is_what_is_locked(name):
    """A build's suffix, such as torch's +cpu, does not count."""
    wanted = learn2learn.VERSION if name == "learn2learn" else LOCK[name]
    assert Version(metadata.version(name)).public == wanted, (
        "run `make setup`, or `make lock` if the lock is out of date"
    )


def test_every_package_that_the_code_imports_is_a_direct_one():
    """One that only the tests ask for does not count."""
    owners = metadata.packages_distributions()
    imported = {name for file in (ROOT / "rapidadapt_lessons").rglob("*.py") for name in imports(file)}
    third_party = imported - set(sys.stdlib_module_names) - {"rapidadapt_lessons"}
    assert third_party, "nothing was found: this test does not look in the right place"
    known = {
        name for name in third_party if {canonicalize_name(owner) for owner in owners.get(name, ())} & set(RUNTIME)
    }
    assert third_party - known == set()


def imports(file: Path) -> set[str]:
    """Return the top-level names of what a source file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found
