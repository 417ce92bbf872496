"""The family to meta-train on, and that nothing of the held-out tasks is in it."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from rapidadapt_lessons.errors import CourseError, NotEnoughExamples
from rapidadapt_lessons.lm.tasks import Example, load_task
from rapidadapt_lessons.meta import text_tasks
from rapidadapt_lessons.meta.text_tasks import HELD_OUT, VALIDATION, load_family

FAMILY = load_family()


def held_out_examples() -> list[Example]:
    tasks = [load_task(name) for name in (*HELD_OUT, VALIDATION)]
    return [e for task in tasks for e in (*task.support_pool, *task.query_set)]


def test_there_are_enough_tasks_and_examples():
    assert len(FAMILY) >= 40
    assert len({task.name for task in FAMILY}) == len({task.cue for task in FAMILY}) == len(FAMILY)
    for task in FAMILY:
        assert len(task.examples) >= 12, task.name
        assert len({e.x for e in task.examples}) == len(task.examples), task.name
        assert all(e.x.strip() and e.y.strip() and "\n" not in e.x + e.y for e in task.examples), task.name
        assert task.template.shot(*task.examples[0]).endswith(task.examples[0].y)


def test_no_held_out_answer_occurs_anywhere():
    answers = {e.y.casefold() for e in held_out_examples()}
    for task in FAMILY:
        for e in task.examples:
            for text in (f" {e.x.casefold()} ", f" {e.y.casefold()} "):
                assert text.strip() not in answers, (task.name, e)
                capital = [a for a in answers if len(a) > 3 and f" {a} " in text]
                assert not capital, (task.name, e, capital)


def test_no_cue_and_no_pair_is_shared():
    pairs = {(e.x.casefold(), e.y.casefold()) for e in held_out_examples()}
    cues = {load_task(name).cue for name in (*HELD_OUT, VALIDATION)}
    assert not pairs & {(e.x.casefold(), e.y.casefold()) for task in FAMILY for e in task.examples}
    assert not cues & {task.cue for task in FAMILY}


def test_held_out_words_are_not_asked_about():
    words = {e.x for name in ("plurals", "past_tense", VALIDATION) for e in held_out_examples_of(name)}
    assert not words & {e.x for task in FAMILY for e in task.examples}


def held_out_examples_of(name: str) -> list[Example]:
    task = load_task(name)
    return [*task.support_pool, *task.query_set]


@pytest.mark.parametrize(
    "name, x, y",
    [
        ("upper_case", "enemy", "ENEMY"), ("backwards", "enemy", "ymene"), ("spelled", "enemy", "e-n-e-m-y"),
        ("length", "enemy", "5"), ("first_three", "enemy", "ene"), ("ing_form", "encourage", "encouraging"),
        ("roman", "49", "XLIX"), ("roman", "94", "XCIV"), ("roman", "88", "LXXXVIII"), ("plus_one", "99", "100"),
        ("minus_one", "10", "9"), ("parity", "10", "even"), ("ordinal", "22", "22nd"),
        ("number_fr", "64", "soixante-quatre"),
        ("country_code", "Belgium", "BE"), ("country_code3", "Austria", "AUT"), ("currency_code", "Japan", "JPY"),
        ("internet_ending", "Spain", ".es"), ("country_de", "Greece", "Griechenland"),
        ("calendar_fr", "Tuesday", "mardi"),
        ("language_it", "Greek", "greco"),
    ],
)  # fmt: skip
def test_answers_known_by_heart(name, x, y):
    [task] = [task for task in FAMILY if task.name == name]
    assert Example(x, y) in task.examples


def test_words_that_hold_a_capital_or_a_number_are_banned():
    banned = text_tasks.held_out_words()
    assert {"paris", "kinshasa", "seventeen", "feet", "went", "biggest", "foot", "go", "big"} <= banned
    assert "kinshasa" in text_tasks._phrases("Congo - Kinshasa")
    assert "mexico city" in text_tasks._phrases("near Mexico City, today")
    assert "seventy-one" in text_tasks._phrases("(Seventy-one)")


def test_draw_is_without_replacement_and_bounded():
    task = FAMILY[0]
    assert len(set(task.draw(12, random.Random(0)))) == 12
    assert task.draw(5, random.Random(1)) == task.draw(5, random.Random(1))
    for k in (0, len(task.examples) + 1):
        with pytest.raises(NotEnoughExamples, match=f"k={k} "):
            task.draw(k, random.Random(0))


def test_the_family_is_the_same_in_every_process():
    code = "from rapidadapt_lessons.meta.text_tasks import load_family; print(hash_of := repr(load_family()))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}, encoding="utf-8",
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] == repr(FAMILY) + "\n"


def test_a_task_that_has_lost_its_examples_is_noticed(monkeypatch):
    monkeypatch.setattr(text_tasks, "FEELING_WORDS", ["panic", "doubt"])
    with pytest.raises(CourseError, match="'upper_case' has"):
        load_family.__wrapped__()
