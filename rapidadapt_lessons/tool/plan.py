"""How long each way may train: decided from a budget and a short timing, before anything is trained, and written down.

What a plan says depends on the machine's speed; what comes out of a plan and a seed does not. So a plan that is
repeated (`adapt --plan`) gives the same adapter on a slower machine, in more time.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..choosing.methods import CALIBRATED, FEW, FULL, LORA, META, METHODS, ZERO, most_examples
from ..errors import BadData, CourseError
from ..lm.tasks import Task
from ..meta.meta_lora import MetaConfig
from ..training.loop import TrainConfig
from .timing import META_ROWS, ROWS, Timing

OPTIONS = ("auto", "prompt", "calibrated", "lora", "meta")
EPOCHS, LEAST_STEPS, MOST_STEPS = 10, 4, 400
CURVE = 4  # evaluations along the training
META_LEAST, META_MOST, META_INNER = 12, 60, 3  # iterations, and inner steps of each
RESERVE = 0.15  # of the budget, for what was not timed


@dataclass(frozen=True)
class Planned:
    """What one way will do. All are numbers of things, so that they mean the same on every machine.

    Attributes:
        method: one of `methods.METHODS`.
        examples: in the prompt, or to train on.
        steps: updates of the adapter, each on `batch_size` times `accumulate` examples.
        eval_every: updates between two points of the learning curve.
        meta_iterations: tasks visited beforehand to learn a start.
    """

    method: str
    examples: int = 0
    steps: int = 0
    batch_size: int = ROWS
    accumulate: int = 1
    eval_every: int = 0
    meta_iterations: int = 0

    def training(self, seed: int) -> TrainConfig:
        """Return how the adapter is trained."""
        return replace(
            FULL, steps=self.steps, batch_size=self.batch_size, accumulate=self.accumulate, seed=seed,
            eval_every=self.eval_every, maximize=True, checkpoint_every=5,
        )  # fmt: skip

    def meta_training(self, seed: int) -> MetaConfig:
        """Return how the start is meta-learned."""
        return MetaConfig(self.meta_iterations, META_INNER, META_ROWS, inner_lr=1e-3, outer_lr=0.6, seed=seed)

    def told(self) -> str:
        """Say it in a line."""
        parts = [f"{self.examples} examples"] if self.examples else []
        if self.steps:
            parts.append(f"{self.steps} updates of {min(self.examples, self.batch_size * self.accumulate)} examples")
        if self.meta_iterations:
            parts.append(f"a start meta-learned on {self.meta_iterations} other tasks")
        return f"{self.method}: {', '.join(parts) or 'no examples'}"


@dataclass(frozen=True)
class Plan:
    """What will be tried.

    Attributes:
        method: one of OPTIONS.
        seed: of the split, of draws and of training.
        budget: seconds, which the plan was made for.
        methods: what each way will do, in the order of `methods.METHODS`.
        left_out: ways that are not tried, and why.
        timing: what the plan was made from; it changes nothing any more.
    """

    method: str
    seed: int
    budget: float
    methods: tuple[Planned, ...]
    left_out: dict[str, str]
    timing: Timing | None = None

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def candidates(self) -> tuple[str, ...]:
        """Return the ways to choose from. Zero-shot is only a baseline where training or calibration was asked for."""
        tried = tuple(p.method for p in self.methods)
        return tried if self.method in ("auto", "prompt") else tuple(w for w in tried if w != ZERO)


def parse_budget(text: str) -> float:
    """Return the seconds of "120s", "2m", "1.5h" or "90".

    Raises:
        CourseError: it is none of these, or not above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*", text)
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds:
        raise CourseError(f"the budget is {text!r}.", 'give a time, such as "120s", "2m" or "1h".')
    return seconds


def read_plan(path: str | Path) -> Plan:
    """Read a plan.

    Raises:
        BadData: the file is missing, or no plan.
    """
    path, remedy = Path(path), "give a plan.json that `adapt` wrote."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        timing = None if found["timing"] is None else Timing(**found["timing"])
        ways = tuple(Planned(**way) for way in found["methods"])
        for planned in ways:
            numbers = {k: v for k, v in asdict(planned).items() if k != "method"}
            if planned.method not in METHODS or any(
                type(v) is not int or not 0 <= v <= 10**6 for v in numbers.values()
            ):
                raise ValueError(f"{planned.method!r} with {numbers}")
            if planned.method in (LORA, META):
                planned.training(0)  # raises where a number makes no sense
            if planned.method == META:
                planned.meta_training(0)
        if found["method"] not in OPTIONS or type(found["seed"]) is not int or not ways:
            raise ValueError(f"method {found['method']!r}, seed {found['seed']!r}, {len(ways)} ways")
        return Plan(found["method"], found["seed"], float(found["budget"]), ways, dict(found["left_out"]), timing)
    except OSError as error:
        raise BadData(f"{path.name} cannot be read ({error.strerror}).", remedy) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CourseError) as error:
        why = error.problem if isinstance(error, CourseError) else f"{type(error).__name__}: {str(error)[:100]}"
        raise BadData(f"{path.name} is no plan ({why}).", remedy) from error


