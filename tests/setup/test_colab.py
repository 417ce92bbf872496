"""Lessons 0 and 11 in an environment with only what a machine like Colab's brings, from first cell to last.

Takes several minutes and the package index, so it runs only when asked for: `pytest -m slow tests/test_colab.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import nbformat
import places
import pytest

import bootstrap
from rapidadapt_lessons.setup import doctor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
LESSON = places.ROOT / "notebooks" / "00_start_here.ipynb"
SCALING = places.ROOT / "notebooks" / "11_scaling_out.ipynb"  # starts scripts, which no notebook brings along
# What serves the page there is old, as is numpy. Another torch than the course's would take gigabytes here.
PAGE = ("ipykernel==6.17.1", "ipython==7.34.0", "ipywidgets==7.7.1")
BASICS = (*PAGE, "numpy<2.4", "matplotlib", bootstrap.pinned("torch"), "nbclient")
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=2000, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Make the environment and a repository of the working tree; return the folder that holds them."""
    folder = tmp_path_factory.mktemp("colab")
    repository = folder / "repository"
    for name in ("rapidadapt_lessons", "scale"):
        shutil.copytree(places.ROOT / name, repository / name)
    for name in ("pyproject.toml", "README.md", "requirements.lock"):
        shutil.copy(places.ROOT / name, repository)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for git in (["init", "-q", "-b", places.REF], ["add", "."], [*who, "commit", "-qm", "as it is"]):
        subprocess.run(["git", *git], cwd=repository, check=True)
    venv.create(folder / "env", with_pip=True)
    subprocess.run([bootstrap.python_in(folder / "env"), "-m", "pip", "install", "-q", *BASICS], check=True)
    return folder


def version(folder: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.check_output([bootstrap.python_in(folder / "env"), "-c", code], text=True).strip()


def run(folder: Path, number: int, lesson: Path = LESSON) -> nbformat.NotebookNode:
    """Run a lesson alone, in an empty folder with a home of its own, and return what came out."""
    (folder / "empty").mkdir(exist_ok=True)
    notebook = nbformat.read(lesson, as_version=4)
    (setup,) = (cell for cell in notebook.cells if cell.get("id") == places.SETUP)
    setup.source = places.setup_source(notebook, (folder / "repository").as_uri())
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    paths = folder / "empty" / "lesson.ipynb", folder / f"ran{number}.ipynb"
    nbformat.write(notebook, paths[0])
    environment = os.environ | {"HOME": str(folder / "home"), "RAPIDADAPT_CACHE": str(folder / "cache")}
    environment["PATH"] = f"{bootstrap.python_in(folder / 'env').parent}{os.pathsep}{environment['PATH']}"
    command = [bootstrap.python_in(folder / "env"), "-c", RUN, *paths]
    subprocess.run(command, check=True, cwd=folder / "empty", env=environment)
    return nbformat.read(paths[1], as_version=4)


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what the lesson's own cells put out, without doctor's line and the widget's random name."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.get("id") != places.SETUP]
    outputs = [output for cell in cells if "doctor" not in cell.source for output in cell.outputs]
    found = [output.get("text") or output.data["text/plain"] for output in outputs]
    return [text for text in found if not text.startswith("VBox(")]


def test_the_lesson_runs_where_only_its_notebook_came_along_and_again_in_silence(machine):
    before = {package: version(machine, package) for package in ("torch", "ipython", "ipykernel", "ipywidgets")}
    assert not (machine / "cache").exists()
    first = run(machine, 1)
    stored = nbformat.read(LESSON, as_version=4)
    assert len(texts(stored)) >= 4 and texts(first) == texts(stored)
    said = "".join(output.get("text", "") for output in first.cells[2].outputs)
    assert "Installing" in said and "Fetching SmolLM2" in said
    assert {package: version(machine, package) for package in before} == before
    assert all(f"{name}=={version(machine, name)}" == bootstrap.pinned(name) for name in ("transformers", "peft"))
    record = "import sys, importlib.metadata as m; print(m.distribution(sys.argv[1]).read_text('direct_url.json'))"
    asked = [bootstrap.python_in(machine / "env"), "-c", record, doctor.DISTRIBUTION]
    written = subprocess.check_output(asked, text=True, cwd=machine)  # here, it would find this checkout
    assert json.loads(written)["vcs_info"]["vcs"] == "git"
    second = run(machine, 2)
    assert second.cells[2].outputs == [] and texts(second) == texts(stored)


def test_scripts_that_a_lesson_starts_came_with_the_package(machine):
    assert not (machine / "scale").exists()
    found, stored = run(machine, 3, SCALING), nbformat.read(SCALING, as_version=4)
    assert len(texts(stored)) >= 10 and texts(found) == texts(stored)
