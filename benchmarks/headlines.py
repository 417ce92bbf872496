"""The headline result of each lesson, recomputed over 5 seeds, and whether the lesson's sentence survives the interval.

    python benchmarks/headlines.py                 all lessons, 5 seeds: about 20 minutes on one core
    python benchmarks/headlines.py --lessons 03,05 some; the others are shown from what is kept
    python benchmarks/headlines.py --seeds 2       fewer seeds
    python benchmarks/headlines.py --anew          measure again what is kept

Prints a table in Markdown, which `benchmarks/report.py --headlines` puts into benchmarks/report.md. Each seed of each
lesson is kept in build/report as soon as it is there, so that a run that was stopped goes on. A seed draws whatever
the lesson draws: examples, first weights, order of the rows, tasks. Queries stay those of the lesson, where it has
some. Settings are the lesson's, and seed 0 is its own run where the lesson has one run only.

A lesson's sentence holds where what it says is true of the lower and of the upper end of the interval: the mean of
the seeds and its 95% interval by Student's t (`intervals.interval`).
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rapidadapt_lessons.show.intervals import Interval, interval

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "report"
SEEDS = 5
SHARE, POSITIVE, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)

Found = dict[str, float]


@dataclass(frozen=True)
class Part:
    """One number of a headline.

    Attributes:
        name: its key in what the headline's `measure` returns.
        said: what the lesson's sentence says of it, in words; empty for a number shown beside the others.
        true: the same as a test of one number; None where nothing is said.
        bounds: between which values it can lie at all; the interval is cut there.
        digits: behind the point.
    """

    name: str
    said: str = ""
    true: Callable[[float], bool] | None = None
    bounds: tuple[float, float] = SHARE
    digits: int = 2

    def told(self, found: Interval) -> str:
        """Return the mean with its interval, and what the lesson says of it."""
        mean, low, high = (_number(value, self.digits) for value in (found.mean, found.low, found.high))
        return f"{self.name}: {mean} ({low} to {high})" + (f"; said: {self.said}" if self.said else "")


@dataclass(frozen=True)
class Headline:
    """A lesson's headline result.

    Attributes:
        lesson: its number, such as "03".
        sentence: the lesson's own words.
        setting: what is run for one seed, and where it is smaller than in the lesson.
        measure: from a seed to named numbers.
        parts: what is shown, and what the sentence says of it.
    """

    lesson: str
    sentence: str
    setting: str
    measure: Callable[[int], Found]
    parts: tuple[Part, ...]

    def intervals(self, runs: Sequence[Found]) -> dict[str, Interval]:
        """Return each part's mean and 95% interval over the seeds."""
        return {part.name: interval([run[part.name] for run in runs], part.bounds) for part in self.parts}

    def fails(self, found: Mapping[str, Interval]) -> list[str]:
        """Return the ends of intervals of which the sentence is not true, in words."""
        return [
            f"{part.name} ({which} end)"
            for part in self.parts
            if part.true
            for which, value in (("lower", found[part.name].low), ("upper", found[part.name].high))
            if not part.true(value)
        ]


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits / 2 else f"{value:.1g}"


# Measuring: a function for each lesson


def prompting(seed: int) -> Found:
    """Lesson 1, section 1.5: exact match on 24 queries, by the number of examples in the prompt, drawn by the seed."""
    from rapidadapt_lessons.lm.model import load_model
    from rapidadapt_lessons.lm.tasks import load_task
    from rapidadapt_lessons.prompting import scoring
    from rapidadapt_lessons.prompting.prompts import build_prompts

    model, tokenizer = load_model()

    def accuracy(name: str, shots: int) -> float:
        episode = load_task(name).episode(shots, seed=seed, n_query=24)
        prompts = build_prompts(episode.query, episode.support)
        return sum(scoring.exact_matches(model, tokenizer, prompts, [q.y for q in episode.query])) / 24

    return {
        "past tense, no example": accuracy("past_tense", 0),
        "past tense, 8 examples": accuracy("past_tense", 8),
        "past tense, 16 examples": accuracy("past_tense", 16),
        "plurals, no example": accuracy("plurals", 0),
        "plurals, 16 examples": accuracy("plurals", 16),
    }


