"""Bottleneck adapters: the base at the start, the equation after it, and only the adapter is trained."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_gpt2, tiny_llama
from torch import nn

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lora.bottleneck import Bottleneck, inject_bottlenecks

IDS = torch.arange(24).reshape(2, 12) % 97 + 3


@torch.no_grad()
def test_an_adapter_computes_the_equation():
    base = nn.Linear(5, 3)
    adapter = Bottleneck(base, width=3, size=2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(adapter(x), base(x))
    adapter.up.normal_(generator=torch.Generator().manual_seed(2))
    h = base(x)
    torch.testing.assert_close(adapter(x), h + nn.functional.gelu(h @ adapter.down.T) @ adapter.up.T)


@pytest.mark.parametrize(("make", "targets", "width"), [(tiny_llama, ("o_proj", "down_proj"), 16)])
def test_injected_adapters_start_as_the_base_and_alone_are_trained(make, targets, width):
    model = make()
    with torch.no_grad():
        before = model(IDS).logits
        inject_bottlenecks(model, 4, target_modules=targets)
        assert torch.equal(model(IDS).logits, before)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 2 * 2 * 2 * 4 * width  # layers, places, matrices, size, width
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    first = model(IDS, labels=IDS).loss
    for _ in range(5):
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert model(IDS, labels=IDS).loss < first
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_gpt2s_layers_whose_weights_lie_the_other_way_round_get_adapters_of_the_right_width():
    model = tiny_gpt2()
    before = model(IDS).logits
    inject_bottlenecks(model, 4, target_modules=("c_proj", "c_attn"))
    torch.testing.assert_close(model(IDS).logits, before)


def test_bad_input_is_told_and_nothing_is_changed():
    model = tiny_llama()
    with pytest.raises(CourseError, match="size is 0"):
        inject_bottlenecks(model, 0)
    with pytest.raises(CourseError, match="'o_proj'"):
        inject_bottlenecks(tiny_gpt2(), 4)
    assert not any(isinstance(module, Bottleneck) for module in model.modules())
