"""Each way to adapt, run on one task and measured: quality, seconds, memory, and what has to be stored.

A way answers the same held-out queries whatever it was given to learn from. Label tasks are answered by the likeliest
label, others by what greedy decoding would say.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import NotEnoughExamples
from ..lm.tasks import Example, Task
from ..lora import layers as lora
from ..meta import meta_lora
from ..meta.meta_lora import MetaConfig
from ..meta.text_tasks import load_family
from ..prompting import calibration, scoring
from ..prompting.answers import answered_right
from ..prompting.prompts import build_prompt, template_of
from ..training.cost import training_bytes
from ..training.loop import History, TrainConfig, train
from ..training.rows import Row, collate, task_rows, token_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ZERO, FEW, CALIBRATED = "zero-shot", "few-shot", "calibrated few-shot"
META, LORA, CONTINUAL = "meta-learned LoRA", "LoRA", "continual updating"
METHODS = (ZERO, FEW, CALIBRATED, META, LORA, CONTINUAL)  # the least effort first

ADAPTER = lora.LoRAConfig(rank=8, lora_alpha=16)
FULL = TrainConfig(steps=16, batch_size=8, lr=1e-3)  # an adapter from scratch
UPDATE = TrainConfig(steps=6, batch_size=8, lr=1e-3)  # an adapter brought up to date

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Trial:
    """One way to adapt, measured with one number of examples.

    Attributes:
        method: one of METHODS.
        examples: how many examples it was given.
        right: for each query, whether the answer was right.
        prepare_seconds: from the examples to the first answer; 0 for a prompt that is not calibrated.
        answer_seconds: for one query, scored together with the others.
        memory_bytes: what has to be held beside the weights of the model, counted tensor by tensor: the keys and
            values of a prompt, or all that a training step needs.
        stored_bytes: what has to be kept on disk to answer tomorrow: the text of a prompt, or an adapter.
        history: of an adapter's training: its losses, and the evaluations that were asked for.
    """

    method: str
    examples: int
    right: tuple[bool, ...]
    prepare_seconds: float
    answer_seconds: float
    memory_bytes: int
    stored_bytes: int
    history: History | None = field(default=None, compare=False, repr=False)

    @property
    def quality(self) -> float:
        """The share of queries that were answered right."""
        return sum(self.right) / len(self.right)


def methods_tried(trials: Sequence[Trial]) -> list[str]:
    """Return the ways that occur among the trials, in the order of METHODS."""
    return [method for method in METHODS if any(t.method == method for t in trials)]


def prompt_trial(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    *,
    calibrated: bool = False,
) -> Trial:
    """Measure a prompt, with as many examples as there are in the support.

    Args:
        calibrated: first measure what the prompt alone suggests, and divide it out. That is time to prepare.

    Raises:
        CourseError: calibrated, but the task has no labels.
    """
    prior, begin = None, time.perf_counter()
    if calibrated:
        prior = calibration.content_free_prior(model, tokenizer, support, task.labels, template_of(task))
    start = time.perf_counter()
    right = answered_right(model, tokenizer, task, queries, support, prior=prior)
    seconds = (time.perf_counter() - start) / len(queries)
    longest = max((build_prompt(q.x, support, template_of(task)).text for q in queries), key=len)
    shots = template_of(task).separator.join(template_of(task).shot(*e) for e in support)
    method = ZERO if not support else CALIBRATED if calibrated else FEW
    memory = cache_bytes(model, scoring.count_tokens(tokenizer, longest))
    prepared = start - begin if calibrated else 0.0
    return Trial(method, len(support), right, prepared, seconds, memory, len(shots.encode()))


def cache_bytes(model: PreTrainedModel, tokens: int) -> int:
    """Return the bytes of the keys and values of a prompt: 2 x layers x key heads x head size x tokens numbers."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * tokens * next(model.parameters()).element_size()


