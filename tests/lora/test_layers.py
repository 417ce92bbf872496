"""LoRA by hand: the base model at the start, peft's numbers in training, and nothing frozen ever moves."""

from __future__ import annotations

import copy
import math

import peft
import pytest
import torch
from tiny_models import tiny_gpt2, tiny_llama
from torch import nn
from training_parts import trained_by_chance

from rapidadapt_lessons.errors import AdapterMismatch, CourseError
from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig, LoRALinear
from rapidadapt_lessons.lora.targets import find_targets, weight_shape
from rapidadapt_lessons.prompting.prompts import build_prompts, template_of
from rapidadapt_lessons.training.rows import answer_rows, collate, token_loss

IDS = torch.arange(24).reshape(2, 12) % 97 + 3
TINY = {"gpt2": (tiny_gpt2, ("c_attn", "c_proj")), "llama": (tiny_llama, ("q_proj", "down_proj"))}


@pytest.fixture(params=TINY)
def tiny(request):
    make, targets = TINY[request.param]
    return make(), targets


@torch.no_grad()
def test_a_layer_computes_the_equation():
    """y = W x + b + (alpha / r) B A x, written out with explicit matrices."""
    base = nn.Linear(5, 3)
    layer = LoRALinear(base, LoRAConfig(rank=2, lora_alpha=6))
    layer.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    expected = x @ (base.weight + 6 / 2 * layer.lora_B @ layer.lora_A).T + base.bias
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.delta(), 3 * layer.lora_B @ layer.lora_A)
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_an_untrained_adapter_is_the_base_model_exactly(tiny):
    model, targets = tiny
    with torch.no_grad():
        before = model(IDS).logits
        lora.inject(model, LoRAConfig(4, target_modules=targets))
        assert torch.equal(model(IDS).logits, before)
        assert not torch.equal(trained_by_chance(model)(IDS).logits, before)


def test_only_the_adapter_is_trainable_and_its_size_is_what_the_shapes_say(tiny):
    model, targets = tiny
    layers = find_targets(model, targets)
    expected = sum(4 * sum(weight_shape(layer)) for layer in layers.values())
    lora.inject(model, LoRAConfig(4, target_modules=targets))
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.endswith((".lora_A", ".lora_B")) for name in trainable)
    assert sum(trainable.values()) == expected
    assert list(lora.lora_layers(model)) == list(layers)


def test_frozen_parameters_never_change_bit_for_bit(tiny):
    model, targets = tiny
    lora.inject(model, LoRAConfig(4, lora_dropout=0.1, target_modules=targets)).train()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    start = lora.adapter_state(model)
    # An optimiser that is given everything, as a learner may: what is frozen must not move even so.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    assert all(not torch.equal(tensor, start[name]) for name, tensor in lora.adapter_state(model).items())


def test_merged_equals_unmerged_and_unmerging_restores_every_bit(tiny):
    model, targets = tiny
    original = copy.deepcopy(model)
    trained_by_chance(lora.inject(model, LoRAConfig(4, target_modules=targets)))
    with torch.no_grad():
        apart = model(IDS).logits
        lora.merge(model)
        lora.merge(model)  # twice is once
        torch.testing.assert_close(model(IDS).logits, apart, atol=1e-5, rtol=1e-4)
        name, layer = next(iter(lora.lora_layers(model).items()))
        assert not torch.equal(layer.base.weight, original.get_submodule(name).weight)
        lora.unmerge(model)
        assert torch.equal(model(IDS).logits, apart)
    lora.remove(model)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in original.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), original.parameters()))


def test_removing_a_merged_adapter_gives_the_base_model_back(tiny):
    model, targets = tiny
    with torch.no_grad():
        before = model(IDS).logits
        trained_by_chance(lora.inject(model, LoRAConfig(4, target_modules=targets)))
        lora.merge(model)
        assert torch.equal(lora.remove(model)(IDS).logits, before)


def test_dropout_hides_inputs_from_the_update_only_and_only_in_training():
    base = nn.Linear(200, 3)
    layer = LoRALinear(base, LoRAConfig(2, lora_dropout=0.5))
    layer.lora_B.data.fill_(1.0)
    x = torch.randn(4, 200, generator=torch.Generator().manual_seed(0))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    layer.lora_B.data.zero_()
    assert torch.equal(layer(x), base(x))


