"""Meta-learning a language model: a LoRA initialisation from which a few examples and steps solve a new text task.

`meta_train` is Reptile (Nichol et al. 2018, algorithm 1) over a family of small tasks: adapt to a task with a few Adam
steps, then move the initialisation a part of the way. With `most_shots` above zero, some rows carry solved examples in
front of the query, so that the model also learns to use examples that it reads (MetaICL, Min et al. 2022).
`second_order_cosine` compares MAML's meta-gradient with its first-order version through the real model.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import CourseError, TrainingDiverged
from ..lm.tasks import Episode, Example
from ..lora.layers import adapter_state, set_adapter_state
from ..prompting.prompts import Template, build_prompts
from ..prompting.scoring import exact_matches
from ..training.rows import Batch, Row, answer_rows, collate, token_loss
from .text_tasks import MiniTask

State = Mapping[str, Tensor]  # LoRA's matrices by name, as `lora.adapter_state` returns them


@dataclass(frozen=True)
class MetaConfig:
    """How to meta-train.

    Attributes:
        iterations: tasks to visit, one after another.
        inner_steps: Adam steps on each task, every one on fresh rows.
        rows: rows in a step.
        inner_lr: the rate of the inner Adam.
        outer_lr: epsilon, the share of the way that the initialisation moves; it falls to zero linearly.
        most_shots: a step's rows have 0 to so many solved examples in front of the query.
        seed: of the tasks, examples and numbers of shots.

    Raises:
        CourseError: a value that makes no sense.
    """

    iterations: int = 80
    inner_steps: int = 4
    rows: int = 8
    inner_lr: float = 1e-3
    outer_lr: float = 0.5
    most_shots: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "inner_steps", "rows"):
            if getattr(self, name) < 1:
                raise CourseError(f"{name} is {getattr(self, name)}.", f"{name} must be 1 or more.")
        if self.most_shots < 0:
            raise CourseError(f"most_shots is {self.most_shots}.", "give 0 or more.")
        if not (self.inner_lr > 0 and 0 < self.outer_lr <= 1):
            raise CourseError(
                f"inner_lr is {self.inner_lr} and outer_lr is {self.outer_lr}.",
                "inner_lr must be above 0, outer_lr above 0 and at most 1.",
            )


@dataclass(frozen=True)
class MetaResult:
    """What meta-training found.

    Attributes:
        state: the meta-learned initialisation.
        losses: at each iteration, the task's loss before and after the inner steps' first and last: [iterations, 2],
            mean -log P of the answers' tokens in nats, each on rows not yet trained on.
    """

    state: dict[str, Tensor]
    losses: tuple[tuple[float, float], ...]


def meta_train(
    model: nn.Module, tokenizer, family: Sequence[MiniTask], config: MetaConfig, *, progress: bool = True
) -> MetaResult:
    """Meta-train the LoRA layers of a model by Reptile, starting from what they hold; the model ends with the result.

    Raises:
        CourseError: no LoRA layers, or an empty family.
        TrainingDiverged: a loss became NaN or infinite; the model then holds the last initialisation.
    """
    from tqdm.auto import tqdm

    if not family:
        raise CourseError("the family has no tasks.", "pass mini_tasks.load_family().")
    start, rng, losses = adapter_state(model), random.Random(config.seed), []
    order: list[MiniTask] = []
    for i in tqdm(range(config.iterations), desc="meta-training", disable=not progress, leave=False):
        order = order or rng.sample(list(family), len(family))  # every task once, then again in another order
        task = order.pop()
        steps = [task_rows(tokenizer, task, config, rng) for _ in range(config.inner_steps)]
        set_adapter_state(model, start)
        try:
            inner = _adam_steps(model, steps, config.inner_lr)
        except TrainingDiverged:
            set_adapter_state(model, start)
            raise
        epsilon = config.outer_lr * (1 - i / config.iterations)
        adapted = adapter_state(model)
        start = {name: p + epsilon * (adapted[name] - p) for name, p in start.items()}  # theta + eps (theta* - theta)
        losses.append((inner[0], inner[-1]))
    set_adapter_state(model, start)
    return MetaResult(start, tuple(losses))


def task_rows(tokenizer, task: MiniTask, config: MetaConfig, rng: random.Random) -> list[Row]:
    """Draw one inner step's rows: queries of a task, all behind the same 0 to `most_shots` solved examples."""
    shots = rng.randint(0, min(config.most_shots, len(task.examples) - 1))
    drawn = task.draw(min(config.rows + shots, len(task.examples)), rng)
    support, queries = drawn[:shots], drawn[shots:]
    return answer_rows(tokenizer, build_prompts(queries, support, task.template), [q.y for q in queries])


