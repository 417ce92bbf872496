"""What the model says about a prompt: log-probabilities, exact match, label scores, greedy answers.

A causal language model gives, at each position, a distribution over the next token. The
log-probability of an answer a = (a_1 ... a_m) after a prompt p is therefore

    log P(a | p) = sum_t log P(a_t | p, a_1 ... a_{t-1}),

and everything here is read off those terms. Many queries behind one long few-shot prompt share most
of their tokens; with `cache=True` the keys and values of the shared part are computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..errors import BadPrompt, CourseError, NonFiniteScores
from ..lm import memory
from ..lm.model import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .prompts import Prompt

PACKED_TOKENS = 640  # enough to keep the processor busy, few enough that the mask stays small


@dataclass(frozen=True)
class Continuation:
    """The model's view of one continuation of one prompt.

    Attributes:
        logprobs: natural-log probability of each of its tokens, shape [m], float32, on the CPU.
        best: the token that the model finds most probable in the place of each, shape [m], int64.
        greedy: for each token, whether it is that one, shape [m], bool.
    """

    logprobs: torch.Tensor
    best: torch.Tensor
    greedy: torch.Tensor

    @property
    def total(self) -> float:
        """log P(continuation | prompt), in nats."""
        return float(self.logprobs.sum())


def score_continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    *,
    cache: bool = True,
    batch_size: int = 64,
) -> list[Continuation]:
    """Score each (prompt, continuation) pair in batched forward passes, without generating.

    Prompt and continuation are tokenised apart and joined, so the boundary between them is always a
    boundary between tokens, as it is when the model generates.

    Args:
        cache: compute the tokens that all prompts begin with once, and reuse their keys and values.
            The scores are the same up to rounding.
        batch_size: rows in one forward pass.

    Raises:
        BadPrompt: a prompt or continuation is empty, or together they exceed the model's context.
        NonFiniteScores: the model returned NaN or infinity.
    """
    _require_positive(batch_size, "batch_size")
    if not pairs:
        return []
    prompt_ids = {p: _encode(tokenizer, p, "prompt") for p in dict.fromkeys(p for p, _ in pairs)}
    ids = [(prompt_ids[p], _encode(tokenizer, c, "continuation")) for p, c in pairs]
    for (p, _), (prompt, continuation) in zip(pairs, ids):
        _require_fits(model, p, len(prompt) + len(continuation))
    # The last token of a continuation is predicted, never read. Rows that then read the same tokens
    # (several one-token labels behind one prompt) need one forward pass between them.
    wanted: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, continuation) in enumerate(ids):
        wanted.setdefault(prompt + continuation[:-1], []).append(i)
    first = {row: min(len(ids[i][0]) for i in asking) - 1 for row, asking in wanted.items()}
    shared = _shared_length(list(first), first) if cache else 0
    results: dict[int, Continuation] = {}
    for row, table in _predictions(model, first, shared, batch_size):
        for i in wanted[row]:
            prompt, continuation = ids[i]
            predicted = table[len(prompt) - 1 - first[row] :]  # [m, vocabulary]
            target = torch.tensor(continuation)
            logprobs = predicted.gather(-1, target[:, None]).squeeze(-1)
            best = predicted.argmax(-1)
            results[i] = Continuation(logprobs, best, best == target)
    return [results[i] for i in range(len(ids))]


def exact_matches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    *,
    cache: bool = True,
    batch_size: int = 64,
) -> list[bool]:
    """Say for each prompt whether greedy decoding would give exactly the answer, then stop.

    Greedy decoding produces the answer if and only if each of its tokens is the most probable one given
    those before it, and so is something after it that ends an answer: one forward pass tells. As for
    `generate_answers`, the prompt's stop ends it, a longer token that begins with the stop ("\n\n"), or
    the model's end of text.

    The tokens asked for are those that the tokenizer cuts the answer into. A model that writes the same
    letters in other tokens ("t" and "oys" for "to" and "ys") is not recognised. That is rare where a
    space comes before the answer, less so where none does, as in a chat.

    Raises: see `score_continuations`; BadPrompt also when prompts and answers differ in number.
    """
    _require_same_number(prompts, answers)
    pairs = [(p.text, p.answer_prefix + a + p.stop) for p, a in zip(prompts, answers)]
    scored = score_continuations(model, tokenizer, pairs, cache=cache, batch_size=batch_size)
    stops = {stop: len(_encode(tokenizer, stop, "stop")) for stop in {p.stop for p in prompts}}
    verdicts = []
    for p, s in zip(prompts, scored):
        answer, stop = s.greedy[: -stops[p.stop]], s.greedy[-stops[p.stop] :]
        after = tokenizer.decode(s.best[-stops[p.stop]])
        verdicts.append(bool(answer.all()) and (bool(stop.all()) or _ends_answer(tokenizer, after, p.stop)))
    return verdicts


def label_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    labels: Sequence[str],
    *,
    cache: bool = True,
    batch_size: int = 64,
) -> torch.Tensor:
    """Return log P(label | prompt) for each prompt and label, in nats, shape [prompts, labels].

    Raises: see `score_continuations`; BadPrompt also when there are fewer than two labels.
    """
    if len(set(labels)) < 2:
        raise BadPrompt(f"{list(labels)} are not at least two different labels.", "name the labels to choose from.")
    pairs = [(p.text, p.answer_prefix + label) for p in prompts for label in labels]
    scored = score_continuations(model, tokenizer, pairs, cache=cache, batch_size=batch_size)
    return torch.tensor([s.total for s in scored]).reshape(len(prompts), len(labels))


def label_probabilities(logprobs: torch.Tensor) -> torch.Tensor:
    """Normalise label log-probabilities over the labels alone: each row sums to 1, shape unchanged."""
    return logprobs.softmax(-1)


def next_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 10
) -> list[tuple[str, float]]:
    """Return the k most probable next tokens after `text`, each with its probability.

    Raises: BadPrompt when the text is empty or too long; CourseError when k is not positive, or more
        than the model has tokens; NonFiniteScores.
    """
    _require_positive(k, "k")
    row = _encode(tokenizer, text, "prompt")
    _require_fits(model, text, len(row) + 1)
    [(_, table)] = _predictions(model, {row: len(row) - 1}, shared=0, batch_size=1)
    if k > table.shape[-1]:
        raise CourseError(f"k is {k}; the model knows {table.shape[-1]} tokens.", "ask for fewer.")
    top = table[0].exp().topk(k)
    return [(tokenizer.decode([i]), p) for i, p in zip(top.indices.tolist(), top.values.tolist())]


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 16,
    cache: bool = True,
    batch_size: int = 32,
) -> list[str]:
    """Return the greedy answer to each prompt, up to its stop text, with transformers' `generate`.

    Slower than `exact_matches`, and needed only to read what the model would say.

    Args:
        cache: compute the tokens that all prompts of a batch begin with once, as in `score_continuations`.

    Raises: BadPrompt when a prompt is empty or leaves no room for `max_new_tokens`; NonFiniteScores.
    """
    _require_positive(max_new_tokens, "max_new_tokens")
    _require_positive(batch_size, "batch_size")
    rows = [_encode(tokenizer, p.text, "prompt") for p in prompts]
    for p, row in zip(prompts, rows):
        _require_fits(model, p.text, len(row) + max_new_tokens)
    # A batch holds prompts with the same stop only: another prompt's stop must not cut an answer short.
    by_stop: dict[str, list[int]] = {}
    for i, p in enumerate(prompts):
        by_stop.setdefault(p.stop, []).append(i)
    chunks = [
        (stop, group[start : start + batch_size])
        for stop, group in by_stop.items()
        for start in range(0, len(group), batch_size)
    ]
    answers: dict[int, str] = {}
    for stop, chunk in chunks:
        batch = [rows[i] for i in chunk]
        shared = _shared_length(batch, {row: len(row) - 1 for row in batch}) if cache else 0
        with _evaluating(model):
            new_tokens = _generate(model, tokenizer, batch, shared, stop, max_new_tokens)
        for i, new in zip(chunk, new_tokens):
            text = tokenizer.decode(new, skip_special_tokens=False).split(stop)[0]
            answers[i] = text.split(tokenizer.eos_token)[0].strip()
    return [answers[i] for i in range(len(prompts))]


def count_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the number of tokens in a text."""
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


