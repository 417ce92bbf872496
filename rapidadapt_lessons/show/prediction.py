"""Questions to which the learner commits an answer before the course's own opens.

With a kernel they are controls. Without one (in the book, on GitHub, before the cell has run) the same content is a
fold-out in HTML. Text and HTML are the same for everybody, whatever a learner has guessed before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..errors import CourseError
from ..learner import Progress, change_progress_file, progress_file, read_progress_file

LONGEST = 200  # letters of a typed guess that are kept


def predict(question: str, choices: Sequence[str] | None = None, answer: str = "", why: str = "") -> None:
    """Ask for a guess; the answer opens when the learner has committed to one. The guess is kept (see `learner`).

    Args:
        question: it may hold `code` and **bold**, as `why` may; everything else is plain text.
        choices: to choose from; None lets the learner type a word or a number, which nobody judges.
        answer: one of the choices, or what a typed guess is shown beside.
        why: what stands below the answer.

    Raises:
        CourseError: a text is empty, there are fewer than two choices, one occurs twice, or the answer is none of them.
    """
    from IPython.display import display

    if not question.strip() or not answer.strip():
        raise CourseError("a prediction lacks its question or its answer.", "give both: they may not be empty.")
    if choices is not None:
        told = ", ".join(map(repr, choices))
        if isinstance(choices, str) or len(choices) < 2 or not all(choice.strip() for choice in choices):
            raise CourseError(f"{question!r} has too few choices: {told}.", "list at least two, none of them empty.")
        if len(set(choices)) < len(choices):
            raise CourseError(f"{question!r} has a choice twice: {told}.", "list each choice once.")
        if answer not in choices:
            raise CourseError(f"the answer {answer!r} is not among the choices {told}.", "repeat one of them exactly.")
    display(Prediction(question, tuple(choices or ()), answer, why))


@dataclass(frozen=True)
class Prediction:
    """A question, its choices (none where the guess is typed), its answer, and why. Shows itself in a notebook."""

    question: str
    choices: tuple[str, ...]
    answer: str
    why: str = ""

    @property
    def name(self) -> str:
        """What the guess is kept under: a digest of the question."""
        return hashlib.sha256(self.question.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return "\n".join([f"Predict: {self.question}", *(f"- {choice}" for choice in self.choices)])

    def html(self) -> str:
        """Return the question and its choices with the answer folded up, for where no kernel runs."""
        choices = "".join(f"<li>{escape(choice)}</li>" for choice in self.choices)
        return (
            f"<div>{self._asked()}{f'<ul>{choices}</ul>' if choices else ''}"
            f"<details><summary>Answer</summary>{self._answered()}</details></div>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {**self.controls()._repr_mimebundle_(), "text/html": self.html(), "text/plain": repr(self)}

    def controls(self) -> Any:
        """Return the widgets: a list or a text field, the button that commits, the answer, the button to guess again.

        An earlier guess is shown at once, with the answer open.
        """
        from ipywidgets import Button, HTMLMath, Layout, RadioButtons, Text, VBox

        look = {"description": "Your guess:", "layout": Layout(width="max-content", max_width="100%")}
        if self.choices:
            guess = RadioButtons(options=self.choices, value=None, **look)
        else:
            # Sent as a whole: pressing Commit could otherwise overtake the letter typed last.
            guess = Text(placeholder="a word or a number", continuous_update=False, **look)
        commit, again = Button(description="Commit", button_style="primary"), Button(description="Guess again")
        told = HTMLMath()

        def show(is_open: bool, html: str) -> None:
            guess.disabled, told.value = is_open, html
            commit.layout.display, again.layout.display = ("none", "") if is_open else ("", "none")

        def lock(_: Any = None) -> None:
            chosen = (guess.value or "").strip()[:LONGEST]
            if guess.disabled:  # the second click of two in a row
                return
            if not chosen:
                told.value = f"<p role='status'>{'Choose' if self.choices else 'Type'} first.</p>"
                return
            show(True, self._opened(chosen, self._keep(chosen)))
            again.focus()  # the button that had the focus is gone

        def reopen(_: Any) -> None:
            guess.value = None if self.choices else ""
            show(False, "")
            (commit if self.choices else guess).focus()  # a list of choices has nothing that can take the focus

        commit.on_click(lock)
        again.on_click(reopen)
        earlier = self._earlier()
        guess.value = earlier or guess.value
        show(bool(earlier), self._opened(earlier) if earlier else "")
        return VBox([HTMLMath(self._asked()), guess, commit, told, again])

    def _asked(self) -> str:
        return f"<p><b>Predict.</b> {_marked(self.question)}</p>"

    def _answered(self) -> str:
        why = f"<p>{_marked(self.why)}</p>" if self.why else ""
        return f"<p><b>{escape(self.answer)}</b></p>{why}"

    def _opened(self, guess: str, note: str = "") -> str:
        """Return the answer beside the guess, as HTML."""
        if self.choices:
            verdict = "✓ Right." if guess == self.answer else "✗ Not what happened."
        else:
            verdict = f"You wrote: {escape(guess)}"
        told = f"<p><i>{escape(note)}</i></p>" if note else ""
        return f"<div role='status'><p>{verdict}</p>{self._answered()}{told}</div>"

    def _keep(self, guess: str) -> str:
        """Write the guess down, and return what the learner should know, or ""."""
        if (path := progress_file()) is None:
            return ""
        right = guess == self.answer if self.choices else None

        def made(kept: Progress, now: str) -> None:
            kept.predictions[self.name] = {"choice": guess, "right": right, "when": now}

        return change_progress_file(path, made, "your guess")

    def _earlier(self) -> str:
        """Return the guess that is written down, or "" where there is none that can be read."""
        if (path := progress_file()) is None:
            return ""
        try:
            guess = read_progress_file(path).predictions.get(self.name, {}).get("choice", "")
        except (OSError, ValueError):
            return ""  # the next guess puts a damaged file aside, and says so
        return guess if guess in self.choices or not self.choices else ""


def _marked(text: str) -> str:
    """Return a text as HTML: `code` and **bold** as such, everything else as it is."""
    parts = re.split(r"`([^`]+)`", escape(text))
    bold = (re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", part) for part in parts[::2])
    code = (f"<code>{part}</code>" for part in parts[1::2])
    return "".join(part for pair in zip(bold, [*code, ""], strict=True) for part in pair)
