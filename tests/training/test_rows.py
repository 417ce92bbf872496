"""Rows of tokens, and a loss that computes only what counts: the same numbers as transformers' own."""

from __future__ import annotations

import math

import peft
import pytest
import torch
from tiny_models import tiny_gpt2, tiny_llama

from rapidadapt_lessons.errors import BadPrompt, CourseError
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.prompting.prompts import build_prompts
from rapidadapt_lessons.prompting.scoring import generate_answers, score_continuations
from rapidadapt_lessons.training.rows import (
    IGNORED,
    Row,
    answer_rows,
    batches,
    by_row,
    collate,
    counted_logits,
    exact_rows,
    perplexity,
    text_rows,
    token_loss,
)

ROWS = [Row((5, 6, 7, 8, 9, 10), 1), Row((11, 12, 13), 2), Row((14, 15, 16, 17), 3)]


def test_rows_are_padded_on_the_right_and_only_what_counts_is_a_label():
    batch = collate(ROWS[1:])
    assert batch.input_ids.tolist() == [[11, 12, 13, 0], [14, 15, 16, 17]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 13, IGNORED], [IGNORED, IGNORED, IGNORED, 17]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.counted == 2


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
@torch.no_grad()
def test_the_loss_is_transformers_own(make):
    model, batch = make(), collate(ROWS)
    theirs = model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    torch.testing.assert_close(token_loss(model, batch), theirs)
    torch.testing.assert_close(token_loss(model, batch, "sum"), theirs * batch.counted)


@torch.no_grad()
def test_nothing_is_computed_that_does_not_count():
    model, seen = tiny_llama(), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    token_loss(model, collate(ROWS[:2]))
    assert seen[0][:2] == (2, 5)  # of six columns, the last is not read: nothing comes after it
    assert seen[1] == (5 + 1, 100)  # five tokens of the first row count, one of the second


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_gradients_are_those_of_transformers_own_loss_and_the_model_is_left_as_it_was(make):
    model, batch = make(), collate(ROWS)
    hooks = len(model.lm_head._forward_pre_hooks)
    model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss.backward()
    theirs = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    token_loss(model, batch).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name])
    with pytest.raises(IndexError):
        token_loss(model, collate([Row((5, 6, 1000))]))
    assert len(model.lm_head._forward_pre_hooks) == hooks


@torch.no_grad()
def test_logits_and_values_by_row_are_those_of_each_row_alone():
    model, batch = tiny_llama(), collate(ROWS)
    logits, targets = counted_logits(model, batch)
    for row, found, tokens in zip(ROWS, by_row(logits, batch), by_row(targets, batch)):
        assert tuple(tokens.tolist()) == row.ids[row.first :]
        torch.testing.assert_close(found, model(torch.tensor([row.ids])).logits[0, row.first - 1 : -1])


@torch.no_grad()
def test_padding_changes_nothing(real_model):
    model, tokenizer = real_model
    texts = ("The sea is wide.", "A cat sat on the old mat, asleep.")
    rows = [Row(tuple(tokenizer(text)["input_ids"])) for text in texts]
    alone = [token_loss(model, collate([row], model.device), "sum").item() for row in rows]
    together = token_loss(model, collate(rows, model.device), "sum").item()
    assert together == pytest.approx(sum(alone), abs=1e-3)


def test_an_answers_loss_is_its_log_probability_and_the_prompts_tokens_do_not_count(real_model):
    model, tokenizer = real_model
    episode = load_task("plurals").episode(2, seed=0, n_query=3)
    prompts, answers = build_prompts(episode.query, episode.support), [query.y for query in episode.query]
    rows = answer_rows(tokenizer, prompts, answers)
    pairs = [(p.text, p.answer_prefix + a + p.stop) for p, a in zip(prompts, answers)]
    scored = score_continuations(model, tokenizer, pairs)
    with torch.no_grad():
        for row, one in zip(rows, scored):
            assert -token_loss(model, collate([row], model.device), "sum").item() == pytest.approx(one.total, abs=1e-3)
            assert len(row.ids) - row.first == len(one.logprobs)


