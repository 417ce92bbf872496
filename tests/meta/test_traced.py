"""The traced meta-gradient is the plain one: for other numbers, options and modules than those it was traced with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.meta import maml
from rapidadapt_lessons.meta import traced as traced_module
from rapidadapt_lessons.meta.maml import TaskBatch
from rapidadapt_lessons.meta.traced import TracedMetaGradient
from rapidadapt_lessons.training.team import Team

OPTIONS = {"inner_lr": 0.05}


def network(seed: int = 0, activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 6), activation or nn.Tanh(), nn.Linear(6, 1)).double()


def batch(seed: int = 0, tasks: int = 3, shots: int = 4) -> TaskBatch:
    draw = torch.Generator().manual_seed(seed)
    sizes = ((tasks, shots, 2), (tasks, shots, 1)) * 2
    return TaskBatch(*(torch.randn(size, generator=draw, dtype=torch.float64) for size in sizes))


def assert_equal(found: maml.MetaGradient, expected: maml.MetaGradient) -> None:
    torch.testing.assert_close(found.loss, expected.loss)
    for name in ("params", "inner_lr"):
        one, other = getattr(found, name), getattr(expected, name)
        assert list(one) == list(other)
        for key in other:
            torch.testing.assert_close(one[key], other[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 2, "adaptable": "2.bias"},
        {"second_order": False, "adaptable": ["2.weight", "2.bias"]},
        {"loss": nn.functional.smooth_l1_loss},
    ],
)
def test_it_is_the_plain_gradient_also_of_numbers_it_was_not_traced_with(options):
    traced = TracedMetaGradient()
    for seed in range(3):
        net = network(7) if seed == 0 else net  # noqa: F821
        params = dict(network(seed).named_parameters())
        given = (net, params, batch(seed))
        assert_equal(traced(*given, **OPTIONS | options), maml.meta_gradient(*given, **OPTIONS | options))
    assert len(traced.traces) == 1


def test_learned_rates_are_read_and_their_gradient_is_returned():
    net, traced = network(), TracedMetaGradient()
    params = dict(net.named_parameters())
    for seed, rate in enumerate((0.01, 0.1)):
        rates = maml.learned_rates(params, rate)
        assert_equal(
            traced(net, params, batch(seed), inner_lr=rates),
            maml.meta_gradient(net, params, batch(seed), inner_lr=rates),
        )
    assert len(traced.traces) == 1


def test_what_params_does_not_name_is_read_each_time():
    net, traced = network(), TracedMetaGradient()
    head = {name: p for name, p in net.named_parameters() if name.startswith("2.")}
    for factor in (1.0, 3.0):
        with torch.no_grad():
            net[0].weight.mul_(factor)
        assert_equal(traced(net, head, batch(), **OPTIONS), maml.meta_gradient(net, head, batch(), **OPTIONS))
    assert len(traced.traces) == 1


def test_another_form_is_another_trace(monkeypatch):
    net, traced = network(), TracedMetaGradient()
    params = dict(net.named_parameters())
    for options in ({}, {"steps": 0}, {"inner_lr": 0.1}, {}):
        given = (net, params, batch(), OPTIONS | options)
        assert_equal(traced(*given[:3], **given[3]), maml.meta_gradient(*given[:3], **given[3]))
    for other in (batch(tasks=2), batch(shots=5)):
        assert_equal(traced(net, params, other, **OPTIONS), maml.meta_gradient(net, params, other, **OPTIONS))
    assert len(traced.traces) == 5
    monkeypatch.setattr(traced_module, "MOST_TRACES", 5)
    traced(net, params, batch(tasks=4), **OPTIONS)
    assert len(traced.traces) == 5  # the first has made room


class Sums(nn.Module):
    """Two inputs, a buffer, and two parameters with one and the same gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(2.0, dtype=torch.float64))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.sum(-1, keepdim=True) * b * self.scale + self.two + self.one


class InPlace(nn.Linear):
    """Computes the same thing twice, and changes one of the two in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = super().forward(x), super().forward(x)
        return first.add_(1.0) * second


@pytest.mark.parametrize(
    "module",
    [
        Sums(),
        InPlace(2, 1).double(),
        network(activation=nn.ReLU(inplace=True)),
        network(activation=nn.LayerNorm(6).double()),
    ],
)
def test_other_modules(module):
    traced, params = TracedMetaGradient(), dict(module.named_parameters())
    for seed in range(2):
        tasks = batch(seed)
        if isinstance(module, Sums):
            pairs = [(x, x[..., :1]) for x in (tasks.support_x, tasks.query_x)]
            tasks = TaskBatch(pairs[0], tasks.support_y, pairs[1], tasks.query_y)
            with torch.no_grad():
                module.scale.add_(1.0)
        assert_equal(traced(module, params, tasks, **OPTIONS), maml.meta_gradient(module, params, tasks, **OPTIONS))
    assert len(traced.traces) == 1


def test_training_with_it_ends_where_training_without_it_does():
    ends = []
    for options in ({}, {"gradient": TracedMetaGradient()}):
        net = network()
        params, losses = dict(net.named_parameters()), []
        rates = maml.learned_rates(params, 0.05)
        optimizer = torch.optim.Adam([*params.values(), *rates.values()], 1e-2)
        for seed in range(5):
            losses.append(maml.meta_step(net, params, batch(seed), optimizer, inner_lr=rates, **options))
        ends.append(
            torch.cat([*(p.detach().flatten() for p in (*params.values(), *rates.values())), torch.stack(losses)])
        )
    torch.testing.assert_close(ends[0], ends[1])


def test_it_is_shorter_and_leaves_its_arguments_alone():
    from torch.fx.experimental.proxy_tensor import make_fx

    net, traced, tasks = network(), TracedMetaGradient(), batch()
    params = dict(net.named_parameters())
    before = [p.detach().clone() for p in params.values()]
    found = traced(net, params, tasks, **OPTIONS)
    assert all(torch.equal(p, b) and p.grad is None and p.requires_grad for p, b in zip(params.values(), before))
    assert not any(g.requires_grad for g in (found.loss, *found.params.values()))
    whole = make_fx(lambda p: maml.meta_gradient(net, p, tasks, **OPTIONS).params)(params)
    (kept,) = traced.traces.values()
    assert len(kept.graph.nodes) < 0.8 * len(whole.graph.nodes)


def test_what_is_refused():
    net, traced = network(), TracedMetaGradient()
    params = dict(net.named_parameters())
    with pytest.raises(CourseError, match="inner_lr is one tensor"):
        traced(net, params, batch(), inner_lr=torch.tensor(0.1))
    with pytest.raises(CourseError, match="a team"):
        traced(net, params, batch(), inner_lr=0.1, team=Team())
    with pytest.raises(CourseError, match="inner steps"):
        traced(net, params, batch(), inner_lr=0.1, steps=-1)
    with pytest.raises(CourseError, match="no parameter of the module"):
        traced(net, {"5.weight": params["2.weight"]}, batch(), inner_lr=0.1)
    dropping = nn.Sequential(net, nn.Dropout(0.5)).eval()
    inside = dict(dropping.named_parameters())
    assert_equal(traced(dropping, inside, batch(), **OPTIONS), maml.meta_gradient(dropping, inside, batch(), **OPTIONS))
    with pytest.raises(CourseError, match="draws at random"):
        traced(dropping.train(), inside, batch(), **OPTIONS)
