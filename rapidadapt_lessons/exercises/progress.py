"""Which exercises a learner has done, in one readable JSON file of their own.

The file is `progress.json` in the user's data folder. The variable RAPIDADAPT_PROGRESS names another file, or says
"off". Nothing is written down in a folder that holds a file called `.no-progress` (solutions/ does: running a solution
is not solving an exercise), nor while nbgrader grades.

Writing happens under a lock and by renaming, so two notebooks at once, or a kernel that is killed, leave a whole file.
A file that cannot be read is put aside under another name, never deleted.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from ..errors import CourseError
from ..files import write_whole
from .catalogue import EXERCISES, LESSONS

VARIABLE = "RAPIDADAPT_PROGRESS"
MARKER = ".no-progress"
LOCK_SECONDS = 10.0  # how long to wait for another notebook that is writing
TIMES = ("first_tried", "last_tried", "solved")
COLUMNS = ("learner", "exercise", "title", "notebook", "points", "state", "tries", *TIMES)


def progress_file() -> Path | None:
    """Return the file in which progress is kept, or None where it is not kept (see above)."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen == "off" or os.environ.get("NBGRADER_EXECUTION") == "autograde" or Path(MARKER).exists():
        return None
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("rapidadapt-lessons", appauthor=False) / "progress.json"


def record(name: str, solved: bool, path: Path | None = None) -> str:
    """Write down one try at an exercise. Returns what the learner should know, or "".

    A solved exercise stays solved, whatever comes after. Never raises for a file that cannot be read or written:
    the exercise counts more than the record of it.

    Args:
        path: the file; None takes `progress_file()`.
    """
    if (path := path or progress_file()) is None:
        return ""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        from filelock import FileLock, Timeout

        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
                entries, note = _read_or_put_aside(path)
                entry = entries.setdefault(name, {"solved": None, "tries": 0, "first_tried": now})
                entry["tries"] += 1
                entry["last_tried"] = now
                entry["solved"] = entry["solved"] or (now if solved else None)
                write_whole(path, json.dumps({"format": 1, "exercises": entries}, indent=1) + "\n")
                return note
        except Timeout:
            return f"this try was not written down: another program holds {path.name}.lock. Run the check again."
    except OSError as error:
        return f"this try was not written down in {path} ({error.strerror or error}). {VARIABLE} names another file."


