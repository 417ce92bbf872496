"""Answers to the exercises on prompting: typical wrong ones, with words that their report must hold, and right ones."""

from __future__ import annotations

from rapidadapt_lessons.prompting.prompts import Template, build_prompt


def lines(query, support):
    return [*(f"{x} -> {y}" for x, y in support), f"{query} ->"]


def pops_the_support(query, support):
    text = ""
    while support:
        x, y = support.pop(0)
        text += f"{x} -> {y}\n"
    return text + f"{query} ->"


def with_format(query, support):
    pattern = "\n".join([*(f"{x} -> {y}" for x, y in support), "{query} ->"])
    return pattern.format(query=query)


def share(right):
    return lambda texts, answers: sum(map(right, texts, answers)) / len(answers)


def first_line(text):
    return text.split("\n")[0]


def word_by_word(texts, answers):
    right = 0
    for i in range(len(texts)):
        line, _, _ = texts[i].partition("\n")
        right += int(line.strip(" ") == answers[i])
    return right / len(texts)


def in_place(probabilities, prior):
    probabilities /= prior
    return probabilities / probabilities.sum(-1, keepdim=True)


def row_by_row(probabilities, prior):
    weights = 1 / prior
    rows = probabilities * weights
    return rows / rows.sum(1)[:, None]


WRONG = {
    "prompting.template": {
        "a space at the end": (lambda q, s: "\n".join(lines(q, s)) + " ", "a space is left after the last arrow"),
        "a line break at the end": (lambda q, s: "".join(f"{line}\n" for line in lines(q, s)), "a line break is left"),
        "reversed examples": (lambda q, s: "\n".join(lines(q, s[::-1])), "reversed order"),
        "the query first": (lambda q, s: "\n".join([f"{q} ->", *lines(q, s)[:-1]]), "has to come last"),
        "no line breaks": (lambda q, s: " ".join(lines(q, s)), "run into each other"),
        "the last line stuck on": (
            lambda q, s: "\n".join(lines(q, s)[:-1]) + f"{q} ->",
            "between the last example and",
        ),
        "no examples": (lambda q, s: f"{q} ->", "the examples are missing"),
        "begins with a line break": (lambda q, s: "\n" + "\n".join(lines(q, s)), "begins with a line break"),
        "a list": (lines, "one text (a str)"),
        "the support is emptied": (pops_the_support, "belongs to the caller"),
        "str.format": (with_format, "braces"),
    },
    "prompting.exact_match": {
        "the whole text": (share(lambda t, a: t.strip() == a), "Cut each text at its first line break"),
        "not stripped": (share(lambda t, a: first_line(t) == a), "Strip the line"),
        "begins with": (share(lambda t, a: t.strip().startswith(a)), "Compare with =="),
        "a kind reader": (share(lambda t, a: first_line(t).strip().rstrip(".,!") == a), "a full stop was taken away"),
        "contains": (share(lambda t, a: a in t), "not with `in`"),
        "small letters": (share(lambda t, a: first_line(t).strip().lower() == a.lower()), "capitals"),
        "stripped before cutting": (share(lambda t, a: first_line(t.strip()) == a), "Cut first, then strip"),
        "the first word": (share(lambda t, a: (first_line(t).split() or [""])[0] == a), "only the first word"),
        "a count": (lambda t, a: sum(first_line(x).strip() == y for x, y in zip(t, a)), "number of right answers"),
        "a percentage": (lambda t, a: 100 * word_by_word(t, a), "percentage"),
        "true or false": (lambda t, a: [first_line(x).strip() == y for x, y in zip(t, a)], "a single number"),
    },
    "prompting.calibrate": {
        "not normalised": (lambda p, c: p / c, "do not sum to 1"),
        "normalised by columns": (lambda p, c: p / c / (p / c).sum(0), "Each query is a row"),
        "multiplied": (lambda p, c: p * c / (p * c).sum(-1, keepdim=True), "a second time"),
        "subtracted": (lambda p, c: (p - c) / (p - c).sum(-1, keepdim=True), "subtracted"),
        "softmax": (lambda p, c: (p / c).softmax(-1), "softmax"),
        "unchanged": (lambda p, c: p, "nothing has changed"),
        "upside down": (lambda p, c: c / p / (c / p).sum(-1, keepdim=True), "the other way round"),
        "in place": (in_place, "change the caller's tensor"),
        "a list": (lambda p, c: (p / c).tolist(), "give back a tensor"),
    },
}

ALSO_RIGHT = {
    "prompting.template": lambda q, s: build_prompt(q, s, Template("{x} -> {y}")).text,
    "prompting.exact_match": word_by_word,
    "prompting.calibrate": row_by_row,
}
