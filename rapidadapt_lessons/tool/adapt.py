"""`adapt`: from a CSV file to an adapted model in a folder, within a budget, and back from being killed.

The data are split in three. Every way learns from the first part and is measured on the second, by which one is chosen.
The third is touched once, by what was chosen.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import __version__
from ..choosing import methods
from ..choosing.choose import Limits, choose
from ..choosing.methods import CALIBRATED, FEW, LORA, META, ZERO, Trial, meta_learned_start
from ..choosing.own_data import CUE, Reading, as_task, read_data, require_short, split
from ..errors import CourseError, TrainingDiverged
from ..lm.download import DEFAULT_MODEL
from ..lm.model import context_length, load_model
from ..lm.tasks import Example, Task
from ..lora import layers as lora
from ..lora.files import save_adapter
from ..prompting import calibration, scoring
from ..prompting.answers import answered_right
from ..prompting.prompts import template_of
from ..training.loop import History
from . import plan as adapt_plan
from .model_card import model_card
from .outcome import Outcome
from .plan import Plan, Planned
from .predict import Predictor
from .report_page import page
from .resume import Unfinished, disk_troubles, open_unfinished, put_in_place, require_new
from .saved_prompt import FILE, Adapted
from .timing import measure, prompt_examples, rows_at_once, shots_that_fit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_TEST, MOST_VALIDATION = 100, 64
BUDGET = 120.0
NAMING = "--input COLUMN --output COLUMN"


def adapt(
    data: str | Path,
    out: str | Path,
    *,
    x: str | None = None,
    y: str | None = None,
    method: str = "auto",
    budget: float = BUDGET,
    seed: int = 0,
    plan: str | Path | None = None,
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> Outcome:
    """Adapt the course's model to a file of text pairs, and write the folder `out`.

    Args:
        x, y: the columns that the model reads and answers; None where there are two columns.
        method: one of `plan.OPTIONS`.
        budget: seconds to try methods in.
        seed: of the split, of draws and of training.
        plan: a plan to repeat; its method, seed and budget are then meant.
        say: called with each line for people.

    Raises:
        CourseError: with a message for people; `out` was not written, and work that took time is kept.
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
    identity = {
        "data": hashlib.sha256(json.dumps(reading.examples).encode()).hexdigest(),
        "columns": [reading.x, reading.y],
        "method": method,
        "seed": seed,
        "budget": budget,
        "plan": None if given is None else _without_timing(given),
        "version": __version__,
    }
    unfinished = open_unfinished(out, identity)
    kept = named.parent / unfinished.folder.name
    say(
        f"Going on with the unfinished run in {kept}."
        if unfinished.resumed
        else f"If this is interrupted, the same command goes on (the work so far is in {kept})."
    )
    run = _Run(model, tokenizer, task, test, reading, unfinished, most_new, say, progress)
    try:
        with disk_troubles(out):
            outcome = run.all(method, budget, seed, given)
            result = run.write(outcome)
        put_in_place(unfinished, result, out)
    finally:
        unfinished.leave()
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
    return as_task(reading, pool, validation, CUE), test


