"""What is installed, what is missing, and what to do about it.

Every check is a plain function that returns a `Check` and changes nothing. None of them asks the network.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ..errors import CourseError, MissingPackage
from ..lm import download, memory
from . import learn2learn

DISTRIBUTION = "rapidadapt-lessons"
MINIMUM_PYTHON = (3, 11)
SETUP = "run `python -m rapidadapt_lessons setup`"
REINSTALL = "run `python -m pip install -r requirements.lock` in the course's folder"
# Not needed where a notebook is open already; installing them could replace what serves it.
PAGE = ("jupyterlab",)
# Loading the model takes 0.6 GB and adapting it up to about twice that.
MEMORY_LOW, MEMORY_TOO_LOW = 2_000_000_000, 1_000_000_000


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str  # what was checked
    status: Literal["ok", "warn", "fail"]  # "warn": lessons run, though perhaps slowly; "fail": some cannot
    detail: str  # what was found, with the value
    remedy: str = ""  # what the reader can do; empty when the status is "ok"


def run_checks() -> list[Check]:
    """Run every check, in the order in which a reader would fix what fails. Raises as `requirements`."""
    checks = [python_check(), *(package_check(line) for line in requirements())]
    checks += [learn2learn_check(), model_check(), device_check(), memory_check(), disk_check()]
    return [*checks, network_check(checks)]


def requirements() -> list[str]:
    """Return the packages that the lessons import, as requirement lines such as "numpy>=2.4,<3".

    They stand in the pyproject.toml beside this package, or in what pip recorded when it installed it. Raises
    MissingPackage where there is neither.
    """
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    if pyproject.is_file():
        import tomllib

        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == DISTRIBUTION:  # beside an installed package, another's may lie
            return project["dependencies"]
    try:
        return [line for line in metadata.requires(DISTRIBUTION) or () if "extra ==" not in line]
    except metadata.PackageNotFoundError as error:
        raise MissingPackage(
            f"{DISTRIBUTION} itself is not installed.", f"{REINSTALL}, then `pip install -e .`"
        ) from error


def shared_file(*end: str) -> Path | None:
    """Return the file, by the end of its path, that pip put beside this package, or None where it put none."""
    try:
        files = metadata.files(DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:
        return None
    found = (Path(file.locate()) for file in files if file.parts[-len(end) :] == end)
    return next((path for path in found if path.is_file()), None)


def came_with_a_notebook() -> bool:
    """Return whether pip took this package straight from a repository, as a lesson's first cell asks it to on Colab.

    pip writes that down (PEP 610); for a checkout, editable or not, it writes no `vcs_info`.
    """
    try:
        written = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return False
    return "vcs_info" in json.loads(written or "{}")


def python_check() -> Check:
    """Check that this Python is at least 3.11."""
    version = platform.python_version()
    if sys.version_info[:2] < MINIMUM_PYTHON:
        return Check("Python", "fail", version, "install Python 3.11 or later, and set the course up again with it")
    return Check("Python", "ok", version)


def package_check(requirement: str) -> Check:
    """Check one requirement line, such as "numpy>=2.4,<3", against what is installed."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    hosted = came_with_a_notebook()
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        if hosted and wanted.name in PAGE:
            return Check(wanted.name, "ok", "not needed: the notebook is open already")
        return Check(wanted.name, "fail", f"not installed; the course needs {wanted}", REINSTALL)
    if not wanted.specifier.contains(found, prereleases=True):
        detail = f"{found} is installed; the lessons were made with {wanted.specifier}"
        remedy = "nothing, unless a lesson fails: it came with this machine and was kept" if hosted else REINSTALL
        return Check(wanted.name, "warn", detail, remedy)
    return Check(wanted.name, "ok", found)


