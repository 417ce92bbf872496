"""MAML: its meta-gradient is right, by four independent routes, and the mistakes that others made are caught."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.meta import maml
from rapidadapt_lessons.meta.maml import TaskBatch, mse
from rapidadapt_lessons.setup import learn2learn


def network(seed: int = 0, dtype: torch.dtype = torch.float64, width: int = 6) -> nn.Sequential:
    """Return a small smooth network: finite differences need no kinks."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)).to(
        dtype
    )


def sinusoids(tasks: int = 4, shots: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> TaskBatch:
    draw = torch.Generator().manual_seed(seed)
    uniform = lambda low, high, *shape: low + (high - low) * torch.rand(*shape, generator=draw, dtype=dtype)  # noqa: E731
    amplitude, phase = uniform(0.1, 5, tasks, 1, 1), uniform(0, math.pi, tasks, 1, 1)
    x = uniform(-5, 5, tasks, 2 * shots, 1)
    y = amplitude * torch.sin(x - phase)
    return TaskBatch(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:])


def flat(grads: dict) -> torch.Tensor:
    return torch.cat([g.flatten() for g in grads.values()])


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    return ((found - true).norm() / true.norm()).item()


def finite_differences(value, at: dict, step: float = 1e-5) -> dict:
    """Return (value(at + step) - value(at - step)) / (2 step) for every element of every tensor of `at`."""
    slopes = {}
    for name, tensor in at.items():
        slopes[name] = torch.zeros_like(tensor)
        for i in range(tensor.numel()):
            shift = torch.zeros_like(tensor)
            shift.view(-1)[i] = step
            up, down = (value(at | {name: (tensor.detach() + sign * shift).requires_grad_()}) for sign in (1, -1))
            slopes[name].view(-1)[i] = (up - down).detach() / (2 * step)
    return slopes


def one_by_one(batch: TaskBatch) -> list[TaskBatch]:
    return [batch.tasks(i, i + 1) for i in range(len(batch))]


# The meta-gradient, by independent routes.


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("head_only", [False, True], ids=["MAML", "ANIL"])
def test_meta_gradient_against_central_finite_differences(steps, head_only):
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    options = {"inner_lr": 0.05, "steps": steps, "adaptable": ["4.weight", "4.bias"] if head_only else None}
    true = flat(finite_differences(lambda p: maml.meta_loss(net, p, batch, **options), params))
    found = maml.meta_gradient(net, params, batch, **options)
    assert relative(flat(found.params), true) < 1e-6
    first_order = maml.meta_gradient(net, params, batch, second_order=False, **options)
    assert relative(flat(first_order.params), true) > 1e-3  # so the test would see a missing Hessian term
    assert torch.allclose(found.loss, maml.meta_loss(net, params, batch, **options), rtol=1e-14)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("adaptable", [None, ["4.weight", "4.bias"]])
@pytest.mark.parametrize("learned", [False, True])
def test_meta_gradient_is_the_gradient_of_meta_loss(second_order, steps, adaptable, learned):
    """Two ways through the inner steps, torch.func inside vmap and plain autograd around it, one result."""
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    rates = maml.learned_rates(params, 0.05, adaptable) if learned else 0.05
    options = {"inner_lr": rates, "steps": steps, "second_order": second_order, "adaptable": adaptable}
    wanted = [*params.values(), *(rates.values() if learned else ())]
    value = maml.meta_loss(net, params, batch, **options)
    true = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    found = maml.meta_gradient(net, params, batch, **options)
    assert torch.allclose(found.loss, value, rtol=1e-14)
    assert set(found.inner_lr) == (set(rates) if learned else set())
    together = torch.cat([flat(found.params), *(g.flatten() for g in found.inner_lr.values())])
    assert relative(together, torch.cat([g.flatten() for g in true])) < 1e-13


