"""Each method of adapting, run on one task and measured: quality, seconds, memory, and what has to be stored.

All methods answer the same held-out queries: label tasks by the likeliest label, others by greedy decoding.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import NotEnoughExamples
from ..lm.tasks import Example, Task
from ..lm.types import Model, Tokenizer
from ..lora import layers as lora
from ..meta import meta_lora
from ..meta.meta_lora import MetaConfig, State
from ..meta.text_tasks import load_family
from ..prompting import calibration, scoring
from ..prompting.answers import answered_right
from ..prompting.prompts import build_prompt, template_of
from ..training.cost import training_bytes
from ..training.loop import History, TrainConfig, train
from ..training.rows import Row, collate, task_rows, token_loss

ZERO, FEW, CALIBRATED = "zero-shot", "few-shot", "calibrated few-shot"
META, LORA, CONTINUAL = "meta-learned LoRA", "LoRA", "continual updating"
METHODS = (ZERO, FEW, CALIBRATED, META, LORA, CONTINUAL)  # the least effort first

ADAPTER = lora.LoRAConfig(rank=8, lora_alpha=16)
FULL = TrainConfig(steps=16, batch_size=8, lr=1e-3)  # an adapter from scratch
UPDATE = TrainConfig(steps=6, batch_size=8, lr=1e-3)  # an adapter brought up to date
MOST_REPLAYED = 16  # earlier examples that continual updating trains on again


@dataclass(frozen=True)
class Trial:
    """One method, measured with one number of examples.

    Beside the weights of the model, a prompt's keys and values have to be held, or all that a training step needs.
    """

    method: str  # one of METHODS
    examples: int
    right: tuple[bool, ...]  # for each query
    prepare_seconds: float  # from the examples to the first answer; 0 for a prompt that is not calibrated
    answer_seconds: float  # for one query, scored together with the others
    memory_bytes: int  # beside the weights, counted tensor by tensor
    stored_bytes: int  # on disk, to answer tomorrow: the text of a prompt, or an adapter
    history: History | None = field(default=None, compare=False, repr=False)  # of an adapter's training

    @property
    def quality(self) -> float:
        """The share of queries that were answered right."""
        return sum(self.right) / len(self.right)


def by_method(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Return each method's trials, fewest examples first; the methods that occur, in the order of METHODS."""
    found = {m: sorted((t for t in trials if t.method == m), key=lambda t: t.examples) for m in METHODS}
    return {method: of_method for method, of_method in found.items() if of_method}


def prompt_trial(
    model: Model, tokenizer: Tokenizer, task: Task,
    support: Sequence[Example], queries: Sequence[Example], *, calibrated: bool = False,
) -> Trial:  # fmt: skip
    """Measure a prompt that shows the whole support; `calibrated` by what the prompt alone suggests.

    Raises CourseError where a task without labels is to be calibrated.
    """
    template, prior, begin = template_of(task), None, time.perf_counter()
    if calibrated:
        prior = calibration.content_free_prior(model, tokenizer, support, task.labels, template)
    start = time.perf_counter()
    right = answered_right(model, tokenizer, task, queries, support, prior=prior)
    seconds = (time.perf_counter() - start) / len(queries)
    longest = max((build_prompt(q.x, support, template).text for q in queries), key=len)
    shots = template.separator.join(template.shot(*e) for e in support)
    method = ZERO if not support else CALIBRATED if calibrated else FEW
    memory = cache_bytes(model, scoring.count_tokens(tokenizer, longest))
    prepared = start - begin if calibrated else 0.0
    return Trial(method, len(support), right, prepared, seconds, memory, len(shots.encode()))


def cache_bytes(model: Model, tokens: int) -> int:
    """Return the bytes of the keys and values of a prompt: 2 x layers x key heads x head size x tokens numbers."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * tokens * next(model.parameters()).element_size()


def train_adapter(
    model: nn.Module, rows: Sequence[Row], config: TrainConfig = FULL, *,
    start: State | None = None, progress: bool = False, **options,
) -> tuple[dict[str, Tensor], History]:  # fmt: skip
    """Train LoRA, from its usual start or matrices of yours; return the matrices, which the model holds too.

    Options are those of `training.train`, and so is what is raised.
    """
    fresh_adapter(model, start)
    config = replace(config, batch_size=min(config.batch_size, len(rows)))
    history = train(model, rows, config, progress=progress, **options)
    return lora.adapter_state(model), history


def fresh_adapter(model: nn.Module, start: State | None = None) -> None:
    """Put a new LoRA into the model, in place of one that may be there."""
    lora.remove(model)
    lora.inject(model, ADAPTER)
    if start is not None:
        lora.set_adapter_state(model, start)


def adapter_trial(
    model: Model, tokenizer: Tokenizer, task: Task,
    support: Sequence[Example], queries: Sequence[Example], *,
    method: str = LORA, config: TrainConfig = FULL, replay: Sequence[Example] = (), **options,
) -> tuple[Trial, dict[str, Tensor]]:  # fmt: skip
    """Train an adapter, measure it, take it out of the model, and return the trial and the adapter's matrices.

    Args:
        replay: earlier examples that are trained on again.
        options: for `train_adapter`, such as a meta-learned `start`, or an adapter's that is brought up to date.

    Raises NotEnoughExamples where there are neither support nor replay; and as `training.train`.
    """
    if not (learned := [*support, *replay]):
        raise NotEnoughExamples("0 examples to train an adapter on.", "give at least one, or use a prompt.")
    begin = time.perf_counter()
    rows = task_rows(tokenizer, task, learned)
    state, history = train_adapter(model, rows, config, **options)
    trained = time.perf_counter()
    right = answered_right(model, tokenizer, task, queries)
    seconds = (time.perf_counter() - trained) / len(queries)
    memory = step_bytes(model, rows[: config.batch_size])
    lora.remove(model)
    stored = sum(t.nbytes for t in state.values()) + sum(len((e.x + e.y).encode()) for e in replay)
    return Trial(method, len(support), right, trained - begin, seconds, memory, stored, history), state


def step_bytes(model: nn.Module, rows: Sequence[Row]) -> int:
    """Return the bytes that a training step of the adapter needs beside the model's frozen weights."""
    trained = [p for p in model.parameters() if p.requires_grad]
    device = trained[0].device
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
    parts = training_bytes(model, optimizer, lambda: token_loss(model, collate(rows, device)))
    model.zero_grad(set_to_none=True)
    return sum(parts.values()) - parts["weights"] + sum(p.nbytes for p in trained)


