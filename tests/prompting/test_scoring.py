"""Scores against sums done by hand, the cached path against the plain one, verdicts against real generation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapidadapt_lessons.errors import BadPrompt, CourseError, NonFiniteScores
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.prompting import forward, scoring
from rapidadapt_lessons.prompting.prompts import Prompt, build_prompt, build_prompts, chat_prompt, templates_for
from rapidadapt_lessons.prompting.scoring import (
    count_tokens,
    exact_matches,
    generate_answers,
    label_continuations,
    label_logprobs,
    next_tokens,
    sample_answers,
    score_continuations,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def tiny(real_model):
    """A Llama of two narrow layers with random weights, dropout, and a context of 64 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=real_model[0].config.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_dropout=0.5,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        for weights in model.parameters():
            weights.data *= 10  # so that what a token sees matters to its scores
    return model.eval(), real_model[1]


@pytest.fixture
def diverged(tiny):
    """The tiny model after a training that diverged: one of its weights is NaN."""
    model, tokenizer = tiny
    model = copy.deepcopy(model)
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    return model, tokenizer


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def by_hand(model, tokenizer, prompt: str, continuation: str) -> tuple[list[float], list[bool]]:
    """One row, nothing padded, nothing kept: the logits of every position, in double precision."""
    p, c = encode(tokenizer, prompt), encode(tokenizer, continuation)
    logits = model(torch.tensor([p + c], device=model.device), use_cache=False).logits[0].double().cpu()
    logprobs, greedy = [], []
    for t, token in enumerate(c):
        row = logits[len(p) + t - 1]
        logprobs.append(float(row[token] - (row - row.max()).exp().sum().log() - row.max()))
        greedy.append(int(row.argmax()) == token)
    return logprobs, greedy


def same(one: list, other: list) -> bool:
    """Whether two lists of scores agree, and hold equally many tokens."""
    assert len(one) == len(other)
    for a, b in zip(one, other):
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=TOLERANCE, rtol=0)
    return all(torch.equal(a.greedy, b.greedy) for a, b in zip(one, other))


@contextmanager
def tokens_read(model) -> Iterator[list[tuple[int, int]]]:
    """Record the shape of what each forward pass reads."""
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()


def few_shot_pairs(name: str, shots: int, n_query: int) -> list[tuple[str, str]]:
    episode = load_task(name).episode(shots, n_query=n_query)
    prompts = build_prompts(episode.query, episode.support)
    return [(p.text, p.answer_prefix + q.y + p.stop) for p, q in zip(prompts, episode.query)]


# Against a sum by hand


@pytest.mark.parametrize("cache", [True, False])
def test_scores_are_those_of_the_raw_logits(real_model, cache):
    pairs = [
        *few_shot_pairs("number_words", 2, 3),
        *few_shot_pairs("plurals", 2, 2),
        ("The capital of France is", " Paris"),
        ("The capital of France is", " London, as everybody knows"),
    ]
    scored = score_continuations(*real_model, pairs, cache=cache)
    assert len({len(s.logprobs) for s in scored}) > 2
    for pair, s in zip(pairs, scored, strict=True):
        logprobs, greedy = by_hand(*real_model, *pair)
        assert s.logprobs.tolist() == pytest.approx(logprobs, abs=TOLERANCE)
        assert s.greedy.tolist() == greedy
        assert torch.equal(s.greedy, s.best == torch.tensor(encode(real_model[1], pair[1])))
        assert s.total == pytest.approx(sum(logprobs), abs=TOLERANCE * len(greedy))
        assert s.logprobs.dtype == torch.float32 and s.greedy.dtype == torch.bool
        assert s.logprobs.device.type == s.greedy.device.type == "cpu"


def test_the_boundary_between_prompt_and_continuation_is_kept(real_model):
    """As one text "is Paris" would be cut before the space; "is " and "Paris" must be scored as they were given."""
    [apart] = score_continuations(*real_model, [("The capital of France is ", "Paris")])
    expected, _ = by_hand(*real_model, "The capital of France is ", "Paris")
    assert apart.logprobs.tolist() == pytest.approx(expected, abs=TOLERANCE)
    [together] = score_continuations(*real_model, [("The capital of France is", " Paris")])
    assert abs(apart.total - together.total) > 0.1


