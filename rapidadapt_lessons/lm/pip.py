"""pip, for the Python that runs this. Whatever set-up fetches comes through it, so the reader's settings apply."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from ..errors import MissingPackage


def run_pip(
    arguments: Sequence[str], *, show: Callable[[str], bool] | None = None, **variables: str
) -> tuple[bool, list[str]]:
    """Run pip, and return whether it succeeded and the lines that it printed, without empty ones.

    Args:
        show: sees each line as it comes; a line for which it returns True is not kept.
        variables: of the environment, for pip alone.

    Raises MissingPackage where this Python has no pip.
    """
    # Without standard input, pip cannot stop to ask for a password behind a progress bar.
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    environment = os.environ | variables
    with subprocess.Popen(command, env=environment, **pipes, encoding="utf-8", errors="replace") as process:
        lines = [line.strip() for line in process.stdout or () if line.strip() and not (show and show(line))]
    if process.returncode and any("No module named pip" in line for line in lines):
        raise MissingPackage(
            f"{sys.executable} has no pip, which fetches what the course needs.",
            "run `python -m ensurepip --upgrade` with that Python, then try again.",
        )
    return process.returncode == 0, lines


def last_words(lines: Sequence[str]) -> str:
    """Return the last lines that pip printed, to be quoted in an error."""
    return "\n  ".join(lines[-12:] or ["nothing"])
