"""The checks of the bug hunts: MAML and EWC, each with the mistakes that are made most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...meta.task_batch import Params
from ..compare import Learner, Nothing, Test, Wrong, alike, normal, require, require_kept, require_same, show
from .maml import CUT, forward_small_net, gradient_is, loss_test, random_tasks, small_net

# MAML: meta_gradient(predict, params, tasks, inner_lr) returns the loss, and its gradient by name


def _pair(value: Any, call: str) -> tuple[Any, Any]:
    if value is None:
        raise Nothing(call, "the loss, and a dict of gradients", "None", "does the function end with `return`?")
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise Wrong(call, "two things: the loss, and a dict of gradients", show(value), "return loss, gradients.")
    return value[0], value[1]


def _maml_loss(value: Any, call: str) -> Any:
    return _pair(value, call)[0]


def _maml_gradient(f: Learner) -> None:
    params, tasks, inner_lr = small_net(61), random_tasks(2, 250), 0.2
    call = "the gradient that meta_gradient(predict, params, tasks, 0.2) returns"
    grads = _pair(f(forward_small_net, params, tasks, inner_lr), call)[1]
    wanted = dict.fromkeys(params)
    if isinstance(grads, dict) and grads.keys() == wanted.keys():
        gradient_is([grads[name] for name in params], params, tasks, inner_lr, call)
    else:
        raise Wrong(call, f"a dict with the names {list(params)}", show(grads), "the gradients come by name.")


def _maml_difference(f: Learner) -> None:
    """Compare with a finite difference of the function's own loss, in double precision."""
    params = {name: p.detach().double().requires_grad_() for name, p in small_net(71).items()}
    tasks = [tuple(part.double() for part in task) for task in random_tasks(2, 290)]
    call = "meta_gradient(predict, params, tasks, 0.2), its gradient beside its loss"
    grads = _pair(f(forward_small_net, params, tasks, 0.2), call)[1]
    step = 1e-5

    def loss_at(shift: float) -> float:
        moved = {name: p.detach() + shift for name, p in params.items()}
        loss = _pair(f(forward_small_net, {n: p.requires_grad_() for n, p in moved.items()}, tasks, 0.2), call)[0]
        return float(torch.as_tensor(loss).detach())

    difference = (loss_at(step) - loss_at(-step)) / (2 * step)
    total = float(sum(grad.sum() for grad in grads.values()))
    agree = alike(total, difference) or abs(total - difference) < 1e-4 * abs(difference)
    require(agree, call, f"slope {show(difference)} when all params grow alike", f"{show(total)}", CUT)


# EWC: consolidate(log_prob, params, examples, strength) returns a function penalty(params)


def _log_prob(params: Params, example: tuple[Tensor, int]) -> Tensor:
    x, y = example
    return F.logsigmoid(y * (params["w"] @ x + params["b"]))


def _start(seed: int) -> Params:
    return {"w": normal(3, seed=seed).requires_grad_(), "b": normal(seed=seed + 1).requires_grad_()}


def _examples(count: int, seed: int) -> list[tuple[Tensor, int]]:
    return [(normal(3, seed=seed + i), 1 if i % 3 else -1) for i in range(count)]


def _penalty_of(f: Learner, params: Params, examples: list, strength: float, call: str) -> Callable:
    penalty = f(_log_prob, params, examples, strength)
    if penalty is None:
        raise Nothing(call, "a function penalty(params)", "None", "does the function end with `return penalty`?")
    require(callable(penalty), call, "a function penalty(params)", show(penalty), "return the function itself.")
    return penalty


def _ewc_is(f: Learner, count: int, strength: float, seed: int) -> None:
    params, examples = _start(seed), _examples(count, seed + 10)
    now = {name: p.detach() + normal(*p.shape, seed=seed + 5) for name, p in params.items()}
    grads = [torch.autograd.grad(_log_prob(params, e), list(params.values())) for e in examples]
    each = {name: torch.stack([g[i] for g in grads]) for i, name in enumerate(params)}

    def springs(fisher: Params, half: float = 0.5) -> Tensor:
        terms = [(fisher[name] * (now[name] - p.detach()) ** 2).sum() for name, p in params.items()]
        return half * strength * torch.stack(terms).sum()

    right = {name: g.square().mean(0) for name, g in each.items()}
    of_mean = {name: g.mean(0).square() for name, g in each.items()}
    averaged = "the gradients are averaged first and squared after. The Fisher is the mean of the squares: take the "
    averaged += "gradient of each example by itself."
    no_half = "the 1/2 is missing: the penalty is strength / 2 times the sum."
    slips = [
        (springs(right, 1.0), no_half),
        (springs(of_mean), averaged),
        (springs(of_mean, 1.0), f"{averaged} And look at the factor in front of the sum."),
        (springs({name: g.square().sum(0) for name, g in each.items()}), "the squares are added up: take their mean."),
        (springs({name: g.sum(0).square() for name, g in each.items()}), averaged),
        (springs({name: g.mean(0) for name, g in each.items()}), "the gradients are not squared."),
        (springs({name: g.abs().mean(0) for name, g in each.items()}), "the gradients are not squared."),
        (torch.zeros(()), "the penalty is zero although the weights have moved: what is it anchored to?"),
    ]
    call = f"consolidate(log_prob, params, examples, {strength}) with {count} example{'s' * (count > 1)}, "
    call += "then its penalty at other params"
    penalty = _penalty_of(f, params, examples, strength, call)
    otherwise = "strength / 2 times the sum of F (params - anchor)^2; F is the mean of squared gradients."
    require_same(penalty(now), springs(right), call, slips, otherwise)