def require_possible(plan: Plan, task: Task) -> None:
    """Raise BadData where a plan asks for more examples than there are, or for a calibration without labels."""
    for planned in plan.methods:
        most = most_examples(task) if planned.method in (ZERO, FEW, CALIBRATED) else len(task.support_pool)
        if planned.examples > most:
            raise BadData(
                f"the plan asks for {planned.examples} examples for {planned.method}; there are {most} to learn from.",
                "use the data that the plan was made for, or leave --plan out.",
            )
        if planned.method == CALIBRATED and not task.labels:
            raise BadData("the plan calibrates labels; these answers are no labels.", "leave --plan out.")


def make_plan(
    task: Task, timing: Timing, *, method: str, budget: float, seed: int, shots: int, batch_size: int, n_test: int
) -> Plan:
    """Share a budget out. Prompts come first, which cost little; then LoRA; a meta-learned start has what is left.

    Args:
        task: with the examples to learn from in its pool, and the validation queries.
        shots: the most examples that a prompt has room for.
        batch_size: rows that training takes at once; an update takes ROWS in any case.
        n_test: test queries.

    Raises:
        CourseError: the method is unknown, or calibration was asked for and there are no labels.
    """
    require_method(method, task)
    n, n_query = len(task.support_pool), len(task.query_set)
    shape = {"examples": n, "batch_size": batch_size, "accumulate": ROWS // batch_size}
    left_out: dict[str, str] = {}
    no_room = "no example fits into a prompt beside the longest input"
    left = budget * (1 - RESERVE) - n_test * (timing.answer + timing.write) - shots * timing.shot
    ways = [Planned(ZERO)]
    left -= n_query * timing.answer
    if method in ("auto", "prompt"):
        if shots:
            ways.append(Planned(FEW, shots))
            left -= n_query * timing.answer + shots * timing.shot
        else:
            left_out[FEW] = no_room
    if method in ("auto", "calibrated"):
        if task.labels and shots:
            ways.append(Planned(CALIBRATED, shots))
            left -= (n_query + 3) * timing.answer + 2 * shots * timing.shot
        else:
            left_out[CALIBRATED] = no_room if task.labels else "the answers are no labels"
    curve = (CURVE + 2) * n_query * timing.answer  # and the start, and the measurement
    most = min(MOST_STEPS, max(16, math.ceil(EPOCHS * n / ROWS)))
    few = max(6, most // 2)  # from a meta-learned start

    def training(way: str, seconds: float, most: int, forced: bool, **more) -> Planned | None:
        """Return as many steps as there are seconds for, or None."""
        steps = min(most, int((seconds - curve) / timing.step))
        if steps < LEAST_STEPS and not forced:
            needed = LEAST_STEPS * timing.step + curve
            left_out[way] = f"{LEAST_STEPS} updates take {needed:.0f} s, {max(0.0, seconds):.0f} s are left"
            return None
        steps = max(LEAST_STEPS, steps)
        return Planned(way, steps=steps, eval_every=math.ceil(steps / CURVE), **shape, **more)

    def meta(seconds: float, forced: bool) -> Planned | None:
        """Return a meta-learned start with as many iterations as there are seconds for beside the steps, or None."""
        iteration = META_INNER * timing.meta_step
        first = few * timing.step + curve
        iterations = min(META_MOST, int((seconds - first) / iteration))
        if iterations < META_LEAST and not forced:
            needed = META_LEAST * iteration + first
            left_out[META] = (
                f"{META_LEAST} tasks to learn a start from, and {few} updates, take {needed:.0f} s, "
                f"{max(0.0, seconds):.0f} s are left"
            )
            return None
        iterations = max(META_LEAST, iterations)
        return training(META, seconds - iterations * iteration, few, True, meta_iterations=iterations)

    if method in ("auto", "lora"):
        planned = training(LORA, left, most, method == "lora")
        ways += [planned] if planned else []
        left -= planned.steps * timing.step + curve if planned else 0.0
    if method in ("auto", "meta"):
        planned = meta(left, method == "meta")
        ways += [planned] if planned else []
    ways.sort(key=lambda p: METHODS.index(p.method))
    if method == "calibrated" and not shots:
        raise BadData(f"{no_room}, and calibration needs some.", "use --method lora, or shorter texts.")
    return Plan(method, seed, budget, tuple(ways), left_out, timing)


def require_method(method: str, task: Task) -> None:
    """Raise CourseError where a method is unknown, or cannot be used on a task."""
    if method not in OPTIONS:
        raise CourseError(f"the method is {method!r}.", f"choose one of {', '.join(OPTIONS)}.")
    if method == "calibrated" and not task.labels:
        raise BadData(
            "calibration needs labels, and these answers are none: they are too many, or one of them is too rare "
            "(2 to 8 different ones, each at least 3 times, are labels).",
            "use --method prompt, lora or auto.",
        )
