"""Text as rows of tokens to train on, and the loss of a batch of them.

A row knows from which token on it counts: all of a text but its first token, and only the answer of a prompt.
The output layer (49,152 numbers for each token, much of the cost of a short step) is computed for those alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadData, BadPrompt
from ..guards import require_at_least, require_some
from ..lm import memory
from ..lm.model import evaluating
from ..lm.tasks import Example, Task
from ..lm.types import Tokenizer
from ..prompting.own_text import own_task, require_few_tokens
from ..prompting.prompts import Prompt, build_prompts, template_of

IGNORED = -100  # the label of a token that does not count, as in transformers


@dataclass(frozen=True)
class Row:
    """Tokens, of which those from index `first` on are to be predicted."""

    ids: tuple[int, ...]
    first: int = 1

    @property
    def counted(self) -> int:
        """How many tokens are to be predicted."""
        return len(self.ids) - max(self.first, 1)


@dataclass(frozen=True)
class Batch:
    """Rows side by side, padded on the right. All tensors have shape [rows, tokens]."""

    input_ids: Tensor
    labels: Tensor  # the tokens that count; IGNORED elsewhere
    attention_mask: Tensor  # 1 for a token of a row, 0 for padding

    @property
    def counted(self) -> int:
        """How many tokens are to be predicted."""
        return int((self.labels[:, 1:] != IGNORED).sum())


def text_rows(tokenizer: Tokenizer, text: str, length: int = 128) -> list[Row]:
    """Cut a text into rows of `length` tokens; a rest that is shorter is dropped, unless it is all there is.

    Raises BadPrompt where the text has fewer than two tokens, CourseError where length is less than 2.
    """
    require_at_least(2, "length", length, "a row needs 2 tokens or more: one to read, one to predict.")
    ids = tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if len(ids) < 2:
        raise BadPrompt(f"the training text is empty or a single token ({text[:20]!r}).", "give a longer text.")
    return [Row(ids[i : i + length]) for i in range(0, len(ids) - length + 1, length)] or [Row(ids)]


def answer_rows(tokenizer: Tokenizer, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Row]:
    """Make a row of each prompt and its answer, stop included; only answer and stop count.

    Raises BadPrompt where prompts and answers differ in number, there are none, or one of them is empty.
    """
    if len(prompts) != len(answers) or not prompts:
        raise BadPrompt(f"{len(prompts)} prompts came with {len(answers)} answers.", "give one answer to each prompt.")
    rows = []
    for prompt, answer in zip(prompts, answers):
        before = tuple(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
        after = tuple(tokenizer(prompt.answer_prefix + answer + prompt.stop, add_special_tokens=False)["input_ids"])
        if not before or not answer.strip():
            raise BadPrompt(f"the prompt {prompt.text!r} with the answer {answer!r} is empty.", "leave it out.")
        rows.append(Row(before + after, len(before)))
    return rows


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Put rows side by side."""
    width = max(len(row.ids) for row in rows)
    ids = [row.ids + (0,) * (width - len(row.ids)) for row in rows]
    labels = [(IGNORED,) * row.first + row.ids[row.first :] + (IGNORED,) * (width - len(row.ids)) for row in rows]
    mask = [(1,) * len(row.ids) + (0,) * (width - len(row.ids)) for row in rows]
    return Batch(*(torch.tensor(values, device=device) for values in (ids, labels, mask)))


def batches(rows: Sequence[Row], batch_size: int) -> Iterator[Sequence[Row]]:
    """Cut a list of rows into pieces of `batch_size`, in order."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def counted_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits of the tokens that count, float32 [counted, vocabulary], and the tokens, [counted], row by row.

    Nothing else is computed: not the last column, and the output layer only where a token that counts is predicted.
    """
    targets = batch.labels[:, 1:]
    counts = targets != IGNORED
    columns = counts.any(0).nonzero().squeeze(1)
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][counts[:, columns]],))
    try:
        out = model(
            input_ids=batch.input_ids[:, :-1],
            attention_mask=batch.attention_mask[:, :-1],
            logits_to_keep=columns - counts.shape[1],  # from the end, which also holds behind peft's virtual tokens
            use_cache=False,
        )
    finally:
        hook.remove()
    return out.logits.float(), targets[counts]


def token_loss(model: nn.Module, batch: Batch, reduction: str = "mean") -> Tensor:
    """Return -log P of the tokens that count, in nats: their mean, or with reduction="sum" their sum.

    It is transformers' own loss, up to rounding (tested), with less to compute.
    """
    logits, targets = counted_logits(model, batch)
    return F.cross_entropy(logits, targets, reduction=reduction)


def at_once(model: nn.Module, rows: Sequence[Row], batch_size: int, *, training: bool = False) -> int:
    """Return how many of the rows to put through a model at once: batch_size, or fewer where memory is short."""
    tokens, predicted = max(len(row.ids) for row in rows), max(row.counted for row in rows)
    return memory.batch_size(model, batch_size, tokens, predicted, training=training)


def by_row(values: Tensor, batch: Batch) -> tuple[Tensor, ...]:
    """Cut [counted, ...], such as `counted_logits` returns, into one piece for each row."""
    return values.split((batch.labels[:, 1:] != IGNORED).sum(1).tolist())


@torch.no_grad()
def perplexity(model: nn.Module, rows: Sequence[Row], batch_size: int = 8) -> float:
    """Return exp of the mean -log P over all tokens that count. Raises CourseError where there are no rows."""
    total, counted = 0.0, 0
    with evaluating(model):
        for batch in _batches_that_fit(model, rows, batch_size):
            total += token_loss(model, batch, "sum").item()
            counted += batch.counted
    return float(torch.tensor(total / counted, dtype=torch.float64).exp())  # infinite rather than an overflow


@torch.no_grad()
def exact_rows(model: nn.Module, rows: Sequence[Row], batch_size: int = 32) -> list[bool]:
    """Say for each row whether the model's most probable token is the right one wherever the row counts.

    For rows of `answer_rows` that is exact match by greedy decoding, with the row's own stop behind the answer; it
    works for models that `peft` has wrapped too. Raises CourseError where there are no rows.
    """
    right: list[bool] = []
    with evaluating(model):
        for batch in _batches_that_fit(model, rows, batch_size):
            logits, targets = counted_logits(model, batch)
            right += [bool(hits.all()) for hits in by_row(logits.argmax(-1) == targets, batch)]
    return right


def _batches_that_fit(model: nn.Module, rows: Sequence[Row], batch_size: int) -> Iterator[Batch]:
    require_some(rows, "rows to measure")
    device = next(model.parameters()).device
    for piece in batches(rows, at_once(model, rows, batch_size)):
        yield collate(piece, device)


def task_rows(tokenizer: Tokenizer, task: Task, examples: Sequence[Example]) -> list[Row]:
    """Return the examples as rows to train on, each asked by the task's own sentence with no example in front."""
    return answer_rows(tokenizer, build_prompts(examples, (), template_of(task)), [e.y for e in examples])


def pair_rows(tokenizer: Tokenizer, template: str, pairs: Sequence[Example]) -> tuple[Task, list[Row]]:
    """Return a reader's own pairs as a task, and as rows to train on.

    Raises BadData where there are no pairs or one is too long, BadPrompt where the template is faulty.
    """
    if not pairs:
        raise BadData("there are no pairs to learn from.", 'write at least one: "cat, cats".')
    task = own_task(template, pairs)
    require_few_tokens(tokenizer, [template_of(task).shot(*pair) for pair in pairs])
    return task, task_rows(tokenizer, task, pairs)
