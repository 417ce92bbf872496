"""Memory while learning, against sums that can be worked out by hand."""

from __future__ import annotations

import torch

from rapidadapt_lessons.continual.digits import digit_network, permuted_digits
from rapidadapt_lessons.continual.distillation import LwF
from rapidadapt_lessons.continual.ewc import EWC
from rapidadapt_lessons.continual.peak_memory import learning_bytes, peak_bytes
from rapidadapt_lessons.continual.stream import Method, trainable_state
from rapidadapt_lessons.training.loop import TrainConfig

NUMBERS = sum(p.numel() for p in digit_network().parameters())
CONFIG = TrainConfig(steps=60, batch_size=32, lr=3e-3)


def test_what_is_freed_is_counted_no_longer():
    def one_after_another():
        for _ in range(5):
            torch.zeros(1000)

    assert peak_bytes(one_after_another) == 4000
    assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(5)]) == 20_000


def test_views_are_no_new_memory_and_old_tensors_do_not_count():
    old = torch.ones(5000)
    assert peak_bytes(lambda: old.view(50, 100).t()[3:]) == 0
    assert peak_bytes(lambda: old[:100] + 1) == 400


def test_what_a_backward_pass_needs_counts_too():
    weight = torch.ones(1000, requires_grad=True)
    with torch.no_grad():
        forward = peak_bytes(lambda: weight.exp().exp().exp().sum())
    both = peak_bytes(lambda: torch.autograd.grad(weight.exp().exp().exp().sum(), weight))
    assert forward < 2 * 4000 + 100 and both > 4 * 4000  # one result and the next; three results and a gradient


def test_an_optimiser_holds_two_numbers_for_each_weight_and_its_gradient_one():
    found = learning_bytes(Method(), digit_network(), permuted_digits(2), CONFIG)
    assert found > 3 * 4 * NUMBERS


def test_what_a_method_stores_is_in_its_peak():
    stream, peaks = permuted_digits(3), {}
    for method in (Method(), LwF(), EWC(1.0, examples=2), EWC(1.0, online=True, examples=2)):
        model = digit_network()
        before = trainable_state(model)
        peaks[method.name] = learning_bytes(method, model, stream, CONFIG)
        assert all(torch.equal(value, before[name]) for name, value in trainable_state(model).items())
    plain = peaks["fine-tuning"]
    assert peaks["LwF"] - plain >= 4 * NUMBERS
    assert peaks["EWC"] - plain >= 4 * 4 * NUMBERS  # two sets of springs in place while the third experience is learned
    assert peaks["online EWC"] < peaks["EWC"]


def test_the_peak_does_not_grow_with_the_number_of_updates():
    stream = permuted_digits(2)
    few, many = (learning_bytes(Method(), digit_network(), stream, CONFIG, updates=n) for n in (2, 20))
    assert many <= 1.01 * few
