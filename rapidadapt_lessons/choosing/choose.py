"""Which method to adapt by, given what was measured and the reader's examples, seconds and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import CourseError
from ..guards import require_some
from .methods import Trial, by_method


@dataclass(frozen=True)
class Limits:
    """What the reader has. Raises CourseError where a limit is negative."""

    examples: int  # solved ones at hand
    prepare_seconds: float = float("inf")  # from the examples to the first answer
    memory_bytes: float = float("inf")  # beside the weights of the model
    stored_bytes: float = float("inf")  # to be kept on disk
    changing: bool = False  # whether the old task must still work after a new one has been learned

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise CourseError(f"{name} is {value}.", "give 0 or more.")


@dataclass(frozen=True)
class Choice:
    """What to use, and why."""

    trial: Trial | None  # that won; None where no method keeps within the limits
    scores: dict[str, float]  # for each method that does, its quality, less what a change would cost it
    excluded: dict[str, str]  # for each other method, why not
    reason: str  # the choice in a sentence or two


def choose(
    trials: Sequence[Trial], limits: Limits, lost: Mapping[str, float] | None = None, *, close: float = 1.0
) -> Choice:
    """Choose the best method within the limits.

    Each method is judged by its trial with the most examples at hand, and is out where that one is beyond another limit
    (picking the best of its trials would be picking luck from the same queries). Methods within one query of the best
    count as equally good, and of those the one with the least effort wins, in the order of `METHODS`. All are compared
    on the same queries, so the winner's share is a little too good, and its interval a little too narrow.

    Args:
        lost: for each method, the share of the first task's queries that it no longer answers after a second task was
            learned; needed, and subtracted, where `limits.changing`.
        close: the most that counts as equally good, as a share, where that is less than one query.

    Raises CourseError where there are no trials, or `lost` lacks a method that it is needed for.
    """
    require_some(trials, "trials to choose from", "run methods.try_each_method first.")
    best: dict[str, Trial] = {}
    excluded: dict[str, str] = {}
    for method, of_method in by_method(trials).items():
        at_hand = [t for t in of_method if t.examples <= limits.examples]
        judged = at_hand[-1] if at_hand else of_method[0]
        if why := _beyond(judged, limits):
            excluded[method] = why
        else:
            best[method] = judged
    if not best:
        return Choice(None, {}, excluded, "No method keeps within these limits: allow more of something.")
    cost = (lost or {}) if limits.changing else dict.fromkeys(best, 0.0)
    if missing := best.keys() - cost.keys():
        problem = f"nothing was measured of what {', '.join(sorted(missing))} would lose."
        raise CourseError(problem, "pass it in `lost`.")
    scores = {method: t.quality - cost[method] for method, t in best.items()}
    top = max(scores.values())
    one_query = min(close, 1 / len(next(iter(best.values())).right))
    level = [method for method in best if scores[method] > top - one_query - 1e-9]
    winner = best[level[0]]
    reason = f"{_listed([winner.method])} with {winner.examples} examples answers {winner.quality:.0%} of the queries."
    if change := cost[winner.method]:
        reason += f" A second task then {'loses' if change > 0 else 'gains'} it {abs(change):.0%} of them."
    if better := [method for method in level[1:] if scores[method] > scores[winner.method] + 1e-9]:
        reason += f" {_listed(better)} answered a query more at most, for more effort."
    if equal := [method for method in level[1:] if method not in better]:
        verb = "is" if len(equal) == 1 else "are"
        reason += f" {_listed(equal)} {verb} within one query of the best too, for more effort."
    return Choice(winner, scores, excluded, reason)


def _beyond(trial: Trial, limits: Limits) -> str:
    """Return which limit a trial is beyond, in words; empty if none."""
    needs = {
        "examples": f"needs {trial.examples} examples",
        "prepare_seconds": f"takes {trial.prepare_seconds:.0f} s to prepare",
        "memory_bytes": f"needs {trial.memory_bytes / 1e6:.0f} MB beside the weights",
        "stored_bytes": f"stores {trial.stored_bytes / 1e3:.0f} kB",
    }
    return next((words for name, words in needs.items() if getattr(trial, name) > getattr(limits, name)), "")


def _listed(names: Sequence[str]) -> str:
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return text[0].upper() + text[1:]
