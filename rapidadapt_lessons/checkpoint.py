"""A file that a long run can be taken up from: written at one stroke, and refused when it is another run's."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import CheckpointMismatch


def save_checkpoint(path: str | Path, what: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name and rename it, so that a kill at any moment leaves a whole file.

    Args:
        what: what identifies the run, in plain values; `load_checkpoint` compares it.
        state: tensors and plain values.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            torch.save({"what": dict(what), "state": dict(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, what: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state of a run, or None where there is no file.

    Raises:
        CheckpointMismatch: the file cannot be read, or `what` is not what it was saved with. The file is
            left as it is.
    """
    path = Path(path)
    if not path.exists():
        return None
    remedy = f"delete {path.name} to start anew, or give another file."
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        before, state = found["what"], found["state"]
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
        problem = f"{path.name} is no checkpoint, or damaged ({type(error).__name__})."
        raise CheckpointMismatch(problem, remedy) from error
    for key in sorted({*before, *what}):
        if before.get(key) != what.get(key):
            raise CheckpointMismatch(
                f"{path.name} belongs to another run: its {key} is {before.get(key)}, this run's is {what.get(key)}.",
                remedy,
            )
    return state
