"""Set the course up in .venv: packages, learn2learn, model. `make setup` calls this; without make, run it yourself.

    python tools/bootstrap.py [--torch auto|cpu|cuda|default|URL]

Needs nothing but Python 3.11 or later. Run it again at any time: what is done already is not done again, and what
was interrupted is taken up where it stopped. It is written so that an older Python can still read it and say so.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINIMUM = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD_TOOLS = ("pip", "setuptools", "wheel", "cython")


class SetupFailed(Exception):
    """A step failed; the message says which, with the value, and what to do."""


def main(arguments=None):
    """Set up, and return the exit status."""
    parser = argparse.ArgumentParser(description="Set the course up: packages, learn2learn, model.")
    parser.add_argument("--torch", default="auto", help="auto, cpu, cuda, default, or the URL of a package index")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the virtual environment to set up")
    chosen = parser.parse_args(arguments)
    try:
        require_python(sys.version_info[:2])
        if not venv_works(chosen.venv):
            create_venv(chosen.venv)
        install(chosen.venv, chosen.torch)
        command = [str(python_in(chosen.venv)), "-m", "rapidadapt_lessons", "setup"]
        return subprocess.run(command, cwd=str(ROOT)).returncode
    except SetupFailed as error:
        print(f"\nError: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on from here.", file=sys.stderr)
        return 130


def require_python(version):
    """Raise SetupFailed when `version`, a pair, is too old."""
    if version < MINIMUM:
        raise SetupFailed(
            "this is Python {}.{} ({}); the course needs {}.{} or later.\nWhat to do: install it, and name it: "
            "`make lab PYTHON=python3.11`, or without make `python3.11 tools/bootstrap.py`.".format(
                *version, sys.executable, *MINIMUM
            )
        )


def python_in(folder):
    """Return the path of the Python of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def venv_works(folder):
    """Return whether there is a virtual environment whose Python is recent enough and has pip."""
    code = f"import pip, sys; sys.exit(sys.version_info[:2] < {MINIMUM})"
    try:
        return subprocess.run([str(python_in(folder)), "-c", code], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def create_venv(folder):
    """Make the virtual environment, in place of a broken one.

    Raises:
        SetupFailed: it cannot be made.
    """
    print(f"Creating {folder.name} with Python {platform.python_version()} ...", flush=True)
    try:
        if folder.exists():
            shutil.rmtree(str(folder))
        venv.create(str(folder), with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupFailed(
            "{} cannot be made ({}).\nWhat to do: check that the folder can be written. On Debian and Ubuntu also run "
            "`sudo apt install python{}.{}-venv`.".format(folder, error, *sys.version_info[:2])
        ) from error


def install(folder, torch):
    """Install the pinned packages and this one, unless the stamp in the environment says that they are there.

    Raises:
        SetupFailed: something is missing, or pip failed.
    """
    stamp = folder / "rapidadapt-stamp.json"
    before = read_stamp(stamp)
    now = {"inputs": inputs_digest(), "torch": before.get("torch", "auto") if torch == "auto" else torch}
    if before == now:
        return
    stamp.unlink(missing_ok=True)
    require_compiler(folder)
    python, lock = str(python_in(folder)), str(ROOT / "requirements.lock")
    pip(python, "--quiet", "--constraint", lock, *BUILD_TOOLS)
    install_torch(python, now["torch"], switch=bool(before) and before.get("torch") != now["torch"])
    pip(python, "--requirement", lock)
    pip(python, "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp.write_text(json.dumps(now), encoding="utf-8")


def install_torch(python, choice, switch):
    """Install the pinned torch from the first index that has it; `switch` replaces the one that is installed.

    Raises:
        SetupFailed: the choice makes no sense, or pip failed.
    """
    attempts = torch_indexes(choice, platform.system(), has_nvidia_gpu())
    force = ["--force-reinstall"] if switch else []
    for last, index in ((index is attempts[-1], index) for index in attempts):
        if index is None:
            # The index pip is configured for. Without --no-deps, as a CUDA build brings packages of its own.
            pip(python, "--constraint", str(ROOT / "requirements.lock"), *force, pinned("torch"))
            return
        try:
            quick = ["--retries", "1", "--timeout", "15", "--no-deps"]
            pip(python, *quick, *force, "--index-url", index, pinned("torch"))
            return
        except SetupFailed as error:
            if last:
                raise SetupFailed(
                    "{} has no {}, or cannot be reached.\nWhat to do: check the connection, or give TORCH=default to "
                    "take torch from the package index that pip is configured for.".format(index, pinned("torch"))
                ) from error
            print(f"{index} cannot be used from here; taking torch from pip's own index instead.", flush=True)


def torch_indexes(choice, system, gpu):
    """Return the package indexes to try for torch, in order; None stands for the one pip is configured for.

    Raises:
        SetupFailed: the choice is unknown, or this system has no such build.
    """
    if choice.startswith(("https://", "http://", "file:")):
        return [choice]
    if choice == "default":
        return [None]
    if choice == "auto":
        return [None] if gpu or system == "Darwin" else [CPU_INDEX, None]
    if choice == "cpu":
        return [None] if system == "Darwin" else [CPU_INDEX]
    if choice == "cuda" and system == "Linux":
        return [None]
    if choice == "cuda":
        raise SetupFailed(
            f"TORCH=cuda means a different index for each CUDA version on {system}.\nWhat to do: find yours on "
            "https://pytorch.org/get-started/locally and give it: TORCH=https://download.pytorch.org/whl/..."
        )
    raise SetupFailed(f"TORCH={choice} is not known.\nWhat to do: give auto, cpu, cuda, default, or an index's URL.")


def has_nvidia_gpu():
    """Return whether nvidia-smi is there and works."""
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def require_compiler(folder):
    """Raise SetupFailed, before anything large is downloaded, when learn2learn is absent and cannot be compiled."""
    sys.path.insert(0, str(ROOT))
    from rapidadapt_lessons import l2l

    problem = None if any(folder.glob("**/site-packages/learn2learn")) else l2l.compiler_problem()
    if problem:
        raise SetupFailed(problem)


def pinned(package):
    """Return a package's line in requirements.lock, such as "torch==2.13.0"."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return re.search(rf"^{re.escape(package)}==\S+$", lock, re.MULTILINE).group()


def pip(python, *arguments):
    """Run `pip install`, showing what it says.

    Raises:
        SetupFailed: it failed.
    """
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, stdin=subprocess.DEVNULL, cwd=str(ROOT)).returncode:
        raise SetupFailed(
            "pip failed; what it said is above.\nWhat to do: check the connection and the free disk space, and run "
            "the same command again. What is installed already is kept."
        )


def inputs_digest():
    """Return a digest of the files that say what to install."""
    files = (ROOT / name for name in ("requirements.lock", "pyproject.toml"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def read_stamp(stamp):
    """Return what the last complete installation wrote, or nothing."""
    try:
        return dict(json.loads(stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


if __name__ == "__main__":
    sys.exit(main())
