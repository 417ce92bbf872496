"""Arguments that make no sense are refused by name and value, with what to do: the usual cases in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .errors import CourseError


def require_positive(name: str, value: float, remedy: str = "give a positive number.") -> None:
    """Raise CourseError unless the value is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise CourseError(f"{name} is {value}.", remedy)


def require_at_least(least: float, name: str, value: float, remedy: str | None = None) -> None:
    """Raise CourseError unless the value is finite and no less than `least`: 1 for a count, 0 for a strength."""
    if not (math.isfinite(value) and value >= least):
        raise CourseError(f"{name} is {value}.", remedy or f"{name} must be {least:g} or more.")


def require_one_of(choices: Iterable[Any], what: str, value: Any) -> None:
    """Raise CourseError that lists the choices unless the value is one of them, as in "there is no method 'x'."."""
    known = list(choices)
    if value not in known:
        raise CourseError(f"there is no {what} {value!r}.", f"choose one of {', '.join(map(str, known))}.")


def require_some(things: Any, what: str, remedy: str = "give at least one.") -> None:
    """Raise CourseError where a collection is empty: `require_some(rows, "rows to measure")`."""
    if len(things) == 0:
        raise CourseError(f"there are no {what}.", remedy)