def train_adapter(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    support: Sequence[Example],
    config: TrainConfig = FULL,
    *,
    start: State | None = None,
    progress: bool = False,
    **options,
) -> dict[str, Tensor]:
    """Train LoRA on the support and return its matrices; the model holds them too.

    Args: as `trained_adapter`.

    Raises:
        NotEnoughExamples: there is no support.
        TrainingDiverged: as `training.train`.
    """
    return trained_adapter(model, tokenizer, task, support, config, start=start, progress=progress, **options)[0]


def trained_adapter(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    support: Sequence[Example],
    config: TrainConfig = FULL,
    *,
    start: State | None = None,
    **options,
) -> tuple[dict[str, Tensor], History]:
    """Train LoRA on the support and return its matrices, which the model holds too, and what happened.

    Args:
        start: the matrices to start from; None for LoRA's usual start, A random and B zero.
        options: for `training.train`, such as `checkpoint`.

    Raises: as `train_adapter`.
    """
    if not support:
        raise NotEnoughExamples("0 examples to train an adapter on.", "give at least one, or use a prompt.")
    fresh_adapter(model, start)
    rows = task_rows(tokenizer, task, support)
    history = train(model, rows, replace(config, batch_size=min(config.batch_size, len(rows))), **options)
    return lora.adapter_state(model), history


def fresh_adapter(model: nn.Module, start: State | None = None) -> None:
    """Put a new LoRA into the model, in place of one that may be there."""
    if lora.lora_layers(model):
        lora.remove(model)
    lora.inject(model, ADAPTER)
    if start is not None:
        lora.set_adapter_state(model, start)


def adapter_trial(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    *,
    method: str = LORA,
    config: TrainConfig = FULL,
    start: State | None = None,
    replay: Sequence[Example] = (),
    examples: int | None = None,
    progress: bool = False,
    **options,
) -> tuple[Trial, dict[str, Tensor]]:
    """Train an adapter, measure it, take it out of the model, and return the trial and the adapter's matrices.

    Args:
        method: what to call it.
        start: the matrices to start from: a meta-learned start, or those of an adapter that is brought up to date.
        replay: earlier examples that are trained on again.
        examples: what to report as the number of examples; None for the size of the support.
        options: for `training.train`, such as `checkpoint`.

    Raises: as `train_adapter`.
    """
    learned = [*support, *replay]
    begin = time.perf_counter()
    state, history = trained_adapter(model, tokenizer, task, learned, config, start=start, progress=progress, **options)
    trained = time.perf_counter()
    right = answered_right(model, tokenizer, task, queries)
    done = time.perf_counter()
    memory = step_bytes(model, task_rows(tokenizer, task, learned)[: config.batch_size])
    lora.remove(model)
    stored = sum(t.nbytes for t in state.values()) + sum(len((e.x + e.y).encode()) for e in replay)
    count = len(support) if examples is None else examples
    seconds = (done - trained) / len(queries)
    return Trial(method, count, right, trained - begin, seconds, memory, stored, history), state


def step_bytes(model: nn.Module, rows: Sequence[Row]) -> int:
    """Return the bytes that a training step of the adapter needs beside the model's frozen weights."""
    trained = [p for p in model.parameters() if p.requires_grad]
    device = trained[0].device
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
    parts = training_bytes(model, optimizer, lambda: token_loss(model, collate(rows, device)))
    model.zero_grad(set_to_none=True)
    return sum(parts.values()) - parts["weights"] + sum(p.nbytes for p in trained)


