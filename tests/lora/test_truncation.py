"""What the rank slider shows: the rank that is chosen, beside all others."""

from __future__ import annotations

import re

import pytest

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lm.tasks import Example
from rapidadapt_lessons.lora.truncation import rank_view

QUERIES = [Example("do", "did"), Example("go", "went"), Example("see", "saw")]
ANSWERS = {0: ["do", "go", "see"], 1: ["did", "goed", "saw"], 4: ["did", "went", "saw"]}


def test_a_rank_is_shown_beside_the_others_with_its_answers():
    html = rank_view(ANSWERS, QUERIES, 1, most=2)
    assert "Rank 1: 2 of 3 right" in html and "0 at 0, 2 at 1, 3 at 4." in html
    rows = [re.findall(r"<td [^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)[1:]]
    assert rows == [["go", "goed", "no: went"], ["do", "did", "yes"]], "the verb that ranks disagree on comes first"
    assert "Rank 4: 3 of 3 right" in rank_view(ANSWERS, QUERIES, 4)


def test_a_rank_that_was_not_tried_is_refused():
    with pytest.raises(CourseError, match="no rank 3"):
        rank_view(ANSWERS, QUERIES, 3)
