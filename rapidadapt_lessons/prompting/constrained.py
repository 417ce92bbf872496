"""Constrained decoding: greedy decoding in which only tokens that lead to one of the allowed answers may be chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ..errors import BadPrompt
from ..guards import require_some
from ..lm.types import Model, Tokenizer
from . import forward
from .forward import Tokens
from .prompts import Prompt
from .scoring import encode, require_fits


def constrained_answers(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], answers: Sequence[str]
) -> list[str]:
    """Return for each prompt the allowed answer that greedy decoding writes where all other tokens get -inf.

    An answer is its tokens behind the prompt, with the stop, so "C" can be chosen although "C++" begins with it. Unlike
    the likeliest label (`scoring.label_logprobs`) it is found a token at a time: a probable first token can lead into
    an answer that is less probable as a whole.

    Raises BadPrompt where a prompt is empty, no room is left for an answer, there is no answer, or two answers are the
    same tokens; NonFiniteScores.
    """
    require_some(answers, "answers to choose from", "name at least one.")
    rows = [encode(tokenizer, prompt.text, "prompt") for prompt in prompts]
    allowed = [_allowed(tokenizer, prompt, answers) for prompt in prompts]
    for prompt, row, texts in zip(prompts, rows, allowed):
        require_fits(model, prompt.text, len(row) + max(map(len, texts)))
    written: list[Tokens] = [()] * len(prompts)
    while going := [i for i, texts in enumerate(allowed) if written[i] not in texts]:
        ends = {i: rows[i] + written[i] for i in going if len(next_allowed(allowed[i], written[i])) > 1}
        tables = dict(forward.predictions(model, {row: len(row) - 1 for row in ends.values()})) if ends else {}
        for i in going:
            permitted = sorted(next_allowed(allowed[i], written[i]))
            chosen = permitted[0]  # the only one, where the model was not asked
            if i in ends:
                masked = torch.full_like(tables[ends[i]][0], -torch.inf)
                masked[permitted] = tables[ends[i]][0, permitted]
                chosen = int(masked.argmax())
            written[i] += (chosen,)
    return [texts[tokens] for texts, tokens in zip(allowed, written)]


def next_allowed(allowed: Iterable[Tokens], written: Tokens) -> set[int]:
    """Return the tokens that may come next: those that follow `written` in one of the allowed answers."""
    n = len(written)
    return {tokens[n] for tokens in allowed if len(tokens) > n and tokens[:n] == written}


def _allowed(tokenizer: Tokenizer, prompt: Prompt, answers: Sequence[str]) -> dict[Tokens, str]:
    """Return the answers by their tokens, each with the stop at its end."""
    found: dict[Tokens, str] = {}
    for answer in dict.fromkeys(answers):
        tokens = encode(tokenizer, prompt.answer_prefix + answer + prompt.stop, "answer")
        if (other := found.setdefault(tokens, answer)) != answer:
            raise BadPrompt(f"the answers {other!r} and {answer!r} are the same to the model.", "rename one of them.")
    return found