def continual_trials(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    sizes: Sequence[int],
    *,
    first: TrainConfig = FULL,
    update: TrainConfig = UPDATE,
    most_replayed: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> tuple[list[Trial], dict[str, Tensor]]:
    """Measure one adapter that is brought up to date as examples arrive, never trained from the start again.

    At each size it trains on what is new, with a random draw of up to `most_replayed` earlier examples. The
    `prepare_seconds` add up, from the first example on.

    Raises:
        NotEnoughExamples: sizes do not rise from 1 or more to at most the size of the support.
    """
    rising = all(a < b for a, b in zip([0, *sizes], sizes))
    if not sizes or not rising or sizes[-1] > len(support):
        raise NotEnoughExamples(
            f"the sizes are {list(sizes)}, and there are {len(support)} examples.",
            "give rising numbers, from 1 to the number of examples.",
        )
    trials, state, seen, spent = [], None, 0, 0.0
    for size in sizes:
        replay = random.Random(f"{seed}:{size}").sample(list(support[:seen]), min(most_replayed, seen))
        trial, state = adapter_trial(
            model, tokenizer, task, support[seen:size], queries, method=CONTINUAL, config=update if seen else first,
            start=state, replay=replay, examples=size, progress=progress,
        )  # fmt: skip
        spent += trial.prepare_seconds
        trials.append(replace(trial, prepare_seconds=spent))
        seen = size
    return trials, state


def try_each_method(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    sizes: Sequence[int] = (4, 16, 64),
    n_query: int = 48,
    seed: int = 0,
    meta_start: State | None = None,
    meta_config: TrainConfig | None = None,
    progress: bool = True,
) -> tuple[list[Trial], dict[str, Tensor]]:
    """Try every way on a task with each number of examples, and return the trials and LoRA's matrices at the largest.

    Sizes beyond what the task has are replaced by all that it has. Calibration is left out where the task has no
    labels, the meta-learned start where there is none. The model ends as it was, without an adapter.

    Raises:
        NotEnoughExamples: a size is less than 1, or there are not `n_query` queries.
        TrainingDiverged: as `training.train`.
    """
    from tqdm.auto import tqdm

    if not sizes or min(sizes) < 1:
        raise NotEnoughExamples(f"the sizes are {list(sizes)}.", "give at least one, each 1 or more.")
    balanced = bool(task.labels)
    largest = most_examples(task)
    sizes = sorted({min(size, largest) for size in sizes})
    episode = task.episode(sizes[-1], seed=seed, n_query=n_query, balanced=balanced)
    support, queries = episode.support, episode.query
    meta_config = meta_config or UPDATE
    kept: dict[str, dict[str, Tensor]] = {}

    def adapter(k: int, **options) -> list[Trial]:
        trial, state = adapter_trial(model, tokenizer, task, support[:k], queries, **options)
        kept[trial.method] = state
        return [trial]

    def prompt(k: int, calibrated: bool = False) -> list[Trial]:
        return [prompt_trial(model, tokenizer, task, support[:k], queries, calibrated=calibrated)]

    work: list[tuple[str, Callable[[], list[Trial]]]] = [(ZERO, lambda: prompt(0))]
    for k in sizes:
        work.append((f"{FEW}, {k}", lambda k=k: prompt(k)))
        if task.labels:
            work.append((f"{CALIBRATED}, {k}", lambda k=k: prompt(k, True)))
        if meta_start is not None:
            work.append((f"{META}, {k}", lambda k=k: adapter(k, method=META, config=meta_config, start=meta_start)))
        work.append((f"{LORA}, {k}", lambda k=k: adapter(k)))
    work.append((CONTINUAL, lambda: continual_trials(model, tokenizer, task, support, queries, sizes)[0]))
    trials: list[Trial] = []
    bar = tqdm(work, disable=not progress, leave=False)
    try:
        for name, do in bar:
            bar.set_description(name)
            trials += do()
    finally:
        if lora.lora_layers(model):
            lora.remove(model)
    return trials, kept[LORA]


def most_examples(task: Task) -> int:
    """Return how many examples an episode of the task can give: of labels, as many of each."""
    if not task.labels:
        return len(task.support_pool)
    counts = [sum(e.y == label for e in task.support_pool) for label in task.labels]
    return min(counts) * len(counts)


def meta_learned_start(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: MetaConfig, *, progress: bool = True
) -> dict[str, torch.Tensor]:
    """Learn a start for `methods.ADAPTER` on the course's family of small tasks. The model ends without an adapter."""
    fresh_adapter(model)
    try:
        return meta_lora.meta_train(model, tokenizer, load_family(), config, progress=progress).state
    finally:
        lora.remove(model)