def test_nothing_to_score_is_nothing(tiny):
    assert score_continuations(*tiny, []) == []
    assert exact_matches(*tiny, [], []) == []
    assert generate_answers(*tiny, []) == []
    assert label_logprobs(*tiny, [], ["a", "b"]).shape == (0, 2)


# The cached path against the plain one


def label_pairs(name: str, shots: int, n_query: int) -> list[tuple[str, str]]:
    task = load_task(name)
    episode = task.episode(shots, n_query=n_query)
    return [(p.text, p.answer_prefix + y) for p in build_prompts(episode.query, episode.support) for y in task.labels]


CASES = {
    "16 shots": lambda: few_shot_pairs("plurals", 16, 4),
    "prompts of different numbers of shots": lambda: [
        pair for k in (1, 2, 5) for pair in few_shot_pairs("number_words", k, 2)
    ],
    "labels": lambda: label_pairs("continents", 4, 4),
    "one-token labels behind one prompt": lambda: [("Q: sky\nA:", f" {y}") for y in ("blue", "red", "green")],
    "one-token and many-token labels": lambda: [
        (f"{x} is", f" {y}") for x in ("the sky", "the sea") for y in ("blue", "bluish green or so", "Antananarivo")
    ],
    "a single pair": lambda: few_shot_pairs("capitals", 3, 1),
    "nothing shared": lambda: [("cat ->", " cats\n"), ("Montag in English:", " Monday"), ("2 + 2 =", " 4")],
    "one prompt begins another": lambda: [("one two", " three"), ("one two three", " four"), ("one", " two three")],
    "a prompt of one token": lambda: [("one", " two"), ("one two", " three")],
    "the same pair twice": lambda: [("cat ->", " cats\n")] * 2 + [("cat -> cats\ndog ->", " dogs\n")],
}


@pytest.mark.parametrize("case", CASES)
def test_the_cached_path_gives_the_scores_of_the_plain_one(real_model, case, monkeypatch):
    pairs = CASES[case]()
    plain = score_continuations(*real_model, pairs, cache=False)
    for most in (64, 3, 1):
        monkeypatch.setattr(forward, "ROWS_AT_ONCE", most)
        assert same(score_continuations(*real_model, pairs, cache=True), plain)
    assert same(score_continuations(*real_model, pairs[:2], cache=False), plain[:2])


def test_small_packs_give_the_same_scores(real_model, monkeypatch):
    pairs = few_shot_pairs("number_words", 4, 6)
    whole = score_continuations(*real_model, pairs)
    monkeypatch.setattr(forward, "PACKED_TOKENS", 12)
    with tokens_read(real_model[0]) as shapes:
        assert same(score_continuations(*real_model, pairs), whole)
    assert len(shapes) > 3 and max(width for _, width in shapes[1:]) <= 12


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(
        st.tuples(st.text("ab \n", min_size=1, max_size=12), st.text("abc", min_size=1, max_size=6)),
        min_size=1,
        max_size=6,
    ),
    head=st.text("xyz", max_size=5),
    most=st.integers(1, 4),
)
def test_any_pairs_score_the_same_on_both_paths_and_by_hand(tiny, monkeypatch, data, head, most):
    pairs = [(head + p, c) for p, c in data]
    monkeypatch.setattr(forward, "ROWS_AT_ONCE", most)
    plain = score_continuations(*tiny, pairs, cache=False)
    cached = score_continuations(*tiny, pairs, cache=True)
    for pair, a, b in zip(pairs, plain, cached, strict=True):
        expected = by_hand(*tiny, *pair)[0]
        assert a.logprobs.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)
        assert b.logprobs.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_the_shared_part_is_computed_once_and_the_plain_path_computes_it_every_time(real_model):
    model, tokenizer = real_model
    pairs = few_shot_pairs("plurals", 8, 6)
    rows = [encode(tokenizer, p) + encode(tokenizer, c)[:-1] for p, c in pairs]
    shared = next(i for i, column in enumerate(zip(*rows)) if len(set(column)) > 1)
    assert shared > 30
    with tokens_read(model) as cached:
        score_continuations(model, tokenizer, pairs, cache=True)
    with tokens_read(model) as plain:
        score_continuations(model, tokenizer, pairs, cache=False)
    assert cached == [(1, shared), (1, sum(map(len, rows)) - 6 * shared)]
    assert plain == [(6, max(map(len, rows)))]


