"""School grammar's endings, for words that it spells right and for some that it cannot know."""

from __future__ import annotations

import pytest

from rapidadapt_lessons.lm import load_task
from rapidadapt_lessons.prompting import spelling_rule


@pytest.mark.parametrize(
    ("task", "word", "ending"),
    [
        ("plurals", "cat", "cats"),
        ("plurals", "witch", "witches"),
        ("plurals", "brush", "brushes"),
        ("plurals", "kiss", "kisses"),
        ("plurals", "city", "cities"),
        ("plurals", "boy", "boys"),
        ("plurals", "wolf", "wolfs"),
        ("past_tense", "want", "wanted"),
        ("past_tense", "smile", "smiled"),
        ("past_tense", "try", "tried"),
        ("past_tense", "play", "played"),
        ("past_tense", "stop", "stopped"),
        ("past_tense", "look", "looked"),
        ("past_tense", "go", "goed"),
        ("superlatives", "cold", "coldest"),
        ("superlatives", "wide", "widest"),
        ("superlatives", "happy", "happiest"),
        ("superlatives", "slim", "slimmest"),
        ("superlatives", "new", "newest"),
        ("capitals", "Peru", "Peru"),
    ],
)
def test_the_regular_ending(task, word, ending):
    assert spelling_rule(task, word) == ending


@pytest.mark.parametrize(("task", "least"), [("plurals", 0.8), ("past_tense", 0.5), ("superlatives", 0.95)])
def test_the_rule_is_a_good_one(task, least):
    pairs = load_task(task).support_pool + load_task(task).query_set
    assert sum(spelling_rule(task, x) == y for x, y in pairs) / len(pairs) > least
