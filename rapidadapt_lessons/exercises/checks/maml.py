"""The checks of the exercises on MAML from scratch (lesson 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...meta.task_batch import Params
from ..compare import Learner, Test, normal, require, require_kept, require_same, show

FewShotTask = tuple[Tensor, Tensor, Tensor, Tensor]  # support x, support y, query x, query y


def _params(seed: int) -> Params:
    return {"w": normal(3, seed=seed), "b": normal(seed=seed + 1)}


def _reptile_is(f: Learner, params: Params, adapted: Sequence[Params], meta_lr: float) -> None:
    mean = {name: torch.stack([task[name] for task in adapted]).mean(0) for name in params}
    right = {name: p + meta_lr * (mean[name] - p) for name, p in params.items()}
    slips = [
        (mean, "that is the mean of the adapted parameters. Reptile goes only a part of the way, meta_lr."),
        (
            {name: p - meta_lr * (mean[name] - p) for name, p in params.items()},
            "the step leads away from the adapted parameters: the sign is wrong.",
        ),
        (
            {name: p + meta_lr * len(adapted) * (mean[name] - p) for name, p in params.items()},
            "the moves of all tasks are added up. Take their mean.",
        ),
        (
            {name: p + meta_lr * mean[name] for name, p in params.items()},
            "the adapted parameters themselves were added. What counts is how far they moved: adapted - params.",
        ),
        ({name: p + mean[name] - p for name, p in params.items()}, "meta_lr is missing."),
        (
            {name: p + meta_lr * (adapted[-1][name] - p) for name, p in params.items()},
            "only the last task counts: take the mean over all of them.",
        ),
        (
            {name: p + meta_lr * (adapted[0][name] - p) for name, p in params.items()},
            "only the first task counts: take the mean over all of them.",
        ),
        ({name: meta_lr * (mean[name] - p) for name, p in params.items()}, "that is the move alone: add it to params."),
        (_one_after_another(params, adapted, meta_lr), "the tasks are gone through one after another, and the later "
         "ones move what the earlier ones left. Average their moves, all from the same params."),
    ]  # fmt: skip
    call = f"reptile_step(params, adapted, {meta_lr}) with params = {show(params)} and {len(adapted)} adapted"
    came = f(
        {n: p.clone() for n, p in params.items()}, [{n: p.clone() for n, p in t.items()} for t in adapted], meta_lr
    )
    require_same(came, right, call, slips, "new = params + meta_lr * mean over tasks of (adapted - params).")


def _one_after_another(params: Params, adapted: Sequence[Params], meta_lr: float) -> Params:
    for task in adapted:
        params = {name: p + meta_lr * (task[name] - p) for name, p in params.items()}
    return params


def _reptile_one_task(f: Learner) -> None:
    _reptile_is(f, {"w": torch.tensor([1.0, 2.0])}, [{"w": torch.tensor([3.0, 1.0])}], 0.5)


def _reptile_tasks(f: Learner) -> None:
    _reptile_is(f, _params(1), [_params(3), _params(5), _params(7)], 0.1)


def _reptile_at_rest(f: Learner) -> None:
    params = _params(11)
    _reptile_is(f, params, [params, params], 0.3)


def _reptile_keeps(f: Learner) -> None:
    before, adapted = _params(13), _params(15)
    after = {name: p.clone() for name, p in before.items()}
    f(after, [adapted], 0.1)
    why = "the caller's params were changed in place: build a new dict of new tensors."
    require_kept(before, after, "reptile_step(params, adapted, 0.1)", why)


def forward_small_net(params: Params, x: Tensor) -> Tensor:
    """A small net with one hidden layer of 3: x [shots, 1] in, [shots, 1] out."""
    return (x @ params["w1"] + params["b1"]).tanh() @ params["w2"]


def small_net(seed: int) -> Params:
    shapes = {"w1": (1, 3), "b1": (3,), "w2": (3, 1)}
    return {n: normal(*s, seed=seed + i).requires_grad_() for i, (n, s) in enumerate(shapes.items())}


def random_tasks(count: int, seed: int) -> list[FewShotTask]:
    """Return tasks whose support and query are of different sizes, and lie on different curves."""
    tasks = []
    for i in range(count):
        x, q = normal(4, 1, seed=seed + 10 * i), normal(5, 1, seed=seed + 10 * i + 1)
        tasks.append((x, (i + 1) * x.sin(), q, (i + 1) * q.sin() + 0.5))
    return tasks


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


def _meta_loss(
    params: Params, tasks: Sequence[FewShotTask], inner_lr: float, *,
    judge: str = "query", second_order: bool = True, carry: bool = False, sign: int = -1, adapt_on: str = "support",
) -> Tensor:  # fmt: skip
    """Return the sum over tasks of the loss after one inner step: as it should be, or with a known mistake."""
    total, start = torch.zeros(()), params
    for sx, sy, qx, qy in tasks:
        data = {"support": (sx, sy), "query": (qx, qy)}
        x, y = data[adapt_on]
        grads = torch.autograd.grad(
            _mse(forward_small_net(start, x), y), list(start.values()), create_graph=second_order
        )
        fast = {name: p + sign * inner_lr * g for (name, p), g in zip(start.items(), grads)}
        x, y = data[judge]
        total = total + _mse(forward_small_net(fast, x), y)
        start = fast if carry else params
    return total


def _value_slips(params: Params, tasks: Sequence[FewShotTask], inner_lr: float) -> list[tuple[Any, str]]:
    n = len(tasks)
    query = sum(_mse(forward_small_net(params, qx), qy) for _, _, qx, qy in tasks)
    mean = _meta_loss(params, tasks, inner_lr) / n
    return [
        (
            _meta_loss(params, tasks, inner_lr, judge="support") / n,
            "the adapted parameters are judged on the support, which they were adapted to. Judge them on the query.",
        ),
        (
            _meta_loss(params, tasks, inner_lr, adapt_on="query") / n,
            "the inner step is taken on the query. Adapt on the support, judge on the query.",
        ),
        (
            _meta_loss(params, tasks, inner_lr, adapt_on="query", judge="support") / n,
            "support and query are exchanged: adapt on the support, judge on the query.",
        ),
        (query / n, "that is the query's loss before adapting: use the adapted parameters for it."),
        (_meta_loss(params, tasks, inner_lr, sign=1) / n, "the inner step goes uphill: subtract the gradient."),
        (mean * n, "the losses of the tasks are added up. Take their mean: divide by the number of tasks, once."),
        (mean / n, "the loss is divided by the number of tasks twice: once inside the loop, and once after it."),
        (
            _meta_loss(params, tasks, inner_lr, carry=True) / n,
            "each task goes on from where the last one ended. Every task starts from the same params: keep the "
            "adapted ones under another name.",
        ),
        (_meta_loss(params, tasks[-1:], inner_lr), "only the last task counts: add the losses up inside the loop."),
        (_meta_loss(params, tasks[:1], inner_lr), "only the first task counts: is `return` inside the loop?"),
        (
            _meta_loss(params, tasks[-1:], inner_lr) / n,
            "only the last task counts, and it is divided by the number of tasks: add up inside the loop.",
        ),
    ]


_STEPS = "one inner step on each task's support, the loss on its query, the mean over the tasks."
CUT = (
    "the inner step is cut out of the graph, so this is first-order MAML's gradient: the second derivative is missing. "
    "Is there a `detach`, a `no_grad`, or is `create_graph=True` missing?"
)


def loss_is(f: Learner, params: Params, tasks: list[FewShotTask], inner_lr: float, name: str, pick: Callable) -> None:
    right = _meta_loss(params, tasks, inner_lr) / len(tasks)
    call = f"{name}(predict, params, tasks, {inner_lr}) with {len(tasks)} task{'s' * (len(tasks) > 1)}"
    came = pick(f(forward_small_net, params, tasks, inner_lr), call)
    slips = _value_slips(params, tasks, inner_lr)
    require_same(came, right, call, slips, _STEPS)


def loss_test(name: str, pick: Callable, net_seed: int, count: int, seed: int, inner_lr: float) -> Test:
    """Return the check that a function's loss on some random tasks is right."""
    return lambda f: loss_is(f, small_net(net_seed), random_tasks(count, seed), inner_lr, name, pick)


