"""Which exercises a learner has done, and how many predictions: written down, shown, and exported for a teacher.

Where it is kept, and how, says `learner`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..errors import CourseError
from ..learner import TIMES, Progress, change_progress_file, progress_file, read_progress_file
from .catalogue import EXERCISES, LESSONS

COLUMNS = ("learner", "exercise", "title", "notebook", "points", "state", "tries", *TIMES)


def record(name: str, solved: bool, path: Path | None = None) -> str:
    """Write down one try at an exercise. Returns what the learner should know, or "".

    A solved exercise stays solved, whatever comes after. Never raises for a file that cannot be read or written.

    Args:
        path: the file; None takes `progress_file()`.
    """
    if (path := path or progress_file()) is None:
        return ""

    def tried(kept: Progress, now: str) -> None:
        entry = kept.exercises.setdefault(name, {"solved": None, "tries": 0, "first_tried": now})
        entry["tries"] += 1
        entry["last_tried"] = now
        entry["solved"] = entry["solved"] or (now if solved else None)

    return change_progress_file(path, tried, "this try")


def read_progress(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return what is written down, by exercise: tries, first_tried, last_tried, solved (a time, or None).

    Raises:
        CourseError: the file cannot be read. It stays as it is: the next check puts it aside.
    """
    return _kept(path).exercises


def _kept(path: Path | None) -> Progress:
    if (path := path or progress_file()) is None:
        return Progress()
    try:
        return read_progress_file(path)
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
        predictions: how many were made and were right, as one line, or "" where none was made.
        note: shown in place of the numbers where nothing is kept, or beneath them.
    """

    states: dict[str, str]
    note: str = ""
    predictions: str = ""

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
        return "\n".join([*lines, self._next_line(), *filter(None, (self.predictions, self.note))])

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
        below = "".join(f"<p>{escape(line)}</p>" for line in (self._next_line(), self.predictions) if line)
        note = f"<p><i>{escape(self.note)}</i></p>" if self.note else ""
        return f"<div role='status'><b>{escape(self.headline)}</b><table>{rows}</table>{below}{note}</div>"


_SIGNS = {"done": "✓", "tried": "…", "to do": "·"}
_MARKS = {"done": "[x]", "tried": "[~]", "to do": "[ ]"}  # for consoles that know no other signs


def panel(path: Path | None = None) -> Panel:
    """Return a small panel of what is done, tried and next. Changes nothing, and never raises for a damaged file."""
    path = path or progress_file()
    if path is None:
        return Panel({}, "Progress is not kept here: this folder holds solutions, or keeping it is switched off.")
    try:
        kept, note = _kept(path), ""
    except CourseError as error:
        kept, note = Progress(), str(error)
    states = {exercise.name: _state(kept.exercises.get(exercise.name)) for exercise in EXERCISES}
    return Panel(states, note, _predictions_line([entry["right"] for entry in kept.predictions.values()]))


def _predictions_line(verdicts: list[bool | None]) -> str:
    """Return how many predictions were made and right. Typed ones have the verdict None: nobody judged them."""
    if not verdicts:
        return ""
    typed = f", {verdicts.count(None)} in your own words" if None in verdicts else ""
    return f"Predictions: {len(verdicts)} made, {verdicts.count(True)} right{typed}."


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