def learn2learn_gradient(net, batch, inner_lr, steps, first_order):
    net.zero_grad()
    learner = learn2learn.import_maml()(net, lr=inner_lr, first_order=first_order)
    for task in one_by_one(batch):
        clone = learner.clone()
        for _ in range(steps):
            clone.adapt(mse(clone(task.support_x[0]), task.support_y[0]))
        (mse(clone(task.query_x[0]), task.query_y[0]) / len(batch)).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_meta_gradient_against_learn2learn(steps, second_order, dtype, tolerance):
    """They add in another order, so float32 agrees to 1e-6 of the gradient's length, float64 to 1e-13."""
    net, batch = network(1, dtype, 40), sinusoids(5, 10, 1, dtype)
    options = {"inner_lr": 0.01, "steps": steps, "second_order": second_order}
    found = maml.meta_gradient(net, dict(net.named_parameters()), batch, **options)
    theirs = learn2learn_gradient(net, batch, 0.01, steps, not second_order)
    assert relative(flat(found.params), theirs) < tolerance


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_first_order_is_maml_with_the_hessian_term_dropped(steps):
    """MAML = (I - alpha H_0) ... (I - alpha H_k) g for each task, with every Hessian written out; FOMAML = g."""
    net, batch, inner_lr = network(), sinusoids(), 0.05
    params = {name: p.detach() for name, p in net.named_parameters()}
    shapes = [(name, p.shape, p.numel()) for name, p in params.items()]

    def unflat(vector):
        pieces = vector.split([n for _, _, n in shapes])
        return {name: piece.view(shape) for (name, shape, _), piece in zip(shapes, pieces)}

    with_term, without = [], []
    for task in one_by_one(batch):
        loss_at = lambda v, x, y: mse(functional_call(net, unflat(v), (x[0],)), y[0])  # noqa: E731
        theta, hessians = flat(params), []
        for _ in range(steps):
            hessians.append(hessian(loss_at)(theta, task.support_x, task.support_y))
            theta = theta - inner_lr * torch.func.grad(loss_at)(theta, task.support_x, task.support_y)
        g = torch.func.grad(loss_at)(theta, task.query_x, task.query_y)
        without.append(g)
        for h in reversed(hessians):
            g = g - inner_lr * h @ g
        with_term.append(g)
    for second_order, terms in ((True, with_term), (False, without)):
        options = {"inner_lr": inner_lr, "steps": steps, "second_order": second_order}
        found = maml.meta_gradient(net, params, batch, **options)
        assert relative(flat(found.params), torch.stack(terms).mean(0)) < 1e-12


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_quadratic_loss_by_hand(steps, second_order):
    """Prediction wx. One support point (a, b), one query point (c, d). L(w) = (wa - b)^2, so L'' = 2a^2.

    Each step contracts: w* - b/a = (1 - 2 alpha a^2)(w - b/a). Hence d query / dw = 2c(w*c - d)(1 - 2 alpha a^2)^n.
    """
    linear = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    w, rate = 0.7, 0.1
    points = [(2.0, -1.0, 1.5, 0.5), (0.5, 3.0, -1.0, 2.0)]  # curvature 8 and 0.5
    nn.init.constant_(linear.weight, w)
    batch = TaskBatch(*(torch.tensor(column, dtype=torch.float64).view(2, 1, 1) for column in zip(*points)))
    loss = gradient = 0.0
    for a, b, c, d in points:
        shrink = (1 - 2 * rate * a**2) ** steps
        adapted = b / a + shrink * (w - b / a)
        loss += (adapted * c - d) ** 2 / 2
        gradient += 2 * c * (adapted * c - d) * (shrink if second_order else 1) / 2
    params = dict(linear.named_parameters())
    found = maml.meta_gradient(linear, params, batch, inner_lr=rate, steps=steps, second_order=second_order)
    assert found.loss.item() == pytest.approx(loss, rel=1e-14)
    assert found.params["weight"].item() == pytest.approx(gradient, rel=1e-13)


# Reference bugs: for each, a guard that passes for the package and fails for the bug.
# An implementation is a function (net, params, batch, inner_lr) -> meta-loss, one inner step.


def ours(net, params, batch, inner_lr):
    return maml.meta_loss(net, params, batch, inner_lr=inner_lr)


def looped(net, params, batch, inner_lr, *, scale=lambda y: 1.0, judged_on="query", update=None):
    """A plain loop over tasks, right as it is, with one place for each bug."""
    update = update or (lambda p, g: p - inner_lr * g)
    total = 0.0
    for task in one_by_one(batch):
        value = mse(functional_call(net, params, (task.support_x[0],)), task.support_y[0]) * scale(task.support_y)
        grads = torch.autograd.grad(value, list(params.values()), create_graph=True)
        fast = {name: update(p, g) for (name, p), g in zip(params.items(), grads)}
        x, y = getattr(task, f"{judged_on}_x")[0], getattr(task, f"{judged_on}_y")[0]
        total = total + mse(functional_call(net, fast, (x,)), y) * scale(y[None])
    return total / len(batch)


