"""How long each method may train: decided from a budget and a short timing, before anything is trained.

The same plan and seed (`adapt --plan`) give the same adapter on a slower machine, in more time.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..choosing.methods import CALIBRATED, FEW, FULL, LORA, META, METHODS, ZERO, most_examples
from ..errors import BadData, CourseError
from ..guards import require_one_of
from ..lm.tasks import Task
from ..meta.meta_lora import MetaConfig
from ..training.loop import TrainConfig
from .timing import META_ROWS, ROWS, Timing

METHOD_CHOICES = ("auto", "prompt", "calibrated", "lora", "meta")  # of --method
EPOCHS, LEAST_UPDATES, MOST_UPDATES = 10, 4, 400
CURVE = 4  # evaluations along the training
META_LEAST, META_MOST, META_INNER = 12, 60, 3  # iterations, and inner steps of each
RESERVE = 0.15  # of the budget, for what was not timed


@dataclass(frozen=True)
class Planned:
    """What one method will do, in counts, which mean the same on every machine."""

    method: str  # one of `methods.METHODS`
    examples: int = 0  # in the prompt, or to train on
    steps: int = 0  # updates of the adapter, each on `batch_size` times `accumulate` examples
    batch_size: int = ROWS
    accumulate: int = 1
    eval_every: int = 0  # updates between two points of the learning curve
    meta_iterations: int = 0  # tasks visited beforehand to learn a start

    def training(self, seed: int) -> TrainConfig:
        """Return how the adapter is trained."""
        numbers = {name: getattr(self, name) for name in ("steps", "batch_size", "accumulate", "eval_every")}
        return replace(FULL, seed=seed, **numbers)

    def meta_training(self, seed: int) -> MetaConfig:
        """Return how the start is meta-learned."""
        return MetaConfig(self.meta_iterations, META_INNER, META_ROWS, inner_lr=1e-3, outer_lr=0.6, seed=seed)

    def sentence(self) -> str:
        """Return it as a line for people."""
        parts = [f"{self.examples} examples"] if self.examples else []
        if self.steps:
            parts.append(f"{self.steps} updates of {min(self.examples, self.batch_size * self.accumulate)} examples")
        if self.meta_iterations:
            parts.append(f"a start meta-learned on {self.meta_iterations} other tasks")
        return f"{self.method}: {', '.join(parts) or 'no examples'}"


@dataclass(frozen=True)
class Plan:
    """What will be tried."""

    method: str  # one of METHOD_CHOICES
    seed: int  # of the split, of draws and of training
    budget: float  # seconds, which the plan was made for
    methods: tuple[Planned, ...]  # in the order of `methods.METHODS`
    left_out: dict[str, str]  # methods that are not tried, and why

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def candidates(self) -> tuple[str, ...]:
        """Return the methods to choose from; zero-shot only where neither training nor calibration was asked for."""
        tried = tuple(p.method for p in self.methods)
        return tried if self.method in ("auto", "prompt") else tuple(method for method in tried if method != ZERO)


def parse_budget(text: str) -> float:
    """Return the seconds of "120s", "2m", "1.5h" or "90". Raises CourseError for anything else, and for 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*", text)
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds:
        raise CourseError(f"the budget is {text!r}.", 'give a time, such as "120s", "2m" or "1h".')
    return seconds


def read_plan(path: str | Path) -> Plan:
    """Read a plan. Raises BadData where the file is missing, or no plan."""
    path, remedy = Path(path), "give a plan.json that `adapt` wrote."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        planned = tuple(_checked(Planned(**one)) for one in found["methods"])
        if found["method"] not in METHOD_CHOICES or type(found["seed"]) is not int or not planned:
            raise ValueError(f"method {found['method']!r}, seed {found['seed']!r}, {len(planned)} methods")
        return Plan(found["method"], found["seed"], float(found["budget"]), planned, dict(found["left_out"]))
    except OSError as error:
        raise BadData(f"{path.name} cannot be read ({error.strerror}).", remedy) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CourseError) as error:
        why = error.problem if isinstance(error, CourseError) else f"{type(error).__name__}: {str(error)[:100]}"
        raise BadData(f"{path.name} is no plan ({why}).", remedy) from error


