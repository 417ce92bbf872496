"""Repairing label bias: contextual calibration, and batch calibration as a second opinion.

A few-shot prompt makes some labels likelier before the model has read any query. Show it a query without content,
see what it prefers, and divide that out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import NonFiniteScores
from ..lm.tasks import Example
from ..lm.types import Model, Tokenizer
from .prompts import ARROW, Template, build_prompt
from .scoring import label_logprobs

CONTENT_FREE = ("N/A", "[MASK]", "...")


def content_free_prior(
    model: Model,
    tokenizer: Tokenizer,
    support: Sequence[Example],
    labels: Sequence[str],
    template: Template = ARROW,
    inputs: Sequence[str] = CONTENT_FREE,
) -> torch.Tensor:
    """Return p_cf, [labels]: the label probabilities that the prompt alone suggests, averaged over empty queries
    (Zhao et al. 2021, "Calibrate Before Use", section 5). They sum to 1."""
    prompts = [build_prompt(x, support, template) for x in inputs]
    return label_logprobs(model, tokenizer, prompts, labels).softmax(-1).mean(0)


def contextual_calibration(probabilities: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """Divide each label's probability p, [queries, labels], by the prior p_cf, [labels], and normalise again.

    Zhao et al. 2021, section 5: q = softmax(W p + b) with W = diag(p_cf)^-1 and b = 0. Division by the sum replaces
    the softmax here: it picks the same label, and a prior of equal parts changes nothing.

    Raises NonFiniteScores where nothing can be divided by the prior: it holds a zero, NaN or infinity.
    """
    if not torch.isfinite(prior).all() or (prior <= 0).any():
        raise NonFiniteScores(
            f"the prior {prior.tolist()} cannot be divided by.",
            "use label words that the model gives some probability, and content-free inputs that it can read.",
        )
    weighted = probabilities / prior
    return weighted / weighted.sum(-1, keepdim=True)


def batch_calibration(logprobs: torch.Tensor) -> torch.Tensor:
    """Subtract each label's mean of log P(label | prompt), [queries, labels], over the batch of queries (Zhou et al.
    2024, section 3), and return probabilities of the same shape; each row sums to 1.

    Needs no content-free input, but a batch in which the labels are about equally frequent.
    """
    normalised = logprobs.log_softmax(-1)
    return (normalised - normalised.mean(0, keepdim=True)).softmax(-1)