def gradient_is(came: Sequence[Tensor], params: Params, tasks: list[FewShotTask], inner_lr: float, call: str) -> None:
    names, n = list(params), len(tasks)

    def gradient(**options: Any) -> dict[str, Tensor]:
        grads = torch.autograd.grad(_meta_loss(params, tasks, inner_lr, **options) / n, list(params.values()))
        return dict(zip(names, grads))

    right, first_order = gradient(), gradient(second_order=False)
    slips = [
        (first_order, CUT),
        (
            {k: torch.zeros_like(g) for k, g in right.items()},
            "nothing leads back to params: the adapted parameters were detached. Take that away.",
        ),
        (
            {k: right[k] - first_order[k] for k in right},
            "only the second derivative's term is left: params also pass straight through the step. Write "
            "p - inner_lr * g, without p.detach().",
        ),
        (gradient(judge="support"), "that is the gradient of the support's loss. Judge on the query."),
        ({k: g * n for k, g in right.items()}, "the gradients of the tasks are added up. Take their mean."),
        ({k: g / n for k, g in right.items()}, "the gradient is divided by the number of tasks twice."),
        ({k: -g for k, g in right.items()}, "that is minus the gradient."),
        ({k: p - inner_lr * right[k] for k, p in params.items()}, "those are new parameters: return the gradient."),
    ]
    why = "differentiate the mean of the query's losses with respect to params, through the inner step."
    require_same(dict(zip(names, came)), right, call, slips, why)


