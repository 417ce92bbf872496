"""Meta-learning a language model: a LoRA initialisation from which a few examples and steps solve a new text task.

`meta_train` is Reptile (Nichol et al. 2018, algorithm 1), and `joint_train` its baseline, on the same rows. With
`most_shots` above zero, the model also learns to use examples that it reads (MetaICL, Min et al. 2022).
`lora_meta_gradient` is MAML's, in first and second order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import CourseError, TrainingDiverged
from ..guards import require_at_least, require_positive, require_some
from ..lm.tasks import Episode, Example
from ..lora.layers import adapter_state, set_adapter_state
from ..prompting.prompts import Template, build_prompts
from ..prompting.scoring import exact_matches
from ..training.rows import Batch, Row, answer_rows, collate, token_loss
from .text_tasks import MiniTask

State = Mapping[str, Tensor]  # LoRA's matrices by name, as `adapter_state` returns them


@dataclass(frozen=True)
class MetaConfig:
    """How to meta-train. Raises CourseError for a value that makes no sense."""

    iterations: int = 80  # tasks to visit, one after another
    inner_steps: int = 4  # Adam steps on each task, every one on fresh rows
    rows: int = 8  # in a step
    inner_lr: float = 1e-3  # the rate of the inner Adam
    outer_lr: float = 0.5  # epsilon, the share of the way that the initialisation moves; it falls to zero linearly
    most_shots: int = 0  # a step's rows have 0 to so many solved examples in front of the query
    seed: int = 0  # of the tasks, examples and numbers of shots

    def __post_init__(self) -> None:
        for name, least in {"iterations": 1, "inner_steps": 1, "rows": 1, "most_shots": 0}.items():
            require_at_least(least, name, getattr(self, name))
        require_positive("inner_lr", self.inner_lr)
        if not 0 < self.outer_lr <= 1:
            raise CourseError(f"outer_lr is {self.outer_lr}.", "give a share above 0 and at most 1.")


@dataclass(frozen=True)
class MetaResult:
    """The meta-learned initialisation, and each iteration's loss before its first and its last inner step."""

    state: dict[str, Tensor]
    losses: tuple[tuple[float, float], ...]  # mean -log P of the answers' tokens in nats, on rows not yet trained on


def meta_train(
    model: nn.Module, tokenizer, family: Sequence[MiniTask], config: MetaConfig, *, progress: bool = True
) -> MetaResult:
    """Meta-train the LoRA layers of a model by Reptile, starting from what they hold; the model ends with the result.

    Raises CourseError for no LoRA layers or an empty family. Where a loss is not finite it raises TrainingDiverged; the
    model then holds the last initialisation.
    """
    from tqdm.auto import tqdm

    start, losses, visits = adapter_state(model), [], draw_visits(tokenizer, family, config)
    try:
        for i, visit in enumerate(tqdm(visits, desc="meta-training", disable=not progress, leave=False)):
            set_adapter_state(model, start)
            optimizer = _adam(model, config.inner_lr)
            inner = [take_step(model, optimizer, rows) for rows in visit]
            adapted, epsilon = adapter_state(model), config.outer_lr * (1 - i / config.iterations)
            start = {name: p + epsilon * (adapted[name] - p) for name, p in start.items()}
            losses.append((inner[0], inner[-1]))
    finally:
        set_adapter_state(model, start)
    return MetaResult(start, tuple(losses))


def joint_train(model: nn.Module, tokenizer, family: Sequence[MiniTask], config: MetaConfig) -> list[float]:
    """Train the LoRA layers on the very rows that `meta_train` would take, tasks mixed within each batch.

    As many Adam steps of as many rows, at a rate that falls from `inner_lr` to zero linearly: multi-task training, the
    baseline that meta-learning has to beat. Returns the loss before each step. Raises as `meta_train`.
    """
    adapter_state(model)  # raises where there are no LoRA layers
    rows = [row for visit in draw_visits(tokenizer, family, config) for batch in visit for row in batch]
    random.Random(config.seed).shuffle(rows)
    optimizer, steps = _adam(model, config.inner_lr), range(0, len(rows), config.rows)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(steps))
    losses = []
    for i in steps:
        losses.append(take_step(model, optimizer, rows[i : i + config.rows]))
        schedule.step()
    return losses


def draw_visits(tokenizer, family: Sequence[MiniTask], config: MetaConfig) -> list[list[list[Row]]]:
    """Draw all rows of a meta-training: [visit to a task][inner step][row]. Raises CourseError for an empty family."""
    require_some(family, "tasks to learn from", "pass text_tasks.load_family().")
    rng, order, visits = random.Random(config.seed), [], []
    for _ in range(config.iterations):
        order = order or rng.sample(list(family), len(family))  # every task once, then again in another order
        task = order.pop()
        visits.append([draw_rows(tokenizer, task, config, rng) for _ in range(config.inner_steps)])
    return visits


