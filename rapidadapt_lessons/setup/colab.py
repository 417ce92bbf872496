"""A lesson opened where only its notebook came along, as on Colab: install what it needs there.

What such a machine brings is kept where it can be: torch, which is built for its GPU; the packages that the page
itself talks to; and everything that the running kernel has imported already, so that nothing has to be restarted.
Where the course was set up in another way (`make lab`, conda, Binder), nothing here does anything.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from ..errors import CourseError, DownloadFailed
from ..lm import download
from . import doctor, learn2learn

# Kept as they are wherever they are found: torch and what is built against it, and what the page talks to.
KEPT = ("torch", "torchvision", "torchaudio", "triton", "ipython", "ipykernel", "ipywidgets")
# Not kept where they are out of range, even by a kernel that has imported them: the lessons would fail with them.
NEEDED = ("transformers", "huggingface-hub", "tokenizers", "safetensors", "peft", "accelerate")


def install(*built: str) -> None:
    """Install the course's packages and model where they are missing, if this package came with a notebook.

    Anywhere else it returns at once. It prints a line before what takes long, and nothing when all is there.

    Args:
        built: "learn2learn" where the lesson needs it: it is compiled, which takes about a minute.

    Raises:
        DownloadFailed: pip could not install something; its last words are in the message.
        CourseError: the kernel has to be restarted; learn2learn could not be built; the model could not be set up.
    """
    if not doctor.came_with_a_notebook():
        return
    add_packages()
    if "learn2learn" in built and learn2learn.installed_version() != learn2learn.VERSION:
        print(f"Building learn2learn {learn2learn.VERSION} (once, about a minute) ...", flush=True)
        learn2learn.build()
    if download.check_model().state != "ok":
        print(f"Fetching {download.DEFAULT_MODEL} (once, 0.1 GB) ...", flush=True)
        download.ensure_model(progress=False)


def add_packages() -> None:
    """Install what is missing or out of range and may be replaced.

    Raises:
        DownloadFailed: see `pip_install`.
        CourseError: something that this kernel had imported was replaced, so it has to be restarted.
    """
    found, lines = installed(), doctor.requirements()
    fixed = kept_packages(found, KEPT)
    running = fixed | kept_packages(found, loaded(sys.modules))
    kept = running - (unmet(lines, found).keys() & set(NEEDED))
    wanted = to_install(lines, found, kept)
    if not wanted:
        return
    print(f"Installing {len(wanted)} packages (once, a few minutes) ...", flush=True)
    try:
        pip_install(at_locked_versions(wanted, lock_text()), [f"{name}=={found[name]}" for name in sorted(kept)])
    except DownloadFailed as error:
        if "ResolutionImpossible" not in error.problem:
            raise
        wanted = to_install(lines, found, fixed)
        pip_install(at_locked_versions(wanted, lock_text()), [f"{name}=={found[name]}" for name in sorted(fixed)])
    now = installed()
    if replaced := [name for name in sorted(running) if now.get(name) != found[name]]:
        raise CourseError(
            f"{', '.join(replaced)} had to be replaced, and this kernel uses the old version.",
            "restart the kernel (on Colab: Runtime > Restart session) and run the lesson from the top.",
        )


def installed() -> dict[str, str]:
    """Return the version of every installed distribution, by its name in the package index's spelling.

    Where a distribution is there twice (Debian's and pip's), it is the one that an import finds: the first.
    """
    found: dict[str, str] = {}
    for dist in metadata.distributions():
        if name := dist.metadata["Name"]:
            found.setdefault(spelled(name), dist.version)
    return found


def loaded(modules: Iterable[str]) -> set[str]:
    """Return the distributions that modules of these names belong to."""
    owners = metadata.packages_distributions()
    return {spelled(owner) for top in {name.partition(".")[0] for name in modules} for owner in owners.get(top, ())}


def kept_packages(found: Mapping[str, str], names: Collection[str]) -> set[str]:
    """Return which of these packages are installed, without the course's own."""
    return {name for name in map(spelled, names) if name in found and name != spelled(doctor.DISTRIBUTION)}


def to_install(requirements: Sequence[str], found: Mapping[str, str], kept: Collection[str]) -> list[str]:
    """Return the requirement lines that are not met, without those for packages that must stay as they are.

    >>> to_install(["numpy>=2.4", "peft>=0.21", "rich>=15", "jupyterlab>=4"], {"numpy": "2", "rich": "13"}, ["numpy"])
    ['peft>=0.21', 'rich>=15']
    """
    lacking = unmet(requirements, found)
    return [line for name, line in lacking.items() if name not in kept and name not in doctor.PAGE]


def unmet(requirements: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    """Return the requirement lines that are not met, by their packages.

    >>> unmet(["numpy>=2.4", "rich>=15"], {"numpy": "2.4.1", "rich": "13"})
    {'rich': 'rich>=15'}
    """
    from packaging.requirements import Requirement

    lacking = {}
    for line in requirements:
        wanted = Requirement(line)
        name = spelled(wanted.name)
        if name not in found or not wanted.specifier.contains(found[name], prereleases=True):
            lacking[name] = line
    return lacking


def at_locked_versions(requirements: Sequence[str], lock: str) -> list[str]:
    """Return the requirements at the versions that the lessons were made with; those not in the lock as they are.

    >>> at_locked_versions(["PyYAML>=6,<7", "peft>=0.21"], "# pinned\npyyaml==6.0.3\n")
    ['pyyaml==6.0.3', 'peft>=0.21']
    """
    from packaging.requirements import Requirement

    pins = {line.partition("==")[0]: line for line in lock.splitlines() if not line.startswith("#")}
    return [pins.get(spelled(Requirement(line).name), line) for line in requirements]


def lock_text() -> str:
    """Return the requirements.lock that was installed with this package, or nothing where there is none."""
    lock = doctor.shared_file("requirements.lock")
    return lock.read_text("utf-8") if lock else ""


def pip_install(requirements: Sequence[str], constraints: Sequence[str]) -> None:
    """Install the requirements with pip, changing no package that the constraints name.

    Raises:
        DownloadFailed: pip failed; its last words are in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder, "keep.txt")
        keep.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "--constraint", str(keep), *requirements],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    if done.returncode:
        said = "\n  ".join([line for line in done.stderr.splitlines() if line.strip()][-6:]) or "nothing"
        raise DownloadFailed(
            f"pip could not install {', '.join(requirements)}. It said:\n  {said}",
            "check the connection and run this cell again; what is installed already is kept.",
        )


def spelled(name: str) -> str:
    """Return a distribution's name in the package index's spelling."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)