def test_a_half_precision_base_gets_a_float32_adapter_and_keeps_its_own_dtype():
    model = lora.inject(tiny_llama().to(torch.bfloat16), LoRAConfig(4))
    assert {p.dtype for n, p in model.named_parameters() if p.requires_grad} == {torch.float32}
    assert trained_by_chance(model)(IDS).logits.dtype == torch.bfloat16
    lora.merge(model)
    assert next(iter(lora.lora_layers(model).values())).base.weight.dtype == torch.bfloat16


def test_the_start_of_an_adapter_follows_from_its_seed():
    states = [lora.adapter_state(lora.inject(tiny_llama(), LoRAConfig(4), seed=seed)) for seed in (0, 0, 1)]
    a = [state["model.layers.1.self_attn.q_proj.lora_A"] for state in states]
    assert torch.equal(a[0], a[1]) and not torch.equal(a[0], a[2])
    assert a[0].abs().max() <= 1 / math.sqrt(16)


# Parity with peft. First on small models of both layer types, then on the real one.


def peft_twin(model: nn.Module, config: LoRAConfig, state: dict) -> nn.Module:
    """Return peft's LoRA on a model, with our numbers in its matrices."""
    twin = peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type=peft.TaskType.CAUSAL_LM, r=config.rank, lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout, target_modules=list(config.target_modules),
            fan_in_fan_out=model.config.model_type == "gpt2",
        ),
    )  # fmt: skip
    theirs = {ours: f"base_model.model.{ours}.default.weight" for ours in state}
    parameters = dict(twin.named_parameters())
    assert {theirs[name] for name in state} == {n for n, p in parameters.items() if p.requires_grad}
    for name, tensor in state.items():
        parameters[theirs[name]].data.copy_(tensor)
    return twin.train(model.training)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("kind", TINY)
def test_forward_and_gradients_are_pefts_on_both_layer_types(kind):
    make, targets = TINY[kind]
    config = LoRAConfig(4, 8, target_modules=targets)
    ours = trained_by_chance(lora.inject(make(), config))
    theirs = peft_twin(make(), config, lora.adapter_state(ours))
    for model in (ours, theirs):
        model(IDS, labels=IDS).loss.backward()
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-6, rtol=1e-5)
    assert len(gradients(ours)) == len(gradients(theirs)) > 0
    for a, b in zip(gradients(ours), gradients(theirs)):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_on_the_real_model_forward_gradients_and_loss_curve_are_pefts():
    """From the same start, on the same rows: logits to 1e-3 (they run to 30), each gradient to a relative
    1e-4 of its length, six losses to 1e-4."""
    (first, tokenizer), (second, _) = load_model(device="cpu"), load_model(device="cpu")
    config = LoRAConfig(4, 8, target_modules=("q_proj", "v_proj"))
    ours = trained_by_chance(lora.inject(first, config))
    theirs = peft_twin(second, config, lora.adapter_state(ours))
    task = load_task("plurals")
    support = task.episode(8, seed=0).support
    prompts = build_prompts(support, template=template_of(task))
    batch = collate(answer_rows(tokenizer, prompts, [y for _, y in support]))
    curves = []
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for step in range(6):
            optimizer.zero_grad()
            loss = token_loss(model, batch)
            loss.backward()
            if step == 0:
                kept = [g.clone() for g in gradients(model)]
            optimizer.step()
            losses.append(loss.item())
        curves.append((kept, losses))
    (our_grads, our_losses), (their_grads, their_losses) = curves
    assert our_losses[-1] < 0.7 * our_losses[0], "nothing was learned, so the curves say nothing"
    assert our_losses == pytest.approx(their_losses, abs=1e-4)
    assert len(our_grads) == len(their_grads) == 120
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(our_grads, their_grads)) < 1e-4
    with torch.no_grad():
        logits = [model(batch.input_ids, attention_mask=batch.attention_mask).logits for model in (ours, theirs)]
    torch.testing.assert_close(*logits, atol=1e-3, rtol=1e-3)


# Swapping and combining.


def test_swapping_adapters_is_swapping_behaviour():
    model = trained_by_chance(lora.inject(tiny_llama(), LoRAConfig(4)), seed=1)
    one, first = lora.adapter_state(model), model(IDS).logits
    two, second = lora.adapter_state(trained_by_chance(model, seed=2)), model(IDS).logits
    assert not torch.equal(first, second)
    lora.set_adapter_state(model, one)
    assert torch.equal(model(IDS).logits, first)
    lora.set_adapter_state(model, two)
    assert torch.equal(model(IDS).logits, second)


