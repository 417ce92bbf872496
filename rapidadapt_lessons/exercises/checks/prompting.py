"""The checks of the exercises on prompting (lesson 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compare import Learner, Test, require, require_same

_PLURALS = [("cat", "cats"), ("box", "boxes"), ("leaf", "leaves")]


def _prompt(query: str, support: list[tuple[str, str]]) -> str:
    return "\n".join([*(f"{x} -> {y}" for x, y in support), f"{query} ->"])


def _template_slips(query: str, support: list[tuple[str, str]]) -> list[tuple[Any, str]]:
    right = _prompt(query, support)
    lines = right.split("\n")
    with_nothing = "\n".join([*lines[:-1], f"{query} -> "])
    return [
        (
            with_nothing,
            "a space is left after the last arrow. The model's words begin with their own space, so it would see two.",
        ),
        (right + "\n", "a line break is left at the end, so the model is asked for a new line and not for the answer."),
        ("\n" + right, "the text begins with a line break."),
        (
            "\n".join([lines[-1], *lines[:-1]]),
            "the query has to come last: the model goes on from the end of the text.",
        ),
        (_prompt(query, support[::-1]), "the examples stand in reversed order: keep the order that was given."),
        ("\n".join(lines[:-1]) + lines[-1], "there is no line break between the last example and the query."),
        (" ".join(lines), "the lines run into each other: put a line break between them."),
        ("".join(lines), "the lines run into each other: put a line break between any two."),
        (lines[-1], "the examples are missing: only the query is there."),
        ("\n".join(lines[:-1]), "the query is missing: only the examples are there."),
        (
            right.replace(" -> ", "->").replace(" ->", "->"),
            "the arrow's spaces are missing: it is ' -> ', with a space on both sides.",
        ),
    ]


def _prompt_is(f: Learner, query: str, support: list[tuple[str, str]]) -> None:
    came = f(query, [*support])
    otherwise = "compare the two character by character: print(repr(your_prompt)) shows spaces and line breaks."
    call = f"few_shot_prompt({query!r}, {support!r})"
    require_same(came, _prompt(query, support), call, _template_slips(query, support), otherwise)


def _without_examples(f: Learner) -> None:
    _prompt_is(f, "fox", [])


def _with_one_example(f: Learner) -> None:
    _prompt_is(f, "fox", _PLURALS[:1])


def _with_three_examples(f: Learner) -> None:
    _prompt_is(f, "fox", _PLURALS)


def _with_braces(f: Learner) -> None:
    query, support = "{x} {0}", [("a {y}", "b {z}")]
    try:
        came = f(query, [*support])
    except (KeyError, IndexError, ValueError) as error:
        came = f"{type(error).__name__}: {error}"
    why = "the inputs hold braces of their own, which str.format takes for places to fill. Use an f-string, or +."
    call = f"few_shot_prompt({query!r}, {support!r})"
    require_same(came, _prompt(query, support), call, [], why)


def _support_is_kept(f: Learner) -> None:
    support = list(_PLURALS)
    f("fox", support)
    require(
        support == _PLURALS, f"few_shot_prompt('fox', support) with support = {_PLURALS!r}", "support left as it was",
        f"support = {support!r}", "the list belongs to the caller: build a new one in place of `append` or `pop`.",
    )  # fmt: skip


def _share(texts: list[str], answers: list[str], right: Callable[[str, str], bool]) -> float:
    return sum(right(text, answer) for text, answer in zip(texts, answers)) / len(answers)


def _first_line(text: str) -> str:
    return text.split("\n")[0]


def _score_is(f: Learner, texts: list[str], answers: list[str]) -> None:
    right = _share(texts, answers, lambda t, a: _first_line(t).strip() == a)
    slips = [
        (
            _share(texts, answers, lambda t, a: _first_line(t.strip()) == a),
            "the text is stripped before it is cut, so a first line that is empty gets lost. Cut first, then strip.",
        ),
        (
            right * len(answers),
            "this is the number of right answers. The score is their share: divide by how many there are.",
        ),
        (
            _share(texts, answers, lambda t, a: _first_line(t).strip().strip(".,;:!?") == a),
            "a full stop was taken away before comparing. For exact match 'foxes.' is not 'foxes'.",
        ),
        (right * 100, "this is a percentage. The score is a share between 0 and 1."),
        (
            _share(texts, answers, lambda t, a: t.strip() == a),
            "the text after the answer's line counts too. Cut each text at its first line break.",
        ),
        (
            _share(texts, answers, lambda t, a: _first_line(t) == a),
            "the space before the answer is still there. Strip the line before you compare.",
        ),
        (
            _share(texts, answers, lambda t, a: _first_line(t).strip().startswith(a)),
            "an answer that only begins like the true one, or goes on after it, is counted as right. Compare with ==.",
        ),
        (
            _share(texts, answers, lambda t, a: a in _first_line(t)),
            "an answer that only contains the true one is counted as right. Compare with ==, and not with `in`.",
        ),
        (
            _share(texts, answers, lambda t, a: a in t),
            "the true answer is found somewhere in all that the model wrote. Cut at the line break, and "
            "compare with ==.",
        ),
        (
            _share(texts, answers, lambda t, a: _first_line(t).strip().lower() == a.lower()),
            "capitals are taken for small letters. Exact match counts 'paris' for 'Paris' as wrong.",
        ),
        (
            _share(texts, answers, lambda t, a: (_first_line(t).split() or [""])[0] == a),
            "only the first word of the line is compared: an answer may have several.",
        ),
    ]
    call = f"exact_match({texts!r}, {answers!r})"
    otherwise = "score the texts one by one, by hand, and see with which of them you disagree."
    require_same(f([*texts], [*answers]), right, call, slips, otherwise)


def _one_right(f: Learner) -> None:
    _score_is(f, [" cats"], ["cats"])


def _cut_at_the_line(f: Learner) -> None:
    _score_is(
        f, [" cats\nfox -> foxes\n", " boxs\n", " men\nwoman -> women", " leaves"], ["cats", "boxes", "men", "leaves"]
    )


def _near_misses(f: Learner) -> None:
    texts = [" catsuit\n", " the cats\n", " oxen, all", " geese\n", " mouses", " foxes."]
    _score_is(f, texts, ["cats", "cats", "oxen", "geese", "mice", "foxes"])


def _later_lines(f: Learner) -> None:
    _score_is(f, [" box\nboxes", "\nmice", " men"], ["boxes", "mice", "men"])


def _capitals(f: Learner) -> None:
    _score_is(f, [" paris\n", " Rome\n", " Oslo", " Bern\n"], ["Paris", "Rome", "Oslo", "Bonn"])


def _several_words(f: Learner) -> None:
    _score_is(f, [" twenty one\n", " New Delhi", " ten", " six"], ["twenty one", "New Delhi", "ten", "two"])


CHECKS: dict[str, dict[str, Test]] = {
    "prompting.template": {
        "without examples, the query alone": _without_examples,
        "one example and the query": _with_one_example,
        "three examples, in their order": _with_three_examples,
        "braces in the learner's text stay as they are": _with_braces,
        "the list of examples is left as it was": _support_is_kept,
    },
    "prompting.exact_match": {
        "one right answer gives 1": _one_right,
        "an answer ends with its line": _cut_at_the_line,
        "near misses are misses": _near_misses,
        "what comes on later lines does not count": _later_lines,
        "capital letters count": _capitals,
        "an answer may have several words": _several_words,
    },
}
