"""`import rapidadapt_lessons` is light, and its names are found when they are first used."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import rapidadapt_lessons

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
    assert {name for name in new if name.startswith("rapidadapt_lessons.")} == set()


@pytest.mark.parametrize("module", ["cli", "doctor", "l2l", "errors", "store", "side_by_side"])
def test_what_setting_up_needs_and_what_is_light_does_not_import_heavy_packages(module):
    loaded = modules_after(f"import rapidadapt_lessons.{module}")
    assert f"rapidadapt_lessons.{module}" in loaded
    assert loaded & HEAVY == set()


def test_the_look_for_heavy_packages_sees_them():
    assert "numpy" in modules_after("import numpy") & HEAVY


@pytest.mark.parametrize("name", [name for name in rapidadapt_lessons.__all__ if name != "__version__"])
def test_every_exported_name_is_the_one_in_its_module(name):
    module = import_module(f"rapidadapt_lessons.{rapidadapt_lessons._EXPORTS[name]}")
    assert getattr(rapidadapt_lessons, name) is getattr(module, name)
    assert name in dir(rapidadapt_lessons)


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rapidadapt_lessons.no_such_name
    with pytest.raises(ImportError, match="no_such_name"):
        from rapidadapt_lessons import no_such_name  # noqa: F401
