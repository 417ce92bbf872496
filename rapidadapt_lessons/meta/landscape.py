"""Meta-learning with two parameters: families of tasks small enough to see their whole loss landscape (lesson 5).

Straight lines have quadratic losses, so every minimiser is exact; sine waves do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, vmap

from ..errors import BadData, CourseError
from ..guards import require_at_least, require_one_of
from . import maml
from .maml import TaskBatch, mse

PAPER = 2.0  # the recorder's paper shows y from about -2 to 2
START_METHODS = ("average task", "Reptile", "first-order MAML", "MAML")  # how a start can be chosen


class _Curve(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2, dtype=torch.float64))


class Line(_Curve):
    """y = theta_1 + theta_2 x. theta: [intercept, slope]."""

    axes = ("intercept θ₁", "slope θ₂")

    def forward(self, x: Tensor) -> Tensor:
        return self.theta[0] + self.theta[1] * x


class Wave(_Curve):
    """y = theta_1 sin(x + theta_2). theta: [amplitude, phase in radians]."""

    axes = ("amplitude θ₁", "phase θ₂ (radians)")

    def forward(self, x: Tensor) -> Tensor:
        return self.theta[0] * torch.sin(x + self.theta[1])


@dataclass(frozen=True)
class Family:
    """A module, tasks for it, and each task's true parameters, shape [tasks, 2]."""

    module: Line | Wave
    batch: TaskBatch
    truth: Tensor

    def params(self, theta: Tensor | tuple[float, float]) -> maml.Params:
        return {"theta": torch.as_tensor(theta, dtype=torch.float64)}


def line_family(tasks: int = 40, shots: int = 10, spread: float = 3.0, seed: int = 0, noise: float = 0.1) -> Family:
    """Draw straight lines recorded on paper of limited height: the steeper the line, the less of x it is seen over.

    Slopes lie between 1.6 / spread and 1.6 * spread, evenly on a log scale; intercepts between -0.3 and 0.3; x within
    +-PAPER / slope; Gaussian noise on y. Support and query: `shots` examples each. Raises CourseError for no tasks or
    shots, or a spread below 1.
    """
    require_at_least(1, "spread", spread, "give 1 (all slopes alike) or more.")
    draw = torch.Generator().manual_seed(seed)
    slope, intercept, x = _draw(tasks, shots, draw)
    slope, intercept = 1.6 * spread**slope, 0.3 * intercept
    x = PAPER / slope * x
    y = intercept + slope * x + noise * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    return _family(Line(), x, y, intercept, slope)


def wave_family(tasks: int = 40, shots: int = 10, spread: float = 2.2, seed: int = 0) -> Family:
    """Draw sine waves: amplitudes between 0.5 and 1.5, phases within +-spread radians, x within one period.

    Raises CourseError for no tasks or shots, or a spread outside 0 to pi.
    """
    if not 0 <= spread <= math.pi:
        raise CourseError(f"spread is {spread} radians.", "give a phase between 0 and pi.")
    amplitude, phase, x = _draw(tasks, shots, torch.Generator().manual_seed(seed))
    amplitude, phase, x = 1 + 0.5 * amplitude, spread * phase, math.pi * x
    return _family(Wave(), x, amplitude * torch.sin(x + phase), amplitude, phase)


def _draw(tasks: int, shots: int, draw: torch.Generator) -> list[Tensor]:
    """Return uniform numbers between -1 and 1: two for each task, [tasks, 1, 1], and inputs, [tasks, 2 * shots, 1]."""
    return [2 * torch.rand(tasks, n, 1, generator=draw, dtype=torch.float64) - 1 for n in (1, 1, 2 * shots)]


def _family(module: Line | Wave, x: Tensor, y: Tensor, first: Tensor, second: Tensor) -> Family:
    """Return the tasks with the first half of their examples as support."""
    (support_x, query_x), (support_y, query_y) = x.chunk(2, dim=1), y.chunk(2, dim=1)
    batch = TaskBatch(support_x, support_y, query_x, query_y)
    return Family(module, batch, torch.cat([first, second], dim=-1)[:, 0])