def divides_by_shots_twice(net, params, batch, inner_lr):
    return looped(net, params, batch, inner_lr, scale=lambda y: 1 / y.shape[1])


def judges_on_support(net, params, batch, inner_lr):
    return looped(net, params, batch, inner_lr, judged_on="support")


def detaches_the_inner_gradient(net, params, batch, inner_lr):
    return looped(net, params, batch, inner_lr, update=lambda p, g: p - inner_lr * g.detach())


def detaches_the_adapted_parameters(net, params, batch, inner_lr):
    return looped(net, params, batch, inner_lr, update=lambda p, g: (p - inner_lr * g).detach().requires_grad_())


def carries_parameters_on(net, params, batch, inner_lr):
    """Adapts each task from where the last one ended."""
    total = 0.0
    for task in one_by_one(batch):
        params = maml.inner_loop(net, params, task.support_x[0], task.support_y[0], inner_lr=inner_lr)
        total = total + mse(functional_call(net, params, (task.query_x[0],)), task.query_y[0])
    return total / len(batch)


def guard_mean_over_shots(implementation):
    """Writing every example down twice changes no mean, so it must change nothing."""
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    parts = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    doubled = TaskBatch(*(part.repeat_interleave(2, 1) for part in parts))
    once, twice = (implementation(net, params, b, 0.05) for b in (batch, doubled))
    assert torch.allclose(once, twice, rtol=1e-12)


def guard_judged_on_query(implementation):
    """Query targets set to what the adapted network says make the meta-loss zero."""
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    answers = []
    for task in one_by_one(batch):
        fast = maml.inner_loop(net, params, task.support_x[0], task.support_y[0], inner_lr=0.05)
        answers.append(functional_call(net, fast, (task.query_x[0],)).detach())
    told = TaskBatch(batch.support_x, batch.support_y, batch.query_x, torch.stack(answers))
    assert implementation(net, params, told, 0.05).item() < 1e-20


def guard_graph_kept(implementation):
    """The gradient through the implementation is the slope of its own value."""
    net, batch = network(width=3), sinusoids()
    params = dict(net.named_parameters())
    true = flat(finite_differences(lambda p: implementation(net, p, batch, 0.05), params))
    found = torch.autograd.grad(
        implementation(net, params, batch, 0.05), list(params.values()), allow_unused=True, materialize_grads=True
    )
    assert relative(torch.cat([g.flatten() for g in found]), true) < 1e-6


def guard_tasks_apart(implementation):
    """The meta-loss of a batch is the mean over its tasks alone, in any order."""
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    alone = torch.stack([implementation(net, params, task, 0.05) for task in one_by_one(batch)]).mean()
    turned = TaskBatch(*(p.flip(0) for p in (batch.support_x, batch.support_y, batch.query_x, batch.query_y)))
    assert torch.allclose(implementation(net, params, batch, 0.05), alone, rtol=1e-12)
    assert torch.allclose(implementation(net, params, turned, 0.05), alone, rtol=1e-12)


GUARDS = [guard_mean_over_shots, guard_judged_on_query, guard_graph_kept, guard_tasks_apart]


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("implementation", [ours, looped])
def test_guards_pass_for_what_is_right(guard, implementation):
    guard(implementation)


@pytest.mark.parametrize(
    ("bug", "guard"),
    [
        (divides_by_shots_twice, guard_mean_over_shots),
        (judges_on_support, guard_judged_on_query),
        (detaches_the_inner_gradient, guard_graph_kept),
        (detaches_the_adapted_parameters, guard_graph_kept),
        (carries_parameters_on, guard_tasks_apart),
    ],
)
def test_guards_fail_for_what_is_wrong(bug, guard):
    with pytest.raises(AssertionError):
        guard(bug)


