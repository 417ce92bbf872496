"""The checks of the exercises on scaling out (lesson 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...scaling.processes import weighted_mean_gradient
from ..compare import Learner, Nothing, Test, Wrong, normal, require, require_kept, require_same, show
from .cost_on_paper import PAPER_CHECKS
from .ring import RING_CHECKS

Gradient = dict[str, Tensor]


# The mean over a team


def _mean_is(f: Learner, gradients: list[Gradient], counts: list[int], call: str, otherwise: str) -> None:
    def added(*weights: float) -> Gradient:
        return {name: sum(w * g[name] for w, g in zip(weights, gradients)) for name in gradients[0]}

    n, total = len(counts), sum(counts)
    same_say = "that is the mean of the means: every process has the same say. Every token should: weigh by the counts."
    over_processes = "that is divided by the number of processes: divide by the number of all counted tokens."
    slips = [
        (added(*[1 / n] * n), same_say),
        (added(*counts), "the weighted sum is not divided yet: divide by the number of all counted tokens."),
        (added(*[1] * n), "the gradients are added as they are: each is a mean over its own tokens, so weigh it."),
        (added(*(c / n for c in counts)), over_processes),
        (added(*(c / total / n for c in counts)), "it is divided twice: the weights add up to 1 already."),
        (added(*(1 / c if c else 0 for c in counts)), "the weight is upside down: more tokens, more weight."),
        (added(*((total - c) / total for c in counts)), "each weight is the share of the *others'* tokens."),
        (added(*(c / max(counts) for c in counts)), "divided by the largest count: divide by the sum of the counts."),
        (gradients[0], "that is the first process's gradient alone: all of them belong in."),
    ]
    came = f([{name: value.clone() for name, value in g.items()} for g in gradients], list(counts))
    require_same(came, weighted_mean_gradient(gradients, counts), call, slips, otherwise)


_WEIGHTS = "the weight of process k is its count over the sum of all counts, for every parameter alike."


def _verbs_and_text(f: Learner) -> None:
    gradients, counts = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 2.0])}], [8, 252]
    call = f"mean_over_team({show(gradients)}, {counts})"
    _mean_is(f, gradients, counts, call, "8 of the 260 tokens say [1, 0], and 252 say [3, 2].")


def _gradients(n: int, seed: int) -> list[Gradient]:
    return [{"A": normal(2, 3, seed=seed + k), "B": normal(3, seed=seed + 50 + k)} for k in range(n)]


def _three_processes(f: Learner) -> None:
    counts = [5, 20, 11]
    _mean_is(f, _gradients(3, 1), counts, f"mean_over_team(gradients, {counts}), two parameters each", _WEIGHTS)


def _one_without_tokens(f: Learner) -> None:
    gradients, counts = _gradients(3, 11), [4, 0, 9]
    gradients[1] = {name: torch.zeros_like(value) for name, value in gradients[1].items()}
    call = f"mean_over_team(gradients, {counts}), where process 1 had nothing to count and its gradient is zeros"
    _mean_is(f, gradients, counts, call, _WEIGHTS)


def _one_process_with_all(f: Learner) -> None:
    """Each token's loss is a bowl, 1/2 (theta - c)^2: its gradient is theta - c, in one process or in several."""
    theta, centres, counts = torch.tensor([0.5, -1.0]), normal(10, 2, seed=21), [1, 7, 2]
    own = [{"theta": theta - part.mean(dim=0)} for part in centres.split(counts)]
    call = f"mean_over_team(gradients, {counts}), against the gradient of one process that has all ten tokens"
    came = f(own, list(counts))
    require_same(came, {"theta": theta - centres.mean(dim=0)}, call, [], _WEIGHTS)


def _gradients_kept(f: Learner) -> None:
    given, counts = _gradients(2, 31), [3, 5]
    after = [{name: value.clone() for name, value in g.items()} for g in given]
    f(after, counts)
    for k, gradient in enumerate(given):
        before = {f"gradients[{k}]['{name}']": value for name, value in gradient.items()}
        now = {f"gradients[{k}]['{name}']": value for name, value in after[k].items()}
        why = "`+=` or `*=` changed a process's own gradient in place. Make a new tensor."
        require_kept(before, now, "mean_over_team(gradients, [3, 5])", why)


# A process's share


