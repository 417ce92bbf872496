"""Pictures that answer to mouse, touch and keys: a little JavaScript in the page, and all of the thinking in Python.

The page writes down what the learner did, in `asked`. A plain function makes `answered` of it, which the page draws.
Where no kernel runs (on GitHub, in the book) a still picture stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import CourseError
from .picture import Picture

Reply = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Hand:
    """A widget and its still picture. Shows itself as the last value of a notebook cell."""

    widget: Any  # with the traits `asked` and `answered`
    still: Picture

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        (view, view_notes), (still, notes) = self.widget._repr_mimebundle_(), self.still._repr_mimebundle_()
        return {**view, **still}, {**view_notes, **notes}


def hand(script: Path, answer: Reply, asked: dict[str, Any], still: Picture, **fixed: Any) -> Hand:
    """Return a widget that draws with a script and answers with a function.

    Args:
        script: a file of JavaScript that exports `{ render }` for anywidget. It may use what hand.js defines.
        answer: from `asked` to what the page shows, both of plain values. Its CourseError is shown as a message.
        asked: what is asked at first.
        still: the picture for where no kernel runs.
        fixed: what the script needs besides and never changes.
    """
    import anywidget
    from traitlets import Dict

    class HandWidget(anywidget.AnyWidget):
        _esm = _shared("hand.js") + script.read_text(encoding="utf-8")
        _css = _shared("hand.css")
        asked = Dict().tag(sync=True)
        answered = Dict().tag(sync=True)
        fixed = Dict().tag(sync=True)

    widget = HandWidget(asked=asked, answered=respond(answer, asked), fixed=fixed)

    def update(change: Any) -> None:
        try:
            widget.answered = respond(answer, change["new"])
        except Exception as error:
            told = {
                "problem": f"{type(error).__name__}: {error}",
                "remedy": "report this: it is a mistake in the course.",
            }
            widget.answered = told
            raise

    widget.observe(update, "asked")
    return Hand(widget, still)


def respond(answer: Reply, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the answer, or the problem and the remedy of its CourseError."""
    try:
        return answer(asked)
    except CourseError as error:
        return {"problem": error.problem, "remedy": error.remedy}


def _shared(name: str) -> str:
    return (resources.files(__package__) / "hands" / name).read_text(encoding="utf-8")