def test_query_does_not_reach_the_adapted_parameters():
    """The slope in the query's data is the partial one, at adapted parameters that are held still."""
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    x, y = batch.query_x.clone().requires_grad_(), batch.query_y.clone().requires_grad_()
    told = TaskBatch(batch.support_x, batch.support_y, x, y)
    found = torch.autograd.grad(maml.meta_loss(net, params, told, inner_lr=0.05, steps=2), (x, y))
    still = 0.0
    for i in range(len(batch)):
        fast = maml.inner_loop(net, params, batch.support_x[i], batch.support_y[i], inner_lr=0.05, steps=2)
        fast = {name: p.detach() for name, p in fast.items()}
        still = still + mse(functional_call(net, fast, (x[i],)), y[i]) / len(batch)
    for a, b in zip(found, torch.autograd.grad(still, (x, y))):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)


def test_other_query_targets_give_the_same_predictions():
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    other = TaskBatch(batch.support_x, batch.support_y, batch.query_x, batch.query_y + 7)
    options = {"inner_lr": 0.05, "steps": 3, "metric": lambda prediction, target: prediction.mean()}
    curves = [maml.adaptation_curve(net, params, b, **options) for b in (batch, other)]
    assert torch.equal(*curves)
    assert curves[0].std(1).min() > 0  # the predictions did change from step to step


# State and randomness.


def with_layer(layer: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 6), layer, nn.Tanh(), nn.Linear(6, 1)).double()


class Counting(nn.Module):
    """Writes to a buffer in forward, in one of three ways."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x):
        if self.how == "in place, no data":
            self.seen += 1
        elif self.how == "in place":
            self.seen += x.mean(0)
        else:
            self.seen = 0.9 * self.seen + x.mean(0)
        return x + self.seen


@pytest.mark.parametrize("how", ["in place, no data", "in place", "anew"])
def test_a_module_that_writes_state_is_refused_and_left_as_it_was(how):
    net, batch = with_layer(Counting(how)), sinusoids()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for work in (maml.meta_loss, maml.adaptation_curve):
        with pytest.raises(CourseError, match="seen|in place"):
            work(net, dict(net.named_parameters()), batch, inner_lr=0.01, steps=1)
    after = net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_constant_buffers_are_no_obstacle():
    net = with_layer(nn.Identity())
    net.register_buffer("scale", torch.ones(3))
    assert maml.meta_loss(net, dict(net.named_parameters()), sinusoids(), inner_lr=0.01).isfinite()


def test_running_statistics_would_leak_and_are_refused():
    """First the leak itself: by hand, the statistics that one task leaves change the next task's result."""
    net, batch = with_layer(nn.BatchNorm1d(6)), sinusoids()
    before = net[1].running_mean.clone()
    net(batch.support_x[0])
    assert not torch.equal(net[1].running_mean, before)
    params = dict(net.named_parameters())
    for work in (maml.meta_loss, maml.meta_gradient, maml.adaptation_curve, maml.reptile_gradient):
        with pytest.raises(CourseError, match="BatchNorm1d '1'.*running statistics"):
            work(net, params, batch, inner_lr=0.01, steps=1)
    with pytest.raises(CourseError, match="running statistics"):
        maml.inner_loop(net, params, batch.support_x[0], batch.support_y[0], inner_lr=0.01)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(6, track_running_stats=False),
        nn.BatchNorm1d(6).eval(),
        nn.LayerNorm(6),
        nn.Dropout(0.5).eval(),
        nn.Dropout(0.0),
    ],
    ids=["batch statistics", "frozen statistics", "layer norm", "dropout off", "dropout of nothing"],
)
def test_allowed_layers_keep_tasks_apart(layer):
    net, batch = with_layer(layer), sinusoids()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    options = {"inner_lr": 0.01, "steps": 2}
    params = dict(net.named_parameters())
    whole = maml.meta_gradient(net, params, batch, **options)
    alone = [flat(maml.meta_gradient(net, params, task, **options).params) for task in one_by_one(batch)]
    assert relative(flat(whole.params), torch.stack(alone).mean(0)) < 1e-12
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


class FunctionalDropout(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), FunctionalDropout()])
def test_dropout_is_refused(layer):
    net, batch = with_layer(layer), sinusoids()
    params = dict(net.named_parameters())
    with pytest.raises(CourseError, match="draws at random"):
        maml.meta_loss(net, params, batch, inner_lr=0.01)


