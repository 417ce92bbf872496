"""Answers to the exercises on LoRA: typical wrong ones, with words that their report must hold, and right ones."""

from __future__ import annotations

import torch
from torch import nn

from rapidadapt_lessons.lora.layers import LoRAConfig, LoRALinear


def layer(W, A, B, lora_alpha):
    base = nn.Linear(W.shape[1], W.shape[0], bias=False)
    base.weight.data = W.clone()
    made = LoRALinear(base, LoRAConfig(rank=len(A), lora_alpha=lora_alpha))
    made.lora_A.data, made.lora_B.data = A, B
    return made


def merged(W, A, B, lora_alpha):
    made = layer(W, A, B, lora_alpha)
    made.merge()
    return made.base.weight.detach()


def in_place(W, A, B, lora_alpha):
    W += lora_alpha / len(A) * B @ A
    return W


def forward(scale, base=1.0, sign=1.0):
    return lambda x, W, A, B, a: base * (x @ W.T) + sign * scale(a, A, B) * (x @ A.T @ B.T)


def by_the_identity(x, W, A, B, lora_alpha):
    """Merge by asking the layer what it does with each unit vector: another way to the same matrix."""
    return torch.einsum("...i,oi->...o", x, W) + lora_alpha / B.shape[1] * torch.einsum("...i,ri,or->...o", x, A, B)


WRONG = {
    "lora.scaling": {
        "upside down": (lambda a, r, s=False: r / a, "upside down"),
        "whole numbers": (lambda a, r, s=False: a // r if not s else a / r**0.5, "drops what comes after the point"),
        "a product": (lambda a, r, s=False: a * r, "divided by the rank, not multiplied"),
        "no root": (lambda a, r, s=False: a / r, "square root of the rank"),
        "always the root": (lambda a, r, s=False: a / r**0.5, "rank-stabilised scaling"),
        "the root of all": (lambda a, r, s=False: (a / r) ** 0.5 if s else a / r, "Only the rank stands under it"),
        "the square": (lambda a, r, s=False: a / r**2 if s else a / r, "square of the rank"),
        "alpha alone": (lambda a, r, s=False: a, "the rank has no influence"),
        "no third argument": (lambda a, r: a / r, "other arguments"),
    },
    "lora.parameter_count": {
        "the frozen weight": (lambda i, o, r: i * o, "frozen weight"),
        "multiplied": (lambda i, o, r: r * i * o, "add their sizes"),
        "twice the inputs": (lambda i, o, r: 2 * r * i, "as many rows as there are outputs"),
        "twice the outputs": (lambda i, o, r: 2 * r * o, "A is as wide as there are inputs"),
        "a square": (lambda i, o, r: r * r, "size of a square matrix"),
        "A alone": (lambda i, o, r: r * i, "A alone"),
        "B alone": (lambda i, o, r: o * r, "B alone"),
        "all of it": (lambda i, o, r: i * o + r * (i + o), "frozen weight was counted too"),
        "with a bias": (lambda i, o, r: r * (i + o) + o, "bias"),
        "no rank": (lambda i, o, r: i + o, "the rank is missing"),
    },
    "lora.forward": {
        "no scale": (forward(lambda a, A, B: 1), "not scaled"),
        "alpha alone": (forward(lambda a, A, B: a), "lora_alpha alone"),
        "upside down": (forward(lambda a, A, B: len(A) / a), "upside down"),
        "no base": (forward(lambda a, A, B: a / len(A), base=0), "frozen layer's part"),
        "no update": (lambda x, W, A, B, a: x @ W.T, "the update is missing"),
        "all scaled": (lambda x, W, A, B, a: a / len(A) * (x @ W.T + x @ A.T @ B.T), "the frozen part was scaled too"),
        "the wrong side of A": (forward(lambda a, A, B: a / A.shape[1]), "wrong side of A"),
        "the wrong side of B": (forward(lambda a, A, B: a / B.shape[0]), "wrong side of B"),
        "subtracted": (forward(lambda a, A, B: a / len(A), sign=-1), "subtracted"),
        "no transposes": (lambda x, W, A, B, a: x @ W + a / len(A) * (x @ A @ B), "transpose"),
        "columns": (lambda x, W, A, B, a: W @ x + a / len(A) * (B @ A @ x), "transpose"),
        "one batch only": (
            lambda x, W, A, B, a: torch.einsum("ni,oi->no", x, W) + a / len(A) * torch.einsum("ni,ri,or->no", x, A, B),
            "in line",
        ),
    },
    "lora.merge": {
        "no scale": (lambda W, A, B, a: W + B @ A, "not scaled"),
        "alpha alone": (lambda W, A, B, a: W + a * B @ A, "lora_alpha alone"),
        "the update alone": (lambda W, A, B, a: a / len(A) * B @ A, "add it to W"),
        "the other order": (lambda W, A, B, a: W + a / len(A) * A.T @ B.T if W.shape[0] == W.shape[1]
                            else W + a / len(A) * B @ A, "transposed"),
        "in place": (in_place, "change the caller's W"),
        "W": (lambda W, A, B, a: W, "W as it was"),
        "subtracted": (lambda W, A, B, a: W - a / len(A) * B @ A, "subtracted"),
        "A times B": (lambda W, A, B, a: W + a / len(A) * A @ B, "inner sizes differ"),
        "as columns": (lambda W, A, B, a: (W + a / len(A) * B @ A).T, "shape"),
    },
}  # fmt: skip

ALSO_RIGHT = {
    "lora.scaling": lambda alpha, rank, stabilised=False: alpha * rank ** (-0.5 if stabilised else -1.0),
    "lora.parameter_count": lambda n_in, n_out, rank: sum(
        p.numel() for p in (torch.empty(rank, n_in), torch.empty(n_out, rank))
    ),
    "lora.forward": by_the_identity,
    "lora.merge": merged,
}
