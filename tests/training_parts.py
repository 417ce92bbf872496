"""Rows and a model to train for tests, also for those that start a Python of their own."""

from __future__ import annotations

import torch
from tiny_models import tiny_gpt2, tiny_llama
from torch import nn

from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.training.rows import Row

ROWS = [Row(tuple((7 * i + 3 * j) % 90 + 3 for j in range(5 + i % 3))) for i in range(10)]


def model_with_lora(dropout: float = 0.0):
    return lora.inject(tiny_llama(), LoRAConfig(4, 16, dropout, ("q_proj", "v_proj", "o_proj", "down_proj")))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def gpt2_with_lora():
    """With dropout in the base as well."""
    return lora.inject(tiny_gpt2(dropout=0.1), LoRAConfig(4, lora_dropout=0.1, target_modules=("c_attn",)))


def trained_by_chance(model: nn.Module, seed: int = 1) -> nn.Module:
    """Give every lora_B random numbers, so that the update is not zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in lora.lora_layers(model).values():
        layer.lora_B.data.normal_(std=0.3, generator=generator)
    return model


def slope(seed: int) -> float:
    """Train a line for a few steps; return its slope."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, generator=generator)
    w = torch.zeros(1, requires_grad=True)
    for _ in range(5):
        (gradient,) = torch.autograd.grad(((w * x - seed * x) ** 2).mean(), w)
        w = (w - 0.1 * gradient).detach().requires_grad_()
    return w.item()