def read_progress(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return what is written down, by exercise: tries, first_tried, last_tried, solved (a time, or None).

    Raises:
        CourseError: the file cannot be read. It stays as it is: the next check puts it aside.
    """
    if (path := path or progress_file()) is None:
        return {}
    try:
        return _read(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CourseError(
            f"the progress in {path} cannot be read ({error}).",
            "mend it or move it away. The next check puts a damaged file aside by itself, and begins a new one.",
        ) from error


@dataclass(frozen=True)
class Panel:
    """What is done, what has been tried, and what comes next; for a notebook, or printed.

    Attributes:
        states: "done", "tried" or "to do" for each exercise, in the course's order.
        note: shown in place of the numbers where nothing is kept, or beneath them.
    """

    states: dict[str, str]
    note: str = ""

    @property
    def next(self) -> str | None:
        """The first exercise that is not done, or None."""
        return next((name for name, state in self.states.items() if state != "done"), None)

    @property
    def headline(self) -> str:
        values = list(self.states.values())
        return f"Exercises: {values.count('done')} of {len(values)} done, {values.count('tried')} more tried."

    def _next_line(self) -> str:
        found = [exercise for exercise in EXERCISES if exercise.name == self.next]
        if not found:
            return "All done."
        return f"Next: {found[0].title} ({found[0].name}), in {found[0].notebook}."

    def _rows(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return each notebook's title, with the name and state of each of its exercises."""
        return [
            (title, [(e.name, self.states[e.name]) for e in EXERCISES if e.notebook == notebook])
            for notebook, title in LESSONS.items()
        ]

    def __repr__(self) -> str:
        if not self.states:
            return self.note
        width = max(map(len, LESSONS.values()))
        lines = [self.headline]
        for title, exercises in self._rows():
            told = "  ".join(f"{_MARKS[state]} {name}" for name, state in exercises)
            lines.append(f"  {title:<{width}}  {told}")
        return "\n".join([*lines, self._next_line(), *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        if not self.states:
            return f"<p>{escape(self.note)}</p>"
        cell = "<td style='text-align:left;padding:2px 12px 2px 0'>"
        rows = "".join(
            f"<tr>{cell}{escape(title)}</td>{cell}"
            + " &nbsp; ".join(f"{_SIGNS[state]} {escape(name)} ({state})" for name, state in exercises)
            + "</td></tr>"
            for title, exercises in self._rows()
        )
        note = f"<p><i>{escape(self.note)}</i></p>" if self.note else ""
        return (
            f"<div role='status'><b>{escape(self.headline)}</b><table>{rows}</table>"
            f"<p>{escape(self._next_line())}</p>{note}</div>"
        )


_SIGNS = {"done": "✓", "tried": "…", "to do": "·"}
_MARKS = {"done": "[x]", "tried": "[~]", "to do": "[ ]"}  # for consoles that know no other signs


def panel(path: Path | None = None) -> Panel:
    """Return a small panel of what is done, tried and next. Changes nothing, and never raises for a damaged file."""
    path = path or progress_file()
    if path is None:
        return Panel({}, "Progress is not kept here: this folder holds solutions, or keeping it is switched off.")
    try:
        entries, note = read_progress(path), ""
    except CourseError as error:
        entries, note = {}, str(error)
    return Panel({exercise.name: _state(entries.get(exercise.name)) for exercise in EXERCISES}, note)


def export_csv(target: Path | str, learner: str = "", path: Path | None = None) -> Path:
    """Write one row for each exercise of the course, tried or not, for a teacher. Returns the file's path.

    Args:
        target: the CSV file, UTF-8; an old one is replaced.
        learner: a name for the first column, so that a teacher can put many files together.
        path: the progress file; None takes `progress_file()`.

    Raises:
        CourseError: the progress cannot be read, or the file cannot be written.
    """
    entries, target = read_progress(path), Path(target)
    try:
        with open(target, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for e in EXERCISES:
                entry = entries.get(e.name, {})
                words = {"learner": learner, "exercise": e.name, "title": e.title, "notebook": e.notebook}
                times = {name: entry.get(name) or "" for name in TIMES}
                numbers = {"points": e.points, "tries": entry.get("tries", 0), "state": _state(entry or None)}
                writer.writerow(words | numbers | times)
    except OSError as error:
        raise CourseError(f"{target} cannot be written ({error.strerror}).", "name another file.") from error
    return target


def _state(entry: dict[str, Any] | None) -> str:
    return "to do" if entry is None else "done" if entry["solved"] else "tried"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Read and check the file. Raises ValueError, with what is wrong, for a damaged one."""
    found = json.loads(path.read_text(encoding="utf-8"))
    entries = found.get("exercises") if isinstance(found, dict) else None
    if not isinstance(entries, dict):
        raise ValueError('there is no "exercises" in it')
    for name, entry in entries.items():
        whole = isinstance(entry, dict) and type(entry.get("tries")) is int
        if not whole or not all(isinstance(entry.get(time), str | None) for time in TIMES):
            raise ValueError(f"the entry of {name!r} is not complete")
    return entries


def _read_or_put_aside(path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the entries; those of a damaged file are none, and it is renamed. Only while holding the lock."""
    try:
        return _read(path), ""
    except FileNotFoundError:
        return {}, ""
    except ValueError as error:  # no JSON, no UTF-8, or not ours
        number = 1
        while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
            number += 1
        os.replace(path, aside)
        return {}, f"your progress file could not be read ({error}). It is kept as {aside}, and a new one was begun."
