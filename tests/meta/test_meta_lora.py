"""Meta-learned LoRA starts: Reptile's rule by hand, adapting and scoring, and the meta-gradient of the real model."""

from __future__ import annotations

import random
import re
from html import unescape

import pytest
import torch

from rapidadapt_lessons.errors import CourseError, TrainingDiverged
from rapidadapt_lessons.lm.tasks import Episode, Example
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig, adapter_state
from rapidadapt_lessons.meta import few_shot_figures, meta_lora
from rapidadapt_lessons.meta.meta_lora import MetaConfig
from rapidadapt_lessons.meta.text_tasks import MiniTask
from rapidadapt_lessons.prompting.prompts import Template

CUE = "After {x} comes {y}"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NEXT = MiniTask("next", CUE, tuple(Example(a, b) for a, b in zip(LETTERS, LETTERS[1:])))
SAME = MiniTask("same", "Again {x} is {y}", tuple(Example(a, a) for a in LETTERS))
EPISODE = Episode("next", NEXT.examples[:4], NEXT.examples[10:14], 0)


@pytest.fixture(scope="module")
def tokenizer(real_model):
    return real_model[1]


@pytest.fixture
def model(tokenizer):
    """A tiny model of the real one's kind, with LoRA, the same each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, initializer_range=0.5, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        )  # fmt: skip
        tiny = LlamaForCausalLM(config).eval()
    return lora.inject(tiny, LoRAConfig(rank=2, lora_alpha=4, target_modules=("q_proj", "v_proj", "down_proj")))


def same(a, b) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def quiet_meta_train(model, tokenizer, config, family=(NEXT, SAME)):
    return meta_lora.meta_train(model, tokenizer, family, config, progress=False)


def test_one_iteration_is_reptiles_rule(model, tokenizer):
    """theta + epsilon (theta* - theta), with theta* from plain Adam on the same rows."""
    config = MetaConfig(iterations=1, inner_steps=3, rows=4, inner_lr=1e-2, outer_lr=0.25)
    before = adapter_state(model)
    found = quiet_meta_train(model, tokenizer, config, (NEXT,))
    lora.set_adapter_state(model, before)
    rng = random.Random(config.seed)
    rng.sample([NEXT], 1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        rows = meta_lora.draw_rows(tokenizer, NEXT, config, rng)
        optimizer.zero_grad()
        meta_lora.token_loss(model, meta_lora.collate(rows)).backward()
        optimizer.step()
    adapted = adapter_state(model)
    for name, p in before.items():
        assert torch.allclose(found.state[name], p + 0.25 * (adapted[name] - p), atol=1e-7)
    assert not same(before, adapted)


def test_the_model_ends_with_the_result_and_only_lora_moves(model, tokenizer):
    base = {name: p.clone() for name, p in model.named_parameters() if "lora_" not in name}
    found = quiet_meta_train(model, tokenizer, MetaConfig(iterations=4, inner_steps=2, rows=4, most_shots=2))
    assert same(found.state, adapter_state(model)) and len(found.losses) == 4
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in base.items())


def test_equal_seeds_repeat_and_others_do_not(model, tokenizer):
    start, states = adapter_state(model), []
    for seed in (0, 0, 1):
        lora.set_adapter_state(model, start)
        config = MetaConfig(iterations=3, inner_steps=2, rows=4, most_shots=2, seed=seed)
        states.append(quiet_meta_train(model, tokenizer, config).state)
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_meta_training_lowers_the_loss_on_rows_not_seen(model, tokenizer):
    config = MetaConfig(iterations=30, inner_steps=2, rows=8, inner_lr=2e-2, outer_lr=1.0)
    losses = [first for first, _ in quiet_meta_train(model, tokenizer, config).losses]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_rows_carry_shots_that_are_not_their_own_query(tokenizer):
    config, rng, seen = MetaConfig(rows=3, most_shots=2), random.Random(0), set()
    for _ in range(30):
        rows = meta_lora.draw_rows(tokenizer, NEXT, config, rng)
        lines = [tokenizer.decode(row.ids).strip().split("\n") for row in rows]
        assert len(rows) == 3 and len({len(text) for text in lines}) == 1
        seen.add(len(lines[0]) - 1)
        for row, text in zip(rows, lines):
            assert len(set(text)) == len(text)  # the query is not among its own examples
            assert tokenizer.decode(row.ids[row.first :]).strip() == text[-1].split(" comes ")[1]
    assert seen == {0, 1, 2}


def test_joint_training_takes_the_very_rows_of_meta_training_mixed(model, tokenizer, monkeypatch):
    seen, rates, step, start = [], [], meta_lora.take_step, adapter_state(model)

    def watched(model, optimizer, rows):
        seen.append(rows)
        rates.append(optimizer.param_groups[0]["lr"])
        return step(model, optimizer, rows)

    monkeypatch.setattr(meta_lora, "take_step", watched)
    config = MetaConfig(iterations=3, inner_steps=2, rows=4, inner_lr=6e-3, seed=1)
    quiet_meta_train(model, tokenizer, config)
    visited = [row for rows in seen for row in rows]
    seen.clear(), rates.clear(), lora.set_adapter_state(model, start)
    base = {name: p.clone() for name, p in model.named_parameters() if "lora_" not in name}
    losses = meta_lora.joint_train(model, tokenizer, (NEXT, SAME), config)
    joint = [row for rows in seen for row in rows]
    assert sorted(map(str, joint)) == sorted(map(str, visited)) and joint != visited
    assert [len(rows) for rows in seen] == [4] * 6 and len(losses) == 6
    assert rates == pytest.approx([6e-3, 5e-3, 4e-3, 3e-3, 2e-3, 1e-3])
    assert not same(start, adapter_state(model))
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in base.items())


def test_joint_training_lowers_the_loss(model, tokenizer):
    config = MetaConfig(iterations=15, inner_steps=2, rows=8, inner_lr=2e-2)
    losses = meta_lora.joint_train(model, tokenizer, (NEXT, SAME), config)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_every_task_is_visited_once_before_any_is_visited_again(tokenizer):
    config = MetaConfig(iterations=10, inner_steps=2, rows=3)
    visits = meta_lora.draw_visits(tokenizer, (NEXT, SAME), config)
    assert [[len(rows) for rows in visit] for visit in visits] == [[3, 3]] * 10
    cues = [{tokenizer.decode(row.ids).split()[0] for rows in visit for row in rows} for visit in visits]
    assert all(len(cue) == 1 for cue in cues)
    assert all(one | other == {"After", "Again"} for one, other in zip(cues[::2], cues[1::2]))


def test_adapting_starts_where_it_is_told_and_leaves_the_start_alone(model, tokenizer):
    start = adapter_state(model)
    kept = {name: p.clone() for name, p in start.items()}
    template = Template(CUE)
    first = meta_lora.adapt_lora(model, tokenizer, EPISODE.support, template, start=start, steps=6, lr=2e-2)
    moved = adapter_state(model)
    again = meta_lora.adapt_lora(model, tokenizer, EPISODE.support, template, start=start, steps=6, lr=2e-2)
    assert first == again and first[-1] < first[0] and same(moved, adapter_state(model))
    assert same(start, kept) and not same(start, moved)
    meta_lora.adapt_lora(model, tokenizer, EPISODE.support, template, start=start, steps=0, lr=1)
    assert same(start, adapter_state(model))


def test_scores_on_the_way_are_those_of_separate_runs(model, tokenizer):
    start, template = adapter_state(model), Template(CUE)
    episode = Episode("next", NEXT.examples[:1], NEXT.examples[:1], 0)  # learned by heart, so that the score rises
    along = meta_lora.adapt_and_score(model, tokenizer, episode, template, start=start, lr=0.05, at=(30, 0, 3))
    assert list(along) == [0, 3, 30] and along[0] == 0 and along[30] == 1
    for steps, value in along.items():
        meta_lora.adapt_lora(model, tokenizer, episode.support, template, start=start, steps=steps, lr=0.05)
        assert meta_lora.score(model, tokenizer, episode, template) == value


def test_adapting_never_sees_the_query(model, tokenizer):
    start, template = adapter_state(model), Template(CUE)
    states = []
    for query in (NEXT.examples[10:14], NEXT.examples[20:24]):
        episode = Episode("next", NEXT.examples[:4], query, 0)
        meta_lora.adapt_and_score(model, tokenizer, episode, template, start=start, lr=1e-2, at=(0, 2))
        states.append(adapter_state(model))
    assert same(*states)


def test_score_puts_the_shots_asked_for_in_the_prompt(model, tokenizer, monkeypatch):
    prompts = []
    monkeypatch.setattr(meta_lora, "exact_matches", lambda m, t, p, a: prompts.append(p) or [True, False, False, False])
    assert meta_lora.score(model, tokenizer, EPISODE, Template(CUE), shots=2) == 0.25
    assert [p.text.count("\n") for p in prompts[0]] == [2] * 4
    assert prompts[0][0].text.startswith("After a comes b\nAfter b comes c\nAfter k comes")


def both_orders(*given, **options) -> list[torch.Tensor]:
    """Return the meta-gradient without and with its Hessian term."""
    return [meta_lora.lora_meta_gradient(*given, second_order=order, **options) for order in (False, True)]


def test_the_meta_gradient_against_finite_differences(model, tokenizer):
    """The Hessian term brings the meta-gradient to the central differences, along random directions."""
    model = model.double()
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(1)
    values = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in values:
            p.add_(0.02 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    support, query, template, inner_lr = NEXT.examples[:3], NEXT.examples[5:8], Template(CUE), 0.003
    first, second = both_orders(model, tokenizer, support, query, template, inner_lr=inner_lr)

    def rows(part):
        prompts = meta_lora.build_prompts(part, (), template)
        return meta_lora.collate(meta_lora.answer_rows(tokenizer, prompts, [e.y for e in part]))

    def meta_loss() -> float:
        kept = [p.detach().clone() for p in values]
        grads = torch.autograd.grad(meta_lora.token_loss(model, rows(support)), values)
        with torch.no_grad():
            for p, g in zip(values, grads):
                p.sub_(inner_lr * g)
            value = meta_lora.token_loss(model, rows(query)).item()
            for p, k in zip(values, kept):
                p.copy_(k)
        return value

    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in values]
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(values, direction):
                    p.add_(sign * 1e-3 * d)
            ends.append(meta_loss())
            with torch.no_grad():
                for p, d in zip(values, direction):
                    p.sub_(sign * 1e-3 * d)
        numeric = (ends[0] - ends[1]) / 2e-3
        flat = torch.cat([d.flatten() for d in direction])
        # the model computes its norms and softmax in float32, which limits the difference quotient
        assert abs(float(second @ flat) - numeric) < 0.2 * abs(float(first @ flat) - numeric)


def test_the_second_order_is_the_first_times_identity_minus_hessian(model, tokenizer):
    """(I - alpha H) g, with H the support's Hessian before the step and g the query's gradient after it."""
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=generator))
    support, query, template, alpha = NEXT.examples[:3], NEXT.examples[5:8], Template(CUE), 0.05
    first, second = both_orders(model, tokenizer, support, query, template, inner_lr=alpha)
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    batch = meta_lora.example_batch(model, tokenizer, support, template)
    grads = torch.autograd.grad(meta_lora.loss_with(model, theta, batch), list(theta.values()), create_graph=True)
    parts = [part.view_as(p) for part, p in zip(first.split([p.numel() for p in theta.values()]), theta.values())]
    product = torch.autograd.grad(grads, list(theta.values()), grad_outputs=parts)
    hessian_term = torch.cat([h.flatten() for h in product])
    assert torch.allclose(second, first - alpha * hessian_term, atol=1e-5 * float(first.abs().max()))
    assert float((alpha * hessian_term).norm() / first.norm()) > 1e-3  # there is something to tell apart


def test_the_loss_with_given_values_is_the_loss_of_a_model_that_holds_them(model, tokenizer):
    batch = meta_lora.example_batch(model, tokenizer, NEXT.examples[:3], Template(CUE))
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(2)
    moved = {name: p.detach() + 0.05 * torch.randn(p.shape, generator=generator) for name, p in theta.items()}
    before, given = (meta_lora.loss_with(model, values, batch).item() for values in (theta, moved))
    assert before == pytest.approx(meta_lora.token_loss(model, batch).item()) and given != pytest.approx(before)
    with torch.no_grad():
        for name, p in theta.items():
            p.copy_(moved[name])
    assert given == pytest.approx(meta_lora.token_loss(model, batch).item(), abs=1e-5)


def test_first_and_second_order_agree_without_an_inner_step(model, tokenizer):
    model.set_attn_implementation("eager")
    given = (model, tokenizer, NEXT.examples[:3], NEXT.examples[5:8], Template(CUE))
    a, b = both_orders(*given, inner_lr=0.0)
    assert torch.allclose(a, b, atol=1e-6) and a.norm() > 0


def test_second_order_needs_eager_attention(model, tokenizer):
    model.set_attn_implementation("sdpa")
    with pytest.raises(CourseError, match="'sdpa' attention"):
        both_orders(model, tokenizer, NEXT.examples[:2], NEXT.examples[2:4], Template(CUE), inner_lr=0.1)


def test_a_loss_that_is_not_finite_leaves_the_last_initialisation(model, tokenizer):
    before = adapter_state(model)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="nan"):
        quiet_meta_train(model, tokenizer, MetaConfig(iterations=2))
    assert same(before, adapter_state(model))


@pytest.mark.parametrize(
    "change",
    [{"iterations": 0}, {"inner_steps": 0}, {"rows": 0}, {"most_shots": -1}, {"outer_lr": 1.5}, {"inner_lr": 0}],
)
def test_configs_that_make_no_sense(change):
    with pytest.raises(CourseError, match=next(iter(change))):
        MetaConfig(**change)


def test_bad_input(model, tokenizer):
    template, start = Template(CUE), adapter_state(model)
    with pytest.raises(CourseError, match="no tasks"):
        quiet_meta_train(model, tokenizer, MetaConfig(iterations=1), ())
    with pytest.raises(CourseError, match="no examples"):
        meta_lora.adapt_lora(model, tokenizer, (), template, start=start, steps=1, lr=1e-3)
    with pytest.raises(CourseError, match="steps is -1"):
        meta_lora.adapt_lora(model, tokenizer, EPISODE.support, template, start=start, steps=-1, lr=1e-3)
    with pytest.raises(CourseError, match="after \\[\\] steps"):
        meta_lora.adapt_and_score(model, tokenizer, EPISODE, template, start=start, lr=1e-3, at=())
    lora.remove(model)
    for train in (
        lambda: quiet_meta_train(model, tokenizer, MetaConfig(iterations=1)),
        lambda: meta_lora.joint_train(model, tokenizer, (NEXT,), MetaConfig(iterations=1)),
        lambda: meta_lora.lora_meta_gradient(
            model, tokenizer, NEXT.examples[:1], NEXT.examples[1:2], template, inner_lr=0.1
        ),
    ):
        with pytest.raises(CourseError, match="no LoRA layers"):
            train()


PAIRS = "\n".join(f"{e.x}, {e.y}" for e in NEXT.examples[:4])


def own(model, tokenizer, **changes) -> str:
    values = {"starts": {"here": adapter_state(model)}, "pairs": PAIRS, "query": "k", "cue": CUE} | changes
    return few_shot_figures.own_task_view(model, tokenizer, values.pop("starts"), **values)


def cells(html: str) -> list[list[str]]:
    """Return the rows of a table, without its head."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)[1:]
    return [[unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def test_the_playground_shows_each_start_before_after_and_reading(model, tokenizer):
    starts = {"one": adapter_state(model)}
    meta_lora.adapt_lora(model, tokenizer, SAME.examples[:4], SAME.template, start=starts["one"], steps=4, lr=2e-2)
    starts["<two>"] = adapter_state(model)
    rows = cells(own(model, tokenizer, starts=starts, pairs="a, b", query="a", steps=20, lr=5e-2))
    assert [row[:2] for row in rows[:4]] == [["one", "0"], ["one", "20"], ["<two>", "0"], ["<two>", "20"]]
    assert [row[0] for row in rows[4:]] == [f"{name}, the pairs in its prompt" for name in starts]
    assert rows[1][2:] == ["'b'", rows[1][3]] and float(rows[1][3]) > 0.9  # one pair is soon known by heart
    assert rows[0][2] != "'b'" and float(rows[0][3]) < 0.5
    assert same(adapter_state(model), starts["<two>"])  # as it was before, whatever has been tried


def test_the_playground_asks_the_query_alone_and_reading_behind_the_pairs(model, tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr(
        few_shot_figures, "best_answers", lambda m, t, prompts: asked.append(prompts[0].text) or [("?", 0.5)]
    )
    own(model, tokenizer, pairs="a, b\nb, c", query="k", steps=1)
    behind = "After a comes b\nAfter b comes c\nAfter k comes"
    assert asked == ["After k comes", behind, "After k comes"]  # before, reading, after


def test_the_playground_takes_no_step_where_none_is_asked_for_and_says_what_is_memory(model, tokenizer):
    html = own(model, tokenizer, steps=0)
    assert [row[1] for row in cells(html)] == ["0", "0"] and "memory" not in html
    html = own(model, tokenizer, query=" a ", pairs="a, <i>b</i>", steps=0)
    assert "memory" in html and "<i>" not in html


@pytest.mark.parametrize(
    "change, told",
    [
        ({"pairs": ""}, "0 pairs"),
        ({"pairs": "cat cats"}, "line 1 is 'cat cats'"),
        ({"pairs": "a, b\n" * 17}, "17 pairs"),
        ({"pairs": "a " * 200 + ", b"}, "tokens"),
        ({"query": " \n"}, "the query is ''"),
        ({"query": "a " * 200}, "tokens"),
        ({"cue": "After {x}"}, "needs"),
        ({"cue": "{y} before {x}"}, "needs"),
        ({"steps": -1}, "-1 steps"),
        ({"steps": 21}, "21 steps"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"starts": {}}, "no start"),
    ],
)
def test_the_playground_says_what_is_wrong_and_changes_nothing(model, tokenizer, change, told):
    before = adapter_state(model)
    with pytest.raises(CourseError, match=told):
        own(model, tokenizer, **change)
    assert same(before, adapter_state(model))


def test_a_playground_that_diverges_leaves_the_model_as_it_was(model, tokenizer, monkeypatch):
    before, adapt = adapter_state(model), meta_lora.adapt_lora

    def diverging(*args, steps, **options):
        adapt(*args, steps=steps, **options)
        if steps:
            raise TrainingDiverged("the loss became nan.", "lower the rate.")

    monkeypatch.setattr(meta_lora, "adapt_lora", diverging)
    with pytest.raises(TrainingDiverged, match="nan"):
        own(model, tokenizer, steps=3)
    assert same(before, adapter_state(model))
