"""Grade a prompt by what it does: the model answers queries behind it, and right answers are counted.

A prompt here is a text with {x} where a query goes; the model goes on from its end. What is right is decided as in the
lessons: the model writes exactly the answer (`scoring.exact_matches`), or gives the right label the highest probability
(`answers.label_scores`). How the prompt is worded does not matter, only that it keeps to a budget of tokens and does
not hold what it is asked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..errors import BadPrompt
from ..lm.tasks import Example
from ..lm.types import Model, Tokenizer
from ..prompting.answers import label_scores, text_probabilities
from ..prompting.prompts import Prompt
from ..prompting.scoring import count_tokens, exact_matches, generate_answers, score_continuations

PLACE = "{x}"
SHOWN = 5  # mistakes that are shown
_WRITTEN = 12  # tokens that the model may write to show a mistake


@dataclass(frozen=True)
class Assignment:
    """What a prompt has to do.

    Attributes:
        name: its exercise, such as "prompts.capitals".
        held_out: the queries that count. Notebooks do not show them.
        practice: queries to try a prompt on, all of them others.
        budget: how many tokens the prompt may have, the query not counted.
        needed: how many held-out queries have to be right; with labels, how many of each label.
        labels: the answers to choose from; empty where the model writes the answer itself.
        orders: phrases that stand in the held-out queries, and must not be in the prompt either.
    """

    name: str
    held_out: tuple[Example, ...]
    practice: tuple[Example, ...]
    budget: int
    needed: int
    labels: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()

    def secret(self, query: Example) -> str:
        """Return what a prompt must not hold for this query: its answer, or, with labels, the query itself."""
        return query.x if self.labels else query.y


@dataclass(frozen=True)
class Mistake:
    """A query that was answered wrongly.

    Attributes:
        x: the query.
        wanted: the right answer.
        said: what the model wrote, up to the end of the line, or the label it preferred.
        probability: what the model gave the right answer: of all texts, or, with labels, of the labels.
    """

    x: str
    wanted: str
    said: str
    probability: float

    def __str__(self) -> str:
        chance = "under 0.01" if self.probability < 0.01 else f"{self.probability:.2f}"
        return f"{self.x!r}: wanted {self.wanted!r} (probability {chance}), the model said {self.said!r}"


@dataclass(frozen=True)
class Grade:
    """What a prompt achieved. The last expression of a notebook cell shows it; `print` writes it as text.

    Attributes:
        tokens: how many the prompt has, the query not counted.
        budget: how many it may have.
        right: right answers; with labels, those of each label.
        asked: queries asked, by the same names.
        mistakes: the worst, those first whose right answer the model thought least probable; at most SHOWN.
        unfinished: wrong answers in which the model wrote the right one first, and then went on in the same line.
        note: what else to know, or "".
    """

    tokens: int
    budget: int
    right: dict[str, int]
    asked: dict[str, int]
    mistakes: tuple[Mistake, ...]
    unfinished: int = 0
    note: str = ""

    @property
    def accuracy(self) -> float:
        """The share of right answers, from 0 to 1."""
        return sum(self.right.values()) / sum(self.asked.values())

    @property
    def counts(self) -> str:
        """Right answers in words: "12 of 20", or "negative 9 of 10, positive 3 of 10"."""
        return ", ".join(f"{name} {self.right[name]} of {n}".strip() for name, n in self.asked.items())

    def enough(self, needed: int) -> bool:
        """Say whether so many are right; with labels, so many of each."""
        return min(self.right.values()) >= needed

    @property
    def _headline(self) -> str:
        over = "" if self.tokens <= self.budget else ": too many"
        return f"Right: {self.counts}. Tokens: {self.tokens} of {self.budget}{over}."

    def __repr__(self) -> str:
        worst = ["The worst mistakes:", *(f"  {mistake}" for mistake in self.mistakes)] if self.mistakes else []
        return "\n".join([self._headline, *worst, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left;padding:1px 12px 1px 0'>"
        heads = "".join(f"<th style='text-align:left'>{head}</th>" for head in ("query", "wanted", "the model said"))
        rows = "".join(
            "<tr>" + "".join(f"{cell}{escape(text) or '(nothing)'}</td>" for text in (m.x, m.wanted, m.said)) + "</tr>"
            for m in self.mistakes
        )
        table = f"<div>The worst mistakes:</div><table><tr>{heads}</tr>{rows}</table>" if self.mistakes else ""
        note = f"<div><i>{escape(self.note)}</i></div>" if self.note else ""
        return f"<div role='status'><b>{escape(self._headline)}</b>{table}{note}</div>"


def grade(model: Model, tokenizer: Tokenizer, prompt: str, assignment: Assignment) -> Grade:
    """Ask the held-out queries behind a prompt, and count what is right. The same prompt gets the same grade.

    Raises:
        BadPrompt: the prompt is no text with a place for the query, holds what it is asked for, or has more tokens
            than the budget allows.
    """
    require_form(prompt)
    require_nothing_given_away(prompt, assignment)
    require_budget(tokenizer, prompt, assignment)
    return _ask(model, tokenizer, prompt, assignment, assignment.held_out)


def practise(model: Model, tokenizer: Tokenizer, prompt: str, assignment: Assignment) -> Grade:
    """Ask the practice queries behind a prompt. Those that the prompt itself gives away are left out.

    A prompt over the budget is tried too, and its tokens are told.

    Raises:
        BadPrompt: the prompt is no text with a place for the query, or gives all practice queries away.
    """
    require_form(prompt)
    known = _held(prompt, [assignment.secret(query) for query in assignment.practice])
    queries = [query for query in assignment.practice if assignment.secret(query) not in known]
    if not queries:
        raise BadPrompt("the prompt holds the answers to all practice queries.", "leave some of them to be asked.")
    left_out = len(assignment.practice) - len(queries)
    note = f"{left_out} practice queries were not asked, because they are in the prompt." if left_out else ""
    return _ask(model, tokenizer, prompt, assignment, queries, note)


def require_form(prompt: Any) -> None:
    """Raise `BadPrompt` unless this is a text with a place for the query."""
    if not isinstance(prompt, str):
        raise BadPrompt(f"the prompt is a {type(prompt).__name__} and not a text: {prompt!r:.60}.", "give one str.")
    if not prompt.strip():
        raise BadPrompt(f"the prompt is empty ({prompt!r}).", f"write a text with {PLACE} where the query goes.")
    if PLACE not in prompt:
        braces = re.search(r"\{\w*\}", prompt)
        seen = f"there is {braces[0]}, but no {PLACE}," if braces else f"there is no {PLACE}"
        raise BadPrompt(
            f"{seen} in {_short(prompt)!r}.",
            f"put {PLACE}, just so, where the query goes. In an f-string, Python fills it itself: leave out the f.",
        )


def require_nothing_given_away(prompt: str, assignment: Assignment) -> None:
    """Raise `BadPrompt` when a prompt holds the answers to held-out queries, or, with labels, the queries themselves.

    Whole words count, in capitals or not: "toes" is not found in "potatoes".
    """
    secrets = [assignment.secret(query) for query in assignment.held_out]
    what = "held-out queries" if assignment.labels else "answers to held-out queries"
    for kind, phrases in ((what, secrets), ("phrases of the held-out queries", list(assignment.orders))):
        if found := _held(prompt, phrases):
            told = ", ".join(repr(phrase) for phrase in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
            raise BadPrompt(
                f"refused: {kind} stand in the prompt ({told}).",
                "take others. A model that is told what it will be asked only has to copy, and its score says nothing "
                "about other queries. If it is by chance: any other word will do.",
            )


def require_budget(tokenizer: Tokenizer, prompt: str, assignment: Assignment) -> int:
    """Return how many tokens a prompt has, the query not counted.

    Raises:
        BadPrompt: they are more than the budget allows.
    """
    tokens = _tokens(tokenizer, prompt)
    if tokens > assignment.budget:
        raise BadPrompt(
            f"the prompt has {tokens} tokens, the query not counted; the budget is {assignment.budget}.",
            f"save {tokens - assignment.budget}. Words that change no answer are the first to go.",
        )
    return tokens


def _tokens(tokenizer: Tokenizer, prompt: str) -> int:
    return count_tokens(tokenizer, prompt.replace(PLACE, ""))


def _held(prompt: str, phrases: Sequence[str]) -> list[str]:
    """Return the phrases that stand in a prompt as whole words, each once."""
    text = _plain(prompt)
    whole = (phrase for phrase in phrases if re.search(rf"(?<!\w){re.escape(_plain(phrase))}(?!\w)", text))
    return list(dict.fromkeys(whole))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _filled(prompt: str, query: Example) -> Prompt:
    """Put a query in. An answer begins with a space, unless the prompt ends with white space of its own."""
    return Prompt(prompt.replace(PLACE, query.x), answer_prefix="" if prompt[-1].isspace() else " ")


def _ask(
    model: Model, tokenizer: Tokenizer, prompt: str, assignment: Assignment, queries: Sequence[Example], note: str = ""
) -> Grade:
    prompts = [_filled(prompt, query) for query in queries]
    unfinished = 0
    if assignment.labels:
        verdicts, mistakes = _choose(model, tokenizer, prompts, queries, assignment.labels)
    else:
        verdicts, mistakes, unfinished = _write(model, tokenizer, prompts, queries)
    groups = [query.y if assignment.labels else "" for query in queries]
    asked = {name: groups.count(name) for name in assignment.labels or ("",) if name in groups}
    right = {name: sum(ok for ok, group in zip(verdicts, groups) if group == name) for name in asked}
    return Grade(_tokens(tokenizer, prompt), assignment.budget, right, asked, tuple(mistakes), unfinished, note)


def _choose(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], queries: Sequence[Example], labels: Sequence[str]
) -> tuple[list[bool], list[Mistake]]:
    """Let the model choose among labels."""
    table = label_scores(model, tokenizer, prompts, labels)
    said = [labels[i] for i in table.argmax(-1).tolist()]
    wrong = [
        Mistake(query.x, query.y, label, float(row[labels.index(query.y)]))
        for query, label, row in zip(queries, said, table)
        if label != query.y
    ]
    return [label == query.y for query, label in zip(queries, said)], _worst(wrong)


def _write(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], queries: Sequence[Example]
) -> tuple[list[bool], list[Mistake], int]:
    """Let the model write its answers. Only those that are shown are really generated (see `exact_matches`).

    Returns which are right, the worst mistakes, and how many are right but for their end.
    """
    verdicts = exact_matches(model, tokenizer, prompts, [query.y for query in queries])
    missed = [(p, query) for p, query, verdict in zip(prompts, queries, verdicts) if not verdict]
    scores = score_continuations(model, tokenizer, [(p.text, p.answer_prefix + query.y) for p, query in missed])
    unfinished = sum(bool(scored.greedy.all()) for scored in scores)
    chances = text_probabilities(model, tokenizer, [p for p, _ in missed], [query.y for _, query in missed])
    worst = sorted(zip(chances, missed), key=lambda item: item[0])[:SHOWN]
    shown = [p for _, (p, _) in worst]
    said = generate_answers(model, tokenizer, shown, max_new_tokens=_WRITTEN) if shown else []
    return verdicts, [Mistake(q.x, q.y, text, chance) for (chance, (_, q)), text in zip(worst, said)], unfinished


def _worst(mistakes: Sequence[Mistake]) -> list[Mistake]:
    return sorted(mistakes, key=lambda mistake: mistake.probability)[:SHOWN]
