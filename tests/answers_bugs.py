"""Answers to the bug hunts: wrong ones, with words that their report must hold, and right ones."""

from __future__ import annotations

import torch
from answers_maml import in_place, meta_loss, with_functions


def with_gradient(loss_function):
    def answer(predict, params, tasks, inner_lr):
        loss = loss_function(predict, params, tasks, inner_lr)
        grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
        return loss, dict(zip(params, grads))

    return answer


def by_hand(step):
    """Return a right loss whose inner step, of a parameter, its gradient and the rate, may cut the graph."""

    def answer(predict, params, tasks, inner_lr):
        losses = []
        for sx, sy, qx, qy in tasks:
            inner = ((predict(params, sx) - sy) ** 2).mean()
            grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
            adapted = {name: step(params[name], g, inner_lr) for name, g in zip(params, grads)}
            losses.append(((predict(adapted, qx) - qy) ** 2).mean())
        return sum(losses) / len(losses)

    return answer


def gradients_as_a_list(predict, params, tasks, inner_lr):
    loss = meta_loss()(predict, params, tasks, inner_lr)
    return loss, torch.autograd.grad(loss, list(params.values()))


def consolidate(half=0.5, of_mean=False, mean=True, square=True, anchor="copy", item=False):
    def answer(log_prob, params, examples, strength):
        values = list(params.values())
        each = [torch.autograd.grad(log_prob(params, e), values) for e in examples]
        stacked = {name: torch.stack([g[i] for g in each]) for i, name in enumerate(params)}
        if of_mean:
            fisher = {name: g.mean(0) ** 2 for name, g in stacked.items()}
        else:
            fisher = {
                name: (g**2 if square else g.abs()).sum(0) / (len(g) if mean else 1) for name, g in stacked.items()
            }
        copies = {name: p.detach().clone() for name, p in params.items()}
        tied = {name: p.clone() for name, p in params.items()}
        detached = {name: p.detach() for name, p in params.items()}
        at = {"copy": copies, "same": params, "detached": detached, "tied": tied}[anchor]

        def penalty(now):
            total = sum((fisher[name] * (now[name] - at[name]) ** 2).sum() for name in fisher)
            return half * strength * (total.item() if item else total)

        return penalty

    return answer


def with_backward(log_prob, params, examples, strength):
    """Right, but for the gradients that it leaves on the params."""
    sum(log_prob(params, example) for example in examples).backward()
    return consolidate()(log_prob, params, examples, strength)


def with_jacobian(log_prob, params, examples, strength):
    """All examples' gradients at once, with torch.func, and the anchor in one flat vector."""
    names = list(params)
    at = {name: p.detach().clone() for name, p in params.items()}
    jacobian = torch.func.jacrev(lambda p: torch.stack([log_prob(p, example) for example in examples]))(at)
    fisher = torch.cat([jacobian[name].reshape(len(examples), -1) for name in names], 1).square().mean(0)
    anchor = torch.cat([at[name].flatten() for name in names])

    def penalty(now):
        distance = torch.cat([now[name].flatten() for name in names]) - anchor
        return strength * (fisher * distance * distance).sum() / 2

    return penalty


WRONG = {
    "maml.bug_hunt": {
        "all three": (
            with_gradient(meta_loss(create_graph=False, judge="support", total=lambda ls: sum(ls) / len(ls) ** 2)),
            "judged on the support",
        ),
        "two left": (with_gradient(meta_loss(create_graph=False, total=lambda ls: sum(ls) / len(ls) ** 2)), "twice"),
        "one left": (with_gradient(meta_loss(create_graph=False)), "cut out of the graph"),
        "judged on the support": (with_gradient(meta_loss(judge="support")), "judged on the support"),
        "divided twice": (with_gradient(meta_loss(total=lambda ls: sum(ls) / len(ls) ** 2)), "twice"),
        "all detached": (
            with_gradient(by_hand(lambda p, g, lr: (p - lr * g).detach().requires_grad_())),
            "nothing leads",
        ),
        "params detached": (with_gradient(by_hand(lambda p, g, lr: p.detach() - lr * g)), "straight through"),
        "carried on": (with_gradient(meta_loss(carry=True)), "starts from the same params"),
        "the loss alone": (meta_loss(), "two things"),
        "a list of gradients": (gradients_as_a_list, "by name"),
        "in place": (with_gradient(in_place), "in place"),
    },
    "ewc.bug_hunt": {
        "all three": (consolidate(half=1, of_mean=True, anchor="same"), "1/2 is missing"),
        "two left": (consolidate(of_mean=True, anchor="same"), "averaged first"),
        "the Fisher of the mean": (consolidate(of_mean=True), "averaged first"),
        "the anchor moves": (consolidate(anchor="same"), "moves along"),
        "the anchor is detached, and still the same": (consolidate(anchor="detached"), "moves along"),
        "the anchor hangs on the params": (consolidate(anchor="tied"), "no spring ever pulls"),
        "no half": (consolidate(half=1), "1/2 is missing"),
        "summed": (consolidate(mean=False), "take their mean"),
        "not squared": (consolidate(square=False), "not squared"),
        "a number": (consolidate(item=True), "cut the graph"),
        "the penalty itself": (
            lambda log_prob, params, examples, strength: consolidate()(log_prob, params, examples, strength)(params),
            "return the function itself",
        ),
        "gradients left behind": (with_backward, "leaves gradients behind"),
    },
}

ALSO_RIGHT = {"maml.bug_hunt": with_gradient(with_functions), "ewc.bug_hunt": with_jacobian}