def _shares(f: Learner, rows: list[Any], processes: int) -> tuple[list[list[Any]], str]:
    """Return what each process takes, and how that was asked."""
    shares, what = [], show(rows, 120) if len(rows) <= 12 else f"{len(rows)} rows"
    for rank in range(processes):
        call, given = f"my_share(rows, rank={rank}, processes={processes}) with rows = {what}", list(rows)
        came = f(given, rank, processes)
        if came is None:
            raise Nothing(call, "some of the rows, as a list", "None", "does the function end with `return`?")
        is_list = isinstance(came, Sequence) and not isinstance(came, str)
        why = "give back the rows themselves, as a list; an empty one where there are none left to take."
        require(is_list, call, "some of the rows, as a list", show(came), why)
        require(given == rows, call, "rows left as they were", show(given), "the caller's list was changed.")
        shares.append(list(came))
    return shares, f"my_share(rows, rank, {processes}) for every rank, with rows = {what}"


def _divides(f: Learner, rows: list[Any], processes: int) -> None:
    shares, call = _shares(f, rows, processes)
    n, k, came = len(rows), len(rows) // processes, show(shares, 200)
    taken = [row for share in shares for row in share]
    expected = f"each of the {n} rows taken exactly once, shares of {k}" + (f" or {k + 1}" if n % processes else "")

    def stop(why: str) -> None:
        raise Wrong(call, expected, came, why)

    if any(row not in rows for row in taken):
        places = all(isinstance(row, int) for row in taken)
        stop("those are places: give back the rows that stand there." if places else "these are not among the rows.")
    extra, lost = len(taken) - n, any(taken.count(row) < rows.count(row) for row in rows)
    if processes > 1 and all(share == rows for share in shares):
        stop("every process takes all the rows: then each computes the whole update, and nothing is shared.")
    if processes > 1 and taken and all(share == shares[0] for share in shares):
        stop("every process takes the same rows. Which ones has to depend on the rank.")
    if processes > 1 and shares[0] == [] and lost:
        stop("process 0 takes nothing and some rows are left: ranks count from 0.")
    if lost and not any(taken.count(row) > rows.count(row) for row in rows):
        why = (
            f"the remainder is dropped: {n} rows do not divide by {processes}, and the rows left over are rows, too."
            if len(taken) == k * processes
            else "a row that nobody takes never counts. (Where two rows are equal, each of them counts.)"
        )
        stop(why)
    if lost:
        stop("some rows are taken twice and others by nobody: where one share ends, the next has to begin.")
    if extra > 0:
        padded = len({len(share) for share in shares}) == 1
        stop(
            "rows are repeated to make the shares equally long: a row taken twice counts double in the update."
            if padded
            else "a row is taken by two processes, and counts double in the update. Where does one share end, and the "
            "next begin?"
        )
    longest, shortest = max(map(len, shares)), min(map(len, shares))
    if longest - shortest > 1 and len(set(rows)) < n:
        stop("rows that are equal all go to one process. Go by places: `rows.index` finds the first of them each time.")
    if longest - shortest > 1:
        why = (
            "one process takes the whole remainder, and the others wait for it: give one row more to some of them."
            if shortest == k
            else "the shares are rounded up, so the last one is left with too little: let shares differ by one at most."
        )
        stop(why)


def _even_rows(f: Learner) -> None:
    _divides(f, list("abcdefgh"), 2)


def _uneven_rows(f: Learner) -> None:
    _divides(f, list("abcdefgh"), 3)


def _any_numbers(f: Learner) -> None:
    for n, processes in ((25, 2), (9, 4), (10, 4), (11, 4), (31, 8), (5, 1)):
        _divides(f, list(range(100, 100 + n)), processes)


def _too_few_rows(f: Learner) -> None:
    _divides(f, ["a", "b"], 4)


def _equal_rows(f: Learner) -> None:
    _divides(f, ["go", "go", "see", "be", "go"], 2)


CHECKS: dict[str, dict[str, Test]] = {
    "scaling.mean_over_team": {
        "8 tokens of verbs, 252 of text": _verbs_and_text,
        "three processes, two parameters": _three_processes,
        "a process that counted nothing": _one_without_tokens,
        "the gradient of one process with all tokens": _one_process_with_all,
        "the gradients are left as they were": _gradients_kept,
    },
    "scaling.my_share": {
        "eight rows, two processes": _even_rows,
        "eight rows, three processes": _uneven_rows,
        "other numbers of rows and processes": _any_numbers,
        "fewer rows than processes": _too_few_rows,
        "rows that are equal": _equal_rows,
    },
    "scaling.ring_all_reduce": RING_CHECKS,
    "scaling.training_bytes_on_paper": PAPER_CHECKS,
}
