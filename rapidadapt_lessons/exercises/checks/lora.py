"""The checks of the exercises on LoRA (lesson 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..compare import Learner, Test, normal, require, require_kept, require_same


def _scale_is(f: Learner, lora_alpha: float, rank: int, stabilised: bool | None = None) -> None:
    root = bool(stabilised)
    right = lora_alpha / math.sqrt(rank) if root else lora_alpha / rank
    slips = [
        (rank / lora_alpha, "the fraction is upside down: the rank belongs below."),
        (lora_alpha // rank, "`//` drops what comes after the point: divide with `/`."),
        (lora_alpha * rank, "alpha is divided by the rank, not multiplied with it."),
        (lora_alpha, "this is alpha alone: the rank has no influence."),
        (
            lora_alpha / rank,
            "this is the plain scaling: `rank_stabilised=True` divides by the square root of the rank.",
        ),
        (
            lora_alpha / math.sqrt(rank),
            "this is the rank-stabilised scaling: without `rank_stabilised` it is alpha over the rank itself.",
        ),
        (math.sqrt(lora_alpha / rank), "the root was taken of the whole fraction. Only the rank stands under it."),
        (lora_alpha / rank**2, "alpha is divided by the square of the rank. Its square root is meant."),
    ]
    if stabilised is None:
        came, call = f(lora_alpha, rank), f"scaling({lora_alpha}, {rank})"
    else:
        came, call = f(lora_alpha, rank, stabilised), f"scaling({lora_alpha}, {rank}, {stabilised})"
    require_same(came, right, call, slips, "section 4.1 of the LoRA paper scales the update by alpha / r.")


def _plain_scale(f: Learner) -> None:
    _scale_is(f, 16, 8)


def _broken_scale(f: Learner) -> None:
    _scale_is(f, 3, 8)


def _off_by_default(f: Learner) -> None:
    _scale_is(f, 10.0, 16)
    _scale_is(f, 10.0, 16, False)


def _stabilised_scale(f: Learner) -> None:
    _scale_is(f, 16, 9, True)
    _scale_is(f, 1.5, 64, True)


def _count_is(f: Learner, n_in: int, n_out: int, rank: int) -> None:
    right = rank * (n_in + n_out)
    slips = [
        (n_in * n_out, "that is the size of the frozen weight, which is not trained."),
        (rank * n_in * n_out, "the two sizes were multiplied. A and B stand side by side: add their sizes."),
        (2 * rank * n_in, "the sizes of A and B are different: B has as many rows as there are outputs."),
        (2 * rank * n_out, "A is as wide as there are inputs, and not outputs."),
        (rank * n_in, "this counts A alone. B is trained too."),
        (rank * n_out, "this counts B alone. A is trained too."),
        (n_in * n_out + right, "the frozen weight was counted too."),
        (right + n_out, "a bias was counted: LoRA trains none."),
        (rank * rank, "this is the size of a square matrix of that rank. A is [rank, in] and B is [out, rank]."),
        (n_in + n_out, "the rank is missing: A has `rank` rows."),
    ]
    otherwise = "A has shape [rank, in], B has shape [out, rank]."
    require_same(f(n_in, n_out, rank), right, f"parameter_count({n_in}, {n_out}, {rank})", slips, otherwise)


def _small_count(f: Learner) -> None:
    _count_is(f, 5, 3, 2)


def _query_projection(f: Learner) -> None:
    _count_is(f, 576, 576, 8)


def _value_projection(f: Learner) -> None:
    _count_is(f, 576, 192, 8)


def _layer(seed: int, n_in: int = 5, n_out: int = 3, rank: int = 2) -> dict[str, Tensor]:
    return {
        "W": normal(n_out, n_in, seed=seed),
        "A": normal(rank, n_in, seed=seed + 1),
        "B": normal(n_out, rank, seed=seed + 2),
    }


def _shapes(layer: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(value.shape)}" for name, value in layer.items())


def _forward_is(f: Learner, x: Tensor, layer: dict[str, Tensor], lora_alpha: float, otherwise: str) -> None:
    w, a, b = layer["W"], layer["A"], layer["B"]
    rank = len(a)
    base, update = x @ w.T, x @ a.T @ b.T
    scale = lora_alpha / rank
    slips = [
        (scale * update, "the frozen layer's part x Wᵀ is missing."),
        (base + update, "the update is not scaled: it is multiplied with lora_alpha / rank."),
        (base + lora_alpha * update, "the update is scaled by lora_alpha alone: divide by the rank."),
        (base + update / scale, "the scale is upside down: lora_alpha / rank."),
        (scale * (base + update), "the frozen part was scaled too: only the update is."),
        (
            base + lora_alpha / a.shape[1] * update,
            "the rank was read from the wrong side of A: it is its number of rows.",
        ),
        (
            base + lora_alpha / b.shape[0] * update,
            "the rank was read from the wrong side of B: it is its number of columns.",
        ),
        (base, "the update is missing: this is the frozen layer alone."),
        (base - scale * update, "the update is subtracted: it is added."),
    ]
    call = f"lora_forward(x, W, A, B, {lora_alpha}) with x {list(x.shape)}, {_shapes(layer)}"
    require_same(
        f(x.clone(), w.clone(), a.clone(), b.clone(), lora_alpha), base + scale * update, call, slips, otherwise
    )


_ON_PAPER = (
    "follow one row of x on paper: to `rank` numbers with A, to `out` numbers with B, times the scale, plus x Wᵀ."
)


def _zero_b(f: Learner) -> None:
    layer = _layer(1)
    layer["B"] = torch.zeros_like(layer["B"])
    why = "with B = 0 the update is zero, and what is left is the frozen layer, x Wᵀ."
    _forward_is(f, normal(4, 5, seed=0), layer, 8, why)


def _with_an_update(f: Learner) -> None:
    _forward_is(f, normal(4, 5, seed=10), _layer(11), 8, _ON_PAPER)


def _other_ranks(f: Learner) -> None:
    for rank in (1, 3):
        _forward_is(f, normal(2, 4, seed=20), _layer(21, n_in=4, n_out=6, rank=rank), 6, _ON_PAPER)


def _square_layer(f: Learner) -> None:
    _forward_is(f, normal(3, 4, seed=30), _layer(31, n_in=4, n_out=4, rank=2), 6, f"W is square here. {_ON_PAPER}")


def _batches_of_tokens(f: Learner) -> None:
    why = "x has one dimension more here, [batch, tokens, in]: x @ W.T takes any number in front."
    _forward_is(f, normal(2, 3, 5, seed=40), _layer(41), 8, why)


def _merge_is(f: Learner, layer: dict[str, Tensor], lora_alpha: float) -> None:
    w, a, b = layer["W"], layer["A"], layer["B"]
    scale, delta = lora_alpha / len(a), b @ a
    slips = [
        (scale * delta, "this is the update alone: add it to W."),
        (w + delta, "the update is not scaled: it is multiplied with lora_alpha / rank."),
        (w + lora_alpha * delta, "the update is scaled by lora_alpha alone: divide by the rank."),
        (scale * (w + delta), "W was scaled too: only the update is."),
        (
            w + scale * delta.T if w.shape[0] == w.shape[1] else math.nan,
            "the update is transposed: the product is B A, in this order.",
        ),
        (w - scale * delta, "the update is subtracted: that is how it is taken out again."),
        (w, "this is W as it was: it has to come back with the update in it."),
    ]
    call = f"merge(W, A, B, {lora_alpha}) with {_shapes(layer)}"
    otherwise = "the merged weight is W plus the scaled product of B and A, all of shape [out, in]."
    require_same(f(w.clone(), a.clone(), b.clone(), lora_alpha), w + scale * delta, call, slips, otherwise)


def _merge_oblong(f: Learner) -> None:
    _merge_is(f, _layer(50), 8)


def _merge_square(f: Learner) -> None:
    _merge_is(f, _layer(60, n_in=4, n_out=4, rank=2), 6)


def _merge_keeps(f: Learner) -> None:
    before = _layer(70)
    after = {name: value.clone() for name, value in before.items()}
    f(after["W"], after["A"], after["B"], 8)
    why = "`+=` and `add_` change the caller's W: the next adapter would be merged on top. Make a new tensor."
    require_kept(before, after, "merge(W, A, B, 8)", why)


def _merge_computes_the_same(f: Learner) -> None:
    layer = _layer(80, n_in=6, n_out=2, rank=1)
    x = normal(3, 6, seed=79)
    merged = f(*(value.clone() for value in layer.values()), 4)
    right = x @ layer["W"].T + 4 * (x @ layer["A"].T @ layer["B"].T)
    worst = (x @ merged.T - right).abs().max().item()
    require(
        worst < 1e-4, f"merge(W, A, B, 4) with {_shapes(layer)}", "x mergedᵀ = x Wᵀ + (lora_alpha / rank) x Aᵀ Bᵀ",
        f"a difference of up to {worst:.3g}", "the merged layer has to compute what the two parts computed together.",
    )  # fmt: skip


CHECKS: dict[str, dict[str, Test]] = {
    "lora.scaling": {
        "alpha 16, rank 8": _plain_scale,
        "a scale that is not a whole number": _broken_scale,
        "not rank-stabilised unless asked for": _off_by_default,
        "rank-stabilised": _stabilised_scale,
    },
    "lora.parameter_count": {
        "5 inputs, 3 outputs, rank 2": _small_count,
        "the model's q_proj: 576 to 576": _query_projection,
        "the model's v_proj: 576 to 192": _value_projection,
    },
    "lora.forward": {
        "with B = 0, the frozen layer": _zero_b,
        "with an update": _with_an_update,
        "other ranks and sizes": _other_ranks,
        "a square layer": _square_layer,
        "a batch of rows of tokens": _batches_of_tokens,
    },
    "lora.merge": {
        "an oblong layer": _merge_oblong,
        "a square layer, where a transpose raises no error": _merge_square,
        "W, A and B are left as they were": _merge_keeps,
        "merged and unmerged compute the same": _merge_computes_the_same,
    },
}