def test_a_text_is_cut_into_rows_without_overlap_and_its_rest_is_dropped(real_model):
    _, tokenizer = real_model
    text = "One two three four five six seven eight nine ten eleven."
    ids = tuple(tokenizer(text)["input_ids"])
    rows = text_rows(tokenizer, text, length=4)
    assert [i for row in rows for i in row.ids] == list(ids[: len(ids) // 4 * 4])
    assert {len(row.ids) for row in rows} == {4}
    assert text_rows(tokenizer, "Two words", length=128) == [Row(tuple(tokenizer("Two words")["input_ids"]))]


def test_perplexity_is_exp_of_the_mean_loss_whatever_the_batch_size():
    model = tiny_llama().train()
    logits = model.eval()(torch.tensor([ROWS[0].ids])).logits[0].log_softmax(-1).detach()
    by_hand = math.exp(-sum(logits[i, t] for i, t in enumerate(ROWS[0].ids[1:])) / 5)
    assert perplexity(model, ROWS[:1]) == pytest.approx(by_hand, rel=1e-4)
    assert perplexity(model, ROWS, 1) == pytest.approx(perplexity(model, ROWS, 3), rel=1e-4)
    model.train()
    perplexity(model, ROWS)
    assert model.training


def test_an_english_text_is_likelier_than_the_same_words_shuffled(real_model):
    model, tokenizer = real_model
    english = "The children walked home through the park because the bus had already left."
    shuffled = "Park the bus home already the because walked left children had the through."
    one, other = (perplexity(model, text_rows(tokenizer, text)) for text in (english, shuffled))
    assert one < other / 3


def test_exact_rows_agree_with_what_generating_says(real_model):
    """Some queries are answered and some are not, and both ways of asking know which."""
    model, tokenizer = real_model
    episode = load_task("past_tense").episode(2, seed=0, n_query=8)
    prompts, answers = build_prompts(episode.query, episode.support), [query.y for query in episode.query]
    right = exact_rows(model, answer_rows(tokenizer, prompts, answers), batch_size=3)
    assert right == [given == y for given, y in zip(generate_answers(model, tokenizer, prompts), answers)]
    assert 0 < sum(right) < len(right)


def test_every_counted_token_must_be_the_first_choice_and_the_mode_is_kept():
    model = tiny_llama().train()
    ids = [5, 6, 7]
    with torch.no_grad():
        for _ in range(3):  # what greedy decoding would add
            ids.append(int(model.eval()(torch.tensor([ids])).logits[0, -1].argmax()))
    model.train()
    wrong = [*ids[:-1], ids[-1] % 90 + 1]
    early = [*ids[:3], ids[3] % 90 + 1, *ids[4:]]
    assert exact_rows(model, [Row(tuple(ids), 3), Row(tuple(wrong), 3), Row(tuple(early), 3)]) == [True, False, False]
    assert exact_rows(model, [Row(tuple(wrong), 3), Row((*wrong[:-1],), 3)]) == [False, True]
    assert model.training
    with pytest.raises(CourseError, match="no rows"):
        exact_rows(model, [])


def test_losses_and_matches_hold_behind_virtual_tokens():
    """peft's prompt tuning puts vectors in front of the text; positions are counted from the end."""
    config = peft.PromptTuningConfig(task_type=peft.TaskType.CAUSAL_LM, num_virtual_tokens=4)
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_llama(), config).eval()
    batch = collate(ROWS)
    with torch.no_grad():
        full = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 4:]
        logprobs = full.log_softmax(-1)
        counted = [(i, j) for i, row in enumerate(ROWS) for j in range(row.first, len(row.ids))]
        by_hand = -sum(logprobs[i, j - 1, ROWS[i].ids[j]] for i, j in counted)
        torch.testing.assert_close(token_loss(model, batch, "sum"), by_hand)


def test_pieces_cover_all_rows_in_order():
    assert [list(piece) for piece in batches(ROWS, 2)] == [ROWS[:2], ROWS[2:]]


def test_bad_rows_are_told(real_model):
    _, tokenizer = real_model
    prompts = build_prompts(load_task("plurals").query_set[:2])
    with pytest.raises(BadPrompt, match="training text is empty"):
        text_rows(tokenizer, "")
    with pytest.raises(CourseError, match="length is 1"):
        text_rows(tokenizer, "some text", length=1)
    with pytest.raises(BadPrompt, match="2 prompts came with 1 answers"):
        answer_rows(tokenizer, prompts, ["one"])
    with pytest.raises(BadPrompt, match="0 prompts"):
        answer_rows(tokenizer, [], [])
    with pytest.raises(BadPrompt, match="' '.* is empty"):
        answer_rows(tokenizer, prompts, ["one", " "])
    with pytest.raises(CourseError, match="no rows"):
        perplexity(tiny_llama(), [])