def adapter(seed: int) -> Found:
    """Lesson 2, section 2.1: LoRA on 40 past tenses for 15 updates, and 8 examples in a prompt, on the same 48."""
    from rapidadapt_lessons.lm.model import load_model
    from rapidadapt_lessons.lm.tasks import load_task
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.prompting import scoring
    from rapidadapt_lessons.prompting.prompts import build_prompts
    from rapidadapt_lessons.training.data import task_experience
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import exact_rows

    model, tokenizer = load_model()
    verbs = task_experience(tokenizer, "past_tense", train=40, test=48, seed=seed)
    before = exact_rows(model, verbs.test)
    shown = load_task("past_tense").episode(8, seed=seed, n_query=48)
    prompts = build_prompts(shown.query, shown.support)
    read = scoring.exact_matches(model, tokenizer, prompts, [q.y for q in shown.query])
    lora.inject(model, lora.LoRAConfig(rank=8, lora_alpha=16, target_modules=("q_proj", "v_proj")), seed=seed)
    train(model, verbs.train, TrainConfig(steps=15, batch_size=8, lr=1e-3, seed=seed), progress=False)
    after = exact_rows(model, verbs.test)
    return {
        "before training": sum(before) / 48,
        "after 15 updates": sum(after) / 48,
        "8 examples in the prompt": sum(read) / 48,
        "adapter less prompt": (sum(after) - sum(read)) / 48,
    }


def start_points(seed: int) -> Found:
    """Lesson 3, section 3.6: MAML's point against the average task's, 40 lines drawn by the seed, 3 inner steps."""
    from rapidadapt_lessons.meta import landscape

    family = landscape.line_family(seed=seed)
    alpha, steps = 0.15, 3
    average, maml = (landscape.resting_point(family, name, alpha, steps) for name in ("average task", "MAML"))
    before, after = (
        float(landscape.loss_at(family, maml, alpha, n) - landscape.loss_at(family, average, alpha, n))
        for n in (0, steps)
    )
    return {
        "slope, MAML less average": float(maml[1] - average[1]),
        "loss before adapting, MAML less average": before,
        "loss after 3 steps, MAML less average": after,
    }


def meta_learning(seed: int, iterations: int = 1000, tasks: int = 600) -> Found:
    """Lesson 4, section 4.5: MAML's start against a pretrained one on new sinusoids, each at its best of four rates."""
    import torch

    from rapidadapt_lessons.meta import sinusoids

    draw = torch.Generator().manual_seed(10_000 + seed)  # not the tasks of the training
    held_out = sinusoids.draw_waves(tasks, draw).batch(10, 50, draw)
    validation = sinusoids.draw_waves(100, draw).batch(10, 50, draw)
    error = {}
    for method in (sinusoids.MAML, sinusoids.PRETRAINED):
        start, _ = sinusoids.train_starts(method, [seed], iterations, task_seed=seed)
        rate = sinusoids.best_inner_lr(method, start, validation, rates=(0.003, 0.01, 0.02, 0.03))
        error[method.name] = sinusoids.curve(method, start, held_out, inner_lr=rate).mean((0, 1))
    maml, pretrained = error["MAML"], error["pretrained"]
    return {
        "MAML's error after 1 step": float(maml[1]),
        "pretrained's after 10": float(pretrained[10]),
        "the first over the second": float(maml[1] / pretrained[10]),
        "MAML's after 10 over pretrained's after 10": float(maml[10] / pretrained[10]),
    }


def replay(seed: int) -> Found:
    """Lesson 5, section 5.12: what replay of 50 digits wins back of what fine-tuning loses against joint training."""
    from rapidadapt_lessons.continual.digits import digit_network, permuted_digits, split_digits
    from rapidadapt_lessons.continual.replay import Replay
    from rapidadapt_lessons.continual.stream import Joint, Method, run_stream
    from rapidadapt_lessons.training.loop import TrainConfig

    config, found = TrainConfig(steps=40, batch_size=32, lr=5e-3, seed=seed), {}
    for name, make in {"permuted": permuted_digits, "split": split_digits}.items():
        stream = make(seed=seed)
        plain, kept, joint = (
            run_stream(method, digit_network(seed), stream, config).acc for method in (Method(), Replay(50), Joint())
        )
        found[f"{name}, ACC of replay less fine-tuning"] = kept - plain
        found[f"{name}, share of the loss bought back"] = (kept - plain) / (joint - plain)
    return found


@cache
def meta_start() -> Mapping[str, Any]:
    """Return lesson 6's start, section 6.2, which is learned once for all draws of examples."""
    from rapidadapt_lessons.choosing import methods
    from rapidadapt_lessons.choosing.methods import meta_learned_start
    from rapidadapt_lessons.lm.model import load_model
    from rapidadapt_lessons.tool.plan import Planned

    plan = Planned(methods.META, meta_iterations=20).meta_training(seed=0)
    return meta_learned_start(*load_model(), plan, progress=False)


