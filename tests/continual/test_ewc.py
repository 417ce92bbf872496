"""EWC's Fisher is right where it is known in closed form, and its penalty is the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rapidadapt_lessons.continual.digits import digit_network, permuted_digits
from rapidadapt_lessons.continual.ewc import EWC, fisher_diagonal
from rapidadapt_lessons.continual.stream import run_stream, set_trainable_state, trainable_state
from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.training.loop import TrainConfig


class Logistic:
    """P(y = 1 | x) = sigmoid(w . x); an example is (x, y)."""

    def loss(self, model, examples, reduction="mean"):
        x, y = torch.stack([x for x, _ in examples]), torch.tensor([y for _, y in examples], dtype=torch.float64)
        return F.binary_cross_entropy_with_logits(model(x).squeeze(-1), y, reduction=reduction)


class Gaussian:
    """y is normal around w . x with a standard deviation of sigma."""

    sigma = 0.5

    def loss(self, model, examples, reduction="mean"):
        x, y = torch.stack([x for x, _ in examples]), torch.tensor([y for _, y in examples], dtype=torch.float64)
        each = (y - model(x).squeeze(-1)) ** 2 / (2 * self.sigma**2)
        return each.sum() if reduction == "sum" else each.mean()


def linear(weights: list[float]) -> nn.Linear:
    model = nn.Linear(len(weights), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights], dtype=torch.float64))
    return model


def drawn(count: int, noise) -> list[tuple[torch.Tensor, float]]:
    """Draw inputs, and answers as the model itself would give them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.1])
    return [(row, noise(row, generator)) for row in x]


WEIGHTS = torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64)


def coin(x: torch.Tensor, generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator) < torch.sigmoid(x @ WEIGHTS))


def bell(x: torch.Tensor, generator: torch.Generator) -> float:
    return float(x @ WEIGHTS + Gaussian.sigma * torch.randn((), generator=generator, dtype=torch.float64))


def batch_gradient_variant(model, scenario, examples):
    """The common mistake: the square of the mean gradient."""
    [grad] = torch.autograd.grad(scenario.loss(model, examples), [model.weight])
    return {"weight": grad**2}


def relative_error(found: torch.Tensor, true: torch.Tensor) -> float:
    return ((found - true).abs() / true.abs()).max().item()


# The gradient of log P for one example is (y - p) x, and (y - w . x) x / sigma^2.


