"""A lesson opened where only its notebook came along, as on Colab: install what it needs there.

What such a machine brings is kept where it can be: torch, which is built for its GPU; what the page talks to; and what
the kernel has imported already, so that it need not be restarted. Elsewhere nothing here does anything.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from ..errors import CourseError, DownloadFailed
from ..lm import download
from ..lm.pip import last_words, run_pip
from . import doctor, learn2learn

# Kept as they are wherever they are found: torch and what is built against it, and what the page talks to.
KEPT = ("torch", "torchvision", "torchaudio", "triton", "ipython", "ipykernel", "ipywidgets")
# Not kept where they are out of range, even by a kernel that has imported them: the lessons would fail with them.
NEEDED = ("transformers", "huggingface-hub", "tokenizers", "safetensors", "peft", "accelerate")


def install(*built: str) -> None:
    """Install the course's packages and model where they are missing, if this package came with a notebook.

    It prints a line before what takes long, and nothing when all is there. "learn2learn" is named in `built` where the
    lesson needs it. Raises as `add_packages`, `learn2learn.build` and `download.ensure_model`.
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

    Raises DownloadFailed as `pip_install`, and CourseError where the kernel has to be restarted, as it had imported
    something that was replaced.
    """
    found = installed()
    fixed = found.keys() & set(KEPT)
    running = fixed | (found.keys() & loaded(sys.modules)) - {doctor.DISTRIBUTION}
    lacking = {name: line for name, line in unmet(doctor.requirements(), found).items() if name not in doctor.PAGE}
    kept = running - (lacking.keys() & set(NEEDED))
    if lacking.keys() <= kept:
        return
    print(f"Installing {len(lacking.keys() - kept)} packages (once, a few minutes) ...", flush=True)
    for keep in (kept, fixed):  # what the kernel has imported is replaced only where nothing else fits
        wanted = [line for name, line in lacking.items() if name not in keep]
        try:
            pip_install(at_locked_versions(wanted), [f"{name}=={found[name]}" for name in sorted(keep)])
            break
        except DownloadFailed as error:
            if keep is fixed or "ResolutionImpossible" not in error.problem:
                raise
    now = installed()
    if replaced := [name for name in sorted(running) if now.get(name) != found[name]]:
        raise CourseError(
            f"{', '.join(replaced)} had to be replaced, and this kernel uses the old version.",
            "restart the kernel (on Colab: Runtime > Restart session) and run the lesson from the top.",
        )


def installed() -> dict[str, str]:
    """Return the version of every installed distribution, by its name in the package index's spelling."""
    found: dict[str, str] = {}
    for dist in metadata.distributions():
        if name := dist.metadata["Name"]:
            found.setdefault(spelled(name), dist.version)  # of two (Debian's and pip's), an import finds the first
    return found


def loaded(modules: Iterable[str]) -> set[str]:
    """Return the distributions that modules of these names belong to."""
    owners = metadata.packages_distributions()
    return {spelled(owner) for top in {name.partition(".")[0] for name in modules} for owner in owners.get(top, ())}


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


def at_locked_versions(requirements: Sequence[str]) -> list[str]:
    """Return the requirements at the versions of the installed requirements.lock; those not in it as they are."""
    from packaging.requirements import Requirement

    lock = doctor.shared_file("requirements.lock")
    lines = lock.read_text("utf-8").splitlines() if lock else ()
    pins = {line.partition("==")[0]: line for line in lines if not line.startswith("#")}
    return [pins.get(spelled(Requirement(line).name), line) for line in requirements]


def pip_install(requirements: Sequence[str], constraints: Sequence[str]) -> None:
    """Install with pip, changing no package that the constraints name. Raises DownloadFailed with pip's last words."""
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder, "keep.txt")
        keep.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
        succeeded, lines = run_pip(["install", "--quiet", "--constraint", str(keep), *requirements])
    if not succeeded:
        raise DownloadFailed(
            f"pip could not install {', '.join(requirements)}. It said:\n  {last_words(lines)}",
            "check the connection and run this cell again; what is installed already is kept.",
        )


def spelled(name: str) -> str:
    """Return a distribution's name in the package index's spelling."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)