def _checked(planned: Planned) -> Planned:
    """Return what was read, or raise where it makes no sense."""
    numbers = asdict(planned)
    method = numbers.pop("method")
    if method not in METHODS or not all(type(n) is int and 0 <= n <= 10**6 for n in numbers.values()):
        raise ValueError(f"{method!r} with {numbers}")
    if method in (LORA, META):
        planned.training(0)
    if method == META:
        planned.meta_training(0)
    return planned


def require_possible(plan: Plan, task: Task) -> None:
    """Raise BadData where a plan asks for more examples than there are, or for a calibration without labels."""
    for planned in plan.methods:
        most = most_examples(task) if planned.method in (ZERO, FEW, CALIBRATED) else len(task.support_pool)
        if planned.examples > most:
            problem = (
                f"the plan asks for {planned.examples} examples for {planned.method}; there are {most} to learn from."
            )
            raise BadData(problem, "use the data that the plan was made for, or leave --plan out.")
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

    Raises BadData where calibration was asked for and a prompt has no room for examples.
    """
    no_room = "no example fits into a prompt beside the longest input"
    if method == "calibrated" and not shots:
        raise BadData(f"{no_room}, and calibration needs some.", "use --method lora, or shorter texts.")
    n, n_query = len(task.support_pool), len(task.query_set)
    shape = {"examples": n, "batch_size": batch_size, "accumulate": ROWS // batch_size}
    planned, left_out = [Planned(ZERO)], {}
    left = budget * (1 - RESERVE) - n_test * (timing.answer + timing.write) - shots * timing.shot
    left -= n_query * timing.answer
    if method in ("auto", "prompt"):
        if shots:
            planned.append(Planned(FEW, shots))
            left -= n_query * timing.answer + shots * timing.shot
        else:
            left_out[FEW] = no_room
    if method in ("auto", "calibrated"):
        if task.labels and shots:
            planned.append(Planned(CALIBRATED, shots))
            left -= (n_query + 3) * timing.answer + 2 * shots * timing.shot
        else:
            left_out[CALIBRATED] = no_room if task.labels else "the answers are no labels"
    curve = (CURVE + 2) * n_query * timing.answer  # and the start, and the measurement
    most = min(MOST_UPDATES, max(16, math.ceil(EPOCHS * n / ROWS)))

    def training(name: str, seconds: float, most: int, **more) -> Planned:
        """Return as many updates as there are seconds for, and LEAST_UPDATES in any case."""
        steps = max(LEAST_UPDATES, min(most, int((seconds - curve) / timing.step)))
        return Planned(name, steps=steps, eval_every=math.ceil(steps / CURVE), **shape, **more)

    if method in ("auto", "lora"):
        if int((left - curve) / timing.step) >= LEAST_UPDATES or method == "lora":
            planned.append(training(LORA, left, most))
            left -= planned[-1].steps * timing.step + curve
        else:
            left_out[LORA] = f"{LEAST_UPDATES} updates take {_missing(LEAST_UPDATES * timing.step + curve, left)}"
    if method in ("auto", "meta"):
        few = max(6, most // 2)  # updates from a meta-learned start
        iteration, after = META_INNER * timing.meta_step, few * timing.step + curve
        iterations = min(META_MOST, int((left - after) / iteration))
        if iterations >= META_LEAST or method == "meta":
            iterations = max(META_LEAST, iterations)
            planned.append(training(META, left - iterations * iteration, few, meta_iterations=iterations))
        else:
            needed = _missing(META_LEAST * iteration + after, left)
            left_out[META] = f"{META_LEAST} tasks to learn a start from, and {few} updates, take {needed}"
    planned.sort(key=lambda p: METHODS.index(p.method))
    return Plan(method, seed, budget, tuple(planned), left_out)


def _missing(needed: float, left: float) -> str:
    return f"{needed:.0f} s, {max(0.0, left):.0f} s are left"


def require_method(method: str, task: Task) -> None:
    """Raise CourseError where a method is unknown, or cannot be used on a task."""
    require_one_of(METHOD_CHOICES, "method", method)
    if method == "calibrated" and not task.labels:
        problem = "calibration needs labels, and these answers are none: they are too many, or one of them is too rare "
        problem += "(2 to 8 different ones, each at least 3 times, are labels)."
        raise BadData(problem, "use --method prompt, lora or auto.")