def test_labels_of_one_token_need_one_row_for_each_prompt(real_model):
    pairs = [(f"{x} is", f" {y}") for x in ("sky", "sea") for y in ("blue", "red", "green")]
    with tokens_read(real_model[0]) as shapes:
        score_continuations(*real_model, pairs, cache=False)
    assert [rows for rows, _ in shapes] == [2]


@pytest.mark.parametrize("cache", [True, False])
def test_prompts_do_not_see_one_another(real_model, cache):
    pairs = few_shot_pairs("capitals", 2, 5)
    together = score_continuations(*real_model, pairs, cache=cache)
    backwards = score_continuations(*real_model, pairs[::-1], cache=cache)[::-1]
    alone = [score_continuations(*real_model, [pair], cache=cache)[0] for pair in pairs]
    assert same(together, backwards) and same(together, alone)


# Exact match against generation


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("plurals", "arrow"),
        ("capitals", "arrow"),
        ("plurals", "question and answer"),  # ends some answers with the end of text
        ("plurals", "input and output"),  # ends nearly all answers with it
    ],
)
def test_exact_match_is_what_generation_says(real_model, name, kind):
    model, tokenizer = real_model
    task = load_task(name)
    episode = task.episode(4, n_query=8)
    prompts = build_prompts(episode.query, episode.support, templates_for(task)[kind])
    answers = [q.y for q in episode.query]
    verdicts = exact_matches(model, tokenizer, prompts, answers)
    generated = generate_answers(model, tokenizer, prompts, max_new_tokens=10)
    assert verdicts == [a == b for a, b in zip(generated, answers, strict=True)]
    assert len(set(verdicts)) == 2, "queries that are all right or all wrong prove little"
    assert verdicts == exact_matches(model, tokenizer, prompts, answers, cache=False)


def test_in_a_chat_only_answers_written_in_other_tokens_are_missed(real_model):
    model, tokenizer = real_model
    task = load_task("plurals")
    episode = task.episode(2, n_query=8)
    prompts = [chat_prompt(tokenizer, q.x, episode.support, task.question) for q in episode.query]
    answers = [q.y for q in episode.query]
    verdicts = exact_matches(model, tokenizer, prompts, answers)
    generated = generate_answers(model, tokenizer, prompts, max_new_tokens=6)
    assert len(set(verdicts)) == 2
    for p, verdict, said, answer in zip(prompts, verdicts, generated, answers, strict=True):
        if verdict:
            assert said == answer
        elif said == answer:
            [scored] = score_continuations(model, tokenizer, [(p.text, answer)])
            at = scored.greedy.tolist().index(False)
            rest = tokenizer.decode(encode(tokenizer, answer)[at:])
            written = tokenizer.decode(scored.best[at])
            assert rest.startswith(written) and rest != written


@pytest.mark.parametrize(
    ("after", "stop", "ends"),
    [
        ("\n", "\n", True),
        ("\n\n", "\n", True),
        (" \n", "\n", True),
        ("<|im_end|>", "\n", True),
        ("<|im_end|>", "<|im_end|>", True),
        ("\n", "<|im_end|>", False),
        ("s", "\n", False),
        (" ", "\n", False),
    ],
)
def test_what_ends_an_answer(tiny, monkeypatch, after, stop, ends):
    """A model made to say "a", then `after`: is "a" what it answers?"""
    model, tokenizer = tiny
    a, [b] = encode(tokenizer, "a"), encode(tokenizer, after)
    says = torch.full((1, 3, model.config.vocab_size), -9.0)
    says[0, :, b] = 9.0
    says[0, 0, a] = 10.0

    def say(model, batch, first):
        return [says[0, : len(row) - first[row]] for row in batch]

    monkeypatch.setattr(forward, "_forward_padded", say)
    prompt = Prompt("x", answer_prefix="", stop=stop)
    assert exact_matches(model, tokenizer, [prompt], ["a"]) == [ends]
    assert exact_matches(model, tokenizer, [prompt], ["b"]) == [False]