def test_a_combination_adds_the_weighted_updates_up_exactly():
    config = LoRAConfig(4, 8)
    models = [trained_by_chance(lora.inject(tiny_llama(), config, seed=s), seed=s + 5) for s in (1, 2)]
    joined = lora.combine([lora.adapter_state(m) for m in models], [0.7, -0.3])
    host = lora.inject(tiny_llama(), LoRAConfig(8, 16))  # twice the rank, the same alpha / rank
    lora.set_adapter_state(host, joined)
    for name, layer in lora.lora_layers(host).items():
        deltas = [lora.lora_layers(m)[name].delta() for m in models]
        torch.testing.assert_close(layer.delta(), 0.7 * deltas[0] - 0.3 * deltas[1])


# Bad input: each error names the value and what to do, and the model is as it was.


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": -3}, "rank is -3"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"lora_dropout": -0.1}, "lora_dropout is -0.1"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"target_modules": ()}, "target_modules is empty"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(values, told):
    with pytest.raises(CourseError, match=told):
        LoRAConfig(**values)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (LoRAConfig(9, target_modules=("q_proj", "k_proj")), "rank 9 .* 16 inputs and 8 outputs"),
        (LoRAConfig(4, target_modules=("q_projj",)), "'q_projj'[^$]*did you mean 'q_proj'"),
        (LoRAConfig(4, target_modules=("embed_tokens",)), "'model.embed_tokens' is a Embedding"),
        (LoRAConfig(4, target_modules=("q_proj", "self_attn")), "is a LlamaAttention"),
    ],
)
def test_what_cannot_be_injected_is_told_and_nothing_is_changed(config, told):
    model = tiny_llama()
    with pytest.raises(CourseError, match=told):
        lora.inject(model, config)
    assert not lora.lora_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_injecting_twice_is_refused():
    model = lora.inject(tiny_llama(), LoRAConfig(4))
    with pytest.raises(CourseError, match="already"):
        lora.inject(model, LoRAConfig(4))


def test_a_target_is_a_whole_name_not_a_piece_of_one():
    with pytest.raises(CourseError, match="'proj'"):
        find_targets(tiny_llama(), ("proj",))
    assert list(find_targets(tiny_llama(), ("model.layers.0.self_attn.q_proj",))) == ["model.layers.0.self_attn.q_proj"]


def test_an_adapter_of_another_shape_changes_nothing():
    model = trained_by_chance(lora.inject(tiny_llama(), LoRAConfig(4)))
    before = lora.adapter_state(model)
    other = lora.adapter_state(lora.inject(tiny_llama(), LoRAConfig(2)))
    bad = ((other, r"\[2, 16\] in the adapter and \[4, 16\] in the model"), ({}, "nothing in the adapter"))
    for state, told in bad:
        with pytest.raises(AdapterMismatch, match=told):
            lora.set_adapter_state(model, state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in lora.adapter_state(model).items())


def test_what_needs_an_adapter_says_so_where_there_is_none():
    with pytest.raises(CourseError, match="no LoRA layers"):
        lora.adapter_state(tiny_llama())
    model = trained_by_chance(lora.inject(tiny_llama(), LoRAConfig(4)))
    lora.merge(model)
    with pytest.raises(CourseError, match="merged"):
        lora.set_adapter_state(model, lora.adapter_state(model))


def test_combining_what_does_not_belong_together_is_refused():
    state = lora.adapter_state(lora.inject(tiny_llama(), LoRAConfig(4)))
    other = lora.adapter_state(lora.inject(tiny_llama(), LoRAConfig(4, target_modules=("k_proj",))))
    with pytest.raises(CourseError, match="2 adapters came with 1 weights"):
        lora.combine([state, state], [1.0])
    with pytest.raises(CourseError, match="0 adapters"):
        lora.combine([], [])
    with pytest.raises(AdapterMismatch, match="in one adapter and not in another"):
        lora.combine([state, other], [1, 1])
    wider = {name: torch.cat([t, t], 1 if name.endswith("lora_A") else 0) for name, t in state.items()}
    with pytest.raises(AdapterMismatch, match=r"lora_A is \[4, \d+\] in one adapter and \[4, \d+\] in another"):
        lora.combine([state, wider], [1, 1])
