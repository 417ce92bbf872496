"""Hold the lessons to their budgets: how much there is to read, to look at and to do, and how sentences are made.

    python tools/lesson_budget.py              check every lesson (part of `make lint`)
    python tools/lesson_budget.py NOTEBOOK     list all that this lesson breaks, whatever its exceptions
    python tools/lesson_budget.py --report     print a table of every rule and lesson
    python tools/lesson_budget.py --write      lower the exceptions to what is measured; never raise one

A lesson not yet rewritten has exceptions in tools/lesson_budget.toml, the measure of each rule that it breaks. It may
not get worse than that; where it gets better, the exception has to follow.

Prose is paragraphs and list items, each piece of code or mathematics in them one word. Not counted are fold-outs,
headings, tables, displayed mathematics, code, comments, and references. The time is 200 words a minute, a minute per
code cell that does more than show a schematic, and 3 minutes per exercise inside: a section called Your turn or
Playground that has code, or one with controls (`explore`). Outputs are judged once every cell has been run.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from lesson_parts import (
    Takeaway,
    Text,
    count_words,
    figures,
    number,
    parentheses,
    plain,
    sentences,
    takeaways_among,
    texts,
    verdicts,
)

ROOT = Path(__file__).resolve().parents[1]
EXCEPTIONS = "tools/lesson_budget.toml"
HEADER = "# What lessons not yet rewritten break, measured. It only shrinks: python tools/lesson_budget.py --write\n"
SHORTEST, LONG_SENTENCE, LONG_PARENTHESIS = 20, 40, 12  # minutes, words, words
PHRASES = {
    r"helps hardly|hardly helps": "barely helps",
    r"is mostly more than": "is usually more than",
    r"nats a token": "nats per token",
    r"seconds a step": "seconds per step",
    r"true answers?": "correct answer",
    r"what stands before": "the factor in front of",
    r"with springs": "with EWC",
    r"under your hands": "try it yourself",
    r"(?:it is|you are) told": "the report says",
    r"signs for": "claims",
    r"do you believe it": "a question that can be guessed at",
    r"within one query of the best": "statistically tied with the best",
}


@dataclass(frozen=True)
class Rule:
    """What is measured, the most that is allowed, what to do about more, and whether stored outputs decide it."""

    what: str
    most: int
    remedy: str
    outputs: bool = False


RULES = {
    "words": Rule("words of prose", 2000, "cut, fold caveats away, or split the lesson"),
    "figures": Rule("figures", 10, "keep those that answer a question", outputs=True),
    "no_schematic": Rule("schematics missing", 0, 'draw the idea; its alt text begins with "Diagram."', outputs=True),
    "late_figure": Rule("no figure in the first third", 0, "put the one to remember there", outputs=True),
    "minutes": Rule("minutes", 35, "cut, or split the lesson"),
    "too_short": Rule(f"minutes short of {SHORTEST}", 0, "join it with another lesson, or give more to do"),
    "time_off": Rule("minutes between stated and estimated", 5, 'write the estimate: "**Time.** N minutes"'),
    "parentheses": Rule("paragraphs with many parentheses", 0, "keep one, and make sentences of the others"),
    "long_parentheses": Rule("long parentheses", 0, "make it a sentence, or fold it away"),
    "long_sentences": Rule("long sentences", 0, "make it two"),
    "phrases": Rule("phrases that read like a translation", 0, "say it as a teacher would"),
    "takeaways": Rule("sections without one takeaway", 0, "write one paragraph that is bold as a whole"),
    "verdicts": Rule("cells that print True or False", 0, "print the two numbers that agree", outputs=True),
    "alt_text": Rule("cells that write alt text", 0, "let a function of the package describe the figure"),
}


@dataclass(frozen=True)
class Fault:
    """What breaks a rule, and in which section."""

    rule: str
    section: str
    what: str


@dataclass(frozen=True)
class Lesson:
    """A lesson's measure of each rule, all its faults, and what else the report tells."""

    name: str
    measured: dict[str, int]
    faults: list[Fault]
    facts: dict[str, str]


