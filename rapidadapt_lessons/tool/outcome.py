"""What came out of a run of `adapt`: what was read, planned, tried, chosen, and then measured on the test split."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass

from ..choosing.choose import Choice
from ..choosing.methods import Trial
from ..choosing.own_data import Reading
from ..lm.tasks import Example, Task
from ..prompting.answers import Answer
from ..show.intervals import wilson
from .plan import Plan
from .saved_prompt import Adapted


@dataclass(frozen=True)
class Outcome:
    """All that the report and the model card say."""

    reading: Reading
    task: Task  # learned from its pool, and chosen by its query set, the validation split
    plan: Plan
    trials: tuple[Trial, ...]  # measured on the validation split
    failed: dict[str, str]  # methods whose training broke off, and why
    choice: Choice  # by the validation split alone
    how: Adapted  # how the chosen method is asked
    test: tuple[Example, ...]  # the test split, which no choice has seen
    answers: tuple[Answer, ...]  # of the chosen method, to the test split
    adapter_method: str  # that trained the saved adapter; empty where none did
    seconds: float  # that all of it took, without loading the model

    @property
    def right(self) -> int:
        """How many test queries were answered right."""
        return sum(answer.text == example.y for example, answer in zip(self.test, self.answers))

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy on the test split."""
        return wilson(self.right, len(self.test))

    @property
    def mistakes(self) -> list[tuple[Example, Answer]]:
        """The test queries that were answered wrong, those that the model was surest of first."""
        wrong = [(e, a) for e, a in zip(self.test, self.answers) if a.text != e.y]
        return sorted(wrong, key=lambda pair: -pair[1].probability)

    def sentence(self) -> str:
        """Say how good it is."""
        low, high = self.interval
        said = (
            f"{self.how.method} answers {self.right} of {len(self.test)} test queries right: "
            f"{self.right / len(self.test):.0%}, 95% interval {low:.0%} to {high:.0%}."
        )
        answer, count = Counter(example.y for example in self.test).most_common(1)[0]
        if count > 1 or self.right <= count:
            said += f" Always answering {answer!r} would get {count}."
        if self.right <= count:
            said += " It is no better than that: more examples, a longer budget or another method may help."
        return said

    def to_json(self) -> str:
        """Return the numbers, for programs."""
        answers = [
            {"input": e.x, "answer": e.y, "predicted": a.text, "probability": round(a.probability, 4)}
            for e, a in zip(self.test, self.answers)
        ]
        written = {
            "chosen": self.how.method,
            "test": {"right": self.right, "of": len(self.test), "interval": self.interval, "answers": answers},
            "validation": [asdict(trial) for trial in self.trials],
            "failed": self.failed,
            "left_out": self.plan.left_out,
            "seconds": self.seconds,
            "versions": versions(),
        }
        return json.dumps(written, indent=1, ensure_ascii=False) + "\n"


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("rapidadapt-lessons", "torch", "transformers", "safetensors"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