@torch.no_grad()
def _predictions(
    model: PreTrainedModel, first: dict[tuple[int, ...], int], shared: int, batch_size: int
) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
    """Yield each row of tokens with the log-probabilities of what follows it, [n, vocabulary].

    `first[row]` is the earliest position whose prediction is wanted, so n = len(row) - first[row]. The
    first `shared` tokens of all rows are the same and are computed once. Where memory is short, a forward pass
    takes fewer rows than `batch_size`.
    """
    with _evaluating(model):
        rows = sorted(first, key=len)
        wanted = max(len(row) - first[row] for row in rows)
        batch_size = memory.batch_size(model, batch_size, len(rows[-1]) - shared, wanted)
        prefix = _prefix_cache(model, rows[0][:shared]) if shared else None
        for batch in _batches(rows, shared, batch_size):
            if prefix:
                tables = _forward_packed(model, batch, first, shared, prefix)
            else:
                tables = _forward_padded(model, batch, first)
            for row, logits in zip(batch, tables):
                table = logits.float().log_softmax(-1).cpu()
                _require_finite(table, len(row))
                yield row, table


@torch.no_grad()
def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[tuple[int, ...]],
    shared: int,
    stop: str,
    max_new_tokens: int,
) -> torch.Tensor:
    """Return the new tokens after each row, [rows, at most max_new_tokens], chosen greedily.

    The first `shared` tokens of all rows are the same and are computed once. What differs ends at the
    right edge, where `generate` goes on, so the padding stands between the two, and is masked.
    """
    from transformers import DynamicCache

    width = max(map(len, rows))
    pads = [width - len(row) for row in rows]
    tokens = [row[:shared] + (tokenizer.pad_token_id,) * pad + row[shared:] for row, pad in zip(rows, pads)]
    mask = [[1] * shared + [0] * pad + [1] * (width - shared - pad) for pad in pads]
    past = {}
    if shared:
        prefix = _prefix_cache(model, rows[0][:shared])
        spread = [(k.expand(len(rows), -1, -1, -1), v.expand(len(rows), -1, -1, -1)) for k, v in prefix]
        past = {"past_key_values": DynamicCache(spread)}
    out = model.generate(
        input_ids=torch.tensor(tokens, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        stop_strings=[stop],
        tokenizer=tokenizer,
        logits_processor=[_finite_logits],
        **past,
    )
    return out[:, width:]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off inside the block, and the model back to what it was after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _forward_padded(
    model: PreTrainedModel, batch: Sequence[tuple[int, ...]], first: dict[tuple[int, ...], int]
) -> list[torch.Tensor]:
    """The plain way: one row of the batch for each prompt. Returns each row's wanted logits."""
    # Padding goes on the right, where causal attention keeps it out of every real token's sight.
    width = max(len(row) for row in batch)
    tokens = torch.tensor([row + (0,) * (width - len(row)) for row in batch])
    begin = min(first[row] for row in batch)
    out = model(
        input_ids=tokens.to(model.device),
        use_cache=False,
        logits_to_keep=torch.arange(begin, width, device=model.device),
    )
    return [logits[first[row] - begin : len(row) - begin] for row, logits in zip(batch, out.logits)]


def _prefix_cache(model: PreTrainedModel, prefix: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each layer's keys and values for the shared tokens, [1, heads, shared, head size]."""
    out = model(input_ids=torch.tensor([prefix], device=model.device), use_cache=True, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in out.past_key_values.layers]


def _forward_packed(
    model: PreTrainedModel,
    batch: Sequence[tuple[int, ...]],
    first: dict[tuple[int, ...], int],
    shared: int,
    prefix: list[tuple[torch.Tensor, torch.Tensor]],
) -> list[torch.Tensor]:
    """The fast way: what the rows do not share stands end to end behind the prefix, in a single row.

    The attention mask lets each token see the prefix and the earlier tokens of its own prompt, so the
    prompts cannot see each other, and nothing is padded or copied.
    """
    from transformers import DynamicCache

    lengths = [len(row) - shared for row in batch]
    starts = [sum(lengths[:i]) for i in range(len(batch))]
    owner = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor(lengths))
    n = len(owner)
    own_past = (owner[:, None] == owner[None, :]) & torch.ones(n, n, dtype=torch.bool).tril()
    sees = torch.cat([torch.ones(n, shared, dtype=torch.bool), own_past], dim=1)  # [n, shared + n]
    mask = torch.zeros(n, shared + n, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)
    keep = [range(start + first[row] - shared, start + len(row) - shared) for start, row in zip(starts, batch)]
    out = model(
        input_ids=torch.tensor([[t for row in batch for t in row[shared:]]], device=model.device),
        position_ids=torch.cat([torch.arange(shared, len(row)) for row in batch])[None].to(model.device),
        attention_mask=mask[None, None].to(model.device),
        past_key_values=DynamicCache(prefix),
        use_cache=True,
        logits_to_keep=torch.tensor([i for span in keep for i in span], device=model.device),
    )
    return list(out.logits[0].split([len(span) for span in keep]))


def _batches(rows: Sequence[tuple[int, ...]], shared: int, batch_size: int) -> Iterator[list[tuple[int, ...]]]:
    """Cut rows into batches of at most `batch_size` rows and, where they are packed, PACKED_TOKENS tokens."""
    batch: list[tuple[int, ...]] = []
    for row in rows:
        tokens = sum(len(r) - shared for r in batch) + len(row) - shared
        if batch and (len(batch) == batch_size or (shared and tokens > PACKED_TOKENS)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _shared_length(rows: Sequence[tuple[int, ...]], first: dict[tuple[int, ...], int]) -> int:
    """Return how many leading tokens all rows share, leaving each the positions it must predict from."""
    limit = min(first.values())
    low, high = min(rows), max(rows)  # the two that differ earliest
    shared = next((i for i, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))
    return min(shared, limit) if len(rows) > 1 else 0


def _ends_answer(tokenizer: PreTrainedTokenizerBase, text: str, stop: str) -> bool:
    """Return whether a text that follows an answer adds nothing to it and ends it."""
    ends = [end for end in (stop, tokenizer.eos_token) if end in text]
    return any(not text.partition(end)[0].strip() for end in ends)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, what: str) -> tuple[int, ...]:
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise BadPrompt(f"the {what} is empty ({text!r}).", "give the model at least one token to read.")
    return ids


def _require_fits(model: PreTrainedModel, text: str, tokens: int) -> None:
    if tokens > (limit := context_length(model)):
        raise BadPrompt(
            f"a prompt of {tokens} tokens (it begins {text[:40]!r}) does not fit the model's context of {limit}.",
            "use fewer or shorter examples.",
        )


def _require_finite(table: torch.Tensor, tokens: int) -> None:
    if not torch.isfinite(table).all():
        raise NonFiniteScores(
            f"the model gave NaN or infinite scores for a prompt of {tokens} tokens.",
            'load it with dtype="float32", and check that training has not diverged.',
        )


def _finite_logits(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Pass logits on to `generate` as they are, or raise NonFiniteScores. Forbidden tokens may have -inf."""
    _require_finite(logits.logsumexp(-1), tokens.shape[1])
    return logits


def _require_positive(value: int, name: str) -> None:
    if value < 1:
        raise CourseError(f"{name} is {value}.", f"{name} must be 1 or more.")


def _require_same_number(prompts: Sequence, answers: Sequence) -> None:
    if len(prompts) != len(answers):
        raise BadPrompt(f"{len(prompts)} prompts came with {len(answers)} answers.", "give one answer to each prompt.")