def train_on_prompts(
    model: nn.Module,
    tokenizer,
    family: Sequence[MiniTask],
    *,
    steps: int,
    rows: int = 4,
    shots: int = 8,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> list[float]:
    """Train the LoRA layers to answer a query behind `shots` solved examples of its task: MetaICL (Min et al. 2022).

    Each row is of a task of its own, drawn at random, and only the query's answer counts (section 3.1 there). A new
    task is then solved by reading: its examples go in the prompt, and no step is taken. Adam, at a rate that falls
    linearly to zero. Returns the loss of each step: mean -log P of the answers' tokens in nats, before the step.

    Raises:
        CourseError: no LoRA layers, an empty family, or a number that makes no sense.
        NotEnoughExamples: a task has no query besides so many shots.
        TrainingDiverged: a loss became NaN or infinite.
    """
    from tqdm.auto import tqdm

    adapter_state(model)  # raises where there are no LoRA layers
    if not family:
        raise CourseError("the family has no tasks.", "pass mini_tasks.load_family().")
    if steps < 1 or rows < 1 or shots < 0 or not lr > 0:
        raise CourseError(
            f"{steps} steps of {rows} rows with {shots} shots at lr {lr}.",
            "give 1 step and 1 row or more, 0 shots or more, and a rate above 0.",
        )
    rng, losses = random.Random(seed), []
    optimizer = torch.optim.Adam(_trainable(model), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, total_iters=max(steps - 1, 1))
    for _ in tqdm(range(steps), desc="training on prompts", disable=not progress, leave=False):
        batch = []
        for task in rng.choices(family, k=rows):
            *support, query = task.draw(shots + 1, rng)
            batch += answer_rows(tokenizer, build_prompts([query], support, task.template), [query.y])
        losses.append(_step(model, optimizer, batch))
        schedule.step()
    return losses


def adapt(
    model: nn.Module, tokenizer, support: Sequence[Example], template: Template, *, start: State, steps: int, lr: float
) -> list[float]:
    """Set the LoRA layers to `start` and take Adam steps on all the support at once. Returns the loss of each step.

    Raises:
        CourseError: there is no support, or the number of steps or the rate makes no sense.
        TrainingDiverged: the loss became NaN or infinite.
    """
    if not support:
        raise CourseError("there are no examples to adapt to.", "give at least one.")
    if steps < 0 or not lr > 0:
        raise CourseError(f"{steps} steps at lr {lr}.", "give 0 steps or more, and a rate above 0.")
    set_adapter_state(model, start)
    rows = answer_rows(tokenizer, build_prompts(support, (), template), [e.y for e in support])
    return _adam_steps(model, [rows] * steps, lr)


def adapt_and_score(
    model: nn.Module,
    tokenizer,
    episode: Episode,
    template: Template,
    *,
    start: State,
    lr: float,
    at: Sequence[int] = (0, 1, 2, 5, 10, 20),
) -> dict[int, float]:
    """Adapt to an episode's support, and return the exact match on its query after each number of steps in `at`.

    The model reads the query alone, without the support. Its LoRA layers end as adapted.

    Raises: as `adapt`.
    """
    if not at or min(at) < 0:
        raise CourseError(f"scores were asked for after {list(at)} steps.", "name at least one number, 0 or more.")
    at, scores = sorted(set(at)), {}
    adapt(model, tokenizer, episode.support, template, start=start, steps=0, lr=lr)
    rows = answer_rows(tokenizer, build_prompts(episode.support, (), template), [e.y for e in episode.support])
    optimizer = torch.optim.Adam(_trainable(model), lr=lr)
    for done in range(at[-1] + 1):
        if done in at:
            scores[done] = score(model, tokenizer, episode, template)
        if done < at[-1]:
            _step(model, optimizer, rows)
    return scores


def score(model: nn.Module, tokenizer, episode: Episode, template: Template, *, shots: int = 0) -> float:
    """Return the exact match on an episode's query, with the first `shots` of its support in the prompt."""
    prompts = build_prompts(episode.query, episode.support[:shots], template)
    return sum(exact_matches(model, tokenizer, prompts, [q.y for q in episode.query])) / len(episode.query)


def choose_lr(
    model: nn.Module,
    tokenizer,
    episodes: Sequence[Episode],
    template: Template,
    *,
    start: State,
    rates: Sequence[float],
    at: Sequence[int] = (5, 10),
) -> tuple[float, dict[float, float]]:
    """Return the rate with the best exact match on validation episodes, averaged over the steps in `at`, and all means.

    Of equal rates the smaller is chosen. A rate that diverges scores 0.
    """
    if not rates or not episodes:
        raise CourseError("there are no rates, or no episodes, to choose by.", "give at least one of each.")
    means = {}
    for lr in sorted(rates):
        found = []
        for episode in episodes:
            try:
                found += adapt_and_score(model, tokenizer, episode, template, start=start, lr=lr, at=at).values()
            except TrainingDiverged:
                found += [0.0] * len(set(at))
        means[lr] = sum(found) / len(found)
    return max(means, key=means.get), means


def example_batch(model: nn.Module, tokenizer, examples: Sequence[Example], template: Template) -> Batch:
    """Return examples as a batch on the model's device: each behind no other, only answers count."""
    prompts = build_prompts(examples, (), template)
    return collate(answer_rows(tokenizer, prompts, [e.y for e in examples]), next(model.parameters()).device)


def loss_with(model: nn.Module, params: State, batch: Batch) -> Tensor:
    """Return the loss of a batch with other values for some of the model's parameters: the parameters are an argument.

    `params` are values by name, as in `model.named_parameters()`; the rest are the model's own. The loss is the mean
    -log P of the answers' tokens in nats, and can be differentiated with respect to the values.
    """
    return token_loss(_WithParams(model, params), batch)


def meta_gradient(
    model: nn.Module, tokenizer, support: Sequence[Example], query: Sequence[Example], template: Template, *,
    inner_lr: float, second_order: bool = True,
) -> Tensor:  # fmt: skip
    """Return MAML's meta-gradient through the whole model, for one inner step, with or without its Hessian term.

    It is taken at what the LoRA layers hold, and is a vector of all of LoRA's parameters end to end. With g the
    gradient of the query's loss after the step, and H the Hessian of the support's before it, the result is
    (I - inner_lr H) g, or g (Finn et al. 2017, sections 2.2 and 5.2). The model needs `attn_implementation="eager"`
    for either: the fused attention has no second derivative, and the two are to be compared.

    Raises:
        CourseError: no LoRA layers, or another attention.
    """
    adapter_state(model)  # raises where there are no LoRA layers
    if (used := model.config._attn_implementation) != "eager":
        raise CourseError(
            f"the model uses {used!r} attention, which has no second derivative.",
            'call model.set_attn_implementation("eager") first.',
        )
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inner, outer = (example_batch(model, tokenizer, part, template) for part in (support, query))
    grads = torch.autograd.grad(loss_with(model, theta, inner), list(theta.values()), create_graph=second_order)
    adapted = {name: p - inner_lr * g for (name, p), g in zip(theta.items(), grads)}
    found = torch.autograd.grad(loss_with(model, adapted, outer), list(theta.values()))
    return torch.cat([g.flatten() for g in found])


def meta_gradients(
    model: nn.Module, tokenizer, support: Sequence[Example], query: Sequence[Example], template: Template, *,
    inner_lr: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the `meta_gradient` without and with its Hessian term, and raise as it does."""
    first, second = (
        meta_gradient(model, tokenizer, support, query, template, inner_lr=inner_lr, second_order=order)
        for order in (False, True)
    )
    return first, second


def second_order_cosine(
    model: nn.Module, tokenizer, support: Sequence[Example], query: Sequence[Example], template: Template, *,
    inner_lr: float,
) -> float:  # fmt: skip
    """Return the cosine between the two `meta_gradients`, and raise as they do."""
    return float(torch.cosine_similarity(*meta_gradients(
        model, tokenizer, support, query, template, inner_lr=inner_lr
    ), dim=0))  # fmt: skip


class _WithParams:
    """A model that runs with other values for some of its parameters."""

    def __init__(self, model: nn.Module, params: State):
        self.model, self.params = model, params
        self.get_output_embeddings = model.get_output_embeddings

    def __call__(self, **inputs):
        return torch.func.functional_call(self.model, dict(self.params), kwargs=inputs)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _adam_steps(model: nn.Module, steps: Sequence[Sequence[Row]], lr: float) -> list[float]:
    """Take one step on each list of rows, with a fresh Adam. Returns the losses, each before its step."""
    optimizer = torch.optim.Adam(_trainable(model), lr=lr)
    return [_step(model, optimizer, rows) for rows in steps]


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, rows: Sequence[Row]) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = token_loss(model, collate(rows, next(model.parameters()).device))
    if not torch.isfinite(loss):
        raise TrainingDiverged(f"the loss became {loss.item()}.", "lower the learning rate.")
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()
