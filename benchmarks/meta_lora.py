"""A meta-learned LoRA start against plain LoRA, prompting and MetaICL, on four held-out tasks with eight examples each.

    python benchmarks/meta_lora.py [SEEDS]     5 by default; about five minutes a seed on one core

A seed draws LoRA's random matrices, the order and rows of meta-training, and the eight examples of each held-out task;
all methods of a seed get the same examples. The two starts take equal steps on them. The base model and MetaICL's (Min
et al. 2022; LoRA trained on few-shot prompts of the family, on about as many tokens as the start was) read them in the
prompt and take no step. Each start's rate of adapting and MetaICL's rate of training are those that do best on
superlatives, a task that is neither in the family nor held out; the first seed chooses for all.

Each seed's result is kept in build/meta_lora, and used again while the settings are the same: a run that was stopped
goes on where it was. Prints the exact match on the queries of each task: mean over seeds, and half its 95% interval
(Student's t). A start is said to win where the interval of the difference, seed by seed, is above 0, and to lose where
it is below.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rapidadapt_lessons.files import write_whole
from rapidadapt_lessons.guards import require_at_least, require_positive, require_some
from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.lm.tasks import load_task
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.meta import meta_lora
from rapidadapt_lessons.meta.meta_lora import MetaConfig
from rapidadapt_lessons.meta.text_tasks import HELD_OUT, VALIDATION, MiniTask, load_family
from rapidadapt_lessons.prompting.prompts import build_prompts, template_of
from rapidadapt_lessons.show.intervals import interval
from rapidadapt_lessons.training.rows import answer_rows

KEPT = Path(__file__).resolve().parents[1] / "build" / "meta_lora"
STARTS = ("plain LoRA", "meta-learned LoRA")
READERS = ("base model, prompted", "MetaICL, prompted")
Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What a seed does. `meta` is meta-training's; its seed is replaced by the seed's."""

    meta: MetaConfig = MetaConfig(iterations=49, inner_steps=3, rows=6, inner_lr=2e-3, outer_lr=0.7)
    prompt_steps: int = 24
    prompt_rows: int = 4
    prompt_rates: tuple[float, ...] = (2e-4, 1e-3)
    rates: tuple[float, ...] = (1.5e-3, 3e-3, 6e-3)
    at: tuple[int, ...] = (0, 1, 5, 10)
    shots: int = 8
    queries: int = 40
    rank: int = 8


def one_seed(model, tokenizer, seed: int, settings: Settings, rates: dict[str, float] | None) -> Result:
    """Train and compare everything once. Rates by name; those that are None are chosen.

    Scores by method and task: exact match at each of `settings.at`, and of those that take no step a single one.
    """
    clock = {"": time.process_time()}
    validation = load_task(VALIDATION)
    episodes = [validation.episode(settings.shots, seed=seed, n_query=settings.queries)]
    lora.remove(model)
    lora.inject(model, lora.LoRAConfig(rank=settings.rank, lora_alpha=2 * settings.rank), seed=seed)
    plain, family = lora.adapter_state(model), load_family()
    config = replace(settings.meta, seed=seed)
    meta = meta_lora.meta_train(model, tokenizer, family, config, progress=False).state
    starts = dict(zip(STARTS, (plain, meta)))
    clock["meta-training"] = time.process_time()

    def read_by(lr: float) -> meta_lora.State:
        lora.set_adapter_state(model, plain)
        options = {"steps": settings.prompt_steps, "rows": settings.prompt_rows, "shots": settings.shots}
        train_on_prompts(model, tokenizer, family, lr=lr, seed=seed, **options)
        return lora.adapter_state(model)

    tried = {lr: read_by(lr) for lr in ([rates["MetaICL"]] if rates else settings.prompt_rates)}
    clock["MetaICL"] = time.process_time()
    found: dict[str, dict[float, float]] = {}
    if rates is None:
        cue, options = template_of(validation), {"rates": settings.rates, "at": settings.at[-2:]}
        for name, start in starts.items():
            _, found[name] = meta_lora.choose_lr(model, tokenizer, episodes, cue, start=start, **options)
        found["MetaICL"] = {}
        for lr, state in tried.items():
            lora.set_adapter_state(model, state)
            found["MetaICL"][lr] = meta_lora.score(model, tokenizer, episodes[0], cue, shots=settings.shots)
        rates = {name: max(means, key=means.__getitem__) for name, means in found.items()}  # of equals the first
    readers = dict(zip(READERS, (plain, tried[rates["MetaICL"]])))
    clock["choosing"] = time.process_time()
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in (*STARTS, *READERS)}
    for task in map(load_task, HELD_OUT):
        episode, cue = task.episode(settings.shots, seed=seed, n_query=settings.queries), template_of(task)
        for name, start in starts.items():
            options = {"start": start, "lr": rates[name], "at": settings.at}
            by_steps = meta_lora.adapt_and_score(model, tokenizer, episode, cue, **options)
            scores[name][task.name] = list(by_steps.values())
        for name, start in readers.items():
            lora.set_adapter_state(model, start)
            scores[name][task.name] = [meta_lora.score(model, tokenizer, episode, cue, shots=settings.shots)]
    clock["held-out tasks"] = time.process_time()
    times = list(clock.values())
    seconds = {name: round(b - a) for name, a, b in zip(list(clock)[1:], times, times[1:])}
    validated = {name: {f"{lr:g}": value for lr, value in means.items()} for name, means in found.items()}
    return {"rates": rates, "validation": validated, "scores": scores, "seconds": seconds}


