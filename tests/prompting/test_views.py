"""What the widgets show, called directly: at several values, and at bad ones."""

from __future__ import annotations

import re
from collections import Counter
from html import unescape
from types import SimpleNamespace

import pytest

from rapidadapt_lessons.errors import CourseError, NotEnoughExamples, UnknownTask
from rapidadapt_lessons.lm.tasks import Example, load_task
from rapidadapt_lessons.prompting import views
from rapidadapt_lessons.prompting.prompts import CHAT, build_prompts, reorder, templates_for
from rapidadapt_lessons.prompting.scoring import count_tokens, next_tokens
from rapidadapt_lessons.prompting.views import next_token_view, prompt_view


def alt(html: str) -> str:
    [text] = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,[A-Za-z0-9+/=]+" style="max-width:100%">', html)
    return unescape(text)


def table(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [[unescape(cell) for cell in re.findall(r"<td [^>]*>(.*?)</td>", row)] for row in rows][1:]


# Next tokens


@pytest.mark.parametrize(("text", "k"), [("The capital of France is", 3), ("2 + 2 =", 1)])
def test_next_token_view_tells_each_token_and_its_probability(real_model, text, k):
    told = alt(next_token_view(*real_model, text, k))
    for token, p in next_tokens(*real_model, text, k):
        assert f"{token!r} {p:.2f}" in told
    assert f"What comes after “{text}”?" in told and "probability of the next token" in told


def test_next_token_view_names_the_last_line_of_a_long_text(real_model):
    told = alt(next_token_view(*real_model, "cat -> cats\ndog ->", 1))
    assert "What comes after “… dog ->”?" in told


def test_next_token_view_shows_what_a_learner_types(real_model):
    told = alt(next_token_view(*real_model, '<b>"$_$" & {x}', 2))
    assert '<b>"$_$" & {x}' in told


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_parts_of_characters_that_print_alike_each_keep_their_bar(real_model):
    found = next_tokens(*real_model, "日本語の", 10)
    assert max(Counter(token for token, _ in found).values()) > 2
    told = alt(next_token_view(*real_model, "日本語の", 10))
    bars = re.search(r"next token: (.*)\.$", told, re.DOTALL)[1].split(", ")
    assert len(bars) == 10 and len({bar.rpartition(" ")[0] for bar in bars}) == 10


@pytest.mark.parametrize(("text", "k", "problem"), [("", 5, "empty"), ("a", 0, "k is 0"), ("a " * 9000, 5, "8192")])
def test_next_token_view_at_bad_values(real_model, text, k, problem):
    with pytest.raises(CourseError, match=problem):
        next_token_view(*real_model, text, k)


# One prompt and its answers


@pytest.mark.parametrize(
    ("name", "shots", "template", "order_seed"),
    [("plurals", 0, "arrow", 0), ("plurals", 3, "cue", 2), ("sentiment", 2, "question and answer", 0)],
)
def test_prompt_view_shows_the_prompt_the_answers_and_the_accuracy(real_model, name, shots, template, order_seed):
    task = load_task(name)
    html = prompt_view(*real_model, name, shots, template, order_seed)
    episode = task.episode(shots, n_query=12)
    support = reorder(episode.support, order_seed)
    prompt = build_prompts(episode.query, support, templates_for(task)[template])[0]
    assert unescape(re.search(r"<pre[^>]*>(.*?)</pre>", html, re.DOTALL)[1]) == prompt.text
    assert f"{count_tokens(real_model[1], prompt.text)} tokens" in html and task.title in html
    rows = table(html)
    assert [row[0] for row in rows] == [query.x for query in episode.query]
    right = 0
    for (_, answer, probability, verdict), query in zip(rows, episode.query):
        assert verdict == ("yes" if answer == query.y else f"no: {query.y}")
        assert 0 <= float(probability) <= 1
        right += answer == query.y
    assert f"{right} of 12 right" in html
    if task.labels:
        assert {row[1] for row in rows} <= set(task.labels)


def test_prompt_view_as_a_chat(real_model):
    html = prompt_view(*real_model, "sentiment", 1, CHAT)
    assert "&lt;|im_start|&gt;assistant" in html and "<|im_start|>" not in html
    assert len(table(html)) == 12


def test_the_order_of_the_examples_shows_in_the_prompt(real_model):
    shown = [prompt_view(*real_model, "sentiment", 4, "arrow", seed).partition("<table>")[0] for seed in (0, 1)]
    assert shown[0] != shown[1]


def test_text_cannot_become_markup(tiny_task, monkeypatch):
    monkeypatch.setattr(views, "best_answers", lambda *_: [("<i>", 0.5)])
    html = prompt_view(None, lambda *_, **__: {"input_ids": [1]}, "t", 0, "arrow", 0)
    assert "<b>x</b>" not in html and "&lt;b&gt;x&lt;/b&gt; -&gt;" in html and "&lt;i&gt;" in html and "<i>" not in html


@pytest.fixture
def tiny_task(monkeypatch):
    """One task whose only query looks like HTML."""
    episode = SimpleNamespace(support=(), query=(Example("<b>x</b>", "<u>"),))
    task = SimpleNamespace(
        title="T", cue="{x} is {y}", instruction="I.", question="{x}?", labels=(), episode=lambda *_, **__: episode
    )
    monkeypatch.setattr(views, "load_task", lambda name: task)


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        (("no such task", 1), UnknownTask, "no such task"),
        (("plurals", 10_000), NotEnoughExamples, "10000"),
        (("plurals", -1), NotEnoughExamples, "-1"),
        (("plurals", 1, "limerick"), CourseError, "limerick"),
    ],
)
def test_prompt_view_at_bad_values(real_model, arguments, error, problem):
    with pytest.raises(error, match=problem) as caught:
        prompt_view(*real_model, *arguments)
    assert caught.value.remedy
