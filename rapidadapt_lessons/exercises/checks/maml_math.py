"""The checks of the exercises on the mathematics of MAML (lesson 5): losses 1/2 (theta - c)' H (theta - c)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..compare import Learner, Test, normal, require_kept, require_same, show


def _bowl(seed: int, size: int = 2) -> tuple[Tensor, Tensor]:
    """Return a random Hessian, symmetric and positive, and a random centre."""
    root = normal(size, size, seed=seed)
    return root @ root.T + 0.5 * torch.eye(size), normal(size, seed=seed + 1)


def _inner_step_is(f: Learner, theta: Tensor, h: Tensor, c: Tensor, inner_lr: float) -> None:
    g = h @ (theta - c)
    slips = [
        (theta + inner_lr * g, "the step goes uphill: the gradient is subtracted."),
        (theta - g, "the step's size is missing: multiply the gradient by inner_lr."),
        (theta - inner_lr * h @ theta, "the gradient is H (theta - centre): the centre is missing."),
        (theta - inner_lr * (theta - c), "the gradient is H (theta - centre): the curvature H is missing."),
        (theta - 2 * inner_lr * g, "the gradient is twice too large: the 1/2 in the loss cancels the 2."),
        (theta - inner_lr * g / 2, "the gradient is half too small: the square brings a 2, which cancels the 1/2."),
        (theta - inner_lr * h * (theta - c), "`*` multiplies element by element. A matrix times a vector is `@`."),
        (g, "that is the gradient: take a step against it, from theta."),
        (inner_lr * g, "that is the step alone: subtract it from theta."),
        (-inner_lr * g, "that is the step alone: add it to theta."),
        (c, "that is the centre, where many steps would end. Take a single one."),
    ]
    call = f"inner_step(theta, H, centre, {inner_lr}) with theta = {show(theta)}, H = {show(h)}, centre = {show(c)}"
    otherwise = "the gradient of 1/2 (theta - c)' H (theta - c), with H symmetric, is H (theta - c)."
    require_same(f(theta.clone(), h.clone(), c.clone(), inner_lr), theta - inner_lr * g, call, slips, otherwise)


def _round_bowl(f: Learner) -> None:
    _inner_step_is(f, torch.tensor([2.0, -1.0]), 3 * torch.eye(2), torch.zeros(2), 0.1)


def _moved_bowl(f: Learner) -> None:
    _inner_step_is(f, torch.tensor([2.0, -1.0]), torch.diag(torch.tensor([2.0, 0.5])), torch.tensor([1.0, 1.0]), 0.25)


def _random_bowls(f: Learner) -> None:
    for seed, size in ((3, 2), (5, 3)):
        _inner_step_is(f, normal(size, seed=seed + 50), *_bowl(seed, size), 0.15)


def _centre_is_rest(f: Learner) -> None:
    h, c = _bowl(7)
    _inner_step_is(f, c.clone(), h, c, 0.3)


def _theta_is_kept(f: Learner) -> None:
    h, c = _bowl(9)
    before = {"theta": normal(2, seed=8), "H": h, "centre": c}
    after = {name: value.clone() for name, value in before.items()}
    f(*after.values(), 0.1)
    why = "`-=` changes theta itself, and then every later task starts from there. Make a new tensor."
    require_kept(before, after, "inner_step(theta, H, centre, 0.1)", why)


def _meta_gradient_is(f: Learner, theta: Tensor, support: tuple, query: tuple, inner_lr: float, about: str) -> None:
    (hs, cs), (hq, cq) = support, query
    adapted = theta - inner_lr * hs @ (theta - cs)
    eye = torch.eye(len(theta))
    g = hq @ (adapted - cq)
    right = (eye - inner_lr * hs) @ g
    slips = [
        (g, "that is first-order MAML. How far do the adapted parameters move when theta moves? By I - inner_lr H."),
        ((eye + inner_lr * hs) @ g, "the sign in I - inner_lr H is wrong: adapting takes a part of the move back."),
        ((eye - inner_lr * hq) @ g, "the factor holds the query's H. Adapting happens on the support: use its H."),
        ((eye - hs) @ g, "inner_lr is missing in the factor I - inner_lr H."),
        (-inner_lr * hs @ g, "the I in I - inner_lr H is missing: theta also passes straight through the step."),
        (hq @ (theta - cq), "that is the query's gradient before adapting. Take it at the adapted parameters."),
        (
            (eye - inner_lr * hs) @ hq @ (theta - cq),
            "the query's gradient is taken at theta. Take it at the adapted parameters.",
        ),
        (
            (eye - inner_lr * hs) @ hs @ (adapted - cs),
            "the gradient is the support's. The initialisation is judged on the query.",
        ),
        (
            hq @ (eye - inner_lr * hs) @ (adapted - cq),
            "the factors stand in the wrong order: I - inner_lr H multiplies the whole gradient, from the left.",
        ),
        ((1 - inner_lr * hs) @ g, "`1 - inner_lr * H` subtracts from every element. The 1 is a matrix: torch.eye."),
        (theta - inner_lr * right, "that is theta after a step. The gradient itself is asked for."),
        (adapted, "those are the adapted parameters. The gradient of the query's loss is asked for."),
    ]
    call = f"meta_gradient(theta, support, query, {inner_lr}) {about}"
    otherwise = "with the chain rule: (I - inner_lr H_support) times the query's gradient at the adapted parameters."
    came = f(theta.clone(), (hs.clone(), cs.clone()), (hq.clone(), cq.clone()), inner_lr)
    require_same(came, right, call, slips, otherwise)


def _no_inner_step(f: Learner) -> None:
    about = "where an inner rate of 0 leaves theta as it is"
    _meta_gradient_is(f, normal(2, seed=1), _bowl(2), _bowl(4), 0.0, about)


def _one_dimension(f: Learner) -> None:
    support, query = (torch.tensor([[2.0]]), torch.tensor([0.0])), (torch.tensor([[3.0]]), torch.tensor([1.0]))
    about = "with theta = [2], H = [[2]], centre = [0] for the support and H = [[3]], centre = [1] for the query"
    _meta_gradient_is(f, torch.tensor([2.0]), support, query, 0.1, about)


def _two_dimensions(f: Learner) -> None:
    for seed in (11, 21):
        _meta_gradient_is(f, normal(2, seed=seed), _bowl(seed + 1), _bowl(seed + 3), 0.2, "with random 2 by 2 bowls")


def _three_dimensions(f: Learner) -> None:
    _meta_gradient_is(f, normal(3, seed=31), _bowl(32, 3), _bowl(34, 3), 0.1, "with random 3 by 3 bowls")


def _weight_is(f: Learner, h: float, inner_lr: float, steps: int) -> None:
    left = 1 - inner_lr * h
    slips = [
        (h * left**steps, "that is first-order MAML's weight: the chain rule brings the same factor once more."),
        (left ** (2 * steps), "the query's gradient has the curvature h in front: it is missing."),
        (left**steps, "the curvature h in front is missing, and the chain rule's factors are too."),
        (h * left**2, "that is the weight after one step. Each further step brings the factor twice more."),
        (h * (1 + inner_lr * h) ** (2 * steps), "one step multiplies the distance by 1 - inner_lr h, with a minus."),
        (h * (1 - 2 * steps * inner_lr * h), "that is where the power begins for small rates. Use the power itself."),
        (h * (1 - steps * inner_lr * h) ** 2, "n steps are not one step that is n times as long: use a power."),
        (h * (1 - h) ** (2 * steps), "inner_lr is missing: one step multiplies the distance by 1 - inner_lr h."),
        (h, "that is the weight without any inner step: how does adapting change it?"),
        (h * left ** (2 * steps) / 2, "there is no 1/2 left: differentiating the square has cancelled it."),
    ]
    call = f"task_weight(curvature={h}, inner_lr={inner_lr}, steps={steps})"
    otherwise = "write theta after n steps as a multiple of theta before, put it into the loss, and differentiate."
    require_same(f(h, inner_lr, steps), h * left ** (2 * steps), call, slips, otherwise)


def _no_steps(f: Learner) -> None:
    _weight_is(f, 3.0, 0.1, 0)


def _one_step(f: Learner) -> None:
    _weight_is(f, 3.0, 0.1, 1)


def _several_steps(f: Learner) -> None:
    _weight_is(f, 0.7, 0.25, 3)
    _weight_is(f, 6.0, 0.3, 2)


def _solved_task(f: Learner) -> None:
    _weight_is(f, 4.0, 0.25, 1)


CHECKS: dict[str, dict[str, Test]] = {
    "maml.inner_step": {
        "a round bowl around zero": _round_bowl,
        "a stretched bowl around another centre": _moved_bowl,
        "random bowls": _random_bowls,
        "at the centre, nothing moves": _centre_is_rest,
        "theta, H and the centre are left as they were": _theta_is_kept,
    },
    "maml.meta_gradient": {
        "without an inner step, the query's gradient": _no_inner_step,
        "one parameter": _one_dimension,
        "two parameters": _two_dimensions,
        "three parameters": _three_dimensions,
    },
    "maml.task_weight": {
        "no inner step": _no_steps,
        "one inner step": _one_step,
        "several inner steps": _several_steps,
        "a task that one step solves": _solved_task,
    },
}
