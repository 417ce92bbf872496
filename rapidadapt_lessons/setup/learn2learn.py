"""The one door to learn2learn 0.2.0, whose C files come from a Cython too old for Python 3.11 or later.

`build` has them generated anew (https://github.com/learnables/learn2learn/issues/413). `import_maml` imports the one
file that holds MAML, inside bare packages of the right names: `import learn2learn` would want torchvision and gym.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import CourseError, DownloadFailed, MissingPackage
from ..lm.pip import last_words, run_pip

VERSION = "0.2.0"
BUILD_TOOLS = ("cython>=3.1,<4", "setuptools>=77.0.3,<81", "wheel>=0.45")
_SETUP = "run `python -m rapidadapt_lessons setup`, which builds it"
# What pip prints when it cannot reach the package index.
_NO_NETWORK = (
    "No matching distribution found", "Could not find a version", "NewConnectionError", "Max retries exceeded",
    "Connection aborted", "Read timed out", "ProxyError",
)  # fmt: skip


def installed_version() -> str | None:
    """Return the version of learn2learn that is installed, or None. Imports nothing of it."""
    try:
        return metadata.version("learn2learn")
    except metadata.PackageNotFoundError:
        return None


def compiler_problem() -> CourseError | None:
    """Return what keeps this machine from compiling C extensions for Python, or None if nothing is known to."""
    if sys.platform == "win32":
        return None  # Visual C++ is on no path; only the build itself can find it.
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return CourseError(f"no C compiler: {compiler!r}, which builds learn2learn, was not found.", _compiler_remedy())
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return CourseError(
            f"Python's header Python.h, which building learn2learn takes, is not in {header.parent}.",
            f"install it (Debian, Ubuntu: `sudo apt install python{version}-dev`) and run the same command again.",
        )
    return None


def build() -> None:
    """Build learn2learn 0.2.0 and install it, without what it depends on, for the Python that runs this.

    Takes about a minute and does nothing when that version is installed already. Raises CourseError where there is no C
    compiler or compiling failed, DownloadFailed where pip could not fetch the sources or the build tools, and
    MissingPackage where this Python has no pip, or learn2learn is still absent afterwards.
    """
    if installed_version() == VERSION:
        return
    if problem := compiler_problem():
        raise problem
    _pip(["install", *BUILD_TOOLS])
    # learn2learn's setup.py runs Cython only when it sees build_ext among its arguments.
    _pip(["install", "--no-deps", "--no-build-isolation", "-C--global-option=build_ext", f"learn2learn=={VERSION}"])
    importlib.invalidate_caches()
    if (found := installed_version()) != VERSION:
        raise MissingPackage(
            f"pip reported success, but {sys.executable} finds learn2learn {found or 'nowhere'}, not {VERSION}.",
            "check that pip and the notebook use the same Python, then " + _SETUP + ".",
        )


def import_maml() -> type:
    """Return `learn2learn.algorithms.MAML`, without importing torchvision or gym.

    A learn2learn that the reader has already imported in full is used as it is. Raises MissingPackage where it is not
    installed or cannot be imported; `sys.modules` is then as before.
    """
    before = set(sys.modules)
    try:
        if "learn2learn" not in sys.modules:
            _place_bare_packages()
        return importlib.import_module("learn2learn.algorithms.maml").MAML
    except Exception as error:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "learn2learn":
                del sys.modules[name]
        if isinstance(error, CourseError):
            raise
        raise MissingPackage(
            f"learn2learn {installed_version() or ''} cannot be imported ({type(error).__name__}: {error}).",
            "run `python -m rapidadapt_lessons doctor` to see what is missing or of another version.",
        ) from error


def _place_bare_packages() -> None:
    """Put packages of learn2learn's names in `sys.modules` that find its files but skip its `__init__`s."""
    spec = importlib.util.find_spec("learn2learn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage(f"learn2learn {VERSION} is not installed.", f"{_SETUP}.")
    top = _bare_package("learn2learn", list(spec.submodule_search_locations))
    below = _bare_package("learn2learn.algorithms", [os.path.join(place, "algorithms") for place in top.__path__])
    top.algorithms = below
    # `learn2learn.algorithms.MAML` is where learn2learn's own documentation has it.
    below.MAML = importlib.import_module("learn2learn.algorithms.maml").MAML


def _bare_package(name: str, path: list[str]) -> ModuleType:
    package = ModuleType(name, "Only what MAML needs; placed by this course.")
    package.__path__ = path
    package.__spec__ = importlib.util.spec_from_loader(name, loader=None, is_package=True)

    def explain(attribute: str) -> Any:
        raise AttributeError(f"{name}.{attribute} is not loaded: this course imports learn2learn's MAML only.")

    package.__getattr__ = explain
    sys.modules[name] = package
    return package


def _pip(arguments: list[str]) -> None:
    """Run pip. Raises as `build`."""
    succeeded, lines = run_pip(arguments, CYTHON_FORCE_REGEN="1")
    if succeeded:
        return
    if any(sign in line for line in lines for sign in _NO_NETWORK):
        raise DownloadFailed(
            f"pip could not fetch {arguments[-1]}. It said:\n  {last_words(lines)}",
            "check the connection and run `python -m rapidadapt_lessons setup` again. Behind a proxy or with a "
            "mirror, set it as for any pip install (PIP_PROXY, PIP_INDEX_URL).",
        )
    raise CourseError(f"pip could not build {arguments[-1]}. It said:\n  {last_words(lines)}", _compiler_remedy())


def _compiler_remedy() -> str:
    install = "install a C compiler (Debian, Ubuntu: `sudo apt install build-essential`; conda: `c-compiler`)"
    if sys.platform == "win32":
        install = 'install "Build Tools for Visual Studio" with the C++ workload'
    if sys.platform == "darwin":
        install = "run `xcode-select --install`"
    return f"{install}, and run the same command again."
