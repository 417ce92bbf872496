"""The model's forward passes over many rows of tokens.

Queries behind one few-shot prompt share most of their tokens. The keys and values of the shared part are computed
once; what the rows do not share is packed behind it, or, where nothing is shared, padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, chain

import torch

from ..errors import NonFiniteScores
from ..lm import memory
from ..lm.model import evaluating
from ..lm.types import Model, Tokenizer

Tokens = tuple[int, ...]
Choose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # from tokens so far and logits to other logits
ROWS_AT_ONCE = 64  # of one forward pass
PACKED_TOKENS = 640  # enough to keep the processor busy, few enough that the mask stays small


@torch.no_grad()
def predictions(model: Model, first: Mapping[Tokens, int], cache: bool = True) -> Iterator[tuple[Tokens, torch.Tensor]]:
    """Yield each row of tokens with the log-probabilities of what follows it, float32 [n, vocabulary] on the CPU.

    Args:
        first: for each row the earliest position whose prediction is wanted, so n = len(row) - first[row].
        cache: compute the tokens that all rows begin with once.

    Raises NonFiniteScores where the model returned NaN or infinity.
    """
    with evaluating(model):
        rows = sorted(first, key=len)
        shared = shared_length(rows, min(first.values())) if cache else 0
        wanted = max(len(row) - first[row] for row in rows)
        batch_size = memory.batch_size(model, ROWS_AT_ONCE, len(rows[-1]) - shared, wanted)
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
def generate(
    model: Model, tokenizer: Tokenizer, rows: Sequence[Tokens], stop: str, most: int, choose: Choose | None = None
) -> torch.Tensor:
    """Return the new tokens after each row, [rows, at most `most`], chosen greedily, until the stop.

    `choose` changes what greedy means: it gets the tokens so far and the logits [rows, vocabulary], and returns others.

    Generation goes on at the right edge, so the padding stands between what is shared and what is not, and is masked.
    Raises NonFiniteScores.
    """
    from transformers import DynamicCache

    shared = shared_length(rows, min(map(len, rows)) - 1)
    width = max(map(len, rows))
    pads = [width - len(row) for row in rows]
    tokens = [row[:shared] + (tokenizer.pad_token_id,) * pad + row[shared:] for row, pad in zip(rows, pads)]
    mask = [[1] * shared + [0] * pad + [1] * (width - shared - pad) for pad in pads]
    with evaluating(model):
        past = {}
        if shared:
            prefix = _prefix_cache(model, rows[0][:shared])
            spread = [(k.expand(len(rows), -1, -1, -1), v.expand(len(rows), -1, -1, -1)) for k, v in prefix]
            past = {"past_key_values": DynamicCache(spread)}
        out = model.generate(
            input_ids=torch.tensor(tokens, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            stop_strings=[stop],
            tokenizer=tokenizer,
            logits_processor=[_finite_logits, *([choose] if choose else [])],
            **past,
        )
    return out[:, width:]


def shared_length(rows: Sequence[Tokens], limit: int) -> int:
    """Return how many leading tokens all rows share, `limit` at most; none where there is one row alone."""
    low, high = min(rows), max(rows)  # the two that differ earliest
    shared = next((i for i, (a, b) in enumerate(zip(low, high)) if a != b), min(len(low), len(high)))
    return min(shared, limit) if len(rows) > 1 else 0


def _forward_padded(model: Model, batch: Sequence[Tokens], first: Mapping[Tokens, int]) -> list[torch.Tensor]:
    """Return each row's wanted logits; each is a row of the batch."""
    # Padding goes on the right, where causal attention keeps it out of every real token's sight.
    width = max(len(row) for row in batch)
    tokens = torch.tensor([row + (0,) * (width - len(row)) for row in batch])
    begin = min(first[row] for row in batch)
    keep = torch.arange(begin, width, device=model.device)
    out = model(input_ids=tokens.to(model.device), use_cache=False, logits_to_keep=keep)
    return [logits[first[row] - begin : len(row) - begin] for row, logits in zip(batch, out.logits)]


def _prefix_cache(model: Model, prefix: Tokens) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each layer's keys and values for the shared tokens, [1, heads, shared, head size]."""
    out = model(input_ids=torch.tensor([prefix], device=model.device), use_cache=True, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in out.past_key_values.layers]


def _forward_packed(
    model: Model,
    batch: Sequence[Tokens],
    first: Mapping[Tokens, int],
    shared: int,
    prefix: list[tuple[torch.Tensor, torch.Tensor]],
) -> list[torch.Tensor]:
    """Return each row's wanted logits: what the rows do not share stands end to end in a single row.

    The attention mask lets each token see the prefix and the earlier tokens of its own prompt alone.
    """
    from transformers import DynamicCache

    lengths = [len(row) - shared for row in batch]
    starts = accumulate(lengths, initial=0)
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
        logits_to_keep=torch.tensor([*chain(*keep)], device=model.device),
    )
    return list(out.logits[0].split([len(span) for span in keep]))


def _batches(rows: Sequence[Tokens], shared: int, batch_size: int) -> Iterator[list[Tokens]]:
    """Cut rows into batches of at most `batch_size` rows and, where they are packed, PACKED_TOKENS tokens."""
    batch: list[Tokens] = []
    for row in rows:
        tokens = sum(len(r) - shared for r in [*batch, row])
        if batch and (len(batch) == batch_size or (shared and tokens > PACKED_TOKENS)):
            yield batch
            batch = []
        batch.append(row)
    yield batch


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
