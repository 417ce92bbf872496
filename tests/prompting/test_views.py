"""What the widgets show, called directly: at several values, and at bad ones."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from html import unescape
from types import SimpleNamespace

import pytest
import torch

from rapidadapt_lessons.errors import CourseError, NotEnoughExamples, UnknownTask
from rapidadapt_lessons.lm.tasks import Example, load_task
from rapidadapt_lessons.prompting import views
from rapidadapt_lessons.prompting.calibration import batch_calibration, content_free_prior, contextual_calibration
from rapidadapt_lessons.prompting.prompts import ARROW, CHAT, QA, build_prompts, reorder, templates_for
from rapidadapt_lessons.prompting.scoring import count_tokens, label_logprobs, next_tokens
from rapidadapt_lessons.prompting.views import next_token_view, order_view, prompt_view, shots_view


def alt(html: str) -> str:
    [text] = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,[A-Za-z0-9+/=]+" style="max-width:100%">', html)
    return unescape(text)


def table(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    cells = [[unescape(cell) for cell in re.findall(r"<td [^>]*>(.*?)</td>", row)] for row in rows][1:]
    return [[re.sub(r"<details><summary>(.*?)</summary>.*", r"\1", cell) for cell in row] for row in cells]


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


def test_text_cannot_become_markup(real_model, monkeypatch):
    episode = SimpleNamespace(support=(), query=(Example("<b>x</b>", "<u>"),))
    task = SimpleNamespace(
        title="T", cue="{x} is {y}", instruction="I.", question="{x}?", labels=(), episode=lambda *_, **__: episode
    )
    monkeypatch.setattr(views, "load_task", lambda name: task)
    monkeypatch.setattr(views, "generate_answers", lambda *_, **__: ["<i>"])
    html = prompt_view(*real_model, "t", 0)
    assert "<b>x</b>" not in html and "&lt;b&gt;x&lt;/b&gt; -&gt;" in html
    assert "<summary>&lt;i&gt;</summary>" in html and "<i>" not in html and "<u>" not in html
    assert "&lt;u" in html and not re.search(r"<(?!/?(?:p|b|pre|table|tr|t[dh]|details|summary|div|span|code)\b)", html)


def opened(html: str) -> list[tuple[str, list[list[tuple[str, float]]]]]:
    """Return each answer, and the chips under it: the answer's tokens, and perhaps the correct answer's."""
    found = []
    for answer, inside in re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", html):
        lines = [re.findall(r"<code>(.*?)</code> ([\d.]+)", line) for line in inside.split("</div>")[:-1]]
        found.append((unescape(answer), [[(unescape(text), float(p)) for text, p in line] for line in lines]))
    return found


def test_an_answer_opens_to_its_tokens_and_a_wrong_one_to_the_correct_tokens_too(real_model):
    html = prompt_view(*real_model, "past_tense", 3)
    queries = load_task("past_tense").episode(3, n_query=12).query
    rows, answers = table(html), opened(html)
    assert len(rows) == len(answers) == 12
    for (_, _, probability, verdict), (answer, lines), query in zip(rows, answers, queries):
        assert len(lines) == 1 + (verdict != "yes")
        for line, text in zip(lines, (answer, query.y)):
            assert line[-1][0] == "the end"
            assert "".join(ast.literal_eval(token) for token, _ in line[:-1]) == f" {text}"
        assert math.prod(p for _, p in lines[0]) == pytest.approx(float(probability), abs=0.03)
    assert {len(lines) for _, lines in answers} == {1, 2}


def test_another_draw_shows_other_examples_and_the_same_queries(real_model):
    first, second = (prompt_view(*real_model, "plurals", 3, draw=draw) for draw in (0, 1))
    assert [row[0] for row in table(first)] == [row[0] for row in table(second)]
    episode = load_task("plurals").episode(3, seed=1, n_query=12)
    assert "\n".join(f"{x} -> {y}" for x, y in episode.support) in unescape(second) and ", draw 1:" in second
    assert episode.support != load_task("plurals").episode(3, n_query=12).support


def test_a_slider_shows_each_prompt_under_columns_for_all_and_computes_once(real_model, monkeypatch):
    alone = [prompt_view(*real_model, "past_tense", shots, draw=1) for shots in range(3)]
    right = [int(re.search(r"(\d+) of 12 right", html)[1]) for html in alone]
    assert len(set(right)) > 1
    kept, asked = {}, []
    really = views.answer_tokens
    monkeypatch.setattr(views, "answer_tokens", lambda *args: asked.append(args) or really(*args))
    found = [shots_view(*real_model, "past_tense", shots, 1, kept=kept, most=2) for shots in range(3)]
    assert len(asked) == 6, "for the correct and the other answers of three prompts, once"
    for shots, (html, one) in enumerate(zip(found, alone)):
        assert html.endswith(one)
        told = re.search(r'<div role="img" aria-label="(.*?)"', html)[1]
        assert f"{shots} example" in told and f": {right[shots]} of 12 right" in told
        assert ", ".join(f"{count} at {n}" for n, count in enumerate(right)) in told
        assert html.count("#0072B2") == 1, "the position of the slider is the dark column"
    shots_view(*real_model, "past_tense", 0, 2, kept=kept, most=2)
    assert len(kept) == 5, "two draws, and zero-shot is the same in both"


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


# Order and calibration


@pytest.mark.parametrize(("shots", "seed", "order_seed", "template"), [(1, 0, 0, ARROW), (4, 2, 3, QA)])
def test_order_view_shows_every_query_before_and_after(real_model, shots, seed, order_seed, template):
    task = load_task("sentiment")
    html = order_view(*real_model, "sentiment", shots, seed, order_seed, template=template)
    episode = task.episode(shots, seed=seed, n_query=40, balanced=True)
    support = reorder(episode.support, order_seed)
    scores = label_logprobs(*real_model, build_prompts(episode.query, support, template), task.labels)
    prior = content_free_prior(*real_model, support, task.labels, template)
    tables = {
        "as it comes": scores.softmax(-1),
        "contextual": contextual_calibration(scores.softmax(-1), prior),
        "batch": batch_calibration(scores),
    }
    truth = torch.tensor([task.labels.index(query.y) for query in episode.query])
    told = alt(html)
    assert "probability of positive" in told
    for name, probabilities in tables.items():
        accuracy = (probabilities.argmax(-1) == truth).double().mean().item()
        assert f"{name} {accuracy:.2f}" in told
        for i, label in enumerate(task.labels):
            mean = float(probabilities[truth == i, 1].mean())
            found = re.search(rf"{name} \(truly {label}\): mean (\d\.\d\d)", told)
            assert float(found[1]) == pytest.approx(mean, abs=0.011)
    order = unescape(html.partition("</p>")[0])
    positions = [order.index(f"{x} → {y}") for x, y in support]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        (("plurals", 2, 0, 0), CourseError, "'plurals' has 0 labels"),
        (("continents", 2, 0, 0), CourseError, "'continents' has 4 labels"),
        (("no such task", 2, 0, 0), UnknownTask, "no such task"),
        (("sentiment", 10_000, 0, 0), NotEnoughExamples, "10000"),
    ],
)
def test_order_view_at_bad_values(real_model, arguments, error, problem):
    with pytest.raises(error, match=problem) as caught:
        order_view(*real_model, *arguments)
    assert caught.value.remedy
