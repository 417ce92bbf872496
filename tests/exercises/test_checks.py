"""Every check: it refuses typical wrong answers with the reason, and accepts the solution and another right answer."""

from __future__ import annotations

import re

import answers_bugs
import answers_continual
import answers_lora
import answers_maml
import answers_prompting
import answers_prompts
import answers_scaling
import pytest
from exercise_cells import EXERCISES, SOLUTIONS, defined, functions

from rapidadapt_lessons.exercises.catalogue import EXERCISES as CATALOGUE
from rapidadapt_lessons.exercises.check import check

ANSWERS = (
    answers_prompting,
    answers_prompts,
    answers_lora,
    answers_maml,
    answers_continual,
    answers_bugs,
    answers_scaling,
)
WRONG = {name: answers for module in ANSWERS for name, answers in module.WRONG.items()}
ALSO_RIGHT = {name: answer for module in ANSWERS for name, answer in module.ALSO_RIGHT.items()}
NAMES = [exercise.name for exercise in CATALOGUE]


@pytest.fixture(scope="module")
def solutions():
    return functions(SOLUTIONS)


@pytest.fixture(scope="module")
def starters():
    return functions(EXERCISES)


@pytest.mark.parametrize(("name", "slip"), [(name, slip) for name, slips in WRONG.items() for slip in slips])
def test_a_wrong_answer_is_refused_with_the_reason(name, slip):
    function, words = WRONG[name][slip]
    report = check(name, function)
    assert not report.solved and report.started
    assert re.search(re.escape(words).replace(r"\|", "|"), repr(report)), f"the report should say {words!r}:\n{report}"


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_accepted(name, solutions):
    report = check(name, solutions[name])
    assert report.solved, repr(report)
    assert len(report.passed) >= 3 and report.waiting == 0


@pytest.mark.parametrize("name", NAMES)
def test_another_right_answer_is_accepted(name):
    report = check(name, ALSO_RIGHT[name])
    assert report.solved, repr(report)


@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_exercise_says_where_to_begin(name, starters):
    report = check(name, starters[name])
    assert not report.solved and not report.started and report.passed == ()
    assert report.exercise.begin in repr(report) and "not started yet" in repr(report)


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_returns_nothing_is_told_so(name):
    report = check(name, lambda *arguments: None)
    assert not report.solved and "return" in repr(report) and report.exercise.begin in repr(report)


@pytest.mark.parametrize(
    ("name", "function", "words"),
    [
        ("maml.bug_hunt", "broken_meta_gradient", "judged on the support"),
        ("ewc.bug_hunt", "broken_consolidate", "1/2 is missing"),
    ],
)
def test_the_suspects_of_the_bug_hunts_are_guilty(name, function, words):
    report = check(name, defined(EXERCISES / "ex09_bug_hunts.ipynb")[function])
    assert report.passed == () and words in repr(report)


def test_every_exercise_has_its_answers():
    assert set(WRONG) == set(ALSO_RIGHT) == set(NAMES)
    assert min(len(slips) for slips in WRONG.values()) >= 3