# ANIL, Meta-SGD, Reptile, steps.


def test_anil_adapts_the_head_alone_and_meta_learns_the_body():
    net, batch, head = network(), sinusoids(), ["4.weight", "4.bias"]
    params = dict(net.named_parameters())
    fast = maml.inner_loop(net, params, batch.support_x[0], batch.support_y[0], inner_lr=0.05, adaptable=head)
    assert {name for name in params if not torch.equal(fast[name], params[name])} == set(head)
    found = maml.meta_gradient(net, params, batch, inner_lr=0.05, adaptable=head)
    assert all(g.norm() > 0 for g in found.params.values())


def test_params_count_and_not_what_the_module_holds():
    """The module is only a recipe: other parameters than its own give what a module that holds them gives."""
    net, other, batch, head = network(), network(5), sinusoids(), ["4.weight", "4.bias"]
    params = {name: p.detach().clone() for name, p in other.named_parameters()}
    for options in ({"adaptable": head}, {"adaptable": None}, {"adaptable": head, "second_order": False}):
        found = maml.meta_gradient(net, params, batch, inner_lr=0.05, steps=2, **options)
        true = maml.meta_gradient(other, params, batch, inner_lr=0.05, steps=2, **options)
        assert torch.equal(found.loss, true.loss)
        assert torch.equal(flat(found.params), flat(true.params))