def draw_rows(tokenizer, task: MiniTask, config: MetaConfig, rng: random.Random) -> list[Row]:
    """Draw one inner step's rows: queries of a task, all behind the same 0 to `most_shots` solved examples."""
    shots = rng.randint(0, min(config.most_shots, len(task.examples) - 1))
    drawn = task.draw(min(config.rows + shots, len(task.examples)), rng)
    return _rows(tokenizer, drawn[shots:], task.template, drawn[:shots])


def adapt_lora(
    model: nn.Module, tokenizer, support: Sequence[Example], template: Template, *, start: State, steps: int, lr: float
) -> list[float]:
    """Set the LoRA layers to `start` and take Adam steps on all the support at once. Returns the loss of each step.

    Raises CourseError for no support or a senseless number, TrainingDiverged where a loss is not finite.
    """
    require_some(support, "examples to adapt to")
    require_at_least(0, "steps", steps)
    require_positive("lr", lr)
    set_adapter_state(model, start)
    optimizer, rows = _adam(model, lr), _rows(tokenizer, support, template)
    return [take_step(model, optimizer, rows) for _ in range(steps)]


def adapt_and_score(
    model: nn.Module, tokenizer, episode: Episode, template: Template, *, start: State, lr: float, at: Sequence[int]
) -> dict[int, float]:
    """Adapt to an episode's support, and return the exact match on its query after each number of steps in `at`.

    The model reads the query alone, without the support. Its LoRA layers end as adapted. Raises as `adapt_lora`.
    """
    if not at or min(at) < 0:
        raise CourseError(f"scores were asked for after {list(at)} steps.", "name at least one number, 0 or more.")
    adapt_lora(model, tokenizer, episode.support, template, start=start, steps=0, lr=lr)
    optimizer, rows, scores = _adam(model, lr), _rows(tokenizer, episode.support, template), {}
    for done in range(max(at) + 1):
        if done:
            take_step(model, optimizer, rows)
        if done in at:
            scores[done] = score(model, tokenizer, episode, template)
    return scores


def score(model: nn.Module, tokenizer, episode: Episode, template: Template, *, shots: int = 0) -> float:
    """Return the exact match on an episode's query, with the first `shots` of its support in the prompt."""
    prompts = build_prompts(episode.query, episode.support[:shots], template)
    return sum(exact_matches(model, tokenizer, prompts, [q.y for q in episode.query])) / len(episode.query)


def example_batch(model: nn.Module, tokenizer, examples: Sequence[Example], template: Template) -> Batch:
    """Return examples as a batch on the model's device: each behind no other, only answers count."""
    return collate(_rows(tokenizer, examples, template), next(model.parameters()).device)


def loss_with(model: nn.Module, params: State, batch: Batch) -> Tensor:
    """Return a batch's loss, mean -log P of the answers' tokens in nats, with these values for some parameters."""

    def forward(**inputs):
        return torch.func.functional_call(model, dict(params), kwargs=inputs)

    forward.get_output_embeddings = model.get_output_embeddings
    return token_loss(forward, batch)


def lora_meta_gradient(
    model: nn.Module, tokenizer, support: Sequence[Example], query: Sequence[Example], template: Template, *,
    inner_lr: float, second_order: bool = True,
) -> Tensor:  # fmt: skip
    """Return MAML's meta-gradient through the whole model, for one inner step, with or without its Hessian term.

    With g the gradient of the query's loss after the step, and H the Hessian of the support's before it, the result is
    (I - inner_lr H) g, or g (Finn et al. 2017, sections 2.2 and 5.2): a vector, at what the LoRA layers hold. Raises
    CourseError for no LoRA layers, and for another attention than "eager": the fused one has no second derivative.
    """
    adapter_state(model)  # raises where there are no LoRA layers
    if (used := model.config._attn_implementation) != "eager":
        told = f"the model uses {used!r} attention, which has no second derivative."
        raise CourseError(told, 'call model.set_attn_implementation("eager") first.')
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inner, outer = (example_batch(model, tokenizer, part, template) for part in (support, query))
    grads = torch.autograd.grad(loss_with(model, theta, inner), list(theta.values()), create_graph=second_order)
    adapted = {name: p - inner_lr * g for (name, p), g in zip(theta.items(), grads)}
    found = torch.autograd.grad(loss_with(model, adapted, outer), list(theta.values()))
    return torch.cat([g.flatten() for g in found])


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, rows: Sequence[Row]) -> float:
    """Take a step. Return the loss before it, mean -log P in nats; raises TrainingDiverged where it is not finite."""
    optimizer.zero_grad(set_to_none=True)
    loss = token_loss(model, collate(rows, next(model.parameters()).device))
    if not torch.isfinite(loss):
        raise TrainingDiverged(f"the loss became {loss.item()}.", "lower the learning rate.")
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _rows(tokenizer, examples: Sequence[Example], template: Template, support: Sequence[Example] = ()) -> list[Row]:
    return answer_rows(tokenizer, build_prompts(examples, support, template), [e.y for e in examples])


def _adam(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