def train_on_prompts(
    model, tokenizer, family: Sequence[MiniTask], *, steps: int, rows: int = 4, shots: int = 8, lr: float = 1e-3,
    seed: int = 0,
) -> list[float]:  # fmt: skip
    """Train the LoRA layers to answer a query behind `shots` solved examples of its task: MetaICL (Min et al. 2022).

    Each row is of a task of its own, drawn at random, and only the query's answer counts (section 3.1 there). A new
    task is then solved by reading: its examples go in the prompt, and no step is taken. Adam, at a rate that falls
    linearly to zero. Returns the loss of each step: mean -log P of the answers' tokens in nats, before the step.

    Raises:
        CourseError: no LoRA layers, an empty family, or a number that makes no sense.
        NotEnoughExamples: a task has no query besides so many shots.
        TrainingDiverged: a loss became NaN or infinite.
    """
    lora.adapter_state(model)  # raises where there are no LoRA layers
    require_some(family, "tasks to learn from")
    for name, value, least in (("steps", steps, 1), ("rows", rows, 1), ("shots", shots, 0)):
        require_at_least(least, name, value)
    require_positive("lr", lr)
    rng, losses = random.Random(seed), []
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, total_iters=max(steps - 1, 1))
    for _ in range(steps):
        batch = []
        for task in rng.choices(family, k=rows):
            *support, query = task.draw(shots + 1, rng)
            batch += answer_rows(tokenizer, build_prompts([query], support, task.template), [query.y])
        losses.append(meta_lora.take_step(model, optimizer, batch))
        schedule.step()
    return losses


def results(seeds: int, settings: Settings) -> list[Result]:
    """Return each seed's result, kept from before where there is one of the same settings."""
    KEPT.mkdir(parents=True, exist_ok=True)
    told, found, loaded = json.loads(json.dumps(asdict(settings))), [], ()
    for seed in range(seeds):
        path = KEPT / f"seed-{seed}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if kept.get("settings") != told:
            loaded = loaded or load_model()
            rates = found[0]["rates"] if found else None
            kept = {"settings": told} | one_seed(*loaded, seed, settings, rates)
            write_whole(path, json.dumps(kept, indent=1) + "\n")
            print(f"seed {seed}: processor seconds {kept['seconds']}", file=sys.stderr, flush=True)
        found.append(kept)
    return found


def table(found: list[Result], settings: Settings) -> list[str]:
    """Return the lines of the table: a row for each start and number of steps, and for each reader."""
    heads = [*(name.replace("_", " ") for name in HELD_OUT), "all four"]
    lines = [f"{'exact match, ' + str(len(found)) + ' seeds':28}" + "".join(f"{head:>14}" for head in heads)]
    rows = [(f"{name}, {k} step{'s' * (k != 1)}", name, i) for i, k in enumerate(settings.at) for name in STARTS]
    rows += [(name, name, 0) for name in READERS]
    for label, name, place in rows:
        lines.append(f"{label:28}" + "".join(f"{told(values):>14}" for values in columns(found, name, place)))
    half = ["±: half the 95% interval over the seeds; wins, loses: the interval of the difference leaves out zero"]
    return lines + half * (len(found) > 1)


def columns(found: list[Result], name: str, place: int) -> list[list[float]]:
    """Return a method's score of each seed for each held-out task, and at the end for the mean of the tasks."""
    by_task = [[result["scores"][name][task][place] for result in found] for task in HELD_OUT]
    return [*by_task, [sum(each) / len(each) for each in zip(*by_task)]]


def told(values: list[float]) -> str:
    found = interval(values, bounds=(-1.0, 1.0))
    return f"{found.mean:.2f} ± {half_width(values):.2f}" if len(values) > 1 else f"{found.mean:.2f}"


def verdicts(found: list[Result], settings: Settings) -> list[str]:
    """Return for each rival and number of steps where the meta-learned start wins, loses, or neither."""
    names = [*(name.replace("_", " ") for name in HELD_OUT), "all four"]
    rivals = [(f"plain LoRA, {k} step{'s' * (k != 1)}", i, "plain LoRA", i) for i, k in enumerate(settings.at)]
    rivals += [
        (f"{name}, against {settings.at[i]} steps", i, name, 0) for name in READERS for i in range(2, len(settings.at))
    ]
    lines = ["meta-learned LoRA minus"]
    for label, place, rival, rival_place in rivals:
        cells = []
        pairs = zip(columns(found, "meta-learned LoRA", place), columns(found, rival, rival_place))
        for name, (ours, theirs) in zip(names, pairs):
            differences = [a - b for a, b in zip(ours, theirs)]
            mean, half = sum(differences) / len(differences), half_width(differences)
            word = "" if len(found) < 2 or abs(mean) <= half else (" wins" if mean > 0 else " loses")
            cells.append(f"{name} {mean:+.2f}{word}")
        lines.append(f"  {label}: " + ", ".join(cells))
    return lines


def half_width(values: list[float]) -> float:
    found = interval(values, bounds=(-10.0, 10.0))
    return found.high - found.mean


def main(arguments: list[str]) -> None:
    settings = Settings()
    found = results(max(1, int(arguments[0])) if arguments else 5, settings)
    print("\n".join([*table(found, settings), "", *verdicts(found, settings), ""]))
    for name, means in found[0]["validation"].items():
        tried = ", ".join(f"{lr} {value:.2f}" for lr, value in means.items())
        print(f"{name}: rate {found[0]['rates'][name]:g} (on {VALIDATION}: {tried})")
    seconds = {k: sum(result["seconds"][k] for result in found) / len(found) for k in found[0]["seconds"]}
    print(f"processor seconds a seed: {', '.join(f'{name} {value:.0f}' for name, value in seconds.items())}")


if __name__ == "__main__":
    main(sys.argv[1:])
