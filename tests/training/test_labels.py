"""Labels to look at: a box for each token, and what is masked is told from what counts."""

from __future__ import annotations

import re

import pytest

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.training import label_chips


def test_each_token_has_its_label_below_and_only_what_counts_is_yellow(real_model):
    _, tokenizer = real_model
    prompt, answer = tokenizer("<b> is")["input_ids"], tokenizer(" did\n")["input_ids"]
    html = label_chips(tokenizer, prompt + answer, [-100] * len(prompt) + answer)
    boxes = re.findall(r'<span style="[^"]*?background:(#\w+)[^"]*"><span[^>]*>(.*?)</span><br>(.*?)</span>', html)
    grey, yellow = "#E5E5E5", "#F8E6BF"
    assert [box[0] for box in boxes] == [grey] * len(prompt) + [yellow] * 2
    assert boxes[-3:] == [(grey, "␣is", "−100"), (yellow, "␣did", "␣did"), (yellow, "↵", "↵")]
    assert "&lt;" in boxes[0][1] and f"{len(boxes)} tokens: 2 count, {len(prompt)} are masked." in html


def test_a_label_too_few_is_told(real_model):
    with pytest.raises(CourseError, match="2 tokens came with 1 labels"):
        label_chips(real_model[1], [5, 6], [-100])
