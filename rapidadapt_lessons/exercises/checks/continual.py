"""The checks of the exercises on continual learning (lesson 8)."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from ...meta.task_batch import Params
from ..compare import Learner, Nothing, Test, Wrong, normal, require, require_kept, require_same, show


def _transfer_is(f: Learner, rows: list[list[float]], otherwise: str) -> None:
    r = torch.tensor(rows, dtype=torch.float64)
    n = len(r)
    change = r[-1] - r.diagonal()
    right = float(change[:-1].mean())
    best = torch.stack([r[j:-1, j].max() for j in range(n - 1)])
    slips = [
        (-right, "the sign is the other way round: forgetting is a negative transfer, end minus beginning."),
        (
            float(change.sum()) / n,
            "the average is over T - 1 parts. The last one had no time to be forgotten: leave it out of the count.",
        ),
        (float(change.sum()), "that is the sum: divide by the T - 1 parts that something came after."),
        (float((best - r[-1, :-1]).mean()), "that is forgetting, from the best score. Compare with R[j][j]."),
        (float((r[-1, :-1] - best).mean()), "compare with the score just after the part was learned, R[j][j]."),
        (float((r[-1] - r[0])[:-1].mean()), "the first row was subtracted. Part j was learned in row j: use R[j][j]."),
        (float((r[-1] - r[0]).mean()), "the first row was subtracted. Part j was learned in row j: use R[j][j]."),
        (float((r[:, -1] - r.diagonal())[:-1].mean()), "rows and columns are exchanged: the last row is the end."),
        (float(r[-1].mean()), "that is the average accuracy: how far did the scores move since they were learned?"),
        (float(r[-1, :-1].mean()), "those are the scores at the end alone: subtract what they were before."),
        (float(change[1:].mean()), "the first part is left out in place of the last."),
    ]
    require_same(f([list(row) for row in rows]), right, f"backward_transfer({rows})", slips, otherwise)


_TWO = [[0.9, 0.1], [0.6, 0.8]]
_THREE = [[0.9, 0.2, 0.1], [0.5, 0.7, 0.3], [0.6, 0.4, 0.8]]
_BY_HAND = "for each part but the last: R[T-1][j] - R[j][j]. Then their mean."


def _two_parts(f: Learner) -> None:
    _transfer_is(f, _TWO, "part 0 went from 0.9 to 0.6, and part 1 had nothing after it: -0.3.")


def _three_parts(f: Learner) -> None:
    _transfer_is(f, _THREE, _BY_HAND)


def _backward_gain(f: Learner) -> None:
    _transfer_is(f, [[0.5, 0.0, 0.2], [0.6, 0.6, 0.4], [0.8, 0.7, 0.9]], _BY_HAND)


def _many_parts(f: Learner) -> None:
    rows = torch.rand(5, 5, generator=torch.Generator().manual_seed(3)).mul(1000).round().div(1000)
    _transfer_is(f, [[round(value, 3) for value in row] for row in rows.tolist()], _BY_HAND)


# EWC's penalty


def _penalty_is(f: Learner, params: Params, anchor: Params, fisher: Params, strength: float) -> None:
    def added(term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return torch.stack([term(params[k] - anchor[k], fisher[k]).sum() for k in params]).sum()

    right = strength / 2 * added(lambda d, w: w * d**2)
    numbers = sum(p.numel() for p in params.values())
    slips = [
        (right * 2, "the 1/2 is missing: the penalty is strength / 2 times the sum."),
        (right / strength * 2, "that is the sum alone: multiply it by strength / 2."),
        (right / strength, "the strength is missing."),
        (right / numbers, "that is a mean over the parameters. Add them up: each has its own spring."),
        (right / len(params), "that is a mean over the names. Add them up."),
        (
            strength / 2 * torch.stack([(fisher[k] * (params[k] - anchor[k]) ** 2).mean() for k in params]).sum(),
            "each tensor's mean is taken. Add up over all of its elements: each has its own spring.",
        ),
        (strength / 2 * added(lambda d, w: w**2 * d**2), "the Fisher is squared. It holds squares already."),
        (strength / 2 * added(lambda d, w: (w * d) ** 2), "the Fisher is squared too: only the distance is."),
        (strength / 2 * added(lambda d, w: w * d), "the distance is not squared."),
        (strength / 2 * added(lambda d, w: w * d.abs()), "the distance is not squared: its size was taken."),
        (strength / 2 * added(lambda d, w: d**2), "the Fisher is missing: all parameters are held equally fast."),
        (
            strength / 2 * torch.stack([(fisher[k] * params[k] ** 2).sum() for k in params]).sum(),
            "the anchor is missing: springs pull to where the weights were, and not to zero.",
        ),
        (
            strength / 2 * torch.stack([fisher[k].sum() * (params[k] - anchor[k]).pow(2).sum() for k in params]).sum(),
            "the sums were multiplied. Multiply element by element first, then add up.",
        ),
        (-right, "the sign is wrong: moving away costs, so the penalty is positive."),
    ]
    if numbers > 2:
        given = ", ".join(f"{name} {list(p.shape)}" for name, p in params.items())
    else:
        given = f"params = {show(params)}, anchor = {show(anchor)}, fisher = {show(fisher)}"
    call = f"ewc_penalty(params, anchor, fisher, {strength}) with {given}"
    otherwise = "strength / 2 times the sum, over every number of every tensor, of fisher * (params - anchor)^2."
    require_same(f(params, anchor, fisher, strength), right, call, slips, otherwise)


def _weights(seed: int) -> Params:
    return {"weight": normal(2, 3, seed=seed), "bias": normal(2, seed=seed + 1)}


def _stiffness(seed: int) -> Params:
    return {name: value.square() for name, value in _weights(seed).items()}


def _one_spring(f: Learner) -> None:
    _penalty_is(f, {"w": torch.tensor([4.0])}, {"w": torch.tensor([1.0])}, {"w": torch.tensor([0.3])}, 10.0)


def _springs_in_one_tensor(f: Learner) -> None:
    at, stiff = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([2.0, 0.1])}
    _penalty_is(f, {"w": torch.tensor([0.0, 4.0])}, at, stiff, 3.0)


def _many_springs(f: Learner) -> None:
    _penalty_is(f, _weights(1), _weights(3), _stiffness(5), 25.0)


def _penalty_gradient(f: Learner) -> None:
    params = {name: p.requires_grad_() for name, p in _weights(11).items()}
    anchor, fisher = _weights(13), _stiffness(15)
    came = f(params, anchor, fisher, 4.0)
    call = "the gradient of ewc_penalty(params, anchor, fisher, 4.0) with respect to params"
    connected = isinstance(came, Tensor) and came.requires_grad
    why = "`item`, `float`, `detach` or `no_grad` cut the graph, and then the penalty holds nothing back in training."
    require(connected, call, "strength * fisher * (params - anchor)", f"{show(came)}, without a graph", why)
    grads = torch.autograd.grad(came, list(params.values()), allow_unused=True, materialize_grads=True)
    right = {name: 4.0 * fisher[name] * (p - anchor[name]) for name, p in params.items()}
    require_same(dict(zip(params, grads)), right, call, [], "a part of the sum is cut off from the graph.")


def _penalty_keeps(f: Learner) -> None:
    before = {"params": normal(3, seed=21), "anchor": normal(3, seed=22), "fisher": normal(3, seed=23).square()}
    after = {name: value.clone() for name, value in before.items()}
    f(*({"w": value} for value in after.values()), 2.0)
    require_kept(before, after, "ewc_penalty(params, anchor, fisher, 2.0)", "`-=` or `*=` changed the caller's tensor.")


# The reservoir


def _run_stream(f: Learner, size: int, length: int, rng: random.Random) -> list[int]:
    buffer: list[int] = []
    for seen in range(length):
        call = f"reservoir_add({buffer}, {seen}, seen={seen}, size={size}, rng)"
        came = f(list(buffer), seen, seen, size, rng)
        if came is None:
            raise Nothing(call, "the buffer, as a list", "None", "does the function end with `return buffer`?")
        require(isinstance(came, list), call, "the buffer, as a list", show(came), "return the list of what is kept.")
        right = min(seen + 1, size)
        lost = "an item is lost: while there is room, keep everything; after that, replace one."
        why = (
            "the buffer outgrows its room: once it is full, an item may only replace another."
            if len(came) > right
            else lost
        )
        require(len(came) == right, call, f"{right} items", f"{len(came)}: {show(came)}", why)
        known = set(came) <= set(buffer) | {seen} and len(set(came)) == len(came)
        require(
            known, call, "items from the buffer, or the new one, each once", show(came), "nothing else belongs there."
        )
        buffer = came
    return buffer


def _fills_up(f: Learner) -> None:
    came = _run_stream(f, 4, 4, random.Random(1))
    call = "four items offered to a buffer of size 4"
    require(
        sorted(came) == [0, 1, 2, 3], call, "all four are kept", show(came), "while there is room, keep everything."
    )


def _stays_full(f: Learner) -> None:
    for size, length in ((3, 20), (1, 10), (5, 6)):
        _run_stream(f, size, length, random.Random(2))


_TRIALS, _CLOSE = 3000, 0.06  # of 3000 shares, 0.06 is more than 6 standard deviations


def _comes_in(f: Learner, size: int, seen: int) -> None:
    """Offer one item to a full buffer, many times: how often does it come in?"""
    rng, right = random.Random(seen), size / (seen + 1)
    results = [f(list(range(size)), "new", seen, size, rng) for _ in range(_TRIALS)]
    share = sum("new" in result for result in results) / _TRIALS
    if abs(share - right) < _CLOSE:
        return
    slides = all(result == [*range(1, size), "new"] for result in results)
    if slides:
        why = "only the newest are kept: that is a sliding window. An old item has to have its chance too."
    elif share == 0:
        why = "the first items stay for ever, and none of the later ones gets in. A new one has to have its chance."
    elif abs(share - size / seen) < _CLOSE / 2:
        why = "the new item counts itself too: `seen` is how many came before it, so seen + 1 have been offered now."
    elif share == 1:
        why = "the newest item is always kept. It may come in with probability size / (seen + 1) only."
    elif abs(share - 1 / (seen + 1)) < _CLOSE / 2:
        why = "it comes in with probability 1 / (seen + 1). There are `size` places for it, so: size / (seen + 1)."
    else:
        why = "after this item seen + 1 have been offered. All should have the same chance: size / (seen + 1)."
    call = f"an item offered to a full buffer of {size}, seen = {seen}, {_TRIALS} times: how often does it come in?"
    raise Wrong(call, f"{right:.2f}", f"{share:.2f}", why)


def _comes_in_late(f: Learner) -> None:
    _comes_in(f, 3, 9)


def _comes_in_first(f: Learner) -> None:
    _comes_in(f, 3, 3)


def _replaces_any(f: Learner) -> None:
    rng, stayed = random.Random(5), [0, 0, 0]
    for _ in range(_TRIALS):
        for item in f([0, 1, 2], 3, 3, 3, rng):
            if item < 3:
                stayed[item] += 1
    shares = [count / _TRIALS for count in stayed]
    call = f"an item offered to a full buffer of 3, seen = 3, {_TRIALS} times: how often does each old item stay?"
    why = "which item is replaced has to be drawn too, each with the same chance."
    told = ", ".join(f"{share:.2f}" for share in shares)
    require(all(abs(share - 0.75) < _CLOSE for share in shares), call, "0.75 for each", told, why)


def _fair(f: Learner) -> None:
    for size, length in ((3, 10), (1, 3)):
        rng, counts = random.Random(size), [0] * length
        for _ in range(_TRIALS):
            buffer: list[int] = []
            for seen in range(length):
                buffer = f(buffer, seen, seen, size, rng)
            for item in buffer:
                counts[item] += 1
        shares, right = [count / _TRIALS for count in counts], size / length
        call = f"{_TRIALS} streams of {length} items, a buffer of {size}: how often is each item kept?"
        why = "every item so far should have the same chance to be kept, early or late."
        told = ", ".join(f"{share:.2f}" for share in shares)
        require(all(abs(share - right) < _CLOSE for share in shares), call, f"{right:.2f} for each", told, why)


def _uses_rng(f: Learner) -> None:
    runs = [_run_stream(f, 5, 60, random.Random(7)) for _ in range(2)]
    call = "the same stream twice, with an rng of the same seed"
    why = "draw with the `rng` that is handed over, and not with `random` itself: a run has to be repeatable."
    require(runs[0] == runs[1], call, show(runs[0]), show(runs[1]), why)


CHECKS: dict[str, dict[str, Test]] = {
    "continual.backward_transfer": {
        "two parts": _two_parts,
        "three parts": _three_parts,
        "a stream that helps earlier parts": _backward_gain,
        "five parts, random numbers": _many_parts,
    },
    "continual.ewc_penalty": {
        "one spring": _one_spring,
        "two springs in one tensor": _springs_in_one_tensor,
        "two tensors, random numbers": _many_springs,
        "its gradient": _penalty_gradient,
        "the inputs are left as they were": _penalty_keeps,
    },
    "continual.reservoir": {
        "while there is room, everything is kept": _fills_up,
        "it never outgrows its room": _stays_full,
        "late in a stream, an item comes in now and then": _comes_in_late,
        "the first item after the buffer is full may be let go": _comes_in_first,
        "any of the old items may have to go": _replaces_any,
        "over whole streams, each item has the same chance": _fair,
        "the same seed gives the same buffer": _uses_rng,
    },
}
