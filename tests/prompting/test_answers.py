"""Which label, or which text, and how probable: one answer for the lessons, the playgrounds and `predict`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from rapidadapt_lessons.choosing.methods import train_adapter
from rapidadapt_lessons.lm.tasks import Example, load_task
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.prompting.answers import (
    answer_tokens,
    answered_right,
    best_answers,
    label_scores,
    text_probabilities,
)
from rapidadapt_lessons.prompting.calibration import CONTENT_FREE, content_free_prior, contextual_calibration
from rapidadapt_lessons.prompting.own_text import own_task
from rapidadapt_lessons.prompting.prompts import Prompt, build_prompt, build_prompts, template_of, templates_for
from rapidadapt_lessons.prompting.scoring import exact_matches, generate_answers, label_logprobs
from rapidadapt_lessons.tool.predict import Predictor
from rapidadapt_lessons.tool.saved_prompt import Adapted
from rapidadapt_lessons.training.rows import task_rows


def test_best_answers_of_a_task_with_labels_are_the_likeliest_labels(real_model):
    task = load_task("continents")
    episode = task.episode(4, n_query=4)
    prompts = build_prompts(episode.query, episode.support)
    answers, probabilities = zip(*best_answers(*real_model, prompts, task.labels))
    scores = label_logprobs(*real_model, prompts, task.labels).softmax(-1)
    assert list(answers) == [task.labels[i] for i in scores.argmax(-1)]
    assert probabilities == pytest.approx(scores.max(-1).values.tolist(), abs=1e-4)
    assert all(p >= 1 / 4 for p in probabilities)


def test_an_answers_probability_counts_both_ways_of_ending_it(real_model):
    """The answer, then a line break or the end of text: two whole texts, by hand."""
    model, tokenizer = real_model
    task = load_task("plurals")
    episode = task.episode(4, n_query=1)
    prompts = build_prompts(episode.query, episode.support, templates_for(task)["input and output"])
    [(answer, probability)] = best_answers(model, tokenizer, prompts)
    ways = []
    for end in ("\n", "<|im_end|>"):
        p, a = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompts[0].text, f" {answer}{end}"))
        with torch.no_grad():
            logprobs = model(torch.tensor([p + a], device=model.device)).logits[0].double().log_softmax(-1).cpu()
        ways.append(math.exp(sum(float(logprobs[len(p) + t - 1, token]) for t, token in enumerate(a))))
    assert answer == episode.query[0].y
    assert probability == pytest.approx(sum(ways), abs=1e-4)
    assert min(ways) > 0.001


def test_an_answer_that_ends_in_the_end_of_text_is_counted_once(real_model):
    prompt = Prompt("2 + 2 =", stop=real_model[1].eos_token)
    [(_, probability)] = best_answers(*real_model, [prompt])
    assert 0 <= probability <= 1


def test_a_tasks_texts_are_right_where_they_match_exactly_and_its_labels_where_they_are_the_likeliest(real_model):
    for name in ("plurals", "sentiment"):
        task = load_task(name)
        episode = task.episode(4, n_query=6)
        right = answered_right(*real_model, task, episode.query, episode.support)
        found = best_answers(*real_model, build_prompts(episode.query, episode.support, template_of(task)), task.labels)
        assert right == tuple(answer.text == q.y for answer, q in zip(found, episode.query))
        assert set(right) == {True, False}


def test_the_prior_is_divided_out(real_model):
    task = load_task("sentiment")
    episode = task.episode(4, seed=2, n_query=8)
    template, prior = template_of(task), torch.tensor([0.8, 0.2])
    prompts = build_prompts(episode.query, episode.support, template)
    plain = label_scores(*real_model, prompts, task.labels)
    expected = contextual_calibration(plain, prior)
    assert torch.equal(label_scores(*real_model, prompts, task.labels, prior), expected)
    found = best_answers(*real_model, prompts, task.labels, prior=prior)
    assert [answer.text for answer in found] == [task.labels[i] for i in expected.argmax(-1)]
    assert [answer.probability for answer in found] == expected.max(-1).values.tolist()
    assert not torch.equal(plain.argmax(-1), expected.argmax(-1))
    right = answered_right(*real_model, task, episode.query, episode.support, prior=prior)
    assert right == tuple(answer.text == q.y for answer, q in zip(found, episode.query))


def test_the_probability_of_a_text_is_that_of_what_the_model_answers(real_model):
    episode = load_task("plurals").episode(4, n_query=3)
    prompts = build_prompts(episode.query, episode.support)
    texts, probabilities = zip(*best_answers(*real_model, prompts))
    assert list(texts) == generate_answers(*real_model, prompts, max_new_tokens=12)
    assert text_probabilities(*real_model, prompts, texts) == list(probabilities)


def test_an_answers_tokens_multiply_to_its_probability_and_tell_whether_it_is_written(real_model):
    model, tokenizer = real_model
    episode = load_task("past_tense").episode(3, n_query=6)
    prompts = build_prompts(episode.query, episode.support)
    texts = [query.y for query in episode.query]
    found = answer_tokens(model, tokenizer, prompts, texts)
    assert ["".join(token.text for token in tokens) for tokens in found] == [f" {text}\n" for text in texts]
    products = [math.prod(token.probability for token in tokens) for tokens in found]
    assert products == pytest.approx(text_probabilities(model, tokenizer, prompts, texts), rel=1e-4)
    written = [all(token.is_best for token in tokens) for tokens in found]
    assert written == exact_matches(model, tokenizer, prompts, texts) and set(written) == {True, False}
    # The first token alone, by hand.
    ids = tokenizer(prompts[0].text)["input_ids"]
    with torch.no_grad():
        first = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    [token] = tokenizer(found[0][0].text)["input_ids"]
    assert found[0][0].probability == pytest.approx(first[token].item(), abs=1e-4)


def test_examples_in_a_prompt_change_the_answers_and_no_weight(real_model):
    model, tokenizer = real_model
    before = [hash(p.detach().cpu().numpy().tobytes()) for p in model.parameters()]
    episode = load_task("past_tense").episode(4, n_query=6)
    texts = [query.y for query in episode.query]
    right = [
        sum(exact_matches(model, tokenizer, build_prompts(episode.query, support), texts))
        for support in ((), episode.support)
    ]
    generate_answers(model, tokenizer, build_prompts(episode.query, episode.support))
    assert right[0] == 0 and right[1] >= 4
    assert [hash(p.detach().cpu().numpy().tobytes()) for p in model.parameters()] == before


# A label that begins another

LANGUAGES = """printf("%d", x); C|std::cout << x; C++|malloc(10); C|new int[10]; C++|struct node *p; C|\
std::vector<int> v; C++|int *a = malloc(4); C|class A {}; C++|scanf("%d", &x); C|template<class T> T f(); C++|\
free(ptr); C|delete p; C++|#include <stdio.h> C|#include <iostream> C++|char buf[10]; C|std::string s; C++|\
strcpy(a, b); C|auto x = f(); C++|typedef struct s s; C|using namespace std; C++|FILE *f = fopen(p, "r"); C|\
std::map<int, int> m; C++|gets(line); C|throw std::exception(); C++"""
PAIRS = [Example(*line.rsplit(" ", 1)) for line in LANGUAGES.split("|")]
TASK = own_task("{x} -> {y}", PAIRS, ["C", "C++"])


@pytest.fixture(scope="module")
def trained(real_model) -> Iterator[tuple]:
    """The model after a LoRA training on C and C++, as `adapt --method lora` does it."""
    model, tokenizer = real_model
    train_adapter(model, task_rows(tokenizer, TASK, PAIRS))
    yield real_model
    lora.remove(real_model[0])


def test_after_training_the_longer_label_is_answered_too(trained):
    right = dict(zip(PAIRS, answered_right(*trained, TASK, PAIRS)))
    for label in TASK.labels:
        assert sum(ok for pair, ok in right.items() if pair.y == label) >= 11
    how = Adapted("model", "LoRA", template_of(TASK), labels=TASK.labels)
    said = Predictor(*trained, how).answers([pair.x for pair in PAIRS])
    assert [answer.text == pair.y for answer, pair in zip(said, PAIRS)] == list(right.values())


def test_what_training_teaches_to_write_is_the_likeliest_label(trained):
    """The model goes on as it was taught, and stops: greedy decoding and the choice among labels agree."""
    prompts = build_prompts(PAIRS, (), template_of(TASK))
    chosen = best_answers(*trained, prompts, TASK.labels)
    assert [answer.text for answer in chosen] == [answer.text for answer in best_answers(*trained, prompts)]


def test_the_prior_of_such_labels_is_made_of_the_same_scores(trained):
    support = PAIRS[:4]
    prior = content_free_prior(*trained, support, TASK.labels, template_of(TASK))
    empty = [build_prompt(x, support, template_of(TASK)) for x in CONTENT_FREE]
    texts = torch.tensor([[math.log(p) for p in stopped(*trained, empty, label)] for label in TASK.labels]).T
    torch.testing.assert_close(prior, texts.softmax(-1).mean(0), atol=1e-3, rtol=0)


@torch.no_grad()
def stopped(model, tokenizer, prompts: list[Prompt], label: str) -> list[float]:
    """Return P(label, line break | prompt) for each prompt, one row at a time."""
    found = []
    for prompt in prompts:
        p, a = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt.text, f" {label}\n"))
        logprobs = model(torch.tensor([p + a])).logits[0].double().log_softmax(-1)
        found.append(math.exp(sum(float(logprobs[len(p) + t - 1, token]) for t, token in enumerate(a))))
    return found


def test_a_text_that_just_fits_leaves_room_for_label_and_stop(real_model):
    model, tokenizer = real_model
    limit, how = model.config.max_position_embeddings, Adapted("m", "zero-shot", template_of(TASK), labels=TASK.labels)
    predictor = Predictor(model, tokenizer, how)
    text = "a" + " a" * limit
    prompt = how.prompt(text[: -2 * predictor.too_long(text)])
    assert len(tokenizer(prompt.text + " C++\n")["input_ids"]) == limit
