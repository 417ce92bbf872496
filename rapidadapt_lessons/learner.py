"""What one learner has done, exercises tried and predictions made, in one readable JSON file of their own.

The file is `progress.json` in the user's data folder. The variable RAPIDADAPT_PROGRESS names another file, or says
"off". Nothing is written down in a folder that holds a file called `.no-progress` (solutions/ does: running a solution
is not solving an exercise), nor while nbgrader grades.

Writing happens under a lock and by renaming, so two notebooks at once, or a kernel that is killed, leave a whole file.
A file that cannot be read is put aside under another name, never deleted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .files import write_whole

VARIABLE = "RAPIDADAPT_PROGRESS"
MARKER = ".no-progress"
LOCK_SECONDS = 10.0  # how long to wait for another notebook that is writing
TIMES = ("first_tried", "last_tried", "solved")


@dataclass(frozen=True)
class Progress:
    """What the file holds.

    Attributes:
        exercises: for each exercise's name: tries, first_tried, last_tried, solved (a time, or None).
        predictions: for each question's digest: choice, right (None where it was typed), when.
    """

    exercises: dict[str, dict[str, Any]] = field(default_factory=dict)
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)


def progress_file() -> Path | None:
    """Return the file in which progress is kept, or None where it is not kept (see above)."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off" or os.environ.get("NBGRADER_EXECUTION") == "autograde" or Path(MARKER).exists():
        return None
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("rapidadapt-lessons", appauthor=False) / "progress.json"


def read_progress_file(path: Path) -> Progress:
    """Return what the file holds; nothing where there is no file yet.

    Raises:
        OSError: as `open`.
        ValueError: it is damaged; the text says how.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Progress()
    exercises = found.get("exercises") if isinstance(found, dict) else None
    if not isinstance(exercises, dict):
        raise ValueError('there is no "exercises" in it')
    for name, entry in exercises.items():
        whole = isinstance(entry, dict) and type(entry.get("tries")) is int
        if not whole or not all(isinstance(entry.get(time), str | None) for time in TIMES):
            raise ValueError(f"the entry of {name!r} is not complete")
    predictions = found.get("predictions", {})  # files of older versions have none
    if not isinstance(predictions, dict):
        raise ValueError('its "predictions" are no list of names')
    for name, entry in predictions.items():
        whole = isinstance(entry, dict) and isinstance(entry.get("choice"), str) and isinstance(entry.get("when"), str)
        if not whole or not isinstance(entry.get("right"), bool | None):
            raise ValueError(f"the prediction {name!r} is not complete")
    return Progress(exercises, predictions)


def change_progress_file(path: Path, change: Callable[[Progress, str], None], what: str) -> str:
    """Let `change` alter what the file holds, given the time now, and write it. Returns what to tell, or "".

    Never raises for a file that cannot be read or written: what is learned counts more than the record of it.

    Args:
        what: is written down, for the message, such as "this try".
    """
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        from filelock import FileLock, Timeout

        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
                kept, note = _read_or_put_aside(path)
                change(kept, now)
                write_whole(path, json.dumps({"format": 1, **asdict(kept)}, indent=1) + "\n")
                return note
        except Timeout:
            return f"{what} was not written down: another program holds {path.name}.lock. Try again."
    except OSError as error:
        return f"{what} was not written down in {path} ({error.strerror or error}). {VARIABLE} names another file."


def _read_or_put_aside(path: Path) -> tuple[Progress, str]:
    """Return what the file holds; of a damaged one nothing, and it is renamed. Only while holding the lock."""
    try:
        return read_progress_file(path), ""
    except ValueError as error:  # no JSON, no UTF-8, or not ours
        number = 1
        while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
            number += 1
        os.replace(path, aside)
        return (
            Progress(),
            f"your progress file could not be read ({error}). It is kept as {aside}, and a new one was begun.",
        )
