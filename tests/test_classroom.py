"""Binder, classroom and container: the scripts run, refuse what they must, and agree with each other and the lock."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from traitlets.config.loader import PyFileConfigLoader

ROOT = Path(__file__).resolve().parents[1]
CLASSROOM = ROOT / "classroom"
INSTALL, POST_BUILD = CLASSROOM / "install.sh", ROOT / "postBuild"
SCRIPT = INSTALL.read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="shell scripts, for Linux servers")


def container() -> list[tuple[str, str]]:
    """Return the Containerfile's instructions and their arguments, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def default(name: str) -> str:
    """Return what install.sh takes for a variable that is not set."""
    return re.search(rf"^{name}=\$\{{{name}:?-(.*)\}}$", SCRIPT, re.MULTILINE)[1]


@pytest.fixture
def stand_in(tmp_path):
    """Return a function that puts a `python` on the path which notes its arguments and fails where it is told to."""

    def make(fails_on: str = "nothing") -> dict[str, str]:
        program = tmp_path / "python"
        log = tmp_path / "log"
        program.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\ncase "$*" in *{fails_on}*) exit 3;; esac\n')
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    return make


@pytest.mark.parametrize("script", [INSTALL, POST_BUILD], ids=lambda path: path.name)
def test_a_script_can_be_run_and_stops_at_the_first_error(script):
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text


# Binder


def test_binder_sets_up_once_while_it_builds(stand_in, tmp_path):
    assert subprocess.run([POST_BUILD], env=os.environ | stand_in()).returncode == 0
    assert (tmp_path / "log").read_text().splitlines()[0] == "-m rapidadapt_lessons setup"


def test_binder_builds_no_image_without_the_model(stand_in):
    assert subprocess.run([POST_BUILD], env=os.environ | stand_in("setup")).returncode == 3


def test_binder_tolerates_a_pip_that_keeps_nothing(stand_in):
    assert subprocess.run([POST_BUILD], env=os.environ | stand_in("purge")).returncode == 0


def test_binder_reads_the_files_at_the_top():
    """repo2docker looks only into binder/ or .binder/ where there is one, and would find no environment.yml there."""
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()
    parts = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = (part["pip"] for part in parts if isinstance(part, dict))
    local = [line.split()[1] for line in pip if re.match(r"--(constraint|editable) ", line)]
    assert local == ["requirements.lock", "."] and all((ROOT / name).exists() for name in local)


# Classroom


def test_the_hubs_settings_load_and_agree_with_what_is_installed():
    path = CLASSROOM / "jupyterhub_config.d" / "rapidadapt.py"
    config = PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
    environment = config.Spawner.environment.get_value({})
    assert environment["RAPIDADAPT_CACHE"] == f"{default('PREFIX')}/cache"
    assert 'RAPIDADAPT_CACHE="$PREFIX/cache"' in SCRIPT
    assert config.Spawner.mem_limit == config.SystemdSpawner.mem_limit == "2G"
    lesson = config.Spawner.default_url.removeprefix("/lab/tree/rapid-adaptation/")
    assert (ROOT / lesson).is_file() and 'copy="$SKEL/rapid-adaptation"' in SCRIPT


def test_without_a_hub_nothing_is_installed(tmp_path):
    wanted = {"PREFIX": str(tmp_path / "prefix"), "JUPYTER_PREFIX": str(tmp_path / "none"), "SKEL": ""}
    done = subprocess.run([INSTALL], env=os.environ | wanted, capture_output=True, text=True)
    assert done.returncode == 1 and "What to do:" in done.stderr
    assert not (tmp_path / "prefix").exists()


def to_install_into(tmp_path, stand_in) -> dict[str, str]:
    """Return what install.sh is told, to install into `prefix` and `skel` with a stand-in for Python."""
    (tmp_path / "prefix" / "env" / "bin").mkdir(parents=True)
    (tmp_path / "prefix" / "env" / "bin" / "python").symlink_to(tmp_path / "python")
    places = {name: str(tmp_path / name.lower()) for name in ("PREFIX", "SKEL", "PYTHON")}
    return stand_in() | places | {"JUPYTER_PREFIX": ""}


