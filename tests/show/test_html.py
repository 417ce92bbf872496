"""Texts and tables as HTML."""

from __future__ import annotations

import pytest

from rapidadapt_lessons.errors import BadData
from rapidadapt_lessons.show.html import require_whole, table, text_block


def test_a_corner_without_a_heading_is_no_heading():
    html = table(("", "right"), [("LoRA", "3")])
    assert html.count("<th ") == 1 and html.index("<td ") < html.index("<th ")


def test_what_was_typed_stays_text():
    assert "<b>" not in table(["<b>"], [["<b>"]]) + text_block("<b>")


def test_half_a_character_is_told_with_its_place():
    require_whole("né 😀")
    with pytest.raises(BadData, match="character 3 is half of one"):
        require_whole("ab\ud83d")
