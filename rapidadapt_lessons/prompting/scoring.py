"""What the model says about a prompt: log-probabilities, exact match, label scores, greedy answers.

A model gives a distribution over the next token. So an answer a = (a_1 ... a_m) after a prompt p has
log P(a | p) = sum_t log P(a_t | p, a_1 ... a_{t-1}), and everything here is read off those terms.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from ..errors import BadPrompt, CourseError
from ..guards import require_at_least, require_positive
from ..lm.model import context_length
from ..lm.types import Model, Tokenizer
from . import forward
from .forward import Tokens
from .prompts import Prompt

GENERATED_ROWS = 32  # at once, in `generate_answers`


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
    model: Model, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, cache: bool = True
) -> list[Continuation]:
    """Score each (prompt, continuation) pair in batched forward passes, without generating.

    Prompt and continuation are tokenised apart and joined, so the boundary between them is always a boundary between
    tokens, as it is when the model generates. With `cache` the tokens that all prompts begin with are computed once;
    the scores are the same up to rounding.

    Raises BadPrompt where a prompt or continuation is empty, or together they exceed the model's context;
    NonFiniteScores where the model returned NaN or infinity.
    """
    if not pairs:
        return []
    prompt_ids = {p: encode(tokenizer, p, "prompt") for p in dict.fromkeys(p for p, _ in pairs)}
    ids = [(prompt_ids[p], encode(tokenizer, c, "continuation")) for p, c in pairs]
    for (p, _), (prompt, continuation) in zip(pairs, ids):
        require_fits(model, p, len(prompt) + len(continuation))
    # The last token of a continuation is predicted, never read. Rows that then read the same tokens
    # (several one-token labels behind one prompt) need one forward pass between them.
    wanted: dict[Tokens, list[int]] = {}
    for i, (prompt, continuation) in enumerate(ids):
        wanted.setdefault(prompt + continuation[:-1], []).append(i)
    first = {row: min(len(ids[i][0]) for i in asking) - 1 for row, asking in wanted.items()}
    results: dict[int, Continuation] = {}
    for row, table in forward.predictions(model, first, cache):
        for i in wanted[row]:
            prompt, continuation = ids[i]
            predicted = table[len(prompt) - 1 - first[row] :]  # [m, vocabulary]
            target = torch.tensor(continuation)
            logprobs = predicted.gather(-1, target[:, None]).squeeze(-1)
            best = predicted.argmax(-1)
            results[i] = Continuation(logprobs, best, best == target)
    return [results[i] for i in range(len(ids))]


def exact_matches(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], answers: Sequence[str], *, cache: bool = True
) -> list[bool]:
    """Say for each prompt whether greedy decoding would give exactly the answer, then stop.

    It does if and only if each of the answer's tokens is the most probable one given those before it, and so is
    something after it that ends an answer, as for `generate_answers`: the prompt's stop, a longer token that begins
    with it ("\n\n"), or the model's end of text.

    A model that writes the same letters in other tokens than the tokenizer ("t" and "oys" for "to" and
    "ys") is not recognised. That is rare where a space comes before the answer, less so in a chat.

    `cache` and errors: as for `score_continuations`; BadPrompt also where prompts and answers differ in number.
    """
    if len(prompts) != len(answers):
        raise BadPrompt(f"{len(prompts)} prompts came with {len(answers)} answers.", "give one answer to each prompt.")
    pairs = [(p.text, p.answer_prefix + a + p.stop) for p, a in zip(prompts, answers)]
    scored = score_continuations(model, tokenizer, pairs, cache=cache)
    stops = {stop: len(encode(tokenizer, stop, "stop")) for stop in {p.stop for p in prompts}}
    verdicts = []
    for p, s in zip(prompts, scored):
        answer, stop = s.greedy[: -stops[p.stop]], s.greedy[-stops[p.stop] :]
        after = tokenizer.decode(s.best[-stops[p.stop]])
        verdicts.append(bool(answer.all()) and (bool(stop.all()) or _ends_answer(tokenizer, after, p.stop)))
    return verdicts


def label_logprobs(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], labels: Sequence[str]
) -> torch.Tensor:
    """Return log P(label | prompt) for each prompt and label, in nats, shape [prompts, labels].

    Where one label begins another, it is log P(label, then the stop | prompt): see `label_continuations`.

    Raises as `score_continuations`; BadPrompt also where there are fewer than two labels, or two of them are the same
    tokens, so that no model can tell them apart.
    """
    different = list(dict.fromkeys(labels))
    if len(different) < 2:
        raise BadPrompt(f"{list(labels)} are not at least two different labels.", "name the labels to choose from.")
    read: dict[Tokens, str] = {}
    for label in different:
        if (other := read.setdefault(encode(tokenizer, label, "label"), label)) != label:
            raise BadPrompt(f"the labels {other!r} and {label!r} are the same to the model.", "rename one of them.")
    pairs = [(p.text, continuation) for p in prompts for continuation in label_continuations(p, labels)]
    totals = [s.total for s in score_continuations(model, tokenizer, pairs)]
    return torch.tensor(totals).reshape(len(prompts), len(labels))


def label_continuations(prompt: Prompt, labels: Sequence[str]) -> list[str]:
    """Return the text that is scored for each label: as it continues the prompt, with the stop where that decides.

    "C" begins "C++": the text "C++" is never more probable than its beginning, so the longer label could not win.
    Where that is so for any two labels of the set, all are scored with the stop after them, which is how training
    teaches an answer (`training.rows.answer_rows`). Elsewhere the labels' own text decides.
    """
    # In the order of the alphabet a label that begins others stands right before one of them.
    end = prompt.stop if any(b.startswith(a) for a, b in pairwise(sorted(set(labels)))) else ""
    return [prompt.answer_prefix + label + end for label in labels]


def next_tokens(model: Model, tokenizer: Tokenizer, text: str, k: int = 10) -> list[tuple[str, float]]:
    """Return the k most probable next tokens after `text`, each with its probability.

    Raises BadPrompt where the text is empty or too long; CourseError where k is not positive, or more than the model
    has tokens; NonFiniteScores.
    """
    require_at_least(1, "k", k)
    row = encode(tokenizer, text, "prompt")
    require_fits(model, text, len(row) + 1)
    [(_, table)] = forward.predictions(model, {row: len(row) - 1})
    if k > table.shape[-1]:
        raise CourseError(f"k is {k}; the model knows {table.shape[-1]} tokens.", "ask for fewer.")
    top = table[0].exp().topk(k)
    return [(tokenizer.decode([i]), p) for i, p in zip(top.indices.tolist(), top.values.tolist())]


def generate_answers(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], *, max_new_tokens: int = 16
) -> list[str]:
    """Return the greedy answer to each prompt, up to its stop text, with transformers' `generate`.

    Slower than `exact_matches`, and needed only to read what the model would say.
    Raises BadPrompt where a prompt is empty or leaves no room for `max_new_tokens`; NonFiniteScores.
    """
    return _written(model, tokenizer, prompts, max_new_tokens)


def sample_answers(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    samples: int,
    *,
    temperature: float,
    seed: int,
    max_new_tokens: int = 16,
) -> list[list[str]]:
    """Return several sampled answers to each prompt, up to its stop text: [prompts][samples].

    Each next token is drawn from the softmax of logits / temperature. Equal arguments give equal answers, the first
    of many samples are those of fewer, and PyTorch's own random numbers stay as they were.
    Raises as `generate_answers`; CourseError where `samples` is below 1 or the temperature not above 0.
    """
    require_at_least(1, "samples", samples)
    require_positive("temperature", temperature, "give one above 0, or use generate_answers for the greedy answer.")
    draws = [
        torch.Generator().manual_seed(random.Random(f"{seed}:{i}:{j}").getrandbits(63))
        for i in range(len(prompts))
        for j in range(samples)
    ]
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    texts = _written(model, tokenizer, repeated, max_new_tokens, temperature, draws)
    return [texts[i : i + samples] for i in range(0, len(texts), samples)]


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Return the number of tokens in a text."""
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _written(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    most: int,
    temperature: float = 1.0,
    draws: Sequence[torch.Generator] = (),
) -> list[str]:
    """Return what the model writes after each prompt: greedily, or sampled where each prompt has a generator."""
    require_at_least(1, "max_new_tokens", most)
    rows = [encode(tokenizer, p.text, "prompt") for p in prompts]
    for p, row in zip(prompts, rows):
        require_fits(model, p.text, len(row) + most)
    answers = [""] * len(prompts)
    for stop in dict.fromkeys(p.stop for p in prompts):  # together, one prompt's stop would cut another's answer
        group = [i for i, p in enumerate(prompts) if p.stop == stop]
        for start in range(0, len(group), GENERATED_ROWS):
            chunk = group[start : start + GENERATED_ROWS]
            choose = _sampler(temperature, [draws[i] for i in chunk]) if draws else None
            new_tokens = forward.generate(model, tokenizer, [rows[i] for i in chunk], stop, most, choose)
            for i, new in zip(chunk, new_tokens):
                text = tokenizer.decode(new, skip_special_tokens=False).split(stop)[0]
                answers[i] = text.split(tokenizer.eos_token)[0].strip()
    return answers