def _the_loss(value: Any, call: str) -> Any:
    return value


def _meta_loss_gradient(f: Learner) -> None:
    params, tasks, inner_lr = small_net(21), random_tasks(2, 90), 0.2
    call = "the gradient of meta_loss(predict, params, tasks, 0.2) with respect to params"
    came = f(forward_small_net, params, tasks, inner_lr)
    connected = isinstance(came, Tensor) and came.requires_grad
    expected = "a loss that can be differentiated with respect to params"
    require(
        connected, call, expected, f"{show(came)}, without a graph", "`item`, `detach`, `float` or `no_grad` cut it."
    )
    grads = torch.autograd.grad(came, list(params.values()), allow_unused=True, materialize_grads=True)
    gradient_is(grads, params, tasks, inner_lr, call)


def _meta_loss_keeps(f: Learner) -> None:
    params = small_net(31)
    before = {name: p.detach().clone() for name, p in params.items()}
    f(forward_small_net, params, random_tasks(2, 130), 0.1)
    why = "the params were changed in place. The inner step makes new ones, and theirs stay for the next task."
    require_kept(before, params, "meta_loss(predict, params, tasks, 0.1)", why)
    left = [name for name, p in params.items() if p.grad is not None]
    require(
        not left, "meta_loss(predict, params, tasks, 0.1)", "no .grad left on the params", f".grad on {left}",
        "`backward` leaves its gradients on the params, and adds to them in the next call: use torch.autograd.grad.",
    )  # fmt: skip


CHECKS: dict[str, dict[str, Test]] = {
    "maml.reptile_step": {
        "one task": _reptile_one_task,
        "three tasks": _reptile_tasks,
        "tasks that did not move": _reptile_at_rest,
        "the params are left as they were": _reptile_keeps,
    },
    "maml.meta_loss": {
        "one task": loss_test("meta_loss", _the_loss, 1, 1, 5, 0.1),
        "three tasks": loss_test("meta_loss", _the_loss, 11, 3, 50, 0.2),
        "the params are left as they were": _meta_loss_keeps,
        "its gradient, second derivatives included": _meta_loss_gradient,
    },
}