def choosing(seed: int) -> Found:
    """Lesson 6, section 6.3: the ways on continents, 48 queries, 4 and 16 examples drawn by the seed."""
    from rapidadapt_lessons.choosing.methods import CALIBRATED, FEW, LORA, META, UPDATE, adapter_trial, prompt_trial
    from rapidadapt_lessons.lm.model import load_model
    from rapidadapt_lessons.lm.tasks import load_task

    start = meta_start()
    model, tokenizer = load_model()
    task = load_task("continents", query_size=48)
    found = {}
    for k in (4, 16):
        episode = task.episode(k, seed=seed, n_query=48, balanced=True)
        given = (model, tokenizer, task, episode.support, episode.query)
        quality = {
            FEW: prompt_trial(*given).quality,
            CALIBRATED: prompt_trial(*given, calibrated=True).quality,
            LORA: adapter_trial(*given)[0].quality,
            META: adapter_trial(*given, method=META, config=UPDATE, start=start)[0].quality,
        }
        found |= {f"{way}, {k} examples": value for way, value in quality.items()}
        pairs = ((CALIBRATED, FEW), (CALIBRATED, LORA), (META, CALIBRATED))
        found |= {f"{one} less {other}, {k} examples": quality[one] - quality[other] for one, other in pairs}
    return found


def two_processes(seed: int) -> Found:
    """Lesson 7, section 7.1: 8 updates of LoRA by one process and by two: the furthest that their losses are apart."""
    from rapidadapt_lessons.scaling.launch import launch
    from rapidadapt_lessons.scaling.run_files import read_report

    reports = []
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            out = Path(folder) / str(processes)
            options = ["--steps", 8, "--batch-size", 8, "--lr", 1e-3, "--seed", seed, "--out", out]
            with launch(ROOT / "scale" / "train_lora.py", options, processes=processes) as run:
                if run.wait(seconds=600):
                    raise RuntimeError(run.output()[-1500:])
            reports.append(read_report(out / "losses.json"))
    one, two = reports
    return {
        "largest difference of the losses": max(abs(a - b) for a, b in zip(one.losses, two.losses, strict=True)),
        "fall of one process's loss": one.losses[0] - one.losses[-1],
    }


# What the lessons say


def _ways(k: int) -> tuple[Part, ...]:
    """Return lesson 6's parts with k examples. To reach the same is to be less than 1.5 of 48 queries behind."""
    return (
        Part(f"few-shot, {k} examples"),
        Part(f"calibrated few-shot, {k} examples"),
        Part(f"LoRA, {k} examples"),
        Part(f"meta-learned LoRA, {k} examples"),
        Part(f"calibrated few-shot less few-shot, {k} examples", "above 0", lambda v: v > 0, ANY),
        Part(
            f"calibrated few-shot less LoRA, {k} examples",
            "less than a query and a half behind",
            lambda v: v > -1.5 / 48,
            ANY,
        ),
        Part(f"meta-learned LoRA less calibrated few-shot, {k} examples", bounds=ANY),
    )


HEADLINES = (
    Headline(
        "01",
        "Plurals and past tenses climb to near 1.",
        "24 queries, 0, 8 and 16 examples in the prompt; without examples there is nothing to draw",
        prompting,
        (
            Part("past tense, no example", "0", lambda v: v == 0),
            Part("past tense, 8 examples"),
            Part("past tense, 16 examples", "near 1: 0.9 or more", lambda v: v >= 0.9),
            Part("plurals, no example", "0", lambda v: v == 0),
            Part("plurals, 16 examples", "near 1: 0.9 or more", lambda v: v >= 0.9),
        ),
    ),
    Headline(
        "02",
        "Over five seeds (other examples, first weights and order; 48 verbs asked) it gets nine of ten right or more "
        "on average, and by the 95% interval it is between two verbs behind a prompt of eight examples and six ahead "
        "of it",
        "40 verbs to train on, 15 updates of 8, the same 48 verbs asked; the prompt holds the first 8 of the 40",
        adapter,
        (
            Part("before training", "0", lambda v: v == 0),
            Part("after 15 updates", "0.9 or more", lambda v: v >= 0.9),
            Part("8 examples in the prompt"),
            Part("adapter less prompt", "-2/48 to 6/48", lambda v: -2 / 48 <= v <= 6 / 48, ANY),
        ),
    ),
    Headline(
        "03",
        "It is *worse* than the average-task minimiser until it adapts, and better afterwards.",
        "40 lines in each family, inner rate 0.15, 3 steps; exact, so the families alone differ",
        start_points,
        (
            Part("slope, MAML less average", "above 0", lambda v: v > 0, ANY),
            Part("loss before adapting, MAML less average", "above 0", lambda v: v > 0, ANY),
            Part("loss after 3 steps, MAML less average", "below 0", lambda v: v < 0, ANY),
        ),
    ),
    Headline(
        "04",
        "Ten of its steps do not bring it to where MAML is after one.",
        "1000 iterations of training for each start, as in the lesson, on tasks of its own; 600 new tasks of its own",
        meta_learning,
        (
            Part("MAML's error after 1 step", bounds=POSITIVE),
            Part("pretrained's after 10", bounds=POSITIVE),
            Part("the first over the second", "below 1", lambda v: v < 1, POSITIVE),
            Part("MAML's after 10 over pretrained's after 10", bounds=POSITIVE),
        ),
    ),
    Headline(
        "05",
        "On digits, over five seeds, 50 examples bought back a fifth to a half of it where pixels are permuted, and "
        "two to three fifths where digits are split.",
        "the digits, five parts each; the text tasks take `benchmarks/continual.py --text`",
        replay,
        (
            Part("permuted, ACC of replay less fine-tuning", "above 0", lambda v: v > 0, ANY),
            Part("permuted, share of the loss bought back", "0.2 to 0.5", lambda v: 0.2 <= v <= 0.5, ANY),
            Part("split, ACC of replay less fine-tuning", "above 0", lambda v: v > 0, ANY),
            Part("split, share of the loss bought back", "0.4 to 0.6", lambda v: 0.4 <= v <= 0.6, ANY),
        ),
    ),
    Headline(
        "06",
        "For a choice between labels that the model knows, calibrate the prompt first: here it reached what training "
        "reached, with next to no preparation.",
        "48 queries, 4 and 16 examples; the seed draws the examples, and the meta-learned start is the lesson's one",
        choosing,
        tuple(part for k in (4, 16) for part in _ways(k)),
    ),
    Headline(
        "07",
        "equal up to rounding",
        "8 updates of 8 verbs, by one process and by two of this machine; the seed sets first weights and row order",
        two_processes,
        (
            Part("largest difference of the losses", "below 0.0001", lambda v: v < 1e-4, POSITIVE, digits=6),
            Part("fall of one process's loss", bounds=ANY),
        ),
    ),
)