def test_what_was_generated_matches_and_a_part_of_it_does_not(real_model):
    episode = load_task("number_words").episode(4, n_query=4)
    prompts = build_prompts(episode.query, episode.support)
    generated = generate_answers(*real_model, prompts)
    assert exact_matches(*real_model, prompts, generated) == [True] * 4
    cut = [answer.rpartition(" ")[0] for answer in generated]
    assert all(cut)
    assert exact_matches(*real_model, prompts, cut) == [False] * 4


def test_a_generated_answer_does_not_depend_on_the_batch(real_model, monkeypatch):
    episode = load_task("capitals").episode(3, n_query=3)
    prompts = [*build_prompts(episode.query[:2], episode.support), *build_prompts(episode.query[2:])]
    together = generate_answers(*real_model, prompts, max_new_tokens=4)
    assert together == [generate_answers(*real_model, [p], max_new_tokens=4)[0] for p in prompts]
    monkeypatch.setattr(scoring, "GENERATED_ROWS", 2)
    assert together == generate_answers(*real_model, prompts, max_new_tokens=4)


def test_a_generated_answer_is_the_same_with_the_shared_tokens_cached(real_model, monkeypatch):
    episode = load_task("country_fr").episode(4, n_query=6)
    prompts = build_prompts(episode.query, episode.support)
    assert len({count_tokens(real_model[1], p.text) for p in prompts}) > 1  # so that some are padded
    with monkeypatch.context() as patched:
        patched.setattr(forward, "shared_length", lambda rows, limit: 0)
        plain = generate_answers(*real_model, prompts, max_new_tokens=6)
    lengths = []
    keep = forward._prefix_cache
    monkeypatch.setattr(forward, "_prefix_cache", lambda m, prefix: lengths.append(len(prefix)) or keep(m, prefix))
    assert generate_answers(*real_model, prompts, max_new_tokens=6) == plain
    assert lengths and lengths[0] >= 20  # four examples were computed once


def test_another_prompts_stop_does_not_cut_an_answer_short(real_model):
    text = "1, 2, 3,"
    long, short = Prompt(text, stop="6"), Prompt(text, stop="5")
    answers = generate_answers(*real_model, [long, short, long], max_new_tokens=10)
    assert answers == ["4, 5,", "4,", "4, 5,"]


def test_max_new_tokens_bounds_an_answer(real_model):
    [answer] = generate_answers(*real_model, [Prompt("1, 2, 3,", stop="\n")], max_new_tokens=4)
    assert count_tokens(real_model[1], answer) <= 4


# Samples


def test_samples_follow_from_the_seed_alone(real_model, monkeypatch):
    prompts = [Prompt("Once upon a time there was a"), Prompt("1, 2,", stop=",")]
    how = {"temperature": 1.0, "max_new_tokens": 3}
    state = torch.random.get_rng_state()
    five = sample_answers(*real_model, prompts, 5, seed=0, **how)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [len(texts) for texts in five] == [5, 5] and len(set(five[0])) > 1
    torch.rand(1)
    monkeypatch.setattr(scoring, "GENERATED_ROWS", 3)
    assert sample_answers(*real_model, prompts, 2, seed=0, **how) == [texts[:2] for texts in five]
    assert sample_answers(*real_model, prompts, 5, seed=1, **how) != five


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_are_drawn_at_the_temperature(real_model, temperature):
    """Each answer's share of 400 against softmax(logits / temperature), within four standard errors."""
    text = "The coin came up"
    known = next_tokens(*real_model, text, real_model[0].config.vocab_size)
    logits = torch.tensor([p for _, p in known]).log()
    chances = (logits / temperature).softmax(-1).tolist()
    [texts] = sample_answers(*real_model, [Prompt(text)], 400, temperature=temperature, seed=0, max_new_tokens=1)
    for (word, _), chance in list(zip(known, chances))[:3]:
        share = sum(said == word.strip() for said in texts) / len(texts)
        assert share == pytest.approx(chance, abs=4 * (chance * (1 - chance) / len(texts)) ** 0.5)
    assert chances[0] > 0.01


