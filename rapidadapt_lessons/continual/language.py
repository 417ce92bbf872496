"""Streams for a language model: text tasks and domains of text, one after another.

The score of a task's row is 1 when greedy decoding would say exactly its answer; that of plain text is the share of
tokens that are the model's first choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CourseError
from ..lm.model import evaluating
from ..training.data import Experience
from ..training.rows import Row, batches, by_row, collate, counted_logits, token_loss
from .stream import Stream

OPENING = 16  # tokens of a plain text by which it is routed


class LanguageScenario:
    """`stream.Scenario` for rows of tokens."""

    batch_size = 32  # rows in one forward pass when nothing is trained

    def loss(self, model: nn.Module, examples: Sequence[Row], reduction: str = "mean") -> Tensor:
        return token_loss(model, collate(examples, _device(model)), reduction)

    def logits(self, model: nn.Module, examples: Sequence[Row]) -> Tensor:
        return counted_logits(model, collate(examples, _device(model)))[0]

    def loss_and_logits(self, model: nn.Module, examples: Sequence[Row]) -> tuple[Tensor, Tensor]:
        logits, targets = counted_logits(model, collate(examples, _device(model)))
        return F.cross_entropy(logits, targets), logits

    @torch.no_grad()
    def score(self, model: nn.Module, examples: Sequence[Row]) -> float:
        total = 0.0
        with evaluating(model):
            for piece in batches(sorted(examples, key=lambda row: len(row.ids)), self.batch_size):
                batch = collate(piece, _device(model))
                logits, targets = counted_logits(model, batch)
                for row, hits in zip(piece, by_row(logits.argmax(-1) == targets, batch)):
                    total += float(hits.all()) if row.first > 1 else float(hits.float().mean())
        return total / len(examples)

    def classes(self, examples: Sequence[Row]) -> frozenset[int]:
        return frozenset()  # any text can be an answer

    def features(self, model: nn.Module, examples: Sequence[Row]) -> Tensor:
        """Return the mean of the last layer's outputs over each input's tokens, [examples, width]."""
        found = []
        for piece in batches(inputs(examples), self.batch_size):
            batch = collate(piece, _device(model))
            how = {"output_hidden_states": True, "logits_to_keep": 1, "use_cache": False}
            out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **how)
            mask = batch.attention_mask[..., None]
            found.append((out.hidden_states[-1].float() * mask).sum(1) / mask.sum(1))
        return torch.cat(found)

    def surprise(self, model: nn.Module, examples: Sequence[Row]) -> Tensor:
        found = []
        for piece in batches(inputs(examples), self.batch_size):
            batch = collate(piece, _device(model))
            nats = F.cross_entropy(*counted_logits(model, batch), reduction="none")
            found += [of_row.mean() for of_row in by_row(nats, batch)]
        return torch.stack(found)


def inputs(examples: Sequence[Row]) -> list[Row]:
    """Return what routes each example: a task's prompt, or a text's OPENING; CourseError where it is a single token."""
    found = [Row(row.ids[: row.first if row.first > 1 else OPENING]) for row in examples]
    if short := [row for row in found if len(row.ids) < 2]:
        raise CourseError(f"the input {short[0].ids} is a single token, too short to route.", "use a longer prompt.")
    return found


def language_stream(name: str, experiences: Sequence[Experience]) -> Stream:
    """Return a stream for a language model. Raises as `Stream`."""
    return Stream(name, tuple(experiences), LanguageScenario())


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