# Keeping, and telling


def runs_of(headline: Headline, seeds: int, anew: bool = False, measure: bool = True) -> list[dict]:
    """Return what was found with each seed, measuring what is not kept, or only what is kept.

    Each is a dictionary of "found", "day" and "code", a digest of the function that measured.
    """
    from datetime import date

    code = hashlib.sha256(inspect.getsource(headline.measure).encode()).hexdigest()
    runs = []
    for seed in range(seeds):
        path = KEPT / f"headline-{headline.lesson}-{seed}.json"
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            run = None
        if measure and (run is None or anew or run["code"] != code):
            print(f"lesson {headline.lesson}, seed {seed} ...", file=sys.stderr, flush=True)
            run = {"found": headline.measure(seed), "day": date.today().isoformat(), "code": code}
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.new")
            new.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
            os.replace(new, path)
        if run is not None and run["code"] == code:
            runs.append(run)
    return runs


def row(headline: Headline, runs: Sequence[dict]) -> str:
    """Return a headline's row of the table."""
    start = f"| {headline.lesson} | {headline.sentence} |"
    if not runs:
        return f"{start} not measured yet | | |"
    found = headline.intervals([run["found"] for run in runs])
    numbers = "<br>".join(part.told(found[part.name]) for part in headline.parts)
    fails = headline.fails(found)
    verdict = f"**no**: {'; '.join(fails)}" if fails else "yes"
    few = "" if len(runs) == SEEDS else f" ({len(runs)} of {SEEDS} seeds)"
    return f"{start} {numbers} | {verdict}{few} | {max(run['day'] for run in runs)} |"


def table(rows: Sequence[str]) -> list[str]:
    """Return the table and what is run for each row, as lines of Markdown."""
    heads = "| lesson | its sentence | mean (95% interval) | holds at both ends | day |"
    settings = [f"- {headline.lesson}: {headline.setting}." for headline in HEADLINES]
    return [heads, "|---|---|---|---|---|", *rows, "", "For each seed:", "", *settings]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", default="all", help="numbers of lessons, such as 01,03; or all")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--anew", action="store_true", help="measure again what is kept, such as after a change")
    chosen = parser.parse_args(arguments)
    numbers = [headline.lesson for headline in HEADLINES]
    wanted = numbers if chosen.lessons == "all" else chosen.lessons.split(",")
    if unknown := sorted(set(wanted) - set(numbers)):
        parser.error(f"there is no headline of lesson {', '.join(unknown)}; there are {', '.join(numbers)}.")
    if chosen.seeds < 2:
        parser.error(f"{chosen.seeds} seeds give no interval; take 2 or more.")
    rows = []
    for headline in HEADLINES:
        rows.append(row(headline, runs_of(headline, chosen.seeds, chosen.anew, headline.lesson in wanted)))
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