def test_samples_of_a_low_temperature_are_the_greedy_answer(real_model):
    episode = load_task("plurals").episode(2, n_query=2)
    prompts = build_prompts(episode.query, episode.support)
    greedy = generate_answers(*real_model, prompts)
    assert sample_answers(*real_model, prompts, 2, temperature=1e-3, seed=0) == [[text] * 2 for text in greedy]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(tiny, change, told):
    how = {"samples": 2, "temperature": 1.0, "seed": 0} | change
    with pytest.raises(CourseError, match=told):
        sample_answers(*tiny, [Prompt("a")], **how)


# Labels


def test_label_logprobs_have_a_row_for_each_prompt_and_a_column_for_each_label(real_model):
    prompts = [build_prompt(x) for x in ("sky", "grass", "blood")]
    labels = ["blue", "light green", "red", "grey"]
    table = label_logprobs(*real_model, prompts, labels)
    assert table.shape == (3, 4) and table.dtype == torch.float32
    expected = [[sum(by_hand(*real_model, p.text, " " + label)[0]) for label in labels] for p in prompts]
    torch.testing.assert_close(table, torch.tensor(expected), atol=1e-3, rtol=0)
    turned = label_logprobs(*real_model, prompts[::-1], labels[::-1])
    torch.testing.assert_close(turned.flip(0, 1), table, atol=1e-3, rtol=0)


def test_labels_follow_the_prompts_own_answer_prefix(real_model):
    bare = label_logprobs(*real_model, [Prompt("sky=", answer_prefix="")], ["blue", "red"])
    assert bare[0, 0] == pytest.approx(sum(by_hand(*real_model, "sky=", "blue")[0]), abs=TOLERANCE)


# Next tokens


def test_next_tokens_are_the_most_probable_ones_in_order(real_model):
    model, tokenizer = real_model
    text = "The capital of France is"
    found = next_tokens(model, tokenizer, text, k=6)
    probabilities = [p for _, p in found]
    assert found[0][0] == " Paris"
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1
    with torch.no_grad():
        logits = model(torch.tensor([encode(tokenizer, text)], device=model.device)).logits[0, -1].double().cpu()
    top = logits.softmax(-1).topk(6)
    assert probabilities == pytest.approx(top.values.tolist(), abs=1e-5)
    assert [token for token, _ in found] == [tokenizer.decode([i]) for i in top.indices.tolist()]


def test_next_tokens_of_all_tokens_sum_to_1(tiny):
    model, tokenizer = tiny
    size = model.config.vocab_size
    assert sum(p for _, p in next_tokens(model, tokenizer, "a", k=size)) == pytest.approx(1, abs=1e-3)
    with pytest.raises(CourseError, match=rf"k is {size + 1}.*{size} tokens"):
        next_tokens(model, tokenizer, "a", k=size + 1)


def test_count_tokens(real_model):
    _, tokenizer = real_model
    assert count_tokens(tokenizer, "") == 0
    assert count_tokens(tokenizer, "cat ->") == len(tokenizer.tokenize("cat ->")) == 2


# The model is left as it was