def measure(notebook: Path) -> Lesson:
    """Return a lesson's measures; of the rules about outputs only where every cell has been run."""
    cells = nbformat.read(notebook, as_version=4).cells
    written = list(texts(cells))
    prose = [text for text in written if text.kind == "prose"]
    code = {i: cell for i, cell in enumerate(cells) if cell.cell_type == "code" and cell.source.strip()}
    sections = {i: next((text.section for text in reversed(written) if text.cell < i), "header") for i in code}
    hands_on = [re.search("Your turn|Playground", sections[i]) or "explore(" in code[i].source for i in code]
    exercises = list(dict.fromkeys(section for section, on in zip(sections.values(), hands_on) if on))
    words = sum(count_words(text.words) for text in prose)
    only_shown = re.compile(r"(?:from .* import .*\n+)*schematic\(.*\)")
    worked = sum(not only_shown.fullmatch(cell.source.strip()) for cell in code.values())
    minutes = round(words / 200 + worked + 3 * len(exercises))
    stated = next((int(time[1]) for text in prose if (time := re.match(r"Time\.\D*(\d+)", text.words))), 0)
    drawn = sorted(figures(cells, written))

    sizes = {
        "words": words,
        "figures": len(drawn),
        "minutes": minutes,
        "too_short": 0 if notebook.stem.startswith("00") else max(0, SHORTEST - minutes),  # the start page may be
        "time_off": abs(stated - minutes),
    }
    spent = f"{words} words, {worked} code cells, exercises: {', '.join(exercises) or 'none'}"
    why = {"minutes": f" ({spent})", "time_off": f": {stated or 'none'} stated, {minutes} estimated ({spent})"}
    faults = [
        Fault(rule, "all", f"{size} {RULES[rule].what}{_over(size, rule)}{why.get(rule, '')}")
        for rule, size in sizes.items()
        if size > RULES[rule].most
    ]
    faults += [*of_figures(drawn, len(cells)), *of_takeaways(takeaways_among(written, notebook.stem), written)]
    faults += [fault for i, cell in code.items() for fault in of_code(i, cell, sections[i])]
    faults += [fault for text in written for fault in of_style(text)]

    measured = {rule: sizes.get(rule, sum(fault.rule == rule for fault in faults)) for rule in RULES}
    if unrun := sum(cell.execution_count is None for cell in code.values()):
        measured = {rule: value for rule, value in measured.items() if not RULES[rule].outputs}
    faults = [fault for fault in faults if fault.rule in measured]
    facts = {"minutes stated": f"{stated or 'none'}", "code cells": f"{worked}", "cells not run": f"{unrun}"}
    return Lesson(notebook.stem, measured, faults, facts | {"exercises": ", ".join(exercises) or "none"})


def of_figures(drawn: list[tuple[int, str]], cells: int) -> Iterator[Fault]:
    """Yield what is wrong with the figures, given as cell and description in order, of so many cells."""
    if not any(alt.startswith(("Diagram", "Schematic")) for _, alt in drawn):
        yield Fault("no_schematic", "all", f"none of {len(drawn)} figures is a schematic, 1 too few")
    if not drawn or 3 * drawn[0][0] > cells:
        first = f"the first is in cell {drawn[0][0]} of {cells}" if drawn else "there is none"
        yield Fault("late_figure", "all", f"no figure in the first third: {first}")


def of_takeaways(found: list[Takeaway], written: list[Text]) -> Iterator[Fault]:
    """Yield the numbered sections that have no takeaway, or several."""
    held = [takeaway.section for takeaway in found if takeaway.bold]
    for section in dict.fromkeys(text.section for text in written if number(text.section)):
        if (count := held.count(number(section))) != 1:
            over = f"{count - 1} too many" if count else "1 too few"
            yield Fault("takeaways", section, f"{count} bold takeaways, {over}")


def of_code(i: int, cell: nbformat.NotebookNode, section: str) -> Iterator[Fault]:
    """Yield what is wrong with a code cell and its outputs."""
    if "Picture(" in cell.source:
        yield Fault("alt_text", section, f"cell {i} writes alt text by hand, in Picture(...)")
    if said := next(verdicts(cell), None):
        yield Fault("verdicts", section, f"cell {i} prints {_start(said)}")


