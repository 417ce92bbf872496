"""Set the course up in .venv: packages, learn2learn, model. `make setup` calls this; without make, run it yourself.

    python tools/bootstrap.py [--torch auto|cpu|cuda|default|URL]

Needs nothing but Python 3.11 or later. Run it again at any time: what is done already is not done again, and what
was interrupted is taken up where it stopped. It is written so that an older Python can still read it and say so.
"""

import argparse
import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINIMUM = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD_TOOLS = ("pip", "setuptools", "wheel", "cython")
# In the environment: what is installed, and where; and what one set-up holds while another waits.
STAMP, LOCK = "rapidadapt-stamp.json", "rapidadapt-setup.lock"
WAIT_S = 1.0


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
        with one_at_a_time(chosen.venv):
            set_up(chosen.venv, chosen.torch)
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


@contextlib.contextmanager
def one_at_a_time(folder):
    """Hold the lock of an environment, and wait for another set-up that has it. Without a lock file, just go on."""
    file = open_lock(folder)
    try:
        if file is not None and is_locked(file):
            print("Another set-up is under way; waiting for it ...", flush=True)
            while is_locked(file):
                time.sleep(WAIT_S)
        yield
    finally:
        if file is not None:
            os.close(file)


def open_lock(folder):
    """Return a descriptor of the lock file, or None where there is none and none can be made, as on a read-only disk.

    It is made in what is, or becomes, an environment, and not in another folder that was named by mistake.
    """
    with contextlib.suppress(OSError):
        if not is_foreign(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(str(folder / LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):
        return os.open(str(folder / LOCK), os.O_RDONLY)  # another user's, who may be setting up
    return None


def is_locked(file):
    """Try to lock a file, and return whether another has it locked. No, where the disk knows no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
    return False


def set_up(folder, torch):
    """Make the environment where there is none that works in this place, and install what is missing in it.

    Raises:
        SetupFailed: it cannot be made, something is missing, or pip failed.
    """
    before = read_stamp(folder / STAMP)
    works, made_in = venv_works(folder), before.get("environment")
    moved = made_in is not None and place(folder, made_in) != made_in
    if works and moved:
        print(f"{folder.name} was made in {made_in}, and its commands work only there.", flush=True)
        torch = before.get("torch", "auto") if torch == "auto" else torch
    if moved or not works:
        create_venv(folder)
    install(folder, torch)


def place(folder, known=None):
    """Return where a folder is: as it is `known` already, where that still leads there, else its path without links."""
    with contextlib.suppress(OSError):
        if known is not None and os.path.samefile(str(known), str(folder)):
            return known
    return str(folder.resolve())


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
        SetupFailed: it cannot be made, or something else is in its place.
    """
    try:
        if is_foreign(folder):
            raise SetupFailed(
                f"{folder} is there already and is no virtual environment, so it is left as it is.\nWhat to do: name "
                "another folder (--venv), or delete this one if nothing in it is needed."
            )
        print(f"Creating {folder.name} with Python {platform.python_version()} ...", flush=True)
        if folder.exists():
            clear(folder)
        # As `python -m venv` does: some Pythons, such as uv's on macOS, do not run as a copy.
        venv.create(str(folder), symlinks=os.name != "nt", with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupFailed(
            "{} cannot be made ({}).\nWhat to do: check that the folder can be written. On Debian and Ubuntu also run "
            "`sudo apt install python{}.{}-venv`.".format(folder, error, *sys.version_info[:2])
        ) from error


def is_foreign(folder):
    """Return whether there is something that is no virtual environment: neither new or empty, nor with a pyvenv.cfg."""
    if not folder.is_dir():
        return os.path.lexists(str(folder))
    names = {path.name for path in folder.iterdir()} - {LOCK}
    return bool(names) and "pyvenv.cfg" not in names


def clear(folder):
    """Remove what is in an environment, but its lock; pyvenv.cfg last, so that it can be taken up when interrupted."""
    paths = [path for path in folder.iterdir() if path.name != LOCK]
    for path in sorted(paths, key=lambda path: path.name == "pyvenv.cfg"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()


def install(folder, torch):
    """Install the pinned packages and this one, unless the stamp in the environment says that they are there.

    Raises:
        SetupFailed: something is missing, or pip failed.
    """
    stamp = folder / STAMP
    before = read_stamp(stamp)
    now = {
        "inputs": inputs_digest(),
        "torch": before.get("torch", "auto") if torch == "auto" else torch,
        "environment": place(folder, before.get("environment")),
        "course": place(ROOT, before.get("course")),
    }
    if "inputs" in before and {**now, **before} == now:
        if before != now:  # an older stamp, which knows no places
            with contextlib.suppress(OSError):
                stamp.write_text(json.dumps(now), encoding="utf-8")
        return
    require_torch_build(now["torch"], platform.system(), platform.machine())
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


def require_torch_build(choice, system, machine):
    """Raise SetupFailed on a Mac with an Intel processor, unless `choice` is an index, which may have its own build."""
    if (system, machine) == ("Darwin", "x86_64") and not choice.startswith(("https://", "http://", "file:")):
        raise SetupFailed(
            f"{pinned('torch')} has no build for a Mac with an Intel processor ({machine}).\nWhat to do: open the "
            "lessons on Colab or Binder, as README.md says. On a Mac with an M processor, this Python is one for "
            "Intel: name one for arm64, `make lab PYTHON=...`."
        )


def require_compiler(folder):
    """Raise SetupFailed, before anything large is downloaded, when learn2learn is absent and cannot be compiled."""
    sys.path.insert(0, str(ROOT))
    from rapidadapt_lessons.setup import learn2learn

    problem = None if any(folder.glob("**/site-packages/learn2learn")) else learn2learn.compiler_problem()
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
