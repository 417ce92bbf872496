"""A lenient match finds whole words, and is not fooled by what only looks like them."""

from __future__ import annotations

import unicodedata

import pytest

from rapidadapt_lessons.prompting import lenient_match


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Baku", "Baku"),
        ("The capital of Azerbaijan is Baku.", "Baku"),
        ('It is "BAKU"!', "Baku"),
        ("baku, of course", "Baku"),
        ("Addis  Ababa\n", "Addis Ababa"),
        ("It's St. John’s, I think.", "St. John's"),
        ("Port-au-Prince!", "port-au-prince"),
        (unicodedata.normalize("NFD", "C'est l'Érythrée."), "Érythrée"),
        ("one hundred and forty-two", "forty-two"),
        ("STRASSE", "Straße"),
    ],
)
def test_the_answer_is_found_whatever_stands_around_it(reply, answer):
    assert lenient_match(reply, answer)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Londonderry", "London"),
        ("Greater-London", "London"),
        ("cats", "cat"),
        ("forty-two", "two"),
        ("Peru", "Pérou"),
        ("Benin", "Bénin"),
        ("Addis, near Ababa", "Addis Ababa"),
        ("Addis", "Addis Ababa"),
        ("Johns Street", "St. John's"),
        ("", "Baku"),
        ("...", "Baku"),
        ("anything", ""),
        ("?", "?"),
    ],
)
def test_what_is_not_the_whole_answer_is_not(reply, answer):
    assert not lenient_match(reply, answer)


def test_a_denial_counts_which_is_the_price_of_lenience():
    assert lenient_match("It is not Paris.", "Paris")
