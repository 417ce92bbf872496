"""Streams for a language model: text tasks and domains of text, one after another.

An example is a `rows.Row`. In a row of a task only the answer counts, and it is right when all of it is what
greedy decoding would say. In a row of plain text every token counts, and its score is the share of them that
are the model's first choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .continual import Part, Stream
from .errors import CourseError
from .prompting import Template, build_prompts
from .rows import Row, answer_rows, batches, by_row, collate, counted_logits, text_rows, token_loss
from .tasks import load_task
from .texts import load_domain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPENING = 16  # tokens of a plain text by which it is routed


class LanguageSetting:
    """What continual methods need to know about rows of tokens: see `continual.Setting`.

    Args:
        batch_size: rows in one forward pass when nothing is trained.
    """

    def __init__(self, batch_size: int = 32):
        self.batch_size = batch_size

    def loss(self, model: nn.Module, examples: Sequence[Row], reduction: str = "mean") -> Tensor:
        return token_loss(model, collate(examples, _device(model)), reduction)

    def logits(self, model: nn.Module, examples: Sequence[Row]) -> Tensor:
        return counted_logits(model, collate(examples, _device(model)))[0]

    def loss_and_logits(self, model: nn.Module, examples: Sequence[Row]) -> tuple[Tensor, Tensor]:
        logits, targets = counted_logits(model, collate(examples, _device(model)))
        return F.cross_entropy(logits, targets), logits

    @torch.no_grad()
    def score(self, model: nn.Module, examples: Sequence[Row]) -> float:
        was_training = model.training
        model.eval()
        total = 0.0
        try:
            for piece in batches(sorted(examples, key=lambda row: len(row.ids)), self.batch_size):
                batch = collate(piece, _device(model))
                logits, targets = counted_logits(model, batch)
                for row, hits in zip(piece, by_row(logits.argmax(-1) == targets, batch)):
                    total += float(hits.all()) if row.first > 1 else float(hits.float().mean())
        finally:
            model.train(was_training)
        return total / len(examples)

    def classes(self, examples: Sequence[Row]) -> frozenset[int]:
        return frozenset()  # any text can be an answer

    def features(self, model: nn.Module, examples: Sequence[Row]) -> Tensor:
        """Return the mean of the last layer's outputs over each input's tokens, [examples, width]."""
        found = []
        for piece in batches(inputs(examples), self.batch_size):
            batch = collate(piece, _device(model))
            out = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                output_hidden_states=True,
                logits_to_keep=1,
                use_cache=False,
            )
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
    """Return what may be read to route each example: a task's prompt, the first OPENING tokens of a text.

    Raises:
        CourseError: a prompt is a single token, which leaves nothing to predict in it.
    """
    found = [Row(row.ids[: row.first if row.first > 1 else OPENING]) for row in examples]
    if short := [row for row in found if len(row.ids) < 2]:
        raise CourseError(f"the input {short[0].ids} is a single token, too short to route.", "use a longer prompt.")
    return found


def task_part(
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    pattern: str | None = None,
    train: int = 40,
    test: int = 24,
    seed: int = 0,
) -> Part:
    """Return a text task as a part of a stream.

    Args:
        pattern: of the prompt, with {x} and {y}, such as "{x} -> {y}"; None for the task's own cue, which says
            what is asked.
        train: how many examples to learn from.
        test: how many queries to be measured on.
        seed: which examples are drawn to learn from.

    Raises: as `tasks.load_task`, `Task.episode` and `prompting.Template`.
    """
    task = load_task(name)
    episode = task.episode(train, seed=seed, n_query=test)
    template = Template(pattern or task.cue)

    def rows(examples) -> tuple[Row, ...]:
        prompts = build_prompts(examples, template=template)
        return tuple(answer_rows(tokenizer, prompts, [example.y for example in examples]))

    return Part(name, rows(episode.support), rows(episode.query))


def domain_part(
    tokenizer: PreTrainedTokenizerBase, name: str, *, train: int = 80, test: int = 16, length: int = 48
) -> Part:
    """Return a domain of running text as a part of a stream, in rows of `length` tokens.

    Raises: as `texts.load_domain` and `rows.text_rows`; CourseError where the domain has too little text.
    """
    domain = load_domain(name)
    sides = []
    for documents, count in ((domain.train, train), (domain.held_out, test)):
        rows = text_rows(tokenizer, "\n\n".join(documents), length)
        if len(rows) < count:
            raise CourseError(f"{name!r} has {len(rows)} rows of {length} tokens, not {count}.", "ask for fewer.")
        step = len(rows) // count  # from all over the domain, not only its first documents
        sides.append(tuple(rows[::step][:count]))
    return Part(name, *sides)


def language_stream(name: str, parts: Sequence[Part]) -> Stream:
    """Return a stream for a language model.

    Raises: as `continual.Stream`.
    """
    return Stream(name, tuple(parts), LanguageSetting())


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