def own_lines(text: str) -> Family:
    """Return the reader's own points as tasks for a `Line`: a task in each line of the text, 1 to 8.

    A line holds points "x y" with commas between them, as many as the other lines, an even number from 4 on. They are
    support and query in turn. The true parameters are the least-squares solution on all of a task's points. Raises
    BadData for anything else, for numbers beyond +-100, and where no slope can be learned: all points at one x.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    if not 1 <= len(lines) <= 8:
        raise BadData(f"there are {len(lines)} tasks.", "write 1 to 8, each in a line of its own.")
    tasks = [
        [two_numbers(point, f"a point of task {number}") for point in line.split(",")]
        for number, line in enumerate(lines, start=1)
    ]
    for number, points in enumerate(tasks, start=1):
        if len(points) < 4 or len(points) % 2 or len(points) != len(tasks[0]):
            other = f", task 1 has {len(tasks[0])}" if len(points) != len(tasks[0]) else ""
            remedy = "give all tasks equally many, an even number from 4 on: support and query in turn."
            raise BadData(f"task {number} has {len(points)} points{other}.", remedy)
        for part in (points[::2], points[1::2]):
            if len({x for x, _ in part}) < 2:
                told = f"task {number} has all points of its support, or of its query, at x = {part[0][0]:g}."
                raise BadData(told, "no slope can be learned from one place: move a point.")
    data = torch.tensor(tasks, dtype=torch.float64)  # [tasks, points, 2]
    x, y = data[..., :1], data[..., 1:]
    batch = TaskBatch(x[:, ::2], y[:, ::2], x[:, 1::2], y[:, 1::2])
    return Family(Line(), batch, _least_squares(x, y))


def two_numbers(text: str, what: str) -> tuple[float, float]:
    """Return the two numbers of a text such as "0.5 -1". Raises BadData for anything else, or beyond +-100."""
    try:
        x, y = map(float, text.split())
        if not all(abs(number) <= 100 for number in (x, y)):
            raise ValueError
    except ValueError:
        remedy = 'write two numbers between -100 and 100 with a space: "0.5 -1".'
        raise BadData(f"{what} is {text.strip()[:30]!r}.", remedy) from None
    return x, y


def direction(family: Family, method: str, inner_lr: float, steps: int) -> Callable[[Tensor], Tensor]:
    """Return the function from theta [2] to what a method would subtract from it, [2]. "average task" never adapts."""
    require_one_of(START_METHODS, "method", method)
    gradient, options = maml.meta_gradient, {"inner_lr": inner_lr, "steps": steps}
    if method == "Reptile":
        gradient = maml.reptile_gradient
    elif method == "average task":
        options["steps"] = 0
    else:
        options["second_order"] = method == "MAML"
    return lambda theta: gradient(family.module, family.params(theta), family.batch, **options).params["theta"]


def resting_point(family: Family, method: str, inner_lr: float, steps: int) -> Tensor:
    """Return the theta, shape [2], at which a method comes to rest: where its direction is zero.

    For lines every direction is linear in theta, direction = A theta + b, so three evaluations give A and b exactly.
    Raises CourseError for another family, and where the inner steps diverge.
    """
    if not isinstance(family.module, Line):
        raise CourseError("only lines have a direction linear in theta.", "follow the gradient with `descend`.")
    at = direction(family, method, inner_lr, steps)
    b = at(torch.zeros(2, dtype=torch.float64))
    a = torch.stack([at(unit) - b for unit in torch.eye(2, dtype=torch.float64)], dim=1)
    if not torch.isfinite(a).all() or torch.linalg.matrix_rank(a) < 2:
        told = f"{method} with inner_lr {inner_lr:g} and {steps} steps has no resting point of its own."
        raise CourseError(told, "lower inner_lr or take fewer steps.")
    return torch.linalg.solve(a, -b)


def descend(
    family: Family, method: str, theta: tuple[float, float], inner_lr: float, steps: int, *, rate: float, updates: int
) -> Tensor:
    """Return the path of plain gradient descent along a method's direction, shape [updates + 1, 2]."""
    at = direction(family, method, inner_lr, steps)
    path = [family.params(theta)["theta"]]
    for _ in range(updates):
        path.append(path[-1] - rate * at(path[-1]))
    return torch.stack(path)


def loss_at(family: Family, theta: Tensor, inner_lr: float, steps: int) -> Tensor:
    """Return the mean query loss after `steps` inner steps from every theta in a tensor [..., 2]; shape [...]."""
    one = lambda t: maml.meta_loss(family.module, {"theta": t}, family.batch, inner_lr=inner_lr, steps=steps)  # noqa: E731
    with torch.no_grad():
        return vmap(one)(theta.reshape(-1, 2)).reshape(theta.shape[:-1])


def hessians(family: Family, theta: Tensor, part: str = "support") -> Tensor:
    """Return every task's Hessian of its support's (or query's) loss at theta, shape [tasks, 2, 2]."""
    x, y = getattr(family.batch, f"{part}_x"), getattr(family.batch, f"{part}_y")
    loss = lambda t, x, y: mse(functional_call(family.module, {"theta": t}, (x,)), y)  # noqa: E731
    return vmap(hessian(loss), in_dims=(None, 0, 0))(theta, x, y)


def weight(method: str, curvature: Tensor, inner_lr: float, steps: int) -> Tensor:
    """Return the weight that a method gives to a task whose loss has this curvature, [...]; for quadratic losses.

    With h the curvature and s = (1 - alpha h)^steps: average task h, first-order MAML h s, MAML h s^2, Reptile 1 - s.
    """
    require_one_of(START_METHODS, "method", method)
    s = (1 - inner_lr * curvature) ** steps
    if method == "Reptile":
        return 1 - s
    return curvature * s ** {"average task": 0, "first-order MAML": 1, "MAML": 2}[method]


def weighted_mean(weights: Tensor, optima: Tensor) -> Tensor:
    """Return (sum of W_i)^-1 sum of W_i t_i for matrices W [tasks, n, n] and points t [tasks, n]; shape [n]."""
    return torch.linalg.solve(weights.sum(0), torch.einsum("tij,tj->i", weights, optima))


def task_optima(family: Family, part: str = "support") -> Tensor:
    """Return, for lines, each task's least-squares solution on its support or query, shape [tasks, 2]."""
    return _least_squares(getattr(family.batch, f"{part}_x"), getattr(family.batch, f"{part}_y"))


def _least_squares(x: Tensor, y: Tensor) -> Tensor:
    """Return each task's best intercept and slope, [tasks, 2]. x, y: [tasks, points, 1]."""
    return torch.linalg.lstsq(torch.cat([torch.ones_like(x), x], dim=-1), y).solution[..., 0]


def angle(a: Tensor, b: Tensor) -> float:
    """Return the angle between two directions in degrees. Raises CourseError where one is zero or not finite."""
    lengths = a.norm() * b.norm()
    if not torch.isfinite(lengths) or lengths == 0:
        raise CourseError("a direction is zero or not finite, so there is no angle.", "compare at another theta.")
    a, b = a.flatten() / a.norm(), b.flatten() / b.norm()
    # Half-angle form: unlike the arc cosine it keeps its digits near 0 and 180 degrees.
    return math.degrees(2 * math.atan2((a - b).norm().item(), (a + b).norm().item()))