def max_new_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> int:
    """Return how much may be written for an answer: half as much again as the longest known one has, and a little."""
    longest = max(scoring.count_tokens(tokenizer, e.y) for e in (*task.support_pool, *task.query_set))
    return min(longest + longest // 2 + 4, context_length(model) // 4)


class _Run:
    """A run under way."""

    def __init__(self, model, tokenizer, task: Task, test, reading, unfinished: Unfinished, most_new, say, progress):
        self.model, self.tokenizer, self.task, self.test, self.reading = model, tokenizer, task, test, reading
        self.unfinished, self.most_new, self.say, self.progress = unfinished, most_new, say, progress
        self.states: dict[str, Mapping[str, torch.Tensor]] = {}  # of adapters, by way

    def all(self, method: str, budget: float, seed: int, given: Plan | None) -> Outcome:
        begin = time.perf_counter()
        plan = self.plan(method, budget, seed, given)
        failed: dict[str, str] = {}
        trials: list[Trial] = []
        for planned in plan.methods:
            kept = self.unfinished.once(_slug(planned.method), lambda p=planned: self.tried(p, plan.seed))
            if kept["failed"]:
                failed[planned.method] = kept["failed"]
                self.say(f"{planned.method}: {kept['failed']}")
                continue
            trial = _trial(kept["trial"])
            trials.append(trial)
            if kept["adapter"] is not None:
                self.states[planned.method] = kept["adapter"]
            right = f"{sum(trial.right)} of {len(trial.right)} validation queries right"
            self.say(f"{trial.method}: {right}, {trial.prepare_seconds:.1f} s to prepare")
        candidates = [t for t in trials if t.method in plan.candidates()]
        if not candidates:
            raise CourseError(f"nothing could be tried: {'; '.join(failed.values())}", "use --method prompt.")
        # Of few validation queries one is a large share: ways that far apart are not equally good.
        choice = choose(candidates, Limits(examples=len(self.task.support_pool)), close=0.05)
        self.say(f"Chosen: {choice.trial.method}.")
        how = self.how(choice.trial, plan.seed)
        if how.adapter:
            methods.fresh_adapter(self.model, self.states[how.method])
        answers = Predictor(self.model, self.tokenizer, how).answers([e.x for e in self.test])
        trained = sorted((t for t in trials if t.method in self.states), key=lambda t: -t.quality)
        adapter_method = how.method if how.adapter else trained[0].method if trained else ""
        return Outcome(
            self.reading, self.task, plan, tuple(trials), failed, choice, how, self.test, tuple(answers),
            adapter_method, time.perf_counter() - begin, self.unfinished.resumed,
        )  # fmt: skip

    def plan(self, method: str, budget: float, seed: int, given: Plan | None) -> Plan:
        """Return the plan: the given one, that of the run before, or a new one, which is written down."""
        path = self.unfinished.file("plan.json")
        if given is None and path.exists():
            plan = adapt_plan.read_plan(path)
        elif given is None:
            texts = [e.x for e in self.reading.examples]
            shots = shots_that_fit(self.model, self.tokenizer, self.task, max(texts, key=len), seed, self.most_new)
            batch_size = rows_at_once(self.tokenizer, self.task)
            timing = measure(
                self.model, self.tokenizer, self.task,
                shots=shots, seed=seed, max_new_tokens=self.most_new, batch_size=batch_size,
            )  # fmt: skip
            self.say(timing.told())
            plan = adapt_plan.make_plan(
                self.task, timing,
                method=method, budget=budget, seed=seed, shots=shots, batch_size=batch_size, n_test=len(self.test),
            )  # fmt: skip
        else:
            plan = given
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_text(plan.to_json(), encoding="utf-8")
            part.replace(path)
        self.say(f"Plan for {plan.budget:g} s:")
        for planned in plan.methods:
            self.say(f"  {planned.told()}")
        for way, why in plan.left_out.items():
            self.say(f"  left out: {way} ({why})")
        return plan

    def tried(self, planned: Planned, seed: int) -> dict[str, Any]:
        """Try one way and return what is kept of it."""
        parts = self.model, self.tokenizer, self.task
        if planned.method in (ZERO, FEW, CALIBRATED):
            shown = prompt_examples(self.task, planned.examples, seed)
            trial = methods.prompt_trial(*parts, shown, self.task.query_set, calibrated=planned.method == CALIBRATED)
            return {"trial": asdict(trial), "adapter": None, "failed": ""}
        try:
            trial, state = self.trained(planned, seed)
        except TrainingDiverged as error:
            return {"trial": None, "adapter": None, "failed": error.problem}
        return {"trial": asdict(trial), "adapter": dict(state), "failed": ""}

    def trained(self, planned: Planned, seed: int) -> tuple[Trial, Mapping[str, torch.Tensor]]:
        """Train an adapter as planned, going on where an earlier run stopped."""
        task, support = self.task, self.task.support_pool[: planned.examples]
        begin, start = time.perf_counter(), None
        if planned.method == META:
            options = self.model, self.tokenizer, planned.meta_training(seed)
            learn = lambda: meta_learned_start(*options, progress=self.progress)  # noqa: E731
            start = self.unfinished.once("meta-learned start", learn)
        before = time.perf_counter() - begin

        def accuracy(model) -> float:
            right = answered_right(model, self.tokenizer, task, task.query_set)
            return sum(right) / len(right)

        trial, state = methods.adapter_trial(
            self.model, self.tokenizer, task, support, task.query_set,
            method=planned.method, config=planned.training(seed), start=start, progress=self.progress,
            evaluate=accuracy, checkpoint=self.unfinished.file(f"{_slug(planned.method)}-training.pt"),
        )  # fmt: skip
        return replace(trial, prepare_seconds=trial.prepare_seconds + before), state

    def how(self, trial: Trial, seed: int) -> Adapted:
        """Return how the chosen way is asked."""
        adapter = trial.method in (LORA, META)
        shown = () if adapter or trial.method == ZERO else prompt_examples(self.task, trial.examples, seed)
        template, prior = template_of(self.task), ()
        if trial.method == CALIBRATED:
            found = calibration.content_free_prior(self.model, self.tokenizer, shown, self.task.labels, template)
            prior = tuple(found.tolist())
        return Adapted(DEFAULT_MODEL, trial.method, template, shown, self.task.labels, prior, self.most_new, adapter)

    def write(self, outcome: Outcome) -> Path:
        """Write all files into a folder of the unfinished work, and return it."""
        result = self.unfinished.file("result")
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        files = {
            FILE: outcome.how.to_json(),
            "prompt.txt": outcome.how.prompt("{input}").text + "\n",
            "plan.json": outcome.plan.to_json(),
            "results.json": outcome.to_json(),
            "report.html": page(outcome),
            "README.md": model_card(outcome),
        }
        for name, text in files.items():
            (result / name).write_text(text, encoding="utf-8")
        if outcome.adapter_method:
            methods.fresh_adapter(self.model, self.states[outcome.adapter_method])
            save_adapter(self.model, result / "adapter", methods.ADAPTER)
        return result


def _without_timing(plan: Plan) -> dict[str, Any]:
    return {key: value for key, value in asdict(plan).items() if key != "timing"}


def _trial(kept: Mapping[str, Any]) -> Trial:
    history = None if kept["history"] is None else History(**kept["history"])
    return Trial(**{**kept, "history": history})


def _slug(way: str) -> str:
    return way.replace(" ", "-")
