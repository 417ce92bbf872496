"""The glossary: in order, no term twice, and every term linked to a lesson in which it stands.
The teacher's page: the sections, headings and files that it names exist.

Each check is a function that returns what is wrong. Further down, a small bad page proves that each one bites.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GLOSSARY = DOCS / "glossary.md"
TEACHING = (DOCS / "teaching.md").read_text(encoding="utf-8")
CHECKS: dict[str, Callable[[str], list[str]]] = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


@dataclass(frozen=True)
class Entry:
    """One line of the glossary: its term, its abbreviation if it has one, and its links as (text, target)."""

    term: str
    short: str | None
    definition: str
    links: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, line: str) -> Entry:
        head = re.match(r"- \*\*(?P<term>[^*(]+?)(?: \((?P<short>[^)]+)\))?\*\*:", line)
        assert head, f"not an entry: {line!r}"
        rest = line[head.end() :]
        links = tuple(re.findall(r"\[([^\]]*)\]\(([^)]*)\)", rest))
        return cls(head["term"], head["short"], re.sub(r"\[[^\]]*\]\([^)]*\)", "", rest).strip(), links)


def entries(text: str) -> list[Entry]:
    return [Entry.of(line) for line in text.splitlines() if line.startswith("- ")]


def lesson_file(entry: Entry) -> Path | None:
    """Return the lesson that an entry links to, or None where there is no such file."""
    for _, target in entry.links:
        file = (GLOSSARY.parent / target).resolve()
        if file.suffix == ".ipynb" and file.parent == ROOT / "notebooks" and file.is_file():
            return file
    return None


@cache
def words_of(lesson: Path) -> str:
    cells = nbformat.read(lesson, as_version=4).cells
    return " ".join("\n".join(cell.source for cell in cells if cell.cell_type in ("markdown", "code")).lower().split())


@check
def every_line_is_an_entry(text: str) -> list[str]:
    lines = text.splitlines()
    bullets = [line for line in lines if re.match(r"\s*[-*+] ", line)]
    return [line[:60] for line in bullets if not re.match(r"- \*\*[^*]+\*\*: \S", line)]


@check
def every_term_is_defined(text: str) -> list[str]:
    return [entry.term for entry in entries(text) if len(entry.definition.split()) < 4]


@check
def every_term_is_linked_once(text: str) -> list[str]:
    return [entry.term for entry in entries(text) if len(entry.links) != 1]


@check
def every_link_leads_to_a_lesson(text: str) -> list[str]:
    return [entry.term for entry in entries(text) if entry.links and lesson_file(entry) is None]


@check
def every_link_is_named_for_its_lesson(text: str) -> list[str]:
    wrong = []
    for entry in entries(text):
        for name, target in entry.links:
            number = re.match(r"0*(\d+)_", Path(target).name)
            if number and name != f"Lesson {number[1]}":
                wrong.append(f"{entry.term}: {name} for {target}")
    return wrong


@check
def every_term_stands_in_its_lesson(text: str) -> list[str]:
    """A plural, or another ending, counts; the middle of another word does not."""
    wrong = []
    for entry in entries(text):
        if lesson := lesson_file(entry):
            names = [entry.term, *([entry.short] if entry.short else [])]
            wrong += [name for name in names if not re.search(rf"(?<!\w){re.escape(name.lower())}", words_of(lesson))]
    return wrong


@check
def terms_are_in_order(text: str) -> list[str]:
    terms = [entry.term.casefold() for entry in entries(text)]
    return [f"{after} after {before}" for before, after in zip(terms, terms[1:]) if after < before]


@check
def no_term_stands_twice(text: str) -> list[str]:
    names = [name.casefold() for entry in entries(text) for name in (entry.term, entry.short) if name]
    return sorted({name for name in names if names.count(name) > 1})


@check
def what_is_called_an_entry_is_one(text: str) -> list[str]:
    """Words in italics that begin like a term are fine; a term that is named with its short form, too."""
    names = [name.casefold() for entry in entries(text) for name in (entry.term, entry.short) if name]
    named = [word for entry in entries(text) for word in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", entry.definition)]
    plain = {"i", "j", "contextual", "after", "data"}  # emphasis, and the letters of rows and columns
    return [word for word in named if word.casefold() not in plain and not _is_named(word.casefold(), names)]


def _is_named(word: str, names: list[str]) -> bool:
    return any(word in (name, f"{name}s", f"{name}d") for name in names)


@pytest.mark.parametrize("name", CHECKS)
def test_the_glossary(name):
    assert CHECKS[name](GLOSSARY.read_text(encoding="utf-8")) == []


def test_the_glossary_has_terms_from_every_lesson_that_teaches_some():
    found = {lesson_file(entry).name[:2] for entry in entries(GLOSSARY.read_text(encoding="utf-8"))}
    assert {"01", "02", "03", "04", "05", "06", "08", "10"} <= found


LINK_5 = " [Lesson 5](../notebooks/05_maml_math.ipynb)"
LINK_6 = " [Lesson 6](../notebooks/06_maml_from_scratch.ipynb)"
GOOD = f"""# Glossary

