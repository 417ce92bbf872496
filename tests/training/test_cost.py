"""What training costs: bytes counted where the answer is known, and a peak that is seen."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_models import tiny_llama
from torch import nn

from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.training.cost import measure, training_bytes


def test_the_bytes_of_one_layers_training_are_those_worked_out_by_hand():
    layer, x = nn.Linear(10, 4), torch.randn(8, 10)
    optimizer = torch.optim.AdamW(layer.parameters())
    found = training_bytes(layer, optimizer, lambda: layer(x).tanh().sum())
    parameters = (10 * 4 + 4) * 4
    assert found["weights"] == found["gradients"] == parameters
    assert found["optimiser"] == 2 * parameters + 2 * 4  # two averages of each number, and two step counters
    assert found["activations"] == (8 * 10 + 8 * 4) * 4  # the layer's input, and tanh's output


def test_what_the_forward_pass_lets_go_again_is_not_counted():
    """As with DoRA's norms, which are made with a graph and then cut off from it."""
    layer, x = nn.Linear(10, 4), torch.randn(8, 10)
    optimizer = torch.optim.AdamW(layer.parameters())

    def loss():
        held = [(layer.weight.repeat(50, 1) ** 2).sum().sqrt().detach() for _ in range(3)]
        return (layer(x) / held[0]).sum()

    found = training_bytes(layer, optimizer, loss)
    assert found["activations"] == (8 * 10 + 1) * 4  # the input, and the divisor


def test_the_count_is_that_of_a_whole_step_which_is_not_taken():
    """Counted one parameter after another, with each group's settings; tied weights count once, and stay."""
    model, twin = tiny_llama(), tiny_llama()
    ids = torch.arange(24).reshape(2, 12)

    def optimizer(model):
        first, *rest = model.parameters()
        return torch.optim.AdamW([{"params": [first], "amsgrad": True}, {"params": rest}], lr=0.1, weight_decay=0.2)

    found = training_bytes(model, optimizer(model), lambda: model(ids, labels=ids).loss)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None and not one._post_accumulate_grad_hooks
    whole = optimizer(twin)
    twin(ids, labels=ids).loss.backward()
    whole.step()
    assert found["gradients"] == sum(p.grad.nbytes for p in twin.parameters())
    assert found["optimiser"] == sum(t.nbytes for state in whole.state.values() for t in state.values())


def test_lora_needs_gradients_and_averages_of_the_adapter_alone():
    ids = torch.arange(24).reshape(2, 12)
    full, part = tiny_llama(), lora.inject(tiny_llama(), LoRAConfig(4))
    cost = [
        training_bytes(
            model,
            torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]),
            lambda m=model: m(ids, labels=ids).loss,
        )
        for model in (full, part)
    ]
    adapter = sum(p.nbytes for p in part.parameters() if p.requires_grad)
    assert cost[0]["gradients"] == cost[0]["weights"]
    assert cost[1]["gradients"] == adapter
    assert cost[1]["weights"] == cost[0]["weights"] + adapter
    assert cost[1]["optimiser"] < cost[0]["optimiser"] / 5


def test_a_peak_is_seen_and_the_result_handed_on():
    def work():
        large = torch.ones(50_000_000)  # 200 MB, touched
        return float(large.sum())

    result, cost = measure(work)
    assert result == 50_000_000
    assert 150e6 < cost.peak_bytes < 800e6
    assert cost.seconds > 0
    _, small = measure(lambda: 1)
    assert small.peak_bytes < 50e6


def test_the_rate_of_a_matrix_product_is_operations_over_the_median_time(monkeypatch):
    moments = iter([0.0, 9.0, 10.0, 10.5, 20.0, 20.25, 30.0, 31.0])  # rounds of 9 (not counted), .5, .25 and 1 second
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import matrix_product

    monkeypatch.setattr(matrix_product.time, "perf_counter", lambda: next(moments))
    assert matrix_product.matmul_flops(size=10, rounds=3) == 2 * 10**3 / 0.5
