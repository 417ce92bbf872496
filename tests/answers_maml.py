"""Answers to the exercises on MAML: typical wrong ones, with words that their report must hold, and right ones."""

from __future__ import annotations

import torch
from torch.func import grad


def bowl(h, c):
    return lambda theta: 0.5 * (theta - c) @ h @ (theta - c)


def step(sign=-1.0, rate=lambda a: a, g=lambda t, h, c: h @ (t - c)):
    return lambda theta, h, c, a: theta + sign * rate(a) * g(theta, h, c)


def step_in_place(theta, h, c, a):
    theta -= a * h @ (theta - c)
    return theta


def meta(factor, place="adapted", judge="query"):
    def answer(theta, support, query, a):
        adapted = theta - a * support[0] @ (theta - support[1])
        h, c = query if judge == "query" else support
        return (
            factor(torch.eye(len(theta)), a, support[0], query[0])
            @ h
            @ ((adapted if place == "adapted" else theta) - c)
        )

    return answer


def wrong_order(theta, support, query, a):
    adapted = theta - a * support[0] @ (theta - support[1])
    return query[0] @ (torch.eye(len(theta)) - a * support[0]) @ (adapted - query[1])


def ones_for_the_identity(theta, support, query, a):
    adapted = theta - a * support[0] @ (theta - support[1])
    return (1 - a * support[0]) @ query[0] @ (adapted - query[1])


def by_autograd(theta, support, query, a):
    return grad(lambda t: bowl(*query)(t - a * grad(bowl(*support))(t)))(theta)


def weight_by_autograd(curvature, inner_lr, steps):
    def loss(start):
        t = start
        for _ in range(steps):
            t = t - inner_lr * curvature * t
        return 0.5 * curvature * t * t

    return grad(loss)(torch.tensor(1.0, dtype=torch.float64)).item()


def mean_of(adapted, name):
    return torch.stack([task[name] for task in adapted]).mean(0)


def each(new):
    return lambda params, adapted, lr: {name: new(p, adapted, lr, name) for name, p in params.items()}


def one_after_another(params, adapted, lr):
    for task in adapted:
        params = {name: p + lr * (task[name] - p) for name, p in params.items()}
    return params


def reptile_in_place(params, adapted, lr):
    for name in params:
        params[name] += lr * (mean_of(adapted, name) - params[name])
    return params


def mse(a, b):
    return ((a - b) ** 2).mean()


def meta_loss(
    create_graph=True,
    judge="query",
    adapt_on="support",
    carry=False,
    sign=-1,
    total=lambda losses: sum(losses) / len(losses),
):
    def answer(predict, params, tasks, inner_lr):
        losses = []
        for task in tasks:
            data = {"support": task[:2], "query": task[2:]}
            x, y = data[adapt_on]
            grads = torch.autograd.grad(mse(predict(params, x), y), list(params.values()), create_graph=create_graph)
            fast = {name: p + sign * inner_lr * g for (name, p), g in zip(params.items(), grads)}
            if carry:
                params = fast
            x, y = data[judge]
            losses.append(mse(predict(fast, x), y))
        return total(losses)

    return answer


def not_adapted(predict, params, tasks, inner_lr):
    return sum(mse(predict(params, qx), qy) for _, _, qx, qy in tasks) / len(tasks)


def returns_in_the_loop(predict, params, tasks, inner_lr):
    for task in tasks:
        return meta_loss()(predict, params, [task], inner_lr)


def in_place(predict, params, tasks, inner_lr):
    loss = meta_loss()(predict, params, tasks, inner_lr)
    with torch.no_grad():
        for p in params.values():
            p -= 0.1
    return loss


def with_backward(predict, params, tasks, inner_lr):
    """Right in value and gradient, and leaves gradients behind."""
    loss = meta_loss()(predict, params, tasks, inner_lr)
    meta_loss()(predict, params, tasks, inner_lr).backward()
    return loss


def with_functions(predict, params, tasks, inner_lr):
    def one(sx, sy, qx, qy):
        grads = grad(lambda p: mse(predict(p, sx), sy))(params)
        return mse(predict({name: params[name] - inner_lr * g for name, g in grads.items()}, qx), qy)

    return torch.stack([one(*task) for task in tasks]).mean()


