"""The checks of the exercise in which a learner divides a bias out of probabilities (lesson 2)."""

from __future__ import annotations

import torch

from ..compare import Learner, Test, require, require_same, show

_P = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3], [0.95, 0.05]])


def _calibrated(p: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    return p / prior / (p / prior).sum(-1, keepdim=True)


def _calibrated_is(f: Learner, p: torch.Tensor, prior: torch.Tensor) -> None:
    ratio, product, less = p / prior, p * prior, p - prior
    slips = [
        (ratio, "the rows do not sum to 1 any more: divide each row by its sum."),
        (
            ratio / ratio.sum(0, keepdim=True),
            "each column was made to sum to 1. Each query is a row, and its labels share the probability: "
            "sum over the last dimension.",
        ),
        (ratio / ratio.sum(), "everything together was made to sum to 1. Each query is a row of its own."),
        (
            product / product.sum(-1, keepdim=True),
            "the bias is added a second time: divide by the prior, do not multiply.",
        ),
        (product, "the prior was multiplied in, and the rows do not sum to 1."),
        (less, "the prior was subtracted. A likelier label is likelier by a factor: divide."),
        (
            less / less.sum(-1, keepdim=True),
            "the prior was subtracted, and the rows normalised after it. Divide by the prior instead.",
        ),
        (
            ratio.softmax(-1),
            "softmax of the ratios was taken. These are probabilities already, not logits: divide each row by its sum.",
        ),
        (
            (prior / p) / (prior / p).sum(-1, keepdim=True),
            "this is the other way round: the prior divided by the probabilities.",
        ),
        (p, "nothing has changed: where does the prior come in?"),
    ]
    call = f"calibrate(probabilities, prior) with probabilities = {show(p)} and prior = {show(prior)}"
    otherwise = (
        "take one row, by hand: divide each label's probability by its prior, then divide by the sum of the row."
    )
    require_same(f(p.clone(), prior.clone()), _calibrated(p, prior), call, slips, otherwise)


def _one_query(f: Learner) -> None:
    _calibrated_is(f, torch.tensor([[0.7, 0.3]]), torch.tensor([0.8, 0.2]))


def _many_queries(f: Learner) -> None:
    _calibrated_is(f, _P, torch.tensor([0.75, 0.25]))


def _random_queries(f: Learner) -> None:
    generator = torch.Generator().manual_seed(4)
    p = torch.rand(5, 3, generator=generator).softmax(-1)
    _calibrated_is(f, p, torch.rand(3, generator=generator).softmax(-1))


def _equal_prior(f: Learner) -> None:
    _calibrated_is(f, _P, torch.tensor([0.5, 0.5]))


def _inputs_are_kept(f: Learner) -> None:
    p, prior = _P.clone(), torch.tensor([0.75, 0.25])
    f(p, prior)
    kept = torch.equal(p, _P) and torch.equal(prior, torch.tensor([0.75, 0.25]))
    require(
        kept, "calibrate(probabilities, prior)", "both left as they were", "one of them has changed",
        "`/=` and `div_` change the caller's tensor: write `p = p / prior`.",
    )  # fmt: skip


CALIBRATION_CHECKS: dict[str, Test] = {
    "one query": _one_query,
    "several queries, each row by itself": _many_queries,
    "three labels, random numbers": _random_queries,
    "an equal prior changes nothing": _equal_prior,
    "the inputs are left as they were": _inputs_are_kept,
}
