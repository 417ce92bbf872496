"""`adapt`: from a CSV file to an adapted model in a folder, within a time budget.

Every method learns from one part of the data and is measured on a second; the one chosen by it is tested on a third.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import torch

from ..choosing import methods
from ..choosing.choose import Limits, choose
from ..choosing.methods import CALIBRATED, FEW, LORA, META, ZERO, Trial
from ..choosing.own_data import Reading, as_task, read_data, require_short, split
from ..errors import CourseError, TrainingDiverged
from ..lm.download import DEFAULT_MODEL
from ..lm.model import context_length, load_model
from ..lm.tasks import Example, Task
from ..lm.types import Model, Tokenizer
from ..lora import layers as lora
from ..lora.files import save_adapter
from ..prompting import calibration, scoring
from ..prompting.answers import answered_right
from ..prompting.prompts import template_of
from . import plan as adapt_plan
from .model_card import model_card
from .outcome import Outcome
from .output_folder import disk_errors, new_folder, require_new
from .plan import Plan, Planned
from .predict import Predictor
from .report_page import page
from .saved_prompt import FILE, Adapted
from .timing import prompt_examples, rows_at_once, shots_that_fit, time_steps

MOST_TEST, MOST_VALIDATION = 100, 64
BUDGET = 120.0
NAMING = "--input COLUMN --output COLUMN"


def adapt(
    data: str | Path, out: str | Path, *, x: str | None = None, y: str | None = None,
    method: str = "auto", budget: float = BUDGET, seed: int = 0, plan: str | Path | None = None,
    say: Callable[[str], object] = print, progress: bool = True,
) -> Outcome:  # fmt: skip
    """Adapt the course's model to a file of text pairs, and write the folder `out`.

    Args:
        x, y: the columns that the model reads and answers; None where there are two columns.
        method: one of `plan.METHOD_CHOICES`.
        budget: seconds to try methods in.
        seed: of the split, of draws and of training.
        plan: a plan to repeat; its method, seed and budget then hold.
        say: called with each line for people.

    Raises CourseError, with a message for people; nothing was written.
    """
    named, out = Path(out), Path(out).absolute()
    given = adapt_plan.read_plan(plan) if plan is not None else None
    method, seed, budget = (given.method, given.seed, given.budget) if given else (method, seed, budget)
    require_new(out)
    reading = read_data(data, x=x, y=y, skip_missing=True, naming=NAMING)
    for line in reading.summary():
        say(line)
    task, test = three_parts(reading, seed)
    adapt_plan.require_method(method, task)
    if given:
        adapt_plan.require_possible(given, task)
    say(
        f"Split (seed {seed}): {len(task.support_pool)} pairs to learn from, {len(task.query_set)} to choose by "
        f"(validation), {len(test)} for the report (test)."
    )
    model, tokenizer = load_model()
    most_new = max_new_tokens(model, tokenizer, task)
    require_short(reading, tokenizer, context_length(model) - most_new - 8)
    run = _Run(model, tokenizer, task, test, reading, most_new, say, progress)
    try:
        with new_folder(out) as folder:
            begin = time.perf_counter()
            outcome = run.outcome(given or run.new_plan(method, budget, seed), begin)
            with disk_errors(out):
                run.write(outcome, folder)
    finally:
        if lora.lora_layers(model):
            lora.remove(model)
    say(outcome.sentence())
    command = f"python -m rapidadapt_lessons predict {shlex.quote(str(named))} QUERIES.txt"
    say(f"Written: {named} (open report.html in it; ask it with: {command})")
    return outcome


def three_parts(reading: Reading, seed: int) -> tuple[Task, tuple[Example, ...]]:
    """Return a task with examples to learn from and validation queries, and the test queries: a quarter each for the
    last two, up to MOST_VALIDATION and MOST_TEST."""
    quarter = len(reading.examples) // 4
    test, validation, pool = split(reading, [min(MOST_TEST, quarter), min(MOST_VALIDATION, quarter)], seed)
    return as_task(reading, pool, validation), test


def max_new_tokens(model: Model, tokenizer: Tokenizer, task: Task) -> int:
    """Return how much may be written for an answer: half as much again as the longest known one has, and a little."""
    longest = max(scoring.count_tokens(tokenizer, e.y) for e in (*task.support_pool, *task.query_set))
    return min(longest + longest // 2 + 4, context_length(model) // 4)


@dataclass
class _Run:
    """A run under way."""

    model: Model
    tokenizer: Tokenizer
    task: Task
    test: tuple[Example, ...]
    reading: Reading
    most_new: int
    say: Callable[[str], object]
    progress: bool
    adapters: dict[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)  # those that were trained, by method

    def new_plan(self, method: str, budget: float, seed: int) -> Plan:
        """Time a few steps on this machine, and plan by that."""
        parts = self.model, self.tokenizer, self.task
        longest = max((e.x for e in self.reading.examples), key=len)
        shots, batch_size = shots_that_fit(*parts, longest, seed, self.most_new), rows_at_once(*parts[1:])
        timing = time_steps(*parts, shots=shots, seed=seed, max_new_tokens=self.most_new, batch_size=batch_size)
        self.say(timing.sentence())
        return adapt_plan.make_plan(
            self.task, timing,
            method=method, budget=budget, seed=seed, shots=shots, batch_size=batch_size, n_test=len(self.test),
        )  # fmt: skip

    def outcome(self, plan: Plan, begin: float) -> Outcome:
        """Try what is planned, choose by the validation split, and measure the choice on the test split."""
        self.say(f"Plan for {plan.budget:g} s:")
        for planned in plan.methods:
            self.say(f"  {planned.sentence()}")
        for method, why in plan.left_out.items():
            self.say(f"  left out: {method} ({why})")
        trials, failed = [], {}
        for planned in plan.methods:
            try:
                trial = self.trial(planned, plan.seed)
            except TrainingDiverged as error:
                failed[planned.method] = error.problem
                self.say(f"{planned.method}: {error.problem}")
                continue
            trials.append(trial)
            right = f"{sum(trial.right)} of {len(trial.right)} validation queries right"
            self.say(f"{trial.method}: {right}, {trial.prepare_seconds:.1f} s to prepare")
        candidates = [t for t in trials if t.method in plan.candidates()]
        if not candidates:
            raise CourseError(f"nothing could be tried: {'; '.join(failed.values())}", "use --method prompt.")
        # Of few validation queries one is a large share: methods that far apart are not equally good.
        choice = choose(candidates, Limits(examples=len(self.task.support_pool)), close=0.05)
        self.say(f"Chosen: {choice.trial.method}.")
        how = self.how(choice.trial, plan.seed)
        if how.adapter:
            methods.fresh_adapter(self.model, self.adapters[how.method])
        answers = Predictor(self.model, self.tokenizer, how).answers([e.x for e in self.test])
        trained = sorted((t for t in trials if t.method in self.adapters), key=lambda t: -t.quality)
        adapter_method = how.method if how.adapter else trained[0].method if trained else ""
        return Outcome(
            self.reading, self.task, plan, tuple(trials), failed, choice, how, self.test, tuple(answers),
            adapter_method, time.perf_counter() - begin,
        )  # fmt: skip

    def trial(self, planned: Planned, seed: int) -> Trial:
        """Try one method as planned. Of one that trains, the adapter is kept."""
        parts, task = (self.model, self.tokenizer), self.task
        if planned.method in (ZERO, FEW, CALIBRATED):
            shown = prompt_examples(task, planned.examples, seed)
            return methods.prompt_trial(*parts, task, shown, task.query_set, calibrated=planned.method == CALIBRATED)
        begin, start = time.perf_counter(), None
        if planned.method == META:
            start = methods.meta_learned_start(*parts, planned.meta_training(seed), progress=self.progress)
        before = time.perf_counter() - begin
        accuracy = lambda model: fmean(answered_right(model, self.tokenizer, task, task.query_set))  # noqa: E731
        trial, self.adapters[planned.method] = methods.adapter_trial(
            *parts, task, task.support_pool[: planned.examples], task.query_set,
            method=planned.method, config=planned.training(seed), start=start, progress=self.progress,
            evaluate=accuracy,
        )  # fmt: skip
        return replace(trial, prepare_seconds=trial.prepare_seconds + before)

    def how(self, trial: Trial, seed: int) -> Adapted:
        """Return how the chosen method is asked."""
        adapter = trial.method in (LORA, META)
        shown = () if adapter or trial.method == ZERO else prompt_examples(self.task, trial.examples, seed)
        template, prior = template_of(self.task), ()
        if trial.method == CALIBRATED:
            found = calibration.content_free_prior(self.model, self.tokenizer, shown, self.task.labels, template)
            prior = tuple(found.tolist())
        return Adapted(DEFAULT_MODEL, trial.method, template, shown, self.task.labels, prior, self.most_new, adapter)

    def write(self, outcome: Outcome, folder: Path) -> None:
        files = {
            FILE: outcome.how.to_json(),
            "prompt.txt": outcome.how.prompt("{input}").text + "\n",
            "plan.json": outcome.plan.to_json(),
            "results.json": outcome.to_json(),
            "report.html": page(outcome),
            "README.md": model_card(outcome),
        }
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        if outcome.adapter_method:
            methods.fresh_adapter(self.model, self.adapters[outcome.adapter_method])
            save_adapter(self.model, folder / "adapter", methods.ADAPTER)
