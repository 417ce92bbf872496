"""The checks of the exercises in which a prompt is written: the model itself grades what it does (lesson 2).

The learner's function returns a prompt. Only that call runs within a check's limits of time and memory; the grading,
which is the course's own work, comes after it (see `compare.Rest`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...errors import BadPrompt
from ...lm.model import load_model
from ...lm.types import Model, Tokenizer
from ..compare import Learner, Nothing, Rest, Test, Wrong, show
from ..prompt_assignments import find_assignment
from ..prompt_grading import Assignment, Grade, Mistake, grade, require_budget, require_form, require_nothing_given_away
from .calibration import CALIBRATION_CHECKS

_FORM = "a text, with {x} where the query goes"


@functools.cache
def _model() -> tuple[Model, Tokenizer]:
    """The course's model: the first exercise loads it, the others find it there."""
    return load_model()


def _written(f: Learner) -> str:
    """Call the learner's function. Raises `Nothing` or `Wrong` unless a prompt comes back."""
    came = f()
    if came is None:
        raise Nothing("your function", _FORM, "None", "the function gives nothing back: does it end with `return`?")
    _refuse_badly(lambda: require_form(came), _FORM, show(came, 80))
    return came


def _refuse_badly(look: Callable[[], Any], expected: str, came: str = "") -> None:
    """Turn a `BadPrompt` into what a check's report shows."""
    try:
        look()
    except BadPrompt as bad:
        raise Wrong("your function", expected, came or bad.problem, f"{bad.problem} {bad.remedy}") from bad


def _has_the_form(f: Learner) -> None:
    _written(f)


def _gives_nothing_away(name: str) -> Test:
    def test(f: Learner) -> None:
        prompt = _written(f)
        expected = "none of what will be asked"
        _refuse_badly(lambda: require_nothing_given_away(prompt, find_assignment(name)), expected, show(prompt, 120))

    return test


def _keeps_to_the_budget(name: str) -> Test:
    def test(f: Learner) -> Rest:
        prompt, assignment = _written(f), find_assignment(name)

        def rest() -> str:
            expected = f"at most {assignment.budget} tokens, the query not counted"
            _refuse_badly(lambda: require_budget(_model()[1], prompt, assignment), expected, show(prompt, 120))
            return f"{require_budget(_model()[1], prompt, assignment)} of {assignment.budget}"

        return rest

    return test


def _does_its_work(name: str, advice: str) -> Test:
    def test(f: Learner) -> Rest:
        prompt, assignment = _written(f), find_assignment(name)

        def rest() -> str:
            graded: list[Grade] = []
            # A function may return another text each time it is called: all that counts is looked at once more.
            _refuse_badly(lambda: graded.append(grade(*_model(), prompt, assignment)), "the same text at every call")
            _require_enough(prompt, graded[0], assignment, advice)
            return graded[0].counts

        return rest

    return test


def _require_enough(prompt: str, found: Grade, assignment: Assignment, advice: str) -> None:
    if found.enough(assignment.needed):
        return
    each = " of each label" if assignment.labels else ""
    total = min(found.asked.values())
    expected = f"at least {assignment.needed} of {total} held-out queries{each} answered rightly"
    came = "\n".join([f"{found.counts}. The worst mistakes:", *map(str, found.mistakes)])
    raise Wrong(f"the model, behind {show(prompt, 120)}", expected, came, _reason(prompt, found, assignment) or advice)


def _reason(prompt: str, found: Grade, assignment: Assignment) -> str:
    """Return what the worst mistakes have in common, or ""."""

    def most(like: Callable[[Mistake], bool]) -> bool:
        return sum(map(like, found.mistakes)) > len(found.mistakes) / 2

    if prompt.endswith(" ") or prompt.endswith("\t"):
        return "the prompt ends with a space. The model's words begin with a space of their own, so it would see two."
    if assignment.labels:
        best, worst = max(found.right, key=found.right.__getitem__), min(found.right, key=found.right.__getitem__)
        if found.right[best] < assignment.needed and found.right[best] - found.right[worst] <= found.asked[best] / 6:
            return (
                "the prompt leans to neither label, but behind it the model tells the words apart too seldom. Say, "
                "near the end, what it is that is to be called so."
            )
        return (
            f"the prompt leans to {best!r}: it makes the model say so of many words that are {worst}. Find words "
            f"after which both come as easily, and look at both counts."
        )
    if any(order.split()[-1].casefold() in m.said.casefold() for m in found.mistakes for order in assignment.orders):
        return (
            "the orders win: the model goes on from the end of the line, whatever the line says. Show it lines with "
            "orders in them, and say before each answer, in words, what the answer is."
        )
    if most(lambda m: not m.said):
        return (
            "the model ends the line and writes no answer. Let the prompt stop where the answer belongs, in the middle "
            "of a line: after an arrow, a colon, or a word such as `is`."
        )
    if found.unfinished >= sum(found.asked.values()) / 4:
        return (
            f"{found.unfinished} times the right answer comes, and then more. An answer is the whole rest of its line: "
            "give an example, and let every example end with a line break."
        )
    return ""


def _checks(name: str, advice: str) -> dict[str, Test]:
    return {
        "a text with a place for the query": _has_the_form,
        "nothing of what will be asked is in it": _gives_nothing_away(name),
        "tokens": _keeps_to_the_budget(name),
        "right answers to held-out queries": _does_its_work(name, advice),
    }


CHECKS: dict[str, dict[str, Test]] = {"prompting.calibrate": CALIBRATION_CHECKS} | {
    name: _checks(name, advice)
    for name, advice in {
        "prompts.examples": "the model does not see yet what is wanted. Show it, in several lines of the same kind, "
        "and end with the query's line, cut off before the answer.",
        "prompts.unbiased": "read your prompt aloud with each label at its end.",
        "prompts.capitals": "the model does not see yet that capitals are wanted: two names with a sign between them "
        "may be anything. Which is worth more of your tokens, another example or the word for what you want?",
        "prompts.orders": "many answers are about the wrong word. Say in every line, in words, what the answer is, and "
        "show more lines with orders in them.",
    }.items()
}
