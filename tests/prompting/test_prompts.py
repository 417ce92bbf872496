"""The text of prompts: exact, and safe with whatever a learner types."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapidadapt_lessons.errors import BadPrompt, CourseError, NotEnoughExamples
from rapidadapt_lessons.lm.tasks import Example, list_tasks, load_task
from rapidadapt_lessons.prompting.prompts import (
    ARROW,
    CHAT,
    INPUT_OUTPUT,
    QA,
    NearestExamples,
    Prompt,
    Template,
    build_prompt,
    build_prompts,
    chat_prompt,
    reorder,
    task_prompts,
    template_of,
    templates_for,
)

SHOTS = (Example("cat", "cats"), Example("box", "boxes"))
texts = st.text(min_size=1).filter(str.strip)
examples = st.builds(Example, texts, st.text())


# Templates


@pytest.mark.parametrize(
    "pattern",
    ["", "{x}", "{y}", "no holes", "{x} {x} {y}", "{x} {y} {y}", "{y} <- {x}", "{x} -> {y}.", "{x} -> {y} ", "{X} {y}"],
)
def test_a_faulty_pattern_is_told_with_its_text(pattern):
    with pytest.raises(BadPrompt) as caught:
        Template(pattern)
    assert repr(pattern) in caught.value.problem
    assert "{x} -> {y}" in caught.value.remedy


@pytest.mark.parametrize("separator", ["", " ", "; ", " \n"])
def test_a_separator_without_a_line_break_in_front_is_told(separator):
    with pytest.raises(BadPrompt) as caught:
        Template(separator=separator)
    assert repr(separator) in caught.value.problem
    assert "\\n" in caught.value.remedy


@pytest.mark.parametrize(
    ("template", "query", "shot", "answer"),
    [
        (ARROW, "cat ->", "cat -> cats", " cats"),
        (QA, "Q: cat\nA:", "Q: cat\nA: cats", " cats"),
        (INPUT_OUTPUT, "Input: cat\nOutput:", "Input: cat\nOutput: cats", " cats"),
        (Template("{x}={y}"), "cat=", "cat=cats", "cats"),
        (Template("{x}:\n{y}"), "cat:\n", "cat:\ncats", "cats"),
        (Template("{x} is  {y}"), "cat is", "cat is  cats", "  cats"),
        (Template("{one} {} {x} {y}"), "{one} {} cat", "{one} {} cat cats", " cats"),
    ],
)
def test_how_templates_write(template, query, shot, answer):
    assert template.query("cat") == query
    assert template.shot("cat", "cats") == shot
    assert template.answer("cats") == answer


@pytest.mark.parametrize("x", ["{x}", "{y}", "{", "}", "{0}", "{x} -> {y}", "a{b}c", "%s", r"\1"])
def test_braces_in_a_learners_text_stay_as_they_are(x):
    assert ARROW.query(x) == f"{x} ->"
    assert ARROW.shot(x, x) == f"{x} -> {x}"
    assert build_prompt(x, [Example(x, x)]).text == f"{x} -> {x}\n{x} ->"


@given(texts, st.text(), st.sampled_from([ARROW, QA, INPUT_OUTPUT, Template("{x}={y}"), Template("{x}  {y}")]))
def test_a_shot_is_its_query_with_the_answer_behind_it(x, y, template):
    assert template.shot(x, y) == template.query(x) + template.answer(y)
    assert not template.query(x).endswith(" ")
    assert template.answer(y).endswith(y) and template.answer(y).removesuffix(y).strip(" ") == ""


@pytest.mark.parametrize("empty", ["", " ", "\n", "\t \n"])
def test_an_empty_query_is_told(real_model, empty):
    _, tokenizer = real_model
    for write in (ARROW.query, build_prompt, lambda x: ARROW.shot(x, "y"), lambda x: chat_prompt(tokenizer, x)):
        with pytest.raises(BadPrompt, match="query is empty") as caught:
            write(empty)
        assert repr(empty) in caught.value.problem


# Prompts


def test_zero_shot():
    assert build_prompt("fox") == Prompt("fox ->", " ", "\n")


def test_few_shot():
    assert build_prompt("fox", SHOTS) == Prompt("cat -> cats\nbox -> boxes\nfox ->", " ", "\n")


def test_separator_and_header():
    template = Template("Q: {x}\nA: {y}", "\n\n", "Plurals.\n")
    assert build_prompt("fox", SHOTS, template).text == "Plurals.\nQ: cat\nA: cats\n\nQ: box\nA: boxes\n\nQ: fox\nA:"
    assert build_prompt("fox", (), template).text == "Plurals.\nQ: fox\nA:"


def test_what_comes_before_an_answer_follows_the_template():
    assert build_prompt("fox", (), Template("{x}={y}")).answer_prefix == ""
    assert build_prompt("fox", (), Template("{x}:  {y}")).answer_prefix == "  "


@given(texts, st.lists(examples, max_size=4))
def test_a_prompt_and_its_answer_read_like_one_more_shot(x, support):
    prompt = build_prompt(x, support)
    more = "\n".join(ARROW.shot(*example) for example in [*support, Example(x, "answer")])
    assert prompt.text + prompt.answer_prefix + "answer" == more


def test_one_prompt_for_each_query():
    queries = [Example("fox", "foxes"), Example("dog", "dogs")]
    assert build_prompts(queries, SHOTS, QA) == [build_prompt("fox", SHOTS, QA), build_prompt("dog", SHOTS, QA)]
    assert build_prompts([], SHOTS) == []


@pytest.mark.parametrize("name", list_tasks())
def test_no_prompt_of_any_task_holds_its_answer_or_ends_in_a_space(name):
    task = load_task(name)
    for kind, template in templates_for(task).items():
        text = build_prompt("QUERY", SHOTS, template).text
        assert text.count("QUERY") == 1 and "{" not in text and not text.endswith(" "), kind
        assert text.index("boxes") < text.index("QUERY"), kind


def test_the_templates_of_a_task():
    task = load_task("plurals")
    known = templates_for(task)
    assert len(set(known.values())) == len(known) == 5
    assert template_of(task) == known["cue"] and known["cue"].separator == "\n"
    assert template_of(SimpleNamespace(cue="{x}\nis {y}")).separator == "\n\n"
    assert known["cue"].query("fox") == "The plural of fox is"
    instructed = build_prompt("fox", (), known["instruction, then arrow"])
    assert instructed.text == f"{task.instruction}\nfox ->"


# Chat


def test_a_chat_is_a_question_for_each_example_in_the_models_own_format(real_model):
    _, tokenizer = real_model
    prompt = chat_prompt(tokenizer, "fox", SHOTS[:1], "Plural of {x}?")
    turns = prompt.text.split("<|im_start|>")[1:]
    assert turns[0].startswith("system\n")
    assert turns[1:] == [
        "user\nPlural of cat?<|im_end|>\n",
        "assistant\ncats<|im_end|>\n",
        "user\nPlural of fox?<|im_end|>\n",
        "assistant\n",
    ]
    assert (prompt.answer_prefix, prompt.stop) == ("", "<|im_end|>")


def test_a_system_prompt_takes_the_place_of_the_templates_own(real_model):
    _, tokenizer = real_model
    own, empty, default = (
        chat_prompt(tokenizer, "fox", SHOTS[:1], system=system).text for system in ("Be short.", "", None)
    )
    assert own.startswith("<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\ncat<|im_end|>\n")
    assert empty == own.replace("Be short.", "")
    assert "SmolLM" in default and "SmolLM" not in own + empty
    fox, task = [Example("fox", "foxes")], load_task("plurals")
    assert task_prompts(tokenizer, task, fox, (), CHAT, "Be short.") == [
        chat_prompt(tokenizer, "fox", (), task.question, "Be short.")
    ]


def test_braces_stay_as_they_are_in_a_chat(real_model):
    _, tokenizer = real_model
    assert "user\n{x}{y}{{ z }}<|im_end|>" in chat_prompt(tokenizer, "{x}{y}{{ z }}").text


def test_a_users_turn_without_a_place_for_the_query_is_told(real_model):
    _, tokenizer = real_model
    with pytest.raises(BadPrompt, match="Plural of it") as caught:
        chat_prompt(tokenizer, "fox", template="Plural of it?")
    assert "{x}" in caught.value.remedy


def test_a_tokenizer_without_a_chat_template_is_told_by_name():
    with pytest.raises(BadPrompt, match="plain-model has no chat template") as caught:
        chat_prompt(SimpleNamespace(chat_template=None, name_or_path="plain-model"), "fox")
    assert "build_prompt" in caught.value.remedy


# Order


@given(st.lists(examples), st.integers())
def test_reordering_keeps_every_example_and_repeats(support, seed):
    once = reorder(support, seed)
    assert isinstance(once, tuple)
    assert Counter(once) == Counter(support)
    assert once == reorder(support, seed)


def test_seed_0_keeps_the_order_and_other_seeds_give_many():
    support = load_task("plurals").episode(4).support
    assert reorder(support, 0) == support
    assert len({reorder(support, seed) for seed in range(60)}) > 15


# Nearest examples

QUESTIONS = ("what is a star", "who wrote this book", "what is a planet", "how are you")
POOL = tuple(Example(x, x.upper()) for x in QUESTIONS)


def test_the_nearest_stands_last():
    nearest = NearestExamples(POOL).select("what is a star made of", 4)
    assert nearest[-1] == POOL[0]
    assert nearest[-2] == POOL[2]
    assert set(nearest) == set(POOL)


def test_fewer_examples_are_the_nearest_ones():
    chooser = NearestExamples(POOL)
    everything = chooser.select("who wrote what", 4)
    for k in range(5):
        assert chooser.select("who wrote what", k) == everything[4 - k :]


def test_similarity_is_the_cosine_of_tf_idf_vectors():
    """By hand, for the query "a c": with b and c once and a twice in three texts, a weighs less than c."""
    pool = [Example("a b", "1"), Example("a a a", "2"), Example("c b b b b", "3")]
    # idf = ln((1 + n) / (1 + df)) + 1: a, b in two texts, c in one.
    common, rare = 1.2876820724, 1.6931471806
    length = (common**2 + rare**2) ** 0.5
    by_hand = {
        "1": common / length * common / (2 * common**2) ** 0.5,
        "2": common / length,
        "3": rare / length * rare / ((4 * common) ** 2 + rare**2) ** 0.5,
    }
    expected = sorted(by_hand, key=by_hand.get)
    assert [example.y for example in NearestExamples(pool).select("a c", 3)] == expected == ["3", "1", "2"]


def test_among_equals_the_first_of_the_pool_is_nearest():
    pool = [Example("cat", str(i)) for i in range(3)]
    chooser = NearestExamples(pool)
    assert [example.y for example in chooser.select("cat", 3)] == ["2", "1", "0"]
    assert [example.y for example in chooser.select("unknown words", 2)] == ["1", "0"]


def test_letters_find_what_words_cannot():
    pool = [Example("radio", ""), Example("wolves", ""), Example("video", "")]
    assert NearestExamples(pool, "char").select("wolf", 1)[0].x == "wolves"
    assert NearestExamples(pool, "word").select("wolf", 1)[0].x == "radio"  # nothing shared: the first


@pytest.mark.parametrize("k", [-1, 5])
def test_more_examples_than_the_pool_holds_are_told(k):
    with pytest.raises(NotEnoughExamples, match=rf"{k} examples.*pool holds 4") as caught:
        NearestExamples(POOL).select("what", k)
    assert "0 to 4" in caught.value.remedy


def test_pools_that_cannot_be_searched_are_told():
    with pytest.raises(NotEnoughExamples, match="pool is empty"):
        NearestExamples([])
    with pytest.raises(BadPrompt, match=r"'\?!'") as caught:
        NearestExamples([Example("?!", "a"), Example("...", "b")])
    assert "char" in caught.value.remedy
    with pytest.raises(BadPrompt, match="'letters'.*word, char"):
        NearestExamples(POOL, "letters")


@given(st.lists(texts, min_size=1, max_size=6), st.text(), st.data())
def test_any_pool_of_letters_can_be_searched_for_any_text(inputs, query, data):
    pool = [Example(x, str(i)) for i, x in enumerate(inputs)]
    k = data.draw(st.integers(0, len(pool)))
    chosen = NearestExamples(pool, "char").select(query, k)
    assert len(set(chosen)) == k and set(chosen) <= set(pool)


def test_an_example_of_the_pool_is_nearest_to_itself():
    pool = load_task("question_topic").support_pool
    chooser = NearestExamples(pool)
    assert [chooser.select(example.x, 1)[0] for example in pool] == list(pool)


# The prompts of a task


def test_task_prompts_by_name_by_template_and_as_a_chat(real_model):
    task = load_task("plurals")
    episode = task.episode(2, n_query=2)
    by_name = task_prompts(real_model[1], task, episode.query, episode.support, "question and answer")
    assert by_name == task_prompts(real_model[1], task, episode.query, episode.support, QA)
    assert by_name == build_prompts(episode.query, episode.support, QA)
    chat = task_prompts(real_model[1], task, episode.query, episode.support, CHAT)
    assert all(task.question.replace("{x}", q.x) in p.text for p, q in zip(chat, episode.query))
    with pytest.raises(CourseError, match="'haiku'") as caught:
        task_prompts(real_model[1], task, episode.query, episode.support, "haiku")
    assert all(name in caught.value.remedy for name in [*templates_for(task), CHAT])


def test_an_empty_query_of_a_task_is_told():
    with pytest.raises(BadPrompt, match="empty"):
        task_prompts(None, load_task("plurals"), [Example("", "")], (), ARROW)