def _sampler(temperature: float, draws: Sequence[torch.Generator]) -> forward.Choose:
    """Return what makes `forward.generate` sample: each row draws from its own generator, and other tokens get -inf."""

    def choose(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        chances = (logits.float() / temperature).softmax(-1).cpu()
        drawn = [torch.multinomial(row, 1, generator=draw) for row, draw in zip(chances, draws)]
        return torch.full_like(logits, -torch.inf).scatter(-1, torch.stack(drawn).to(logits.device), 0.0)

    return choose


def _ends_answer(tokenizer: Tokenizer, text: str, stop: str) -> bool:
    """Return whether a text that follows an answer adds nothing to it and ends it."""
    ends = [end for end in (stop, tokenizer.eos_token) if end in text]
    return any(not text.partition(end)[0].strip() for end in ends)


def encode(tokenizer: Tokenizer, text: str, what: str) -> Tokens:
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise BadPrompt(f"the {what} is empty ({text!r}).", "give the model at least one token to read.")
    return ids


def require_fits(model: Model, text: str, tokens: int) -> None:
    if tokens > (limit := context_length(model)):
        raise BadPrompt(
            f"a prompt of {tokens} tokens (it begins {text[:40]!r}) does not fit the model's context of {limit}.",
            "use fewer or shorter examples.",
        )
