"""Four bits by hand: bitsandbytes' levels, codes and numbers, and gradients that go through."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from tiny_models import tiny_gpt2, tiny_llama
from torch import nn

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora import quantise
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.lora.quantise import Linear4bit, bitsandbytes_layer, dequantise, nf4_levels, quantise_model


@pytest.fixture(scope="module")
def bitsandbytes():
    return pytest.importorskip("bitsandbytes.functional")


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.05


def test_the_levels_are_quantiles_of_a_normal_distribution_with_an_exact_zero(bitsandbytes):
    levels = nf4_levels()
    assert (len(levels), levels[0].item(), levels[7].item(), levels[-1].item()) == (16, -1.0, 0.0, 1.0)
    assert (levels[1:] > levels[:-1]).all()
    _, state = bitsandbytes.quantize_4bit(weights(64, 64), blocksize=64, quant_type="nf4")
    torch.testing.assert_close(levels, state.code.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("block", [64, 128])
def test_codes_scales_and_numbers_are_bitsandbytes(bitsandbytes, block):
    weight = weights(96, 128)
    codes, state = bitsandbytes.quantize_4bit(weight, blocksize=block, quant_type="nf4")
    packed = quantise.quantise(weight, block)
    assert torch.equal(packed.codes, codes.flatten())
    assert torch.equal(packed.scales, state.absmax)
    theirs = bitsandbytes.dequantize_4bit(codes, state)
    torch.testing.assert_close(dequantise(packed), theirs, atol=1e-7, rtol=0)


def test_every_number_goes_to_the_nearest_level_and_the_largest_of_a_block_stays():
    weight = weights(8, 64)
    made = dequantise(quantise.quantise(weight))
    for row in range(8):
        grid = nf4_levels() * weight[row].abs().max()
        nearest = grid[(weight[row][:, None] - grid).abs().argmin(1)]
        torch.testing.assert_close(made[row], nearest)
        largest = weight[row].abs().argmax()
        torch.testing.assert_close(made[row][largest], weight[row][largest])


def test_four_bits_and_a_scale_for_each_block_are_what_is_kept():
    packed = quantise.quantise(weights(64, 64))
    assert packed.nbytes == 64 * 64 // 2 + 64 * 4
    assert torch.equal(dequantise(quantise.quantise(torch.zeros(2, 64))), torch.zeros(2, 64))


def test_a_quantised_model_keeps_no_copy_of_the_weights_and_lora_trains_on_it():
    model = tiny_llama()
    before = sum(p.numel() for p in model.parameters())
    exact = model(torch.tensor([[5, 6, 7, 8]])).logits
    quantise_model(model, ("up_proj", "down_proj"), lambda layer: Linear4bit(layer, block=16))
    assert before - sum(p.numel() for p in model.parameters()) == 2 * 2 * 16 * 32
    assert 0 < (model(torch.tensor([[5, 6, 7, 8]])).logits - exact).abs().max() < 0.05
    lora.inject(model, LoRAConfig(4, target_modules=("q_proj",)))
    for layer in lora.lora_layers(model).values():
        layer.lora_B.data.fill_(0.1)
    model(torch.tensor([[5, 6, 7, 8]]), labels=torch.tensor([[5, 6, 7, 8]])).loss.backward()
    first = next(iter(lora.lora_layers(model).values()))
    assert first.lora_A.grad.abs().sum() > 0, "no gradient came through the 4-bit layers above"


def test_lora_sits_on_a_4_bit_layer_and_is_not_merged_into_it():
    base = quantise_model(tiny_llama(), ("q_proj", "v_proj"), lambda layer: Linear4bit(layer, block=16))
    model = lora.inject(base, LoRAConfig(4))
    layers = lora.lora_layers(model)
    assert len(layers) == 4 and all(isinstance(layer.base, Linear4bit) for layer in layers.values())
    with pytest.raises(CourseError, match="Linear4bit holds no weight to merge into"):
        lora.merge(model)


def test_gradients_are_those_of_the_made_weight_which_is_not_kept_for_the_backward_pass():
    base = nn.Linear(64, 32, bias=False)
    layer, x = Linear4bit(base), weights(3, 64, seed=1).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        y = layer(x)
    assert sum(kept) == 0
    y.square().sum().backward()
    expected = torch.autograd.grad((x @ layer.weight.T).square().sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("bias", [False, True])
def test_bitsandbytes_layer_gives_our_outputs_and_gradients_also_after_an_evaluation(bitsandbytes, bias):
    base = nn.Linear(128, 64, bias=bias)
    ours, theirs = Linear4bit(base), bitsandbytes_layer(base)
    assert theirs.weight.dtype == torch.uint8 and not theirs.weight.requires_grad
    with torch.no_grad():
        theirs.eval()(weights(3, 128))  # where the library would repack its codes, and let no gradient pass again
    found = []
    for layer in (ours, theirs.train()):
        x = weights(5, 128, seed=1).requires_grad_()
        y = layer(x)
        found.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_layer_with_a_bias_gives_the_product_with_the_made_weight():
    base = nn.Linear(64, 3)
    x = weights(2, 64, seed=1)
    expected = x @ dequantise(quantise.quantise(base.weight)).T + base.bias
    torch.testing.assert_close(Linear4bit(base)(x), expected)


def test_layers_whose_weights_lie_the_other_way_round_are_refused():
    model = tiny_gpt2()
    with pytest.raises(CourseError, match="is a Conv1D"):
        quantise_model(model, ("c_proj",))
    assert not any(isinstance(module, Linear4bit) for module in model.modules())


def test_bad_input_is_told():
    with pytest.raises(CourseError, match="100 weights cannot be cut into blocks of 64"):
        quantise.quantise(torch.zeros(10, 10))
    with pytest.raises(CourseError, match="blocks of 3"):
        quantise.quantise(torch.zeros(3, 3), block=3)
    with pytest.raises(CourseError, match="NaN or infinite"):
        quantise.quantise(torch.full((2, 64), float("nan")))


def test_two_notices_can_be_hidden_for_good_and_no_others(caplog):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    before = list(logger.filters)
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            quantise.hide_library_notices()
            warnings.warn("`is_gradient_checkpointing` is deprecated and will go", FutureWarning, stacklevel=1)
            warnings.warn("`something` is deprecated", FutureWarning, stacklevel=1)
            logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: x")
            logger.warning("something else")
    finally:
        logger.filters[:] = before
    assert [str(warning.message) for warning in seen] == ["`something` is deprecated"]
    assert [record.getMessage() for record in caplog.records] == ["something else"]
