"""Each method of adapting, run and measured; and a second task in the same adapter."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from rapidadapt_lessons.choosing import methods, second_task
from rapidadapt_lessons.errors import CourseError, NotEnoughExamples
from rapidadapt_lessons.lm.tasks import Example, Task
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.prompting import answers, calibration, scoring
from rapidadapt_lessons.prompting.prompts import Template, build_prompts
from rapidadapt_lessons.training.loop import TrainConfig
from rapidadapt_lessons.training.rows import task_rows

PAIRS = tuple(Example(f"word {i}", ("yes", "no")[i % 2]) for i in range(16))
LABELS = Task("yes_no", "Yes or no", "Say it.", "{x} is {y}", "{x}?", "here", PAIRS[:10], PAIRS[10:], ("yes", "no"))
FREE = Task("free", "Free", "Say it.", "In: {x}\nOut: {y}", "{x}?", "here", PAIRS[:10], PAIRS[10:])
QUICK = TrainConfig(steps=2, batch_size=4, lr=1e-2)


@pytest.fixture(scope="module")
def small(real_model):
    """A Llama of two narrow layers with random weights, and the course's own tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=real_model[0].config.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    return model.requires_grad_(False), real_model[1]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Answers


@pytest.mark.parametrize("support", [(), PAIRS[:4]], ids=["zero-shot", "few-shot"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_label_task_is_answered_by_the_likeliest_label(small, support, calibrated):
    prompts = build_prompts(LABELS.query_set, support, Template("{x} is {y}"))
    p = scoring.label_logprobs(*small, prompts, ["yes", "no"]).softmax(-1)
    if calibrated:
        p = p / calibration.content_free_prior(*small, support, ["yes", "no"], Template("{x} is {y}"))
    expected = tuple(("yes", "no")[i] == q.y for i, q in zip(p.argmax(-1), LABELS.query_set))
    got = methods.prompt_trial(*small, LABELS, support, LABELS.query_set, calibrated=calibrated).right
    assert got == expected and len(got) == 6


@pytest.mark.parametrize(("prior", "said"), [((0.999999, 1e-6), "no"), ((1e-6, 0.999999), "yes")])
def test_calibration_divides_by_what_the_prompt_suggests(small, monkeypatch, prior, said):
    monkeypatch.setattr(calibration, "content_free_prior", lambda *_: torch.tensor(prior))
    trial = methods.prompt_trial(*small, LABELS, PAIRS[:4], LABELS.query_set, calibrated=True)
    assert trial.prepare_seconds > 0 and trial.right == tuple(q.y == said for q in LABELS.query_set)


def test_another_task_is_answered_letter_by_letter(small):
    prompts = build_prompts(FREE.query_set, PAIRS[:2], Template("In: {x}\nOut: {y}", "\n\n"))
    said = scoring.generate_answers(*small, prompts, max_new_tokens=3)
    told = Task(**{**FREE.__dict__, "query_set": tuple(Example(q.x, s or "?") for q, s in zip(FREE.query_set, said))})
    expected = tuple(scoring.exact_matches(*small, prompts, [q.y for q in told.query_set]))
    assert answers.answered_right(*small, told, told.query_set, PAIRS[:2]) == expected


def test_only_labels_are_calibrated(small):
    with pytest.raises(CourseError, match="no labels"):
        answers.answered_right(*small, FREE, FREE.query_set, prior=torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("tokens", [1, 7, 30])
def test_the_bytes_of_a_prompts_cache_are_those_of_the_real_one(small, tokens):
    model = small[0]
    cache = DynamicCache()
    with torch.no_grad():
        model(torch.zeros(1, tokens, dtype=torch.long), past_key_values=cache, use_cache=True)
    assert methods.cache_bytes(model, tokens) == sum(la.keys.nbytes + la.values.nbytes for la in cache.layers)


def test_a_prompts_trial(small):
    zero = methods.prompt_trial(*small, LABELS, (), LABELS.query_set)
    few = methods.prompt_trial(*small, LABELS, PAIRS[:4], LABELS.query_set)
    level = methods.prompt_trial(*small, LABELS, PAIRS[:4], LABELS.query_set, calibrated=True)
    assert [t.method for t in (zero, few, level)] == [methods.ZERO, methods.FEW, methods.CALIBRATED]
    assert [t.examples for t in (zero, few, level)] == [0, 4, 4]
    assert zero.stored_bytes == 0
    assert few.stored_bytes == len("word 0 is yes\nword 1 is no\nword 2 is yes\nword 3 is no")
    assert zero.memory_bytes < few.memory_bytes and few.prepare_seconds == 0 and few.answer_seconds > 0
    assert few.quality == sum(few.right) / 6


# Adapters


def test_training_learns_the_examples_and_leaves_the_model(small):
    model, tokenizer = small
    before = weights(model)
    config = TrainConfig(steps=60, batch_size=8, lr=3e-2)
    task = Task("a", "A", "", "{x} is {y}", "{x}?", "", PAIRS[:4], PAIRS[:4], ("yes", "no"))
    trial, state = methods.adapter_trial(model, tokenizer, task, PAIRS[:4], PAIRS[:4], config=config)
    assert trial.quality == 1.0 and trial.method == methods.LORA and trial.examples == 4
    assert trial.stored_bytes == sum(t.nbytes for t in state.values())
    assert same(weights(model), before)
    methods.fresh_adapter(model, state)
    assert answers.answered_right(model, tokenizer, task, PAIRS[:4]) == trial.right
    lora.remove(model)


def test_a_start_is_where_training_starts(small):
    model, tokenizer = small
    rows = task_rows(tokenizer, LABELS, PAIRS[:4])
    one, _ = methods.train_adapter(model, rows, QUICK)
    still = TrainConfig(steps=1, batch_size=4, lr=1e-12)
    kept, _ = methods.train_adapter(model, rows, still, start=one)
    other, _ = methods.train_adapter(model, rows, still)
    lora.remove(model)
    assert all(torch.allclose(kept[k], one[k], atol=1e-9) for k in one)
    assert not all(torch.allclose(other[k], one[k], atol=1e-4) for k in one)


def test_nothing_to_train_on(small):
    with pytest.raises(NotEnoughExamples, match="0 examples"):
        methods.adapter_trial(*small, LABELS, (), LABELS.query_set)


def test_replayed_examples_are_trained_on_and_stored(small, monkeypatch):
    seen = []
    monkeypatch.setattr(methods, "train", lambda model, rows, config, **_: seen.append((len(rows), config.batch_size)))
    trial, state = methods.adapter_trial(*small, LABELS, PAIRS[:4], LABELS.query_set, replay=PAIRS[4:7], config=QUICK)
    assert seen == [(7, 4)] and trial.examples == 4
    assert trial.stored_bytes == sum(t.nbytes for t in state.values()) + sum(len(e.x + e.y) for e in PAIRS[4:7])


def test_continual_updating_sees_each_example_when_it_arrives(small, monkeypatch):
    calls = []

    def trial(model, tokenizer, task, support, queries, **options):
        calls.append((support, options["replay"], options["start"], options["config"]))
        found = methods.Trial(methods.CONTINUAL, len(support), (True,), 10.0 ** len(calls), 0, 0, 0)
        return found, f"state {len(calls)}"

    monkeypatch.setattr(methods, "adapter_trial", trial)
    monkeypatch.setattr(methods, "MOST_REPLAYED", 3)
    found = methods.continual_trials(*small, LABELS, PAIRS[:10], LABELS.query_set, (2, 6, 10))
    assert [t.prepare_seconds for t in found] == [10, 110, 1110]
    assert [c[0] for c in calls] == [PAIRS[:2], PAIRS[2:6], PAIRS[6:10]]
    assert [len(c[1]) for c in calls] == [0, 2, 3]
    assert set(calls[1][1]) <= set(PAIRS[:2]) and set(calls[2][1]) <= set(PAIRS[:6])
    assert [c[2] for c in calls] == [None, "state 1", "state 2"]
    assert [c[3] for c in calls] == [methods.FULL, methods.UPDATE, methods.UPDATE]
    assert [t.examples for t in found] == [2, 6, 10]


@pytest.mark.parametrize("sizes", [(), (0, 4), (4, 4), (6, 4), (4, 11)])
def test_sizes_that_do_not_rise(small, sizes):
    with pytest.raises(NotEnoughExamples, match="rising"):
        methods.continual_trials(*small, LABELS, PAIRS[:10], LABELS.query_set, sizes)


def test_every_method_is_tried_on_the_same_queries(small, monkeypatch):
    monkeypatch.setattr(methods, "FULL", QUICK)
    model, tokenizer = small
    before = weights(model)
    _, start = methods.adapter_trial(model, tokenizer, LABELS, PAIRS[:4], LABELS.query_set, config=QUICK)
    options = {"sizes": (2, 64), "n_query": 6, "progress": False}
    trials, state = methods.try_each_method(model, tokenizer, LABELS, meta_start=start, **options)
    counts = {method: [t.examples for t in found] for method, found in methods.by_method(trials).items()}
    assert counts == {methods.ZERO: [0]} | dict.fromkeys(methods.METHODS[1:], [2, 10])  # 64 became all that there are
    assert {len(t.right) for t in trials} == {6}
    assert same(weights(model), before)
    methods.fresh_adapter(model, state)
    last = [t for t in trials if t.method == methods.LORA][-1]
    assert answers.answered_right(model, tokenizer, LABELS, LABELS.query_set) == last.right
    lora.remove(model)
    free, _ = methods.try_each_method(model, tokenizer, FREE, **options)
    assert {t.method for t in free} == {methods.ZERO, methods.FEW, methods.LORA, methods.CONTINUAL}
    prompts = (methods.ZERO, methods.FEW, methods.CALIBRATED)
    some, none = methods.try_each_method(model, tokenizer, LABELS, methods=prompts, meta_start=start, **options)
    assert [t.right for t in some] == [t.right for t in trials if t.method in prompts] and none == {}
    with pytest.raises(NotEnoughExamples, match=r"\[0, 4\]"):
        methods.try_each_method(model, tokenizer, LABELS, sizes=(0, 4))


def test_the_model_is_whole_after_a_failure(small, monkeypatch):
    model, tokenizer = small

    def fail(*_, **__):
        raise CourseError("no.", "stop.")

    monkeypatch.setattr(methods, "train", fail)
    with pytest.raises(CourseError, match="no"):
        methods.try_each_method(model, tokenizer, LABELS, sizes=(2,), n_query=6, progress=False)
    assert not lora.lora_layers(model)


# A second task


def test_learning_a_second_task_is_measured_before_and_after(small):
    model, tokenizer = small
    config = TrainConfig(steps=60, batch_size=8, lr=3e-2)
    first = Task("a", "A", "", "{x} is {y}", "{x}?", "", PAIRS[:4], PAIRS[:4], ("yes", "no"))
    swapped = tuple(Example(e.x, "no" if e.y == "yes" else "yes") for e in PAIRS[:4])
    second = Task("b", "B", "", "{x} is {y}", "{x}?", "", swapped, swapped, ("yes", "no"))
    trial, state = methods.adapter_trial(model, tokenizer, first, PAIRS[:4], PAIRS[:4], config=config)
    moved = second_task.learn_second(model, tokenizer, first, second, swapped, start=state, config=config, n_query=4)
    assert moved.first_before == trial.quality == 1.0
    assert moved.second_after == 1.0 and moved.first_after == 0.0 and moved.lost == 1.0
    assert not lora.lora_layers(model)
    with pytest.raises(NotEnoughExamples):
        second_task.learn_second(model, tokenizer, first, second, (), start=state)


def test_replay_trains_on_the_first_tasks_examples_with_their_own_template(small, monkeypatch):
    model, tokenizer = small
    seen = []
    state, _ = methods.train_adapter(model, task_rows(tokenizer, LABELS, PAIRS[:2]), QUICK)
    monkeypatch.setattr(methods, "train", lambda model, rows, config, **_: seen.extend(rows))
    second_task.learn_second(model, tokenizer, LABELS, FREE, PAIRS[:2], start=state, replay=PAIRS[2:3], n_query=4)
    texts = [tokenizer.decode(row.ids) for row in seen]
    assert texts == ["In: word 0\nOut: yes\n", "In: word 1\nOut: no\n", "word 2 is yes\n"]