def learn2learn_check() -> Check:
    """Check that learn2learn's MAML can be imported."""
    if learn2learn.installed_version() is None and came_with_a_notebook():
        return Check("learn2learn", "warn", "not installed", "go on: the lesson that needs it builds it")
    try:
        learn2learn.import_maml()
    except CourseError as error:
        return Check("learn2learn", "fail", error.problem, error.remedy)
    found = learn2learn.installed_version()
    if found != learn2learn.VERSION:
        detail = f"{found} is installed; the lessons were made with {learn2learn.VERSION}"
        return Check("learn2learn", "warn", detail, f"{SETUP}, which installs {learn2learn.VERSION}")
    return Check("learn2learn", "ok", found)


def model_check() -> Check:
    """Check that the course's model is in the cache, and intact."""
    status = download.check_model(full=True)
    where = short_path(status.path)
    if status.state == "missing":
        return Check("model", "fail", f"{download.DEFAULT_MODEL} is not in {where}", f"{SETUP}, which fetches it")
    if status.denied:
        detail = f"{download.DEFAULT_MODEL} in {where} may not be read: {status.detail}"
        return Check("model", "fail", detail, "ask for read rights, or name another folder in RAPIDADAPT_CACHE")
    if status.state == "damaged":
        detail = f"{download.DEFAULT_MODEL} in {where} is damaged: {status.detail}"
        return Check("model", "fail", detail, f"{SETUP}, which replaces it")
    return Check("model", "ok", f"{download.DEFAULT_MODEL}, {status.bytes / 1e6:.0f} MB in {where}")


def device_check() -> Check:
    """Say which device the lessons will compute on."""
    try:
        import torch

        from ..lm.model import pick_device  # imports torch, which may be broken

        device = pick_device("auto")
    except (ImportError, OSError, CourseError) as error:
        return Check("device", "fail", f"torch cannot say ({type(error).__name__}: {error})", REINSTALL)
    if device.type == "cuda":
        return Check("device", "ok", f"cuda: {torch.cuda.get_device_name(device)}")
    return Check("device", "ok", f"{device.type}, {torch.get_num_threads()} threads")


def memory_check() -> Check:
    """Check that enough memory is free to load and adapt the model, within the limits of a container too."""
    free = memory.available_memory()
    detail = f"{free / 1e9:.1f} GB"
    if free >= MEMORY_LOW:
        return Check("free memory", "ok", detail)
    status = "warn" if free >= MEMORY_TOO_LOW else "fail"
    wanted = f"{detail}; the lessons want {MEMORY_LOW / 1e9:.0f} GB"
    return Check("free memory", status, wanted, "close other programs, and shut down the notebooks you are not using")


def disk_check() -> Check:
    """Check that the cache's disk has room for the model, unless the model is there already."""
    cache = download.cache_dir()
    # Path.exists would raise PermissionError below a folder that may not be entered.
    existing = next(place for place in (cache, *cache.parents) if os.path.exists(place))
    free, needed = shutil.disk_usage(existing).free, download.SMOLLM2.bytes_needed
    detail = f"{free / 1e9:.1f} GB at {short_path(cache)}"
    if free >= needed or download.check_model().state == "ok":
        return Check("free disk", "ok", detail)
    remedy = "free some space, or name another place in the variable RAPIDADAPT_CACHE"
    return Check("free disk", "fail", f"{detail}; setting up the model takes {needed / 1e9:.1f} GB", remedy)


def network_check(checks: Sequence[Check]) -> Check:
    """Say whether the network is still needed, given the other checks. Does not ask the network."""
    absent = [c.name for c in checks if c.status == "fail" and c.name not in ("Python", "free memory", "free disk")]
    if not absent:
        return Check("network", "ok", "not needed: everything is on this machine")
    return Check("network", "warn", f"needed once, to set up {', '.join(absent)}", f"connect, and {SETUP}")


def summary(checks: Sequence[Check]) -> str:
    """Return one sentence on all checks. Where all is well it is the same on every machine."""
    failed = [c.name for c in checks if c.status == "fail"]
    warned = [c.name for c in checks if c.status == "warn"]
    if failed:
        return f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}."
    if warned:
        return f"Ready, with something to know about: {', '.join(warned)}."
    return "All checks passed: ready."


def short_path(path: Path) -> str:
    """Return a path as text, with ~ in place of the home folder."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)