@pytest.mark.parametrize("steps", [0, 2])
def test_a_parameter_that_nothing_uses_has_gradient_zero(steps):
    net = network()
    net.register_parameter("idle", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    found = maml.meta_gradient(net, dict(net.named_parameters()), sinusoids(), inner_lr=0.05, steps=steps)
    assert torch.equal(found.params["idle"], torch.zeros(3, dtype=torch.float64))


def test_part_of_the_parameters_leaves_the_others_alone():
    net, batch = network(), sinusoids()
    part = {name: p for name, p in net.named_parameters() if name.startswith("4")}
    found = maml.meta_gradient(net, part, batch, inner_lr=0.05)
    assert set(found.params) == set(part)
    head = maml.meta_gradient(net, dict(net.named_parameters()), batch, inner_lr=0.05, adaptable=part)
    assert all(torch.allclose(found.params[name], head.params[name], rtol=1e-12) for name in part)


def test_learned_rates_start_as_the_number_and_have_the_right_gradient():
    net, batch = network(width=3), sinusoids()
    params = dict(net.named_parameters())
    rates = maml.learned_rates(params, 0.05)
    found = maml.meta_gradient(net, params, batch, inner_lr=rates, steps=2)
    plain = maml.meta_gradient(net, params, batch, inner_lr=0.05, steps=2)
    assert relative(flat(found.params), flat(plain.params)) < 1e-12
    true = finite_differences(lambda r: maml.meta_loss(net, params, batch, inner_lr=r, steps=2), rates)
    assert relative(flat(found.inner_lr), flat(true)) < 1e-6
    assert plain.inner_lr == {}


def test_meta_step_updates_the_rates_that_the_optimiser_holds():
    batch = sinusoids()
    for held in (True, False):
        net = network()
        params = dict(net.named_parameters())
        rates = maml.learned_rates(params, 0.05)
        found = maml.meta_gradient(net, params, batch, inner_lr=rates)
        before = {name: p.detach().clone() for name, p in params.items()}
        tensors = [*params.values(), *rates.values()] if held else list(params.values())
        value = maml.meta_step(net, params, batch, torch.optim.SGD(tensors, lr=0.1), inner_lr=rates)
        assert torch.equal(value, found.loss)
        for name in params:
            assert torch.allclose(params[name], before[name] - 0.1 * found.params[name], rtol=1e-12)
            moved = 0.05 - 0.1 * found.inner_lr[name] if held else torch.full_like(rates[name], 0.05)
            assert torch.allclose(rates[name], moved, rtol=1e-12)
            assert held or rates[name].grad is None


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_learned_rate_for_all_has_the_right_gradient_and_is_updated(shape):
    net, batch = network(width=3), sinusoids()
    params = dict(net.named_parameters())
    rate = torch.full(shape, 0.05, dtype=torch.float64, requires_grad=True)
    value = lambda at: maml.meta_loss(net, params, batch, inner_lr=at["inner_lr"], steps=2)  # noqa: E731
    true = finite_differences(value, {"inner_lr": rate})["inner_lr"]
    (slope,) = torch.autograd.grad(value({"inner_lr": rate}), rate)
    found = maml.meta_gradient(net, params, batch, inner_lr=rate, steps=2)
    assert found.inner_lr["inner_lr"].shape == shape and relative(found.inner_lr["inner_lr"], true) < 1e-6
    assert torch.allclose(found.inner_lr["inner_lr"], slope, rtol=1e-12)
    plain = maml.meta_gradient(net, params, batch, inner_lr=0.05, steps=2)
    assert relative(flat(found.params), flat(plain.params)) < 1e-12
    maml.meta_step(net, params, batch, torch.optim.SGD([*params.values(), rate], lr=0.1), inner_lr=rate, steps=2)
    assert torch.allclose(rate, 0.05 - 0.1 * found.inner_lr["inner_lr"], rtol=1e-12)


def test_a_rate_in_a_tensor_without_gradient_is_a_number():
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    rate = torch.tensor(0.05, dtype=torch.float64)
    for gradient in (maml.meta_gradient, maml.reptile_gradient):
        found, plain = (gradient(net, params, batch, inner_lr=alpha, steps=2) for alpha in (rate, 0.05))
        assert found.inner_lr == {} and relative(flat(found.params), flat(plain.params)) < 1e-12


def test_what_the_optimiser_holds_besides_stays_where_it_is():
    """An old gradient on a parameter outside `params` must not move it."""
    net, batch = network(), sinusoids()
    params = {name: p for name, p in net.named_parameters() if name != "0.bias"}
    other = net[0].bias
    other.grad = torch.ones_like(other)
    before = other.detach().clone()
    maml.meta_step(net, params, batch, torch.optim.SGD(net.parameters(), lr=0.1), inner_lr=0.05)
    assert torch.equal(other, before)


def test_meta_steps_lower_the_loss_after_adapting_on_new_tasks():
    net, test = network(dtype=torch.float32, width=20), sinusoids(50, 10, 99, torch.float32)
    params = dict(net.named_parameters())
    optimizer = torch.optim.Adam(params.values(), lr=5e-3)
    curve = lambda: maml.adaptation_curve(net, params, test, inner_lr=0.02, steps=2).mean(0)  # noqa: E731
    before = curve()
    for i in range(150):
        maml.meta_step(net, params, sinusoids(10, 10, i, torch.float32), optimizer, inner_lr=0.02)
    assert curve()[1] < 0.8 * before[1]
    assert curve()[1] < curve()[0]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_reptile_against_a_plain_loop(batch_size):
    net, batch, steps, rate = network(), sinusoids(), 4, 0.05
    params = {name: p.detach() for name, p in net.named_parameters()}
    found = maml.reptile_gradient(net, params, batch, inner_lr=rate, steps=steps, batch_size=batch_size)
    moved, first = [], []
    for i in range(len(batch)):
        x, y = torch.cat([batch.support_x[i], batch.query_x[i]]), torch.cat([batch.support_y[i], batch.query_y[i]])
        copy = network()
        optimizer = torch.optim.SGD(copy.parameters(), lr=rate)
        for step in range(steps):
            size = batch_size or len(x)
            at = [(step * size + j) % len(x) for j in range(size)]
            optimizer.zero_grad()
            value = mse(copy(x[at]), y[at])
            value.backward()
            optimizer.step()
            first += [value.detach()] * (step == 0)
        moved.append(flat(params) - torch.cat([p.detach().flatten() for p in copy.parameters()]))
    assert relative(flat(found.params), torch.stack(moved).mean(0)) < 1e-12
    assert torch.allclose(found.loss, torch.stack(first).mean())


def test_reptile_with_one_step_is_joint_training():
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    x, y = (torch.cat([getattr(batch, f"{p}_{v}") for p in ("support", "query")], 1).flatten(0, 1) for v in "xy")
    joint = torch.autograd.grad(mse(net(x), y), list(params.values()))
    found = maml.reptile_gradient(net, params, batch, inner_lr=0.05, steps=1)
    assert relative(flat(found.params), 0.05 * torch.cat([g.flatten() for g in joint])) < 1e-12


def test_adaptation_curve_is_the_query_loss_after_each_step():
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    curve = maml.adaptation_curve(net, params, batch, inner_lr=0.05, steps=3)
    assert curve.shape == (len(batch), 4) and not curve.requires_grad
    for steps in range(4):
        value = maml.meta_loss(net, params, batch, inner_lr=0.05, steps=steps)
        assert torch.allclose(curve[:, steps].mean(), value, rtol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 9])
