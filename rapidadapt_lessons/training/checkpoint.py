"""A file that a long run can be taken up from: written at one stroke, and refused when it is another run's."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointMismatch, NotEnoughDisk
from ..files import whole_file


def save_checkpoint(path: str | Path, what: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint at one stroke: a kill at any moment leaves the old file or the new one.

    `what` identifies the run, in plain values; `state` holds tensors too. Raises NotEnoughDisk where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path, sync=True) as file:
            torch.save({"what": dict(what), "state": dict(state)}, file)
    except (OSError, RuntimeError) as error:
        first = error if isinstance(error, OSError) else error.__context__  # behind PyTorch's error stands the system's
        if not isinstance(first, OSError) or first.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = "the one before it is whole" if path.exists() else "there was none before it"
        raise NotEnoughDisk(
            f"the disk filled up while writing the checkpoint {path.name}; {kept}.",
            "free some space and start the run again with the same file: it goes on from what is there.",
        ) from error


def load_checkpoint(path: str | Path, what: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state of a run, or None where there is no file.

    Raises CheckpointMismatch where it cannot be read or was saved with another `what`, and leaves the file as it is.
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
        old, new = before.get(key), what.get(key)
        if old != new:
            problem = f"{path.name} belongs to another run: its {key} is {old}, this run's is {new}."
            raise CheckpointMismatch(problem, remedy)
    return state
