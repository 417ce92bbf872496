"""Prompts are graded by what the real model does behind them, and refused where they hold what will be asked.

That each exercise refuses what is naive, too long or malformed, with its reason, is held in test_checks.py.
"""

from __future__ import annotations

import functools
import json
import re

import answers_prompts
import nbformat
import pytest
from exercise_cells import EXERCISES, SOLUTIONS, defined

from rapidadapt_lessons.errors import BadPrompt, CourseError
from rapidadapt_lessons.exercises import prompt_grading
from rapidadapt_lessons.exercises.check import check
from rapidadapt_lessons.exercises.checks import prompts as checks_prompts
from rapidadapt_lessons.exercises.prompt_assignments import find_assignment
from rapidadapt_lessons.exercises.prompt_grading import (
    Assignment,
    grade,
    practise,
    require_form,
    require_nothing_given_away,
)
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.prompting.prompts import ARROW, build_prompts
from rapidadapt_lessons.prompting.scoring import exact_matches, generate_answers

NAMES = tuple(answers_prompts.NAIVE)
NOTEBOOK = "ex02_prompts.ipynb"
FUNCTIONS = {name: f"{name.partition('.')[2]}_prompt" for name in NAMES}
PLURALS = load_task("plurals")
SMALL = Assignment("small", PLURALS.query_set[:8], PLURALS.support_pool[:8], budget=30, needed=6)
THREE = "dog -> dogs\nchurch -> churches\nwoman -> women\n{x} ->"


@functools.cache
def solutions():
    return defined(SOLUTIONS / NOTEBOOK)


@pytest.mark.parametrize("name", NAMES)
def test_naive_and_good_prompts_are_several_queries_away_from_the_bar(name, real_model):
    """So that a processor which rounds otherwise gives the same verdict."""
    assignment = find_assignment(name)
    naive = grade(*real_model, answers_prompts.NAIVE[name], assignment)
    assert min(naive.right.values()) <= assignment.needed - 10 and not naive.enough(assignment.needed)
    for good in (answers_prompts.ALSO_RIGHT[name](), solutions()[FUNCTIONS[name]]()):
        found = grade(*real_model, good, assignment)
        assert min(found.right.values()) >= assignment.needed + 4 and found.enough(assignment.needed)
    assert answers_prompts.ALSO_RIGHT[name]().split()[0] != solutions()[FUNCTIONS[name]]().split()[0]


@pytest.mark.parametrize("name", NAMES)
def test_held_out_queries_are_many_mixed_and_others_than_those_to_practise_on(name):
    assignment = find_assignment(name)
    assert 24 <= len(assignment.held_out) <= 48 and len(assignment.practice) >= 24
    assert not {q.x for q in assignment.held_out} & {q.x for q in assignment.practice}
    secrets = {assignment.secret(query) for query in assignment.held_out}
    assert len(secrets) == len(assignment.held_out)
    assert not secrets & {assignment.secret(query) for query in assignment.practice}
    assert len({[q.y for q in assignment.held_out].count(label) for label in assignment.labels}) <= 1
    assert find_assignment(name) == assignment


@pytest.mark.parametrize("path", [EXERCISES / NOTEBOOK, SOLUTIONS / NOTEBOOK], ids=lambda path: path.parent.name)
def test_the_notebook_shows_nothing_that_is_held_out(path):
    shown = "\n".join(
        cell.source + json.dumps(cell.get("outputs", []), ensure_ascii=False)
        for cell in nbformat.read(path, as_version=4).cells
    )
    secrets = [a.secret(query) for a in map(find_assignment, NAMES) for query in a.held_out]
    orders = [order for name in NAMES for order in find_assignment(name).orders]
    assert len(secrets) > 100 and orders
    assert prompt_grading._held(shown, [*secrets, *orders]) == []
    assert prompt_grading._held(f"{shown} {secrets[0].upper()}", secrets) == [secrets[0]]


def test_a_grade_is_exact_match_and_its_mistakes_are_what_the_model_writes(real_model):
    prompt = "dog -> dogs\n{x} ->"
    found = grade(*real_model, prompt, SMALL)
    prompts = build_prompts(SMALL.held_out, [("dog", "dogs")], ARROW)
    right = exact_matches(*real_model, prompts, [query.y for query in SMALL.held_out])
    assert found.right == {"": sum(right)} and found.asked == {"": 8} and found.accuracy == sum(right) / 8
    assert 0 < sum(right) < 8
    written = dict(zip((query.x for query in SMALL.held_out), generate_answers(*real_model, prompts)))
    assert len(found.mistakes) == min(8 - sum(right), prompt_grading.SHOWN)
    for mistake in found.mistakes:
        assert written[mistake.x].startswith(mistake.said) and mistake.said != mistake.wanted
    begun = [re.match(rf"{query.y}\W", written[query.x]) for query in SMALL.held_out]
    assert found.unfinished == sum(map(bool, begun)) < 8 - sum(right)
    chances = [mistake.probability for mistake in found.mistakes]
    assert chances == sorted(chances) and all(0 <= chance < 0.5 for chance in chances)
    assert grade(*real_model, prompt, SMALL) == found


def test_answers_that_go_on_in_their_line_are_counted(real_model):
    in_line = "{x} in the plural: "
    prompt = "".join(f"{in_line.replace('{x}', x)}{y}; " for x, y in [("dog", "dogs"), ("church", "churches")])
    found = grade(*real_model, prompt + in_line.rstrip(), SMALL)
    prompts = [prompt_grading._filled(prompt + in_line.rstrip(), query) for query in SMALL.held_out]
    written = generate_answers(*real_model, prompts)
    begun = [re.match(rf"{query.y}\W", text) for query, text in zip(SMALL.held_out, written)]
    assert found.right == {"": 0} and found.unfinished == sum(map(bool, begun)) >= 4


