"""Rows and a model to train for tests, also for those that start a Python of their own."""

from __future__ import annotations

from tiny_models import tiny_gpt2

from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.training.rows import Row

ROWS = [Row(tuple((7 * i + 3 * j) % 90 + 3 for j in range(5 + i % 3))) for i in range(10)]


def gpt2_with_lora():
    """With dropout in the base as well."""
    return lora.inject(tiny_gpt2(dropout=0.1), LoRAConfig(4, lora_dropout=0.1, target_modules=("c_attn",)))