def test_chunks_change_memory_and_nothing_else(chunk_size):
    net, batch = network(), sinusoids(4)
    params = dict(net.named_parameters())
    whole = maml.adaptation_curve(net, params, batch, inner_lr=0.05, steps=2)
    parts = maml.adaptation_curve(net, params, batch, inner_lr=0.05, steps=2, chunk_size=chunk_size)
    assert torch.allclose(parts, whole, rtol=1e-12)


def test_nothing_is_changed_by_what_is_pure():
    net, batch = network(), sinusoids()
    params = dict(net.named_parameters())
    before = {name: p.detach().clone() for name, p in params.items()}
    maml.meta_gradient(net, params, batch, inner_lr=0.05, steps=2)
    maml.reptile_gradient(net, params, batch, inner_lr=0.05, steps=2)
    maml.adaptation_curve(net, params, batch, inner_lr=0.05, steps=2)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in params.items())


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 5), nn.Linear(2, 5)

    def forward(self, a, b):
        return self.left(a) * self.right(b)


def test_other_modules_other_losses_other_inputs():
    """A convolution with cross-entropy, token numbers with an embedding, and a forward of two arguments."""
    torch.manual_seed(0)
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    tokens = nn.Sequential(nn.Embedding(11, 8), nn.LayerNorm(8), nn.Flatten(), nn.Linear(24, 5))
    pairs = TwoInputs()
    label = lambda: torch.randint(5, (3, 6))  # noqa: E731
    inputs = {
        images: lambda: torch.randn(3, 6, 1, 6, 6),
        tokens: lambda: torch.randint(11, (3, 6, 3)),
        pairs: lambda: (torch.randn(3, 6, 3), torch.randn(3, 6, 2)),
    }
    for module, draw in inputs.items():
        batch = TaskBatch(draw(), label(), draw(), label())
        params = dict(module.named_parameters())
        options = {"inner_lr": 0.1, "steps": 2, "loss": nn.functional.cross_entropy}
        whole = maml.meta_gradient(module, params, batch, **options)
        alone = [flat(maml.meta_gradient(module, params, task, **options).params) for task in one_by_one(batch)]
        assert relative(flat(whole.params), torch.stack(alone).mean(0)) < 1e-5
        accuracy = lambda p, y: (p.argmax(-1) == y).float().mean()  # noqa: E731
        curve = maml.adaptation_curve(module, params, batch, metric=accuracy, **options)
        assert curve.shape == (3, 3) and 0 <= curve.min() and curve.max() <= 1
        assert maml.reptile_gradient(module, params, batch, batch_size=4, **options).loss.isfinite()


# Bad input.


@pytest.mark.parametrize("spoil", ["inner rate", "data"])
def test_a_gradient_that_is_not_finite_updates_nothing(spoil):
    net, batch = network(dtype=torch.float32), sinusoids(dtype=torch.float32)
    if spoil == "data":
        batch.query_y[0, 0, 0] = math.nan
    params = dict(net.named_parameters())
    optimizer = torch.optim.Adam(params.values(), lr=0.1)
    before = {name: p.detach().clone() for name, p in params.items()}
    with pytest.raises(CourseError, match="'0.weight' is not finite.*nothing was updated"):
        maml.meta_step(net, params, batch, optimizer, inner_lr=1e30 if spoil == "inner rate" else 0.01, steps=3)
    assert all(torch.equal(p, before[name]) for name, p in params.items())
    assert not optimizer.state