Words. A term in *italics* has an entry.

- **ANIL**: MAML in which only the last layer adapts, by *inner steps*.{LINK_6}
- **first-order MAML (FOMAML)**: MAML that leaves the Hessian out.{LINK_5}
- **inner step**: a gradient step on one task, from a shared start.{LINK_5}
"""


@pytest.mark.parametrize("name", CHECKS)
def test_nothing_is_wrong_with_a_good_glossary(name):
    assert CHECKS[name](GOOD) == []


BAD = {
    "no definition after the term": ("every_line_is_an_entry", "**inner step**: a", "**inner step** a"),
    "a bullet that is no entry": ("every_line_is_an_entry", "Words. A", "* Words. A"),
    "two words for a definition": ("every_term_is_defined", "MAML that leaves the Hessian out.", "MAML shortened."),
    "an unlinked term": ("every_term_is_linked_once", f"shared start.{LINK_5}", "shared start."),
    "a term linked twice": ("every_term_is_linked_once", f"shared start.{LINK_5}", f"shared start.{LINK_5}{LINK_5}"),
    "a link to a missing file": ("every_link_leads_to_a_lesson", "06_maml_from_scratch.ipynb", "06_gone.ipynb"),
    "a link to what is no lesson": (
        "every_link_leads_to_a_lesson",
        "../notebooks/06_maml_from_scratch.ipynb",
        "../README.md",
    ),
    "a link out of the project": ("every_link_leads_to_a_lesson", "../notebooks/06_", "https://example.org/06_"),
    "a link with another lesson's number": ("every_link_is_named_for_its_lesson", "[Lesson 6]", "[Lesson 8]"),
    "a term that its lesson has not": ("every_term_stands_in_its_lesson", "**ANIL**", "**Anglerfish**"),
    "a term inside another word": ("every_term_stands_in_its_lesson", "**inner step**", "**nner step**"),
    "a short form that its lesson has not": ("every_term_stands_in_its_lesson", "(FOMAML)", "(FIMAML)"),
    "a term of another lesson": ("every_term_stands_in_its_lesson", "**inner step**", "**reservoir sampling**"),
    "entries out of order": ("terms_are_in_order", "**ANIL**", "**Reptile**"),
    "a term twice": ("no_term_stands_twice", "**inner step**", "**anil**"),
    "a short form that is another's term": ("no_term_stands_twice", "**ANIL**", "**FOMAML**"),
    "italics without an entry": ("what_is_called_an_entry_is_one", "*inner steps*", "*outer steps*"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_found(case):
    name, old, new = BAD[case]
    assert old in GOOD
    assert CHECKS[name](GOOD.replace(old, new)) != []


# The teacher's page


@cache
def sections() -> frozenset[str]:
    """Return the numbers of all lessons' sections, such as 3.10."""
    found = set()
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(lesson, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found |= set(re.findall(r"^## (\d+\.\d+) ", text, re.MULTILINE))
    return frozenset(found)


def sections_that_are_not(text: str) -> list[str]:
    """Return the section numbers in a text's tables and lists that no lesson has; other decimals have a unit."""
    numbers = re.findall(r"(?<![\w.@=])((?:[1-9]|1[01])\.\d{1,2})(?![\d.]|\d* (?:GB|MB|times|hours|minutes)\b)", text)
    return [number for number in numbers if number not in sections()]


def links_that_lead_nowhere(text: str) -> list[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    wrong = []
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            wrong += [target] if target[1:] not in anchors else []
        elif "://" not in target and not (DOCS / target.partition("#")[0]).exists():
            wrong.append(target)
    return wrong


def lessons_without_a_part(text: str) -> list[str]:
    """Return the lessons that have no part of their own, with the minutes that their header gives."""
    wrong = []
    for lesson in sorted((ROOT / "notebooks").glob("*.ipynb")):
        minutes = re.search(r"\*\*Time\.\*\*\D*(\d+)", nbformat.read(lesson, as_version=4).cells[0].source)[1]
        if not re.search(rf"^### {int(lesson.name[:2])}\. .*\({minutes} min", text, re.MULTILINE):
            wrong.append(f"{lesson.name}, {minutes} min")
    return wrong


def test_the_teachers_page_names_what_there_is():
    assert sections_that_are_not(TEACHING) == []
    assert links_that_lead_nowhere(TEACHING) == []
    assert lessons_without_a_part(TEACHING) == []


def test_what_is_wrong_with_a_teachers_page_is_found():
    assert sections_that_are_not("| 1.1, 3.4 to 11.8 | 3.75 times, 3.5 GB, 10.6 GB |") == []
    assert sections_that_are_not("| 1.1, 3.99 to 11.99 |") == ["3.99", "11.99"]
    assert links_that_lead_nowhere("## A part\n[a](#a-part) [b](glossary.md) [c](https://example.org)") == []
    assert links_that_lead_nowhere("## A part\n[a](#no-part) [b](gone.md)") == ["#no-part", "gone.md"]
    assert "05_maml_math.ipynb, 34 min" in lessons_without_a_part(TEACHING.replace("MAML (34 min", "MAML (35 min"))