def _ewc_one_example(f: Learner) -> None:
    _ewc_is(f, 1, 6.0, 31)


def _ewc_examples(f: Learner) -> None:
    _ewc_is(f, 6, 4.0, 51)


def _ewc_at_rest(f: Learner) -> None:
    params = _start(61)
    call = "the penalty where the weights were when consolidate was called"
    penalty = _penalty_of(f, params, _examples(4, 70), 5.0, call)
    require_same(penalty(params), torch.zeros(()), call, [], "where nothing has moved, no spring is stretched.")


def _ewc_in_place(f: Learner) -> None:
    params = _start(81)
    call = "the penalty after an optimiser has changed the params in place"
    penalty = _penalty_of(f, params, _examples(4, 90), 5.0, call)
    with torch.no_grad():
        for p in params.values():
            p += 1.0
    came = penalty(params)
    if came is None:
        raise Nothing(call, "a positive number", "None", "does `penalty` end with `return`?")
    why = (
        "the anchor is the current weights themselves, so it moves along when training changes them in place, and "
        "nothing is ever held. Keep a copy: p.detach().clone()."
    )
    require(float(came) > 1e-4, call, "more than 0: every weight has moved by 1", show(came), why)


def _ewc_gradient(f: Learner) -> None:
    params = _start(101)
    examples = _examples(3, 110)
    call = "the gradient of the penalty, after an optimiser has moved the params in place, by 1"
    each = [torch.autograd.grad(_log_prob(params, e), list(params.values())) for e in examples]
    right = {n: 2.0 * torch.stack([g[i] for g in each]).square().mean(0) for i, n in enumerate(params)}
    penalty = _penalty_of(f, params, examples, 2.0, call)
    with torch.no_grad():
        for p in params.values():
            p += 1.0
    came = penalty(params)
    connected = isinstance(came, Tensor) and came.requires_grad
    require(connected, call, "strength * F * 1", f"{show(came)}, without a graph", "`item` or `no_grad` cut the graph.")
    grads = torch.autograd.grad(came, list(params.values()), allow_unused=True, materialize_grads=True)
    slips = [
        (
            {name: torch.zeros_like(g) for name, g in right.items()},
            "the anchor still hangs on the params (`clone` without `detach`): by the graph both move alike, and no "
            "spring ever pulls. Take p.detach().clone().",
        )
    ]
    why = "the Fisher and the anchor are constants here: only the distance is differentiated."
    require_same(dict(zip(params, grads)), right, call, slips, why)


def _ewc_keeps(f: Learner) -> None:
    params = _start(121)
    before = {name: p.detach().clone() for name, p in params.items()}
    call = "consolidate(log_prob, params, examples, 2.0)"
    _penalty_of(f, params, _examples(3, 130), 2.0, call)
    require_kept(before, params, call, "the weights themselves were changed.")
    if left := [name for name, p in params.items() if p.grad is not None]:
        why = (
            "`backward` leaves gradients behind, which the next training step would use: torch.autograd.grad does not."
        )
        raise Wrong(call, "no .grad left on the params", f".grad on {left}", why)


CHECKS: dict[str, dict[str, Test]] = {
    "maml.bug_hunt": {
        "the loss of one task": loss_test("meta_gradient", _maml_loss, 41, 1, 170, 0.1),
        "the loss of three tasks": loss_test("meta_gradient", _maml_loss, 51, 3, 210, 0.2),
        "the gradient": _maml_gradient,
        "the gradient is the slope of the loss": _maml_difference,
    },
    "ewc.bug_hunt": {
        "one example": _ewc_one_example,
        "several examples": _ewc_examples,
        "no penalty where the weights were": _ewc_at_rest,
        "the anchor stays when the weights move": _ewc_in_place,
        "its gradient": _ewc_gradient,
        "the weights are left as they were": _ewc_keeps,
    },
}