def parts(support=(2, 3, 1), support_y=(2, 3, 1), query=(2, 4, 1), query_y=(2, 4, 1)):
    return [torch.zeros(shape) for shape in (support, support_y, query, query_y)]


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"support": (0, 3, 1), "support_y": (0, 3, 1), "query": (0, 4, 1), "query_y": (0, 4, 1)}, "no tasks"),
        ({"query": (2, 0, 1), "query_y": (2, 0, 1)}, "without examples"),
        ({"query": (3, 4, 1), "query_y": (3, 4, 1)}, "different numbers of tasks"),
        ({"support_y": (2, 5, 1)}, "support_x and support_y hold different numbers of shots"),
        ({"query": (2, 5, 1)}, "query_x and query_y hold different numbers of shots"),
        ({"support_y": (2,)}, "lacks the dimensions"),
    ],
)
def test_batches_that_do_not_fit_are_refused(shapes, told):
    assert len(TaskBatch(*parts())) == 2
    with pytest.raises(CourseError, match=told):
        TaskBatch(*parts(**shapes))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"adaptable": ["4.weight", "head"]}, "'head'"),
        ({"adaptable": "nothing"}, "'nothing'"),
        ({"adaptable": []}, "no parameter at all"),
        ({"steps": -1}, "-1 inner steps"),
        ({"steps": 1.5}, "1.5 inner steps"),
        ({"inner_lr": math.nan}, "inner_lr is nan"),
        ({"inner_lr": -0.1}, "inner_lr is -0.1"),
        ({"inner_lr": math.inf}, "inner_lr is inf"),
        ({"inner_lr": {"0.weight": torch.tensor(0.1)}}, "no inner rate for 0.bias"),
        ({"inner_lr": "0.1"}, "inner_lr is '0.1'"),
        ({"inner_lr": torch.tensor([0.1, 0.2])}, "inner_lr is tensor"),
        ({"inner_lr": {"0.bias": torch.ones(3)}}, "inner_lr of 0.bias has the shape"),
        ({"loss": lambda p, y: (p - y).square()}, "loss returned shape"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(change, told):
    net = network()
    with pytest.raises(CourseError, match=told):
        maml.meta_gradient(net, dict(net.named_parameters()), sinusoids(), **{"inner_lr": 0.1, "steps": 1} | change)


def test_a_chunk_of_no_tasks_is_refused():
    net = network()
    with pytest.raises(CourseError, match="chunk_size is 0"):
        maml.adaptation_curve(net, dict(net.named_parameters()), sinusoids(), inner_lr=0.1, steps=1, chunk_size=0)


def test_parameters_of_another_module_are_refused():
    net = network()
    params = dict(net.named_parameters())
    for wrong in ({"elsewhere": params["0.bias"]}, {"0.bias": torch.zeros(2)}):
        with pytest.raises(CourseError, match="elsewhere|0.bias"):
            maml.meta_loss(net, params | wrong, sinusoids(), inner_lr=0.1)


def test_targets_of_another_shape_do_not_broadcast():
    net, batch = network(), sinusoids()
    flattened = TaskBatch(batch.support_x, batch.support_y[..., 0], batch.query_x, batch.query_y[..., 0])
    with pytest.raises(CourseError, match=r"\(5, 1\) and the target \(5,\)"):
        maml.meta_loss(net, dict(net.named_parameters()), flattened, inner_lr=0.1)


def test_an_inner_update_leaves_parameters_without_gradient_as_they_are():
    params = {"w": torch.zeros(2), "v": torch.ones(2)}
    updated = maml.inner_update(params, {"w": torch.ones(2)}, 0.5)
    assert torch.equal(updated["w"], torch.full((2,), -0.5)) and torch.equal(updated["v"], params["v"])


def test_an_optimiser_that_lacks_a_parameter_is_refused():
    net = network()
    params = dict(net.named_parameters())
    optimizer = torch.optim.SGD([params["0.weight"]], lr=0.1)
    before = params["0.weight"].detach().clone()
    with pytest.raises(CourseError, match="does not hold 0.bias"):
        maml.meta_step(net, params, sinusoids(), optimizer, inner_lr=0.1)
    assert torch.equal(params["0.weight"], before)


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch_size": 0}, {"batch_size": 11}])
def test_reptile_needs_steps_and_examples(change):
    net = network()
    with pytest.raises(CourseError, match="each task has 10"):
        maml.reptile_gradient(net, dict(net.named_parameters()), sinusoids(), **{"inner_lr": 0.1, "steps": 1} | change)