WRONG = {
    "maml.inner_step": {
        "uphill": (step(sign=1), "uphill"),
        "no rate": (step(rate=lambda a: 1), "step's size is missing"),
        "no centre": (step(g=lambda t, h, c: h @ t), "centre is missing"),
        "no curvature": (step(g=lambda t, h, c: t - c), "curvature H is missing"),
        "twice": (step(g=lambda t, h, c: 2 * h @ (t - c)), "twice too large"),
        "half": (step(g=lambda t, h, c: 0.5 * h @ (t - c)), "half too small"),
        "elementwise": (step(g=lambda t, h, c: (h * (t - c)).sum(0) * 0 + h * (t - c)), "shape"),
        "the gradient": (lambda t, h, c, a: h @ (t - c), "that is the gradient"),
        "the step alone": (lambda t, h, c, a: -a * h @ (t - c), "the step alone"),
        "the centre": (lambda t, h, c, a: c, "that is the centre"),
        "in place": (step_in_place, "changes theta itself"),
    },
    "maml.meta_gradient": {
        "first order": (meta(lambda i, a, hs, hq: i), "first-order MAML"),
        "a plus": (meta(lambda i, a, hs, hq: i + a * hs), "sign in I - inner_lr H"),
        "the query's H": (meta(lambda i, a, hs, hq: i - a * hq), "the query's H"),
        "no rate": (meta(lambda i, a, hs, hq: i - hs), "inner_lr is missing"),
        "no identity": (meta(lambda i, a, hs, hq: -a * hs), "inner_lr is missing|the I in"),
        "before adapting": (meta(lambda i, a, hs, hq: i - a * hs, place="theta"), "Take it at the adapted"),
        "plain query gradient": (meta(lambda i, a, hs, hq: i, place="theta"), "before adapting"),
        "the support": (meta(lambda i, a, hs, hq: i - a * hs, judge="support"), "judged on the query"),
        "the wrong order": (wrong_order, "wrong order"),
        "ones": (ones_for_the_identity, "torch.eye"),
    },
    "maml.task_weight": {
        "first order": (lambda h, a, n: h * (1 - a * h) ** n, "first-order"),
        "no curvature": (lambda h, a, n: (1 - a * h) ** (2 * n), "it is missing"),
        "one step": (lambda h, a, n: h * (1 - a * h) ** 2, "after one step"),
        "a plus": (lambda h, a, n: h * (1 + a * h) ** (2 * n), "with a minus"),
        "linear": (lambda h, a, n: h * (1 - 2 * n * a * h), "the power itself"),
        "one long step": (lambda h, a, n: h * (1 - n * a * h) ** 2, "use a power"),
        "no rate": (lambda h, a, n: h * (1 - h) ** (2 * n), "inner_lr is missing"),
        "half": (lambda h, a, n: 0.5 * h * (1 - a * h) ** (2 * n), "no 1/2 left"),
        "no adapting": (lambda h, a, n: h, "without any inner step"),
    },
    "maml.reptile_step": {
        "away": (each(lambda p, ts, lr, n: p - lr * (mean_of(ts, n) - p)), "the sign is wrong"),
        "all the way": (each(lambda p, ts, lr, n: mean_of(ts, n)), "only a part of the way"),
        "a sum": (each(lambda p, ts, lr, n: p + lr * sum(t[n] - p for t in ts)), "Take their mean"),
        "the parameters added": (each(lambda p, ts, lr, n: p + lr * mean_of(ts, n)), "how far they moved"),
        "the last task": (each(lambda p, ts, lr, n: p + lr * (ts[-1][n] - p)), "only the last task"),
        "the move alone": (each(lambda p, ts, lr, n: lr * (mean_of(ts, n) - p)), "the move alone"),
        "one after another": (one_after_another, "one after another"),
        "in place": (reptile_in_place, "changed in place"),
        "a list": (lambda params, ts, lr: list(params.values()), "a dict with the names"),
    },
    "maml.meta_loss": {
        "judged on the support": (meta_loss(judge="support"), "judged on the support"),
        "adapted on the query": (meta_loss(adapt_on="query"), "taken on the query"),
        "exchanged": (meta_loss(adapt_on="query", judge="support"), "exchanged"),
        "detached": (meta_loss(create_graph=False), "cut out of the graph"),
        "a sum": (meta_loss(total=sum), "Take their mean"),
        "divided twice": (meta_loss(total=lambda ls: sum(ls) / len(ls) ** 2), "twice"),
        "carried on": (meta_loss(carry=True), "starts from the same params"),
        "uphill": (meta_loss(sign=1), "uphill"),
        "not adapted": (not_adapted, "before adapting"),
        "the last task": (meta_loss(total=lambda ls: ls[-1]), "only the last task"),
        "returns in the loop": (returns_in_the_loop, "`return` inside the loop"),
        "a number": (meta_loss(total=lambda ls: sum(ls).item() / len(ls)), "cut it"),
        "in place": (in_place, "changed in place"),
        "backward": (with_backward, "leaves its gradients"),
    },
}

ALSO_RIGHT = {
    "maml.inner_step": lambda theta, h, c, a: theta - a * grad(bowl(h, c))(theta),
    "maml.meta_gradient": by_autograd,
    "maml.task_weight": weight_by_autograd,
    "maml.reptile_step": each(lambda p, ts, lr, n: (1 - lr) * p + sum(lr / len(ts) * t[n] for t in ts)),
    "maml.meta_loss": with_functions,
}
