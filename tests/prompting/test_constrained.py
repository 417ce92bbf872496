"""Masked greedy decoding against transformers' own, and against the likeliest label."""

from __future__ import annotations

import pytest
import torch

from rapidadapt_lessons.errors import BadPrompt, CourseError
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.prompting import forward
from rapidadapt_lessons.prompting.constrained import constrained_answers, next_allowed
from rapidadapt_lessons.prompting.prompts import Prompt, build_prompts, chat_prompt
from rapidadapt_lessons.prompting.scoring import generate_answers, label_logprobs

CAPITALS = load_task("capitals").query_set[:20]


def by_transformers(model, tokenizer, prompt: Prompt, answers: list[str]) -> str:
    """Return the answer with `generate` and its `prefix_allowed_tokens_fn`."""
    row = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    allowed = [
        tokenizer(prompt.answer_prefix + answer + prompt.stop, add_special_tokens=False)["input_ids"]
        for answer in answers
    ]

    def permitted(_: int, tokens: torch.Tensor) -> list[int]:
        written = tokens.tolist()[len(row) :]
        following = [a[len(written)] for a in allowed if len(a) > len(written) and a[: len(written)] == written]
        return following or [tokenizer.eos_token_id]

    out = model.generate(
        torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long), max_new_tokens=12,
        do_sample=False, prefix_allowed_tokens_fn=permitted, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer.decode(out[0, len(row) :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("chat", [False, True])
def test_transformers_writes_the_same_answers(real_model, chat):
    model, tokenizer = real_model
    answers = [example.y for example in CAPITALS]
    if chat:
        question = load_task("capitals").question
        prompts = [chat_prompt(tokenizer, example.x, (), question) for example in CAPITALS[:6]]
    else:
        prompts = build_prompts(CAPITALS[:6])
    found = constrained_answers(model, tokenizer, prompts, answers)
    assert found == [by_transformers(model, tokenizer, prompt, answers) for prompt in prompts]
    assert len(set(found)) > 1 and set(found) <= set(answers)
    assert found != generate_answers(model, tokenizer, prompts), "the mask changed nothing"


def test_a_probable_first_token_can_lead_into_the_less_probable_answer(real_model):
    """In a chat the model begins "The capital of ...": of what is allowed, " L" is likeliest to come first."""
    prompt = chat_prompt(real_model[1], "China", (), load_task("capitals").question)
    answers = ["Beijing", "Lisbon"]
    assert constrained_answers(*real_model, [prompt], answers) == ["Lisbon"]
    [scores] = label_logprobs(*real_model, [prompt], answers).tolist()
    assert scores[0] > scores[1] + 1  # nats


def test_an_answer_that_begins_another_can_be_chosen(real_model):
    texts = ("The language of operating systems is", "Bjarne Stroustrup wrote a language called")
    prompts = [Prompt(text, stop=",") for text in texts]
    assert constrained_answers(*real_model, prompts, ["C", "C++"]) == ["C", "C++"]


def test_the_model_is_asked_only_where_there_is_a_choice(real_model, monkeypatch):
    asked = []
    predictions = forward.predictions
    monkeypatch.setattr(forward, "predictions", lambda model, rows: asked.extend(rows) or predictions(model, rows))
    prompt = Prompt("The capital of Finland is")
    assert constrained_answers(*real_model, [prompt], ["Helsinki"]) == ["Helsinki"]
    assert asked == []
    assert constrained_answers(*real_model, [prompt], ["Vienna", "Helsinki"]) == ["Helsinki"]
    assert len(asked) == 1


def test_next_allowed():
    allowed = [(1, 2, 3), (1, 4), (5,)]
    assert next_allowed(allowed, ()) == {1, 5}
    assert next_allowed(allowed, (1,)) == {2, 4}
    assert next_allowed(allowed, (1, 4)) == set() == next_allowed(allowed, (6,))


def test_what_cannot_be_chosen_from_is_refused(real_model):
    with pytest.raises(CourseError, match="no answers to choose from"):
        constrained_answers(*real_model, [Prompt("a")], [])
    with pytest.raises(BadPrompt, match="the prompt is empty"):
        constrained_answers(*real_model, [Prompt("")], ["a"])
    with pytest.raises(BadPrompt, match="does not fit"):
        constrained_answers(*real_model, [Prompt("a")], ["a " * 9000])
    assert constrained_answers(*real_model, [], ["a"]) == []
