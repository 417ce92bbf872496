"""Domains of running text: real, split by document, and nothing on both sides."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from rapidadapt_lessons.errors import CourseError, MissingPackage
from rapidadapt_lessons.lm import texts
from rapidadapt_lessons.lm.texts import load_domain

DOMAINS = ("python_reference", "dialogue", "licences")


def shingles(text: str, size: int = 8) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domain_has_enough_text_on_both_sides_to_adapt_to_and_to_measure(name):
    domain = load_domain(name)
    assert sum(len(text.split()) for text in domain.train) > 4000
    assert sum(len(text.split()) for text in domain.held_out) > 1000
    assert domain.source and domain.title


@pytest.mark.parametrize("name", DOMAINS)
def test_no_document_is_empty_or_on_both_sides(name):
    domain = load_domain(name)
    every = [*domain.train, *domain.held_out]
    assert all(text.strip() for text in every)
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", DOMAINS)
def test_the_split_is_the_same_in_every_process(name):
    code = (
        f"from rapidadapt_lessons.lm.texts import load_domain\nprint(load_domain({name!r}).held_out[0][:60].encode())"
    )
    here = load_domain(name).held_out[0][:60].encode()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(here)


def test_held_out_licence_paragraphs_are_not_the_boilerplate_of_training():
    """BSD's and Apache's words come back in many licences: a model that has seen them would look adapted."""
    domain = load_domain("licences")
    trained = set().union(*map(shingles, domain.train))
    shared = [len(found & trained) / len(found) for found in map(shingles, domain.held_out)]
    assert max(shared) < 0.6 and sorted(shared)[len(shared) // 2] == 0


def test_no_question_of_a_dialogue_is_on_both_sides():
    """One file repeats the same twelve questions a thousand times."""
    domain = load_domain("dialogue")
    openings = [
        {re.sub(r"\W+", " ", line.casefold()) for text in side for line in re.findall(r"(?:^|\n\n)A: (.*)", text)}
        for side in (domain.train, domain.held_out)
    ]
    assert openings[0] and openings[1] and not openings[0] & openings[1]


def test_dialogue_turns_alternate():
    for text in load_domain("dialogue").train:
        for conversation in text.split("\n\n"):
            speakers = [line[:3] for line in conversation.split("\n")]
            assert speakers == ["A: ", "B: "] * (len(speakers) // 2) + ["A: "] * (len(speakers) % 2)


def test_an_unknown_domain_names_those_there_are():
    with pytest.raises(CourseError, match="python_reference, dialogue, licences"):
        load_domain("poems")


def test_a_licence_file_that_is_gone_names_its_package(monkeypatch):
    monkeypatch.setattr(texts, "_LICENCE_FILES", {"packaging": ("NO-SUCH-LICENCE",)})
    with pytest.raises(MissingPackage, match="'packaging' is not installed, or is broken"):
        load_domain("licences")
    monkeypatch.setattr(texts, "_LICENCE_FILES", {"no-such-package": ("LICENSE",)})
    with pytest.raises(MissingPackage, match="no-such-package"):
        load_domain("licences")
