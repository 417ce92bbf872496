"""`import rapidadapt_lessons` is light, and its names are found when they are first used."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import rapidadapt_lessons

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent.name for path in (ROOT / "rapidadapt_lessons").glob("*/__init__.py"))
HEAVY = {
    "torch", "transformers", "numpy", "matplotlib", "IPython", "ipywidgets", "sklearn", "scipy", "peft", "gguf",
    "joblib",
}  # fmt: skip


def modules_after(statement: str) -> set[str]:
    """Return the modules that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_but_itself_and_the_standard_library():
    new = modules_after("import rapidadapt_lessons") - modules_after("import importlib, typing")
    tops = {name.partition(".")[0] for name in new}
    assert "rapidadapt_lessons" in tops
    assert tops - {"rapidadapt_lessons"} - set(sys.stdlib_module_names) == set()
    assert {name for name in new if name.startswith("rapidadapt_lessons.")} == {"rapidadapt_lessons.lazy"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_importing_a_folder_loads_nothing_that_is_heavy(folder):
    loaded = modules_after(f"import rapidadapt_lessons.{folder}")
    assert f"rapidadapt_lessons.{folder}" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    "module", ["cli", "setup.doctor", "setup.learn2learn", "errors", "lm.download", "training.side_by_side"]
)
def test_what_setting_up_needs_and_what_is_light_does_not_import_heavy_packages(module):
    loaded = modules_after(f"import rapidadapt_lessons.{module}")
    assert f"rapidadapt_lessons.{module}" in loaded
    assert loaded & HEAVY == set()


def test_the_look_for_heavy_packages_sees_them():
    assert "numpy" in modules_after("import numpy") & HEAVY


def test_colabs_first_cell_needs_the_standard_library_alone():
    """It runs before anything is installed: lesson 0's import of `colab`, with every other package hidden."""
    code = "from rapidadapt_lessons.setup import colab\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    tops = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert tops - set(sys.stdlib_module_names) - {"__main__"} == {"rapidadapt_lessons"}


@pytest.mark.parametrize("package", ["", *FOLDERS])
def test_every_name_that_a_folder_lends_out_is_found_and_is_no_module_of_its_own(package):
    lender = import_module(f"rapidadapt_lessons.{package}".rstrip("."))
    for name in getattr(lender, "__all__", []):
        assert getattr(lender, name) is not None and name in dir(lender)
        assert find_spec(f"{lender.__name__}.{name}") is None, f"{name} is a module too"


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rapidadapt_lessons.no_such_name
    with pytest.raises(ImportError, match="no_such_name"):
        from rapidadapt_lessons.lora import no_such_name  # noqa: F401
