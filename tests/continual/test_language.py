"""Streams for a language model: scores that agree with `scoring`, and every method on LoRA."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_llama

from rapidadapt_lessons.continual.adapters import Averaged, PerTask
from rapidadapt_lessons.continual.distillation import LwF
from rapidadapt_lessons.continual.ewc import EWC, fisher_diagonal
from rapidadapt_lessons.continual.language import OPENING, LanguageScenario, inputs, language_stream
from rapidadapt_lessons.continual.replay import Replay
from rapidadapt_lessons.continual.stream import Joint, Method, run_stream
from rapidadapt_lessons.errors import CourseError, NotEnoughExamples
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.prompting.prompts import Template, build_prompts
from rapidadapt_lessons.prompting.scoring import exact_matches
from rapidadapt_lessons.training.data import Experience, domain_experience, task_experience
from rapidadapt_lessons.training.loop import TrainConfig
from rapidadapt_lessons.training.rows import Row, perplexity

SCENARIO = LanguageScenario()
SCENARIO.batch_size = 3


# With the real model.


def test_the_score_of_a_task_is_its_exact_match(real_model):
    model, tokenizer = real_model
    task = load_task("capitals")
    queries = task.query_set[:12]
    shots = task.episode(2, seed=1).support
    header = "".join(f"{x} -> {y}\n" for x, y in shots)
    template = Template("{x} -> {y}", header=header)
    prompts = build_prompts(queries, template=template)
    right = exact_matches(model, tokenizer, prompts, [query.y for query in queries])
    experience = task_experience(tokenizer, "capitals", pattern="{x} -> {y}", test=12)
    start = tuple(tokenizer(header)["input_ids"])
    rows = [Row(start + row.ids, len(start) + row.first) for row in experience.test]
    assert 0 < sum(right) < 12
    assert SCENARIO.score(model, rows) == pytest.approx(sum(right) / 12)


def test_the_score_of_a_text_is_the_share_of_tokens_that_come_first(real_model):
    model, tokenizer = real_model
    rows = domain_experience(tokenizer, "licences", train=1, test=4, length=24).test
    shares = []
    for row in rows:
        with torch.no_grad():
            best = model(torch.tensor([row.ids])).logits[0, :-1].argmax(-1)
        shares.append((best == torch.tensor(row.ids[1:])).float().mean().item())
    assert SCENARIO.score(model, rows) == pytest.approx(sum(shares) / 4)
    assert 0 < SCENARIO.score(model, rows) < 1


def test_surprise_is_the_log_of_the_inputs_perplexity(real_model):
    model, tokenizer = real_model
    rows = (
        *task_experience(tokenizer, "plurals", test=3).test,
        *domain_experience(tokenizer, "dialogue", train=1, test=2).test,
    )
    with torch.no_grad():
        found = SCENARIO.surprise(model, rows)
    for row, nats in zip(rows, found):
        alone = Row(row.ids[: row.first if row.first > 1 else OPENING])
        assert nats.item() == pytest.approx(math.log(perplexity(model, [alone])), abs=2e-3)


def test_features_are_the_mean_of_the_last_layer_whatever_stands_beside(real_model):
    model, tokenizer = real_model
    rows = task_experience(tokenizer, "plurals", test=4).test
    with torch.no_grad():
        together = SCENARIO.features(model, rows)
        [first] = inputs(rows[:1])
        alone = model(torch.tensor([first.ids]), output_hidden_states=True).hidden_states[-1][0].mean(0)
    assert together.shape == (4, model.config.hidden_size)
    assert torch.allclose(together[0], alone, atol=1e-3)


def test_logits_are_those_of_the_tokens_that_count(real_model):
    model, tokenizer = real_model
    rows = task_experience(tokenizer, "plurals", test=3).test
    with torch.no_grad():
        found = SCENARIO.logits(model, rows)
        counted = torch.tensor([token for row in rows for token in row.ids[row.first :]])
        nats = torch.nn.functional.cross_entropy(found, counted)
        assert nats.item() == pytest.approx(SCENARIO.loss(model, rows).item(), abs=1e-5)
    assert found.shape == (len(counted), model.config.vocab_size)


@pytest.mark.parametrize("kind", ["task", "text"])
def test_loss_and_logits_are_those_that_each_gives_alone(real_model, kind):
    model, tokenizer = real_model
    make = {
        "task": lambda: task_experience(tokenizer, "plurals", test=5),
        "text": lambda: domain_experience(tokenizer, "dialogue"),
    }
    rows = make[kind]().test[:5]
    with torch.no_grad():
        loss, logits = SCENARIO.loss_and_logits(model, rows)
        assert loss.item() == pytest.approx(SCENARIO.loss(model, rows).item(), rel=1e-5)
        counted = sum(len(row.ids) - row.first for row in rows)
        assert SCENARIO.loss(model, rows, "sum").item() == pytest.approx(counted * loss.item(), rel=1e-5)
        assert torch.allclose(logits, SCENARIO.logits(model, rows), atol=1e-3)


# Experiences.


def test_a_bare_prompt_and_a_cue_ask_the_same_examples(real_model):
    _, tokenizer = real_model
    cue, bare = (task_experience(tokenizer, "plurals", pattern=pattern, test=5) for pattern in (None, "{x} -> {y}"))
    assert "The plural of" in tokenizer.decode(cue.train[0].ids)
    assert " ->" in tokenizer.decode(bare.train[0].ids)
    answers = [[tokenizer.decode(row.ids[row.first :]) for row in one.train] for one in (cue, bare)]
    assert answers[0] == answers[1] and len(answers[0]) == 40


def test_a_domains_rows_come_from_all_over_it(real_model):
    _, tokenizer = real_model
    experience = domain_experience(tokenizer, "python_reference", train=50, test=10, length=32)
    assert len(experience.train) == 50 and len(experience.test) == 10
    assert {len(row.ids) for row in (*experience.train, *experience.test)} == {32}
    wide = domain_experience(tokenizer, "python_reference", train=2000, test=10, length=32)
    places = [wide.train.index(row) if row in wide.train else None for row in experience.train[-5:]]
    assert all(place is None or place > 1000 for place in places)


def test_a_domain_with_too_little_text_says_how_much_there_is(real_model):
    _, tokenizer = real_model
    with pytest.raises(CourseError, match="'licences' has .* rows of 64 tokens, not 100000"):
        domain_experience(tokenizer, "licences", train=100_000, length=64)
    with pytest.raises(NotEnoughExamples):
        task_experience(tokenizer, "plurals", train=10_000)


def test_an_input_of_one_token_cannot_be_routed():
    assert inputs([Row((5, 6, 7, 8), 2), Row(tuple(range(40)))]) == [Row((5, 6)), Row(tuple(range(OPENING)))]
    with pytest.raises(CourseError, match="single token, too short to route"):
        inputs([Row((5,), 1)])


# Every method, on LoRA in a small random model: a rule from the prompt's first token to the answer.


def rule(name: str, first: int, shift: int) -> Experience:
    rows = tuple(Row((first, token, 40 + (token + shift) % 8), 2) for token in range(8))
    return Experience(name, rows, rows)


@pytest.fixture(scope="module")
def two_rules():
    # The same prompts, other answers in the second: the worst case for forgetting.
    return language_stream("rules", [rule("first", 30, 0), rule("second", 30, 3)])


@pytest.fixture(scope="module")
def apart():
    return language_stream("rules apart", [rule("first", 30, 0), rule("second", 31, 3)])


def tiny() -> torch.nn.Module:
    model = tiny_llama()
    targets = ("q_proj", "v_proj", "down_proj", "up_proj", "o_proj")
    return lora.inject(model, lora.LoRAConfig(rank=8, lora_alpha=32, target_modules=targets))


CONFIG = TrainConfig(steps=80, batch_size=8, lr=1e-2)


def test_the_second_rule_overwrites_the_first(two_rules):
    result = run_stream(Method(), tiny(), two_rules, CONFIG)
    assert result.matrix.diagonal().min() > 0.9 and result.bwt < -0.8


@pytest.mark.parametrize(
    "method",
    [Joint(), Replay(8), EWC(10.0), EWC(10.0, online=True), LwF(), PerTask(),
     PerTask("centroid"), PerTask("surprise"), Averaged(2.0)],
    ids=lambda method: method.name,
)  # fmt: skip
def test_every_method_runs_on_lora_and_touches_nothing_else(apart, method):
    model = tiny()
    base = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    result = run_stream(method, model, apart, CONFIG)
    assert all(torch.equal(p, base[name]) for name, p in model.named_parameters() if not p.requires_grad)
    assert result.matrix[0, 0] > 0.9, "the first rule was learned"


@pytest.mark.parametrize("method", [Joint(), Replay(8), PerTask(), PerTask("centroid")], ids=lambda method: method.name)
def test_what_keeps_examples_or_adapters_knows_both_rules(apart, method):
    assert run_stream(method, tiny(), apart, CONFIG).acc > 0.9


def test_a_router_sends_prompts_to_the_adapter_of_their_experience(apart):
    model, method = tiny(), PerTask("centroid")
    run_stream(method, model, apart, CONFIG)
    assert method.route(model, apart.scenario, apart.experiences[0].test) == [0] * 8
    assert method.route(model, apart.scenario, apart.experiences[1].test) == [1] * 8


def test_the_fisher_of_lora_sums_over_an_answers_tokens():
    """log P of an answer is a sum over its tokens, so its gradient is too: not their mean."""
    model = tiny()
    torch.manual_seed(0)
    for layer in lora.lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    row = Row((1, 2, 3, 4, 5), 2)
    log_p = -sum(SCENARIO.loss(model, [Row(row.ids[: i + 1], i)]) for i in (2, 3, 4))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    grads = torch.autograd.grad(log_p, [p for p in model.parameters() if p.requires_grad])
    found = fisher_diagonal(model, SCENARIO, [row])
    for name, grad in zip(names, grads):
        assert torch.allclose(found[name], grad**2, rtol=1e-3, atol=1e-9)


def test_a_killed_stream_of_rows_goes_on(apart, tmp_path):
    class Stop(Exception):
        pass

    def stop(so_far):
        if torch.isfinite(so_far.matrix[0]).all():
            raise Stop

    config = replace(CONFIG, steps=10)
    whole = run_stream(Replay(8), tiny(), apart, config)
    with pytest.raises(Stop):
        run_stream(Replay(8), tiny(), apart, config, checkpoint=tmp_path / "rows", on_experience=stop)
    resumed = run_stream(Replay(8), tiny(), apart, config, checkpoint=tmp_path / "rows")
    assert torch.equal(resumed.matrix, whole.matrix)