def continual_trials(
    model: Model, tokenizer: Tokenizer, task: Task,
    support: Sequence[Example], queries: Sequence[Example],
    sizes: Sequence[int],
) -> list[Trial]:  # fmt: skip
    """Measure one adapter that is brought up to date as examples arrive, never trained from the start again.

    At each size it trains on what is new, with up to MOST_REPLAYED earlier examples drawn at random. The
    `prepare_seconds` add up, from the first example on. Raises NotEnoughExamples where sizes do not rise.
    """
    if not sizes or any(a >= b for a, b in pairwise([0, *sizes, len(support) + 1])):
        raise NotEnoughExamples(
            f"the sizes are {list(sizes)}, and there are {len(support)} examples.",
            "give rising numbers, from 1 to the number of examples.",
        )
    trials, state, seen, spent = [], None, 0, 0.0
    for size in sizes:
        replay = random.Random(f"0:{size}").sample(list(support[:seen]), min(MOST_REPLAYED, seen))
        trial, state = adapter_trial(
            model, tokenizer, task, support[seen:size], queries, method=CONTINUAL, config=UPDATE if seen else FULL,
            start=state, replay=replay,
        )  # fmt: skip
        spent += trial.prepare_seconds
        trials.append(replace(trial, examples=size, prepare_seconds=spent))
        seen = size
    return trials


def try_each_method(
    model: Model, tokenizer: Tokenizer, task: Task, *,
    sizes: Sequence[int] = (4, 16, 64), n_query: int = 48, seed: int = 0, methods: Sequence[str] = METHODS,
    meta_start: State | None = None, meta_config: TrainConfig = UPDATE, progress: bool = True,
) -> tuple[list[Trial], dict[str, Tensor]]:  # fmt: skip
    """Try every method with each number of examples, and return the trials and LoRA's matrices at the largest.

    Sizes beyond what the task has are replaced by all that it has. Calibration is left out where the task has no
    labels, the meta-learned start where there is none. Where LoRA is not among the methods, the matrices are empty.
    The model ends as it was, without an adapter. `meta_config` is how the meta-learned start is trained on.

    Raises NotEnoughExamples where a size is less than 1, or there are not `n_query` queries; and as `training.train`.
    """
    from tqdm.auto import tqdm

    if not sizes or min(sizes) < 1:
        raise NotEnoughExamples(f"the sizes are {list(sizes)}.", "give at least one, each 1 or more.")
    largest = most_examples(task)
    sizes = sorted({min(size, largest) for size in sizes})
    episode = task.episode(sizes[-1], seed=seed, n_query=n_query, balanced=bool(task.labels))
    possible = {CALIBRATED: bool(task.labels), META: meta_start is not None}
    at_each_size = [m for m in (FEW, CALIBRATED, META, LORA) if m in methods and possible.get(m, True)]
    plan = [(ZERO, 0), *((method, k) for k in sizes for method in at_each_size), (CONTINUAL, sizes[-1])]
    trials, adapter = [], {}
    bar = tqdm([(method, k) for method, k in plan if method in methods], disable=not progress, leave=False)
    try:
        for method, k in bar:
            bar.set_description(f"{method}, {k}")
            given = model, tokenizer, task, episode.support[:k], episode.query
            if method == CONTINUAL:
                trials += continual_trials(*given, sizes)
            elif method == META:
                trials.append(adapter_trial(*given, method=META, config=meta_config, start=meta_start)[0])
            elif method == LORA:
                trial, adapter = adapter_trial(*given)
                trials.append(trial)
            else:
                trials.append(prompt_trial(*given, calibrated=method == CALIBRATED))
    finally:
        lora.remove(model)
    return trials, adapter


def most_examples(task: Task) -> int:
    """Return how many examples an episode of the task can give: of labels, as many of each."""
    if not task.labels:
        return len(task.support_pool)
    return len(task.labels) * min(sum(e.y == label for e in task.support_pool) for label in task.labels)


def meta_learned_start(model: Model, tokenizer: Tokenizer, config: MetaConfig, *, progress: bool = True) -> State:
    """Learn a start for `methods.ADAPTER` on the course's family of small tasks. The model ends without an adapter."""
    fresh_adapter(model)
    try:
        return meta_lora.meta_train(model, tokenizer, load_family(), config, progress=progress).state
    finally:
        lora.remove(model)