def test_of_labels_the_worst_mistakes_come_first_and_each_label_is_counted(real_model):
    found = practise(*real_model, answers_prompts.NAIVE["prompts.unbiased"], find_assignment("prompts.unbiased"))
    assert found.asked == {"negative": 12, "positive": 12} and found.right["positive"] < 6 < found.right["negative"]
    chances = [mistake.probability for mistake in found.mistakes]
    assert chances == sorted(chances) and len(chances) == 5 and max(chances) < 0.5
    assert {mistake.said for mistake in found.mistakes} == {"negative"}
    assert not found.enough(6) and found.enough(found.right["positive"])


def test_practice_queries_that_the_prompt_holds_are_not_asked(real_model):
    found = practise(*real_model, THREE, SMALL)
    known = sum(query.x in ("dog", "church", "woman") for query in SMALL.practice)
    assert known and found.asked == {"": 8 - known} and f"{known} practice queries were not asked" in repr(found)
    everything = "\n".join(f"{query.x} -> {query.y}" for query in SMALL.practice)
    with pytest.raises(BadPrompt, match="all practice queries"):
        practise(*real_model, everything + "\n{x} ->", SMALL)


def test_a_prompt_over_the_budget_can_be_tried_and_is_not_graded(real_model):
    long = "Now we do plurals. " * 8 + THREE
    assert practise(*real_model, long, SMALL).tokens > 30 and "too many" in repr(practise(*real_model, long, SMALL))
    with pytest.raises(BadPrompt, match=r"has \d+ tokens, the query not counted; the budget is 30"):
        grade(*real_model, long, SMALL)


def test_white_space_at_the_end_is_the_prompts_own(real_model):
    """After a line break the answer begins without a space; after a space the model sees what it never saw."""
    headed = "Singular\ndog\nPlural\ndogs\n\nSingular\nchurch\nPlural\nchurches\n\nSingular\n{x}\nPlural\n"
    assert grade(*real_model, headed, SMALL).right[""] >= 4
    assert grade(*real_model, THREE + " ", SMALL).right[""] == 0


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (None, "is a NoneType and not a text"),
        (["{x} ->"], "is a list and not a text"),
        ("", "the prompt is empty"),
        (" \n ", "the prompt is empty"),
        ("cat ->", "there is no {x}"),
        ("{verb} ->", "there is {verb}, but no {x}"),
        ("{} ->", "there is {}, but no {x}"),
        ("{X} ->", "there is {X}, but no {x}"),
    ],
)
def test_a_prompt_without_a_place_for_the_query_is_refused(prompt, words):
    with pytest.raises(BadPrompt, match=re.escape(words)):
        require_form(prompt)


ANSWER = PLURALS.query_set[1].y


@pytest.mark.parametrize(
    "prompt",
    [
        f"x -> {ANSWER}",
        f"X -> {ANSWER.upper()}",
        f"({ANSWER})",
        f'"{ANSWER}".',
        "".join(chr(ord(c) + 0xFEE0) for c in ANSWER),
    ],
)
def test_held_out_answers_are_found_as_whole_words_in_capitals_and_in_wide_letters(prompt):
    with pytest.raises(BadPrompt, match=f"refused: answers to held-out queries stand in the prompt .'{ANSWER}'"):
        require_nothing_given_away(prompt + "\n{x} ->", SMALL)


def test_other_words_are_no_answers_and_an_answer_of_several_words_is_one():
    require_nothing_given_away(f"pre{ANSWER}, {ANSWER}ed, dogs, churches {{x}} ->", SMALL)
    capitals = find_assignment("prompts.capitals")
    require_nothing_given_away("Saint Salvador, San Jose {x}", capitals)
    with pytest.raises(BadPrompt, match="'San Salvador'"):
        require_nothing_given_away("san\n  SALVADOR {x}", capitals)


def test_the_report_shows_the_worst_mistakes_and_the_tokens():
    report = check("prompts.examples", lambda: "walk -> walked\n{x} ->")
    assert report.passed[2] == "tokens: 5 of 60" and not report.solved
    for text in (repr(report), report._repr_html_().replace("&#x27;", "'")):
        assert text.count(", the model said ") == 5 and "of 40. The worst mistakes:" in text
        assert "at least 30 of 40 held-out queries answered rightly" in text


@pytest.mark.parametrize(
    ("right", "words"),
    [((12, 12), "leans to neither"), ((15, 16), "leans to neither"), ((20, 8), "'negative'"), ((24, 12), "'negative'")],
)
def test_a_prompt_is_said_to_lean_only_where_it_does(right, words):
    mistake = prompt_grading.Mistake("a", "positive", "negative", 0.1)
    labels = "negative", "positive"
    found = prompt_grading.Grade(5, 12, dict(zip(labels, right)), dict.fromkeys(labels, 24), (mistake,))
    assert words in checks_prompts._reason("{x}:", found, find_assignment("prompts.unbiased"))


def test_grades_show_what_the_model_wrote_and_do_not_run_it():
    mistake = prompt_grading.Mistake("<b>x</b>", "y", "<script>", 0.001)
    found = prompt_grading.Grade(5, 9, {"": 1}, {"": 2}, (mistake,))
    assert "<script>" not in found._repr_html_() and "&lt;script&gt;" in found._repr_html_()
    assert repr(found).startswith("Right: 1 of 2. Tokens: 5 of 9.") and "under 0.01" in repr(found)


def test_an_exercise_without_a_prompt_has_no_assignment():
    with pytest.raises(CourseError, match="prompts.capitals"):
        find_assignment("lora.scaling")