def of_style(text: Text) -> Iterator[Fault]:
    """Yield what is wrong with the sentences of one text: phrases everywhere, lengths in prose."""
    for pattern, better in PHRASES.items():
        for found in re.finditer(rf"\b(?:{pattern})\b", text.words, flags=re.IGNORECASE):
            yield Fault("phrases", text.section, f"{found[0]!r}, rather {better!r}")
    if text.kind != "prose":
        return
    asides = parentheses(text.words)
    if len(asides) > 1:
        over = f"{len(asides)} parentheses in a paragraph, {len(asides) - 1} too many"
        yield Fault("parentheses", text.section, f"{over}: {_start(plain(text.token))}")
    for rule, name, most, pieces in (
        ("long_parentheses", "parenthesis", LONG_PARENTHESIS, asides),
        ("long_sentences", "sentence", LONG_SENTENCE, sentences(text.words)),
    ):
        for piece in pieces:
            if (count := count_words(piece)) > most:
                over = f"a {name} of {count} words, {count - most} too many"
                yield Fault(rule, text.section, f"{over}: {_start(piece)}")


def lowered(lessons: list[Lesson], exceptions: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Return the exceptions that are still needed, none larger than it was. What was not measured stays."""
    kept = {
        lesson.name: {
            rule: least
            for rule, value in exceptions.get(lesson.name, {}).items()
            if rule in RULES and (least := min(value, lesson.measured.get(rule, value))) > RULES[rule].most
        }
        for lesson in lessons
    }
    return {name: rules for name, rules in kept.items() if rules}


def judged(lessons: list[Lesson], exceptions: dict[str, dict[str, int]]) -> list[str]:
    """Return a line for each fault that no exception covers, and for each exception that is larger than needed."""
    lines = []
    for lesson in lessons:
        allowed = exceptions.get(lesson.name, {})
        for rule, value in lesson.measured.items():
            if value > max(RULES[rule].most, allowed.get(rule, 0)):
                if rule in allowed:
                    lines.append(f"{lesson.name}: {rule} got worse, {value} against the {allowed[rule]} excepted:")
                lines += [
                    f"notebooks/{lesson.name}.ipynb: {fault.section}: {fault.what}. What to do: {RULES[rule].remedy}."
                    for fault in lesson.faults
                    if fault.rule == rule
                ]
    kept = lowered(lessons, exceptions)
    for name, rules in exceptions.items():
        for rule, value in rules.items():
            if (needed := kept.get(name, {}).get(rule)) != value:
                do = f"lower the exception to {needed}" if needed else "remove the exception"
                lines.append(f"{EXCEPTIONS}: {name}: {rule} = {value} is more than needed. What to do: {do} (--write).")
    return lines


def report(lessons: list[Lesson]) -> str:
    """Return a table with a line for each rule and a column for each lesson, * where a measure is too large."""
    rows = [["", *(lesson.name[:2] for lesson in lessons), "at most"]]
    for rule, limit in RULES.items():
        values = [lesson.measured.get(rule, "?") for lesson in lessons]
        cells = [f"{value}*" if value != "?" and value > limit.most else f"{value}" for value in values]
        rows.append([f"{limit.what} ({rule})", *cells, f"{limit.most}"])
    for fact in ("minutes stated", "code cells", "cells not run"):
        rows.append([fact, *(lesson.facts[fact] for lesson in lessons), ""])
    lines = [f"{name:<56}" + "".join(f"{value:>8}" for value in values) for name, *values in rows]
    return "\n".join([*lines, *(f"{lesson.name}: exercises: {lesson.facts['exercises']}" for lesson in lessons)])


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Check, print what is wrong, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--report", action="store_true")
    group.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    lessons = [measure(path) for path in options.notebooks or sorted(root.glob("notebooks/*.ipynb"))]
    if options.report:
        print(report(lessons))
        return 0
    exceptions = {} if options.notebooks else tomllib.loads((root / EXCEPTIONS).read_text(encoding="utf-8"))
    if options.write and not options.notebooks:
        exceptions = lowered(lessons, exceptions)
        tables = (
            f"\n[{name}]\n" + "".join(f"{r} = {n}\n" for r, n in rules.items()) for name, rules in exceptions.items()
        )
        (root / EXCEPTIONS).write_text(HEADER + "".join(tables), encoding="utf-8")
    lines = judged(lessons, exceptions)
    print("\n".join([*lines, f"lesson budget: {len(lessons)} lessons, {len(lines)} lines to look at"]))
    return int(bool(lines))


def _over(size: int, rule: str) -> str:
    return f", {size - most} too many" if (most := RULES[rule].most) else ""


def _start(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