CALLS = {
    "score_continuations": lambda m, t: score_continuations(m, t, [("a b c", " d e f")])[0].total,
    "score_continuations, packed": lambda m, t: score_continuations(m, t, [("a b c", " d"), ("a b e", " f")])[1].total,
    "exact_matches": lambda m, t: exact_matches(m, t, [Prompt("a b c")], ["d"]),
    "label_logprobs": lambda m, t: label_logprobs(m, t, [Prompt("a b c")], ["d", "e"]).tolist(),
    "next_tokens": lambda m, t: next_tokens(m, t, "a b c"),
    "generate_answers": lambda m, t: generate_answers(m, t, [Prompt("a b c d e f")]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_while_scoring_and_the_training_flag_is_put_back(tiny, call, training):
    model, tokenizer = tiny
    model = copy.deepcopy(model)
    expected = CALLS[call](model.eval(), tokenizer)
    model.train(training)
    for _ in range(3):
        assert CALLS[call](model, tokenizer) == expected
    assert model.training is training
    assert all(part.training is training for part in model.modules())


@pytest.mark.parametrize("call", CALLS)
def test_a_failure_puts_the_training_flag_back_too(diverged, call):
    model, tokenizer = diverged
    model.train()
    with pytest.raises(NonFiniteScores):
        CALLS[call](model, tokenizer)
    assert model.training


def test_scores_carry_no_gradient(tiny):
    [scored] = score_continuations(*tiny, [("a", "b")])
    assert not scored.logprobs.requires_grad
    assert all(weights.grad is None for weights in tiny[0].parameters())


# Bad input: the value and the remedy


@pytest.mark.parametrize("call", CALLS)
def test_scores_that_are_not_finite_are_told(diverged, call):
    with pytest.raises(NonFiniteScores, match=r"NaN or infinite.*\d+ tokens") as caught:
        CALLS[call](*diverged)
    assert "float32" in caught.value.remedy and "diverged" in caught.value.remedy


def test_an_infinite_score_is_told(tiny):
    model = copy.deepcopy(tiny[0])
    model.lm_head.weight.data[7] = float("inf")
    with pytest.raises(NonFiniteScores):
        next_tokens(model, tiny[1], "a")


@pytest.mark.parametrize("cache", [True, False])
def test_an_empty_prompt_or_continuation_is_told(tiny, cache):
    with pytest.raises(BadPrompt, match="prompt is empty.*''") as caught:
        score_continuations(*tiny, [("a", "b"), ("", "b")], cache=cache)
    assert "at least one token" in caught.value.remedy
    with pytest.raises(BadPrompt, match="continuation is empty.*''"):
        score_continuations(*tiny, [("a", "")], cache=cache)
    with pytest.raises(BadPrompt, match="prompt is empty"):
        next_tokens(*tiny, "")
    with pytest.raises(BadPrompt, match="prompt is empty"):
        generate_answers(*tiny, [Prompt("a"), Prompt("")])
    with pytest.raises(BadPrompt, match="prompt is empty"):
        exact_matches(*tiny, [Prompt("")], ["a"])


def test_what_just_fits_the_context_is_scored_and_one_token_more_is_told(tiny):
    model, tokenizer = tiny
    text = "a" + " a" * 59
    assert count_tokens(tokenizer, text) == 60
    assert len(score_continuations(model, tokenizer, [(text, " a b c d")])[0].logprobs) == 4
    assert generate_answers(model, tokenizer, [Prompt(text)], max_new_tokens=4)
    with pytest.raises(BadPrompt, match=r"prompt of 65 tokens.*'a a a.*context of 64") as caught:
        score_continuations(model, tokenizer, [("a", "b"), (text, " a b c d e")])
    assert "fewer or shorter examples" in caught.value.remedy
    with pytest.raises(BadPrompt, match="65 tokens"):
        generate_answers(model, tokenizer, [Prompt(text)], max_new_tokens=5)
    next_tokens(model, tokenizer, text + " a a a")
    with pytest.raises(BadPrompt, match="65 tokens"):
        next_tokens(model, tokenizer, text + " a a a a")


def test_a_prompt_too_long_for_the_real_model_is_told_before_anything_is_computed(real_model):
    with tokens_read(real_model[0]) as shapes, pytest.raises(BadPrompt, match=r"10\d\d\d tokens.*context of 8192"):
        exact_matches(*real_model, [Prompt("cat ->"), Prompt("dog " * 10000)], ["cats", "dogs"])
    assert shapes == []


@pytest.mark.parametrize("value", [0, -3])
def test_sizes_below_1_are_told(tiny, value):
    calls = {
        "k": lambda: next_tokens(*tiny, "a", k=value),
        "max_new_tokens": lambda: generate_answers(*tiny, [Prompt("a")], max_new_tokens=value),
    }
    for name, call in calls.items():
        with pytest.raises(CourseError, match=f"{name} is {value}") as caught:
            call()
        assert "1 or more" in caught.value.remedy


def test_numbers_that_differ_are_told(tiny):
    with pytest.raises(BadPrompt, match="2 prompts came with 1 answers") as caught:
        exact_matches(*tiny, [Prompt("a"), Prompt("b")], ["c"])
    assert "one answer to each prompt" in caught.value.remedy


@pytest.mark.parametrize("labels", [[], ["yes"], ["yes", "yes"]])
def test_fewer_than_two_labels_are_told(tiny, labels):
    with pytest.raises(BadPrompt) as caught:
        label_logprobs(*tiny, [Prompt("a")], labels)
    assert str(labels) in caught.value.problem and "labels" in caught.value.remedy


def test_labels_that_the_tokenizer_reads_alike_are_told(tiny):
    """As a tokenizer that ignores capitals would have it."""
    model, tokenizer = tiny

    class Lower:
        def __call__(self, text, **options):
            return tokenizer(text.lower(), **options)

    assert label_logprobs(model, tokenizer, [Prompt("a")], ["US", "us"]).shape == (1, 2)
    with pytest.raises(BadPrompt, match="'US' and 'us' are the same to the model") as caught:
        label_logprobs(model, Lower(), [Prompt("a")], ["it", "US", "us"])
    assert "rename" in caught.value.remedy


# A label that begins another

PREFIX_SETS = [("C", "C++"), ("no", "no answer", "yes"), ("A", "B", "A+"), ("👍", "👍🏽")]


@pytest.mark.parametrize("labels", PREFIX_SETS)
def test_where_a_label_begins_another_each_is_scored_with_its_stop(real_model, labels):
    chat = chat_prompt(real_model[1], "free(p);")
    for prompt in (build_prompt("free(p);"), chat):
        [scores] = label_logprobs(*real_model, [prompt], labels).tolist()
        expected = [sum(by_hand(*real_model, prompt.text, prompt.answer_prefix + y + prompt.stop)[0]) for y in labels]
        assert scores == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("labels", [("C++", "C#"), ("yes", "no"), ("positive", "negative", "neutral"), ("ab", "b")])
def test_other_labels_are_scored_without_it_bit_for_bit(real_model, labels):
    prompts = [build_prompt(x) for x in ("free(p);", "new int;")]
    pairs = [(p.text, p.answer_prefix + label) for p in prompts for label in labels]
    alone = [s.total for s in score_continuations(*real_model, pairs)]
    assert label_logprobs(*real_model, prompts, labels).flatten().tolist() == alone


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=2, max_size=6))
def test_the_stop_is_there_for_all_labels_or_for_none(labels):
    begins = any(a != b and b.startswith(a) for a in labels for b in labels)
    found = label_continuations(Prompt("x", stop="."), labels)
    assert found == [f" {label}{'.' if begins else ''}" for label in labels]


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_model_that_writes_the_longer_label_answers_it(tiny, monkeypatch, goes_on):
    """A model made to say "C" and then a line break, or "++" and then a line break."""
    model, tokenizer = tiny
    [c], [plus], [end] = (encode(tokenizer, text) for text in (" C", "++", "\n"))
    after = {c: plus if goes_on else end, plus: end}

    def say(model, batch, first):
        tables = []
        for row in batch:
            table = torch.zeros(len(row) - first[row], model.config.vocab_size)
            for t, token in enumerate(row[first[row] :]):
                table[t, after.get(token, c)] = 20.0
            tables.append(table)
        return tables

    monkeypatch.setattr(forward, "_forward_padded", say)
    monkeypatch.setattr(forward, "shared_length", lambda rows, limit: 0)
    [scores] = label_logprobs(model, tokenizer, [Prompt("x")], ["C", "C++"]).softmax(-1).tolist()
    assert scores[goes_on] > 0.99