@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_fisher_of_a_logistic_model_is_the_closed_form(count):
    model, examples = linear(WEIGHTS.tolist()), drawn(count, coin)
    p = [torch.sigmoid(x @ WEIGHTS) for x, _ in examples]
    true = torch.stack([(y - p_n) ** 2 * x**2 for (x, y), p_n in zip(examples, p)]).mean(0)
    assert torch.allclose(fisher_diagonal(model, Logistic(), examples)["weight"], true[None], rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_fisher_of_a_linear_gaussian_model_is_the_closed_form(count):
    model, examples = linear(WEIGHTS.tolist()), drawn(count, bell)
    true = torch.stack([((y - x @ WEIGHTS) * x / Gaussian.sigma**2) ** 2 for x, y in examples]).mean(0)
    assert torch.allclose(fisher_diagonal(model, Gaussian(), examples)["weight"], true[None], rtol=1e-9)


@pytest.mark.parametrize("scenario, noise", [(Logistic(), coin), (Gaussian(), bell)])
def test_with_the_models_own_answers_it_is_the_true_fisher(scenario, noise):
    """Whose diagonal is the mean of p (1 - p) x^2, or of x^2 / sigma^2: answers drop out of it."""
    examples = drawn(4000, noise)
    x = torch.stack([x for x, _ in examples])
    p = torch.sigmoid(x @ WEIGHTS)
    variance = p * (1 - p) if isinstance(scenario, Logistic) else torch.full_like(p, 1 / Gaussian.sigma**2)
    true = (variance[:, None] * x**2).mean(0)
    model = linear(WEIGHTS.tolist())
    assert relative_error(fisher_diagonal(model, scenario, examples)["weight"][0], true) < 0.1
    assert relative_error(batch_gradient_variant(model, scenario, examples)["weight"][0], true) > 0.9


def test_the_batch_gradient_variant_is_found_out():
    model, examples = linear(WEIGHTS.tolist()), drawn(50, coin)
    right = fisher_diagonal(model, Logistic(), examples)["weight"]
    assert not torch.allclose(batch_gradient_variant(model, Logistic(), examples)["weight"], right, rtol=0.5)


def test_the_fisher_of_a_network_is_the_mean_square_of_its_per_example_gradients():
    """By another route: torch.func's vmap over per-example gradients."""
    from torch.func import functional_call, grad, vmap

    model, examples = digit_network(), permuted_digits(1).experiences[0].train[:20]
    x = torch.tensor([digit.pixels for digit in examples])
    y = torch.tensor([digit.label for digit in examples])
    loss = lambda weights, x, y: F.cross_entropy(functional_call(model, weights, x), y)  # noqa: E731
    each = vmap(grad(loss), (None, 0, 0))(trainable_state(model), x, y)
    found = fisher_diagonal(model, permuted_digits(1).scenario, examples)
    assert all(torch.allclose(found[name], (value**2).mean(0), atol=1e-7) for name, value in each.items())
    assert max(value.max() for value in found.values()) > 1e-4


def test_the_fisher_leaves_no_trace_and_ignores_dropout():
    model = nn.Sequential(nn.Dropout(0.5), digit_network()).train()
    stream = permuted_digits(1)
    examples = stream.experiences[0].train[:5]
    first = fisher_diagonal(model, stream.scenario, examples)
    again = fisher_diagonal(model, stream.scenario, examples)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert model.training and all(p.grad is None for p in model.parameters())


def test_only_trained_parameters_have_a_fisher():
    model, stream = digit_network(), permuted_digits(1)
    model[0].requires_grad_(False)
    assert set(fisher_diagonal(model, stream.scenario, stream.experiences[0].train[:2])) == {"2.weight", "2.bias"}


# The penalty.


def at(model: nn.Linear, weights: list[float]) -> None:
    set_trainable_state(model, {"weight": torch.tensor([weights], dtype=torch.float64)})


def test_the_penalty_is_the_formula_and_offline_keeps_every_experience():
    method, model = EWC(strength=3.0), linear([1.0, 2.0])
    first = {"weight": torch.tensor([[2.0, 0.5]], dtype=torch.float64)}
    second = {"weight": torch.tensor([[1.0, 4.0]], dtype=torch.float64)}
    method.springs = [(first, trainable_state(model))]
    assert method.penalty(model).item() == 0
    at(model, [2.0, 4.0])
    assert method.penalty(model).item() == pytest.approx(1.5 * (2.0 * 1 + 0.5 * 4))
    method.springs.append((second, trainable_state(model)))
    at(model, [0.0, 4.0])
    assert method.penalty(model).item() == pytest.approx(1.5 * (2.0 * 1 + 0.5 * 4) + 1.5 * (1.0 * 4))


def test_the_penaltys_gradient_pulls_back_as_hard_as_the_fisher_says():
    method, model = EWC(strength=3.0), linear([1.0, 2.0])
    method.springs = [({"weight": torch.tensor([[2.0, 0.5]], dtype=torch.float64)}, trainable_state(model))]
    at(model, [1.5, 1.0])
    [grad] = torch.autograd.grad(method.penalty(model), [model.weight])
    assert grad[0].tolist() == pytest.approx([3.0 * 2.0 * 0.5, 3.0 * 0.5 * -1.0])


def test_offline_adds_springs_and_online_lets_one_set_fade():
    examples = [drawn(20, coin), drawn(40, coin)[20:]]
    places = [[0.5, -0.3, 1.0], [0.1, 0.0, 0.2]]
    fishers = []
    offline, online = EWC(), EWC(online=True, decay=0.25)
    model = linear(places[0])
    for place, own in zip(places, examples):
        at(model, place)
        fishers.append(fisher_diagonal(model, Logistic(), own)["weight"])
        offline.remember(model, Logistic(), own)
        online.remember(model, Logistic(), own)
    assert len(offline.springs) == 2 and offline.stored_numbers == 12
    assert [weights["weight"][0].tolist() for _, weights in offline.springs] == places
    [(fisher, weights)] = online.springs
    assert torch.allclose(fisher["weight"], 0.25 * fishers[0] + fishers[1])
    assert weights["weight"][0].tolist() == places[1] and online.stored_numbers == 6


def test_the_stiffer_the_springs_the_less_the_weights_move_where_the_fisher_is_large():
    stream, config = permuted_digits(2), TrainConfig(steps=40, batch_size=32, lr=1e-3)

    def moved(strength):
        model, method = digit_network(), EWC(strength)
        method.start(model, stream, 0)
        method.learn(model, stream, 0, config)
        before = trainable_state(model)
        method.learn(model, stream, 1, config)
        fisher = method.springs[0][0]
        after = trainable_state(model)
        return sum((fisher[name] * (after[name] - before[name]) ** 2).sum().item() for name in before)

    distances = [moved(strength) for strength in (0.0, 300.0, 100_000.0)]
    assert distances[0] > 3 * distances[1] > 9 * distances[2]


def test_an_experience_has_at_most_the_asked_examples_in_its_fisher(monkeypatch):
    from rapidadapt_lessons.continual import ewc

    counts = []
    monkeypatch.setattr(ewc, "fisher_diagonal", lambda *given: counts.append(len(set(given[2]))) or {})
    run_stream(EWC(0.0, examples=7), nn.Sequential(digit_network()), permuted_digits(1), TrainConfig(steps=1))
    assert counts == [7]


# Bad input.


def test_a_penalty_before_any_fisher_is_refused():
    with pytest.raises(CourseError, match="EWC has no Fisher information yet") as error:
        EWC().penalty(digit_network())
    assert "remember(model, scenario, examples)" in error.value.remedy


def test_a_fisher_of_no_examples_is_refused():
    with pytest.raises(CourseError, match="no examples for the Fisher information"):
        fisher_diagonal(digit_network(), permuted_digits(1).scenario, [])


def test_a_fisher_that_is_not_finite_is_refused():
    model, stream = digit_network(), permuted_digits(1)
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.raises(CourseError, match="the Fisher information of 0.weight is not finite"):
        fisher_diagonal(model, stream.scenario, stream.experiences[0].train[:2])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"strength": -1.0}, "strength is -1.0"),
        ({"strength": float("inf")}, "strength is inf"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"examples": 0}, "examples is 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(CourseError, match=message):
        EWC(**arguments)
