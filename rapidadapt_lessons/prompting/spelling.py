"""What school grammar alone makes of a word: the rule that a prompt has to beat."""

from __future__ import annotations

import re

SHORT_SYLLABLE = re.compile(r"[^aeiou]*[aeiou][bcdfgklmnprtz]")  # "stop" doubles its last letter, "look" does not


def spelling_rule(task_name: str, word: str) -> str:
    """Return a word with the regular ending of "plurals", "past_tense" or "superlatives", and the word itself for any
    other task."""
    if task_name == "plurals":
        if word.endswith(("s", "x", "z", "ch", "sh")):
            return word + "es"
        return _y_to_i(word) + ("es" if _y_to_i(word) != word else "s")
    if task_name in ("past_tense", "superlatives"):
        ending = "ed" if task_name == "past_tense" else "est"
        if SHORT_SYLLABLE.fullmatch(word):
            return word + word[-1] + ending
        return _y_to_i(word).removesuffix("e") + ending
    return word


def _y_to_i(word: str) -> str:
    return re.sub(r"(?<=[^aeiou])y$", "i", word)
