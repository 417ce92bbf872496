"""Texts and tables as HTML."""

from __future__ import annotations

import re

import pytest

from rapidadapt_lessons.errors import BadData
from rapidadapt_lessons.show.html import chips, columns, require_whole, table, text_block
from rapidadapt_lessons.show.looks import contrast


def test_a_corner_without_a_heading_is_no_heading():
    html = table(("", "right"), [("LoRA", "3")])
    assert html.count("<th ") == 1 and html.index("<td ") < html.index("<th ")


def test_what_was_typed_stays_text():
    assert "<b>" not in table(["<b>"], [["<b>"]]) + text_block("<b>")


def test_half_a_character_is_told_with_its_place():
    require_whole("né 😀")
    with pytest.raises(BadData, match="character 3 is half of one"):
        require_whole("ab\ud83d")


def test_chips_and_columns_tell_their_numbers_and_stay_readable():
    html = chips([("<ed>", 0.07), ("the end", 1.0)])
    assert "<code>&lt;ed&gt;</code> 0.07" in html and "<code>the end</code> 1.00" in html
    assert table(["a"], [[html]]).count("<code>") == 2, "what is markup already is not escaped"
    shades = [list(map(int, found)) for found in re.findall(r"rgb\((\d+),(\d+),(\d+)\)", html)]
    assert shades[1] == [0x56, 0xB4, 0xE9] and min(shades[0]) > 230
    assert all(contrast([0x11] * 3) / contrast(shade) > 4.5 for shade in shades)
    chart = columns({"0": 0, "<4>": 11}, 12, "<4>", title="It & all", xlabel="shots")
    assert 'aria-label="Column chart. It &amp; all. Of 12, by shots: 0 at 0, 11 at &lt;4&gt;."' in chart
    assert "<4>" not in chart and re.findall(r"height:(\d+)px; background:(#\w+)", chart) == [
        ("2", "#B5D3E7"),
        ("101", "#0072B2"),
    ]
