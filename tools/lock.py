"""Write requirements.lock: the newest versions that pyproject.toml's ranges admit, as pip resolves them together.
The direct ones among them also go into environment.yml.

    make lock        (or: python tools/lock.py [--torch auto|cpu|cuda|default|URL])

Everything is installed in a fresh environment, which is thrown away.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import bootstrap

# CUDA builds of torch bring these, and torch pins them itself; CPU builds go without.
ONLY_WITH_CUDA = re.compile(r"(nvidia-|cuda-|triton)")

HEADER = """\
# The exact versions that the lessons were made and tested with: what the course needs, what its tests need,
# and everything those bring. Written by `make lock`; do not edit by hand.
#
#   python -m pip install -r requirements.lock     installs all of it
#   python -m pip install -c requirements.lock X   installs X at the version given here
#
# torch stands without a suffix such as +cpu: every build of that version fits.
# pip cannot build learn2learn unaided; `python -m rapidadapt_lessons setup` does.
# built separately: {separate}
"""


CONDA = """\
# The course's environment through conda, and on Binder. Written by `make lock`; do not edit by hand.
#
#   conda env create --file environment.yml
#   conda activate rapidadapt
#   python -m rapidadapt_lessons setup     builds {separate} and fetches the model (once)
#
# The versions are those of requirements.lock, which also holds everything else to its version.
# torch is the CPU build. For a CUDA device, take out the line with --extra-index-url.
name: rapidadapt
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={python}
  - pip
  - c-compiler
  - make
  - pip:
      - --extra-index-url {index}
      - --constraint requirements.lock
{pins}
      - --editable .
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write requirements.lock from pyproject.toml's ranges.")
    parser.add_argument("--torch", default="auto", help="as for tools/bootstrap.py")
    chosen = parser.parse_args()
    pyproject = tomllib.loads((bootstrap.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        held_back = pyproject["tool"]["rapidadapt"]["held-back"]
        versions = resolve([*wanted(pyproject), *held_back], Path(folder, "venv"), chosen.torch)
    separate = ", ".join(pyproject["tool"]["rapidadapt"]["built-separately"])
    lock = bootstrap.ROOT / "requirements.lock"
    lock.write_text(HEADER.format(separate=separate) + lines(versions), encoding="utf-8")
    conda = conda_file(pyproject, lines(versions), separate)
    (bootstrap.ROOT / "environment.yml").write_text(conda, encoding="utf-8")
    print(f"{lock.name}: {len(versions)} packages")


def wanted(pyproject: dict) -> list[str]:
    """Return every requirement line of pyproject.toml, the extras' too."""
    project = pyproject["project"]
    return [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]


def resolve(requirements: list[str], folder: Path, torch: str) -> dict[str, str]:
    """Install the requirements in a fresh environment and return what is then there, by name."""
    bootstrap.create_venv(folder)
    python = str(bootstrap.python_in(folder))
    bootstrap.pip(python, "--quiet", "--upgrade", "pip")
    indexes = bootstrap.torch_indexes(torch, bootstrap.platform.system(), bootstrap.has_nvidia_gpu())
    if indexes[0]:
        quick = ["--retries", "1", "--timeout", "15", "--no-deps", "--index-url", indexes[0]]
        try:
            bootstrap.pip(python, *quick, next(line for line in requirements if re.match(r"torch\b", line)))
        except bootstrap.SetupFailed:
            print(f"{indexes[0]} cannot be used from here; taking torch from pip's own index instead.", flush=True)
    bootstrap.pip(python, *requirements)
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    return {package["name"]: package["version"] for package in json.loads(listed.stdout)}


def lines(versions: dict[str, str]) -> str:
    """Return the lock's lines: sorted, names in one spelling, no local version suffixes.

    >>> lines({"torch": "2.13.0+cpu", "Markdown_It.py": "4.3", "nvidia-cublas": "12"})
    'markdown-it-py==4.3\\ntorch==2.13.0\\n'
    """
    pins = {spelled(name): version.partition("+")[0] for name, version in versions.items()}
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins) if not ONLY_WITH_CUDA.match(name))


def conda_file(pyproject: dict, lock: str, separate: str) -> str:
    """Return the text of environment.yml: the lock's pins of the direct dependencies."""
    direct = {spelled(re.match(r"[\w.-]+", line).group()) for line in wanted(pyproject)}
    pins = [f"      - {pin}" for pin in lock.splitlines() if pin.partition("==")[0] in direct]
    python = ".".join(map(str, bootstrap.MINIMUM))
    return CONDA.format(separate=separate, python=python, index=bootstrap.CPU_INDEX, pins="\n".join(pins))


def spelled(name: str) -> str:
    """Return a package's name in the one spelling that the package index uses."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