def test_what_is_copied_is_there_and_set_up_before_others_may_read_it(tmp_path, stand_in):
    """Run with a stand-in for Python, which installs nothing: copies, rights and the order of steps are real."""
    wanted = to_install_into(tmp_path, stand_in)
    prefix, skel = tmp_path / "prefix", tmp_path / "skel"
    (prefix / "course" / "rapidadapt_lessons").mkdir(parents=True)
    (prefix / "course" / "rapidadapt_lessons" / "gone.py").touch()  # of an older version
    (skel / "rapid-adaptation" / "notebooks").mkdir(parents=True)
    (skel / "rapid-adaptation" / "notebooks" / "gone.ipynb").touch()
    for _ in range(2):
        done = subprocess.run([INSTALL], env=os.environ | wanted, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not (prefix / "course" / "rapidadapt_lessons" / "gone.py").exists()
    first = (tmp_path / "log").read_text().splitlines()[0]
    assert first == f"{prefix}/course/tools/bootstrap.py --torch cpu --venv {prefix}/env"
    copy = skel / "rapid-adaptation"
    folders = {"notebooks", "exercises", "scale", "docs", "benchmarks", "rapidadapt_lessons"}
    assert {path.name for path in copy.iterdir()} == folders  # and no solutions
    assert not (copy / "notebooks" / "notebooks").exists() and not (copy / "notebooks" / "gone.ipynb").exists()
    assert (copy / "rapidadapt_lessons").resolve() == (prefix / "course" / "rapidadapt_lessons").resolve()
    assert not [path for path in copy.rglob("*") if path.name in ("__pycache__", ".ipynb_checkpoints")]
    modes = [path.stat().st_mode for path in (prefix / "course").rglob("*")]
    assert modes and all(mode & 0o044 == 0o044 and not mode & 0o022 for mode in modes)


def test_every_page_that_a_lesson_links_to_is_in_the_learners_copy(tmp_path, stand_in):
    """But for solutions, which learners are not given, and places on the web."""
    wanted = to_install_into(tmp_path, stand_in)
    subprocess.run([INSTALL], env=os.environ | wanted, check=True, capture_output=True)
    found = 0
    for path in (tmp_path / "skel" / "rapid-adaptation" / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        text = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
            if not target.startswith("../solutions"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"
                found += target.startswith("../scale") or target.startswith("../rapidadapt_lessons")
    assert found > 5


# Container


def test_the_container_has_the_courses_python_and_installs_through_the_lock():
    steps = container()
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = pyproject["project"]["requires-python"].removeprefix(">=")
    assert steps[0] == ("FROM", f"docker.io/library/python:{oldest}-slim-bookworm")
    runs = [arguments for word, arguments in steps if word == "RUN"]
    assert any("/tmp/course/classroom/install.sh" in run for run in runs)
    assert not any("pip install" in run for run in runs), "what pip installs comes from the lock, through install.sh"


def test_the_container_runs_as_an_ordinary_user_and_finds_what_was_installed():
    steps = container()
    words = [word for word, _ in steps]
    assert words.index("USER") < words.index("CMD") and dict(steps)["USER"] != "root"
    run = next(arguments for word, arguments in steps if word == "RUN" and "install.sh" in arguments)
    prefix = re.search(r"PREFIX=(\S+)", run)[1]
    environment = dict(steps)["ENV"]
    assert f"RAPIDADAPT_CACHE={prefix}/cache" in environment and f"PATH={prefix}/env/bin:$PATH" in environment
    assert run.index("install.sh") < run.index("useradd --create-home")  # the home is a copy of what is prepared
    lesson = re.search(r'"(notebooks/[^"]+)"', dict(steps)["CMD"])[1]
    assert (ROOT / lesson).is_file() and dict(steps)["WORKDIR"] == "/home/learner/rapid-adaptation"


def test_what_was_made_here_stays_out_of_the_container():
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8")
    assert ignored == (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert {".venv", ".git", "build", "**/__pycache__"} <= set(ignored.splitlines())
