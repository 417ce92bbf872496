"""A base model in 4 bits, as QLoRA keeps it (Dettmers et al. 2023, arXiv 2305.14314, sections 2 and 3).

Each block of weights is divided by its largest absolute value, and each weight becomes the number of the nearest of 16
levels (NF4), the quantiles of a normal distribution. Two numbers share a byte. Products make the weights anew.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CourseError
from ..lm import memory
from .targets import find_targets, replace_layers


def nf4_levels() -> Tensor:
    """Return the 16 levels of NF4, ascending from -1 to 1, with an exact zero, float32.

    The values of appendix E, made as by bitsandbytes' `create_normal_map`: 8 quantiles of N(0, 1) from its middle to
    probability 1 - (1/32 + 1/30)/2 give the levels above zero, 7 those below, all divided by the largest.
    """
    far = 1 - (1 / 32 + 1 / 30) / 2
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    above = normal.icdf(torch.linspace(0.5, far, 9, dtype=torch.float64)[1:])
    below = -normal.icdf(torch.linspace(0.5, far, 8, dtype=torch.float64)[1:])
    levels = torch.cat([below.flip(0), torch.zeros(1, dtype=torch.float64), above])
    return (levels / levels.max()).float()


@dataclass(frozen=True)
class Quantised:
    """A tensor in 4 bits: `codes`, uint8 [numbers / 2], two to a byte; `scales`, float32 [blocks]; its shape."""

    codes: Tensor
    scales: Tensor
    shape: torch.Size

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales together."""
        return self.codes.nbytes + self.scales.nbytes


def quantise(weight: Tensor, block: int = 64) -> Quantised:
    """Quantise a tensor to NF4.

    Raises CourseError where the number of weights is not a multiple of the block's size, or one is not finite.
    """
    if block < 2 or block % 2 or weight.numel() % block:
        problem = f"{weight.numel()} weights cannot be cut into blocks of {block}."
        raise CourseError(problem, "choose an even size that divides them.")
    if not torch.isfinite(weight).all():
        raise CourseError("a weight is NaN or infinite.", "quantise a model whose weights are finite.")
    blocks = weight.detach().float().reshape(-1, block)
    scales = blocks.abs().amax(1)
    levels = nf4_levels().to(weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    numbers = torch.bucketize(blocks / scales.clamp(min=1e-30)[:, None], middles).to(torch.uint8).flatten()
    return Quantised(numbers[::2] * 16 + numbers[1::2], scales, weight.shape)


def dequantise(packed: Quantised) -> Tensor:
    """Return the float32 tensor that the codes stand for."""
    numbers = torch.stack([packed.codes // 16, packed.codes % 16], dim=1).flatten().long()
    levels = nf4_levels().to(packed.codes.device)
    return (levels[numbers].reshape(len(packed.scales), -1) * packed.scales[:, None]).reshape(packed.shape)


class Linear4bit(nn.Linear):
    """A frozen linear layer whose weight is kept in 4 bits, and made anew for each product."""

    def __init__(self, base: nn.Linear, block: int = 64):
        nn.Module.__init__(self)  # not nn.Linear's, which would make a weight in full
        packed = quantise(base.weight, block)
        self.register_buffer("codes", packed.codes)
        self.register_buffer("scales", packed.scales)
        self.bias = base.bias
        self.out_features, self.in_features = base.weight.shape

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for, float32 [out, in]. Not a parameter: it cannot be trained."""
        return dequantise(Quantised(self.codes, self.scales, torch.Size((self.out_features, self.in_features))))

    def forward(self, x: Tensor) -> Tensor:
        """Return y, [..., out], for x, [..., in]. Gradients go through to x."""
        y = _Product.apply(x, self)
        return y if self.bias is None else y + self.bias


class _Product(torch.autograd.Function):
    """x W^T, where W is made anew for the backward pass too: autograd would keep it in full otherwise."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: Linear4bit) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight.to(x.dtype))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


def quantise_model(
    model: nn.Module,
    target_modules: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    make: Callable[[nn.Linear], nn.Module] = Linear4bit,
) -> nn.Module:
    """Put a layer in 4 bits, by `make`, in place of each target layer. Changes the model, and returns it.

    Raises CourseError where a target matches nothing or is not an `nn.Linear`, or cannot be cut into blocks.
    """
    targets = find_targets(model, target_modules)
    if other := next((name for name, layer in targets.items() if not isinstance(layer, nn.Linear)), None):
        problem = f"{other} is a {type(targets[other]).__name__}, whose weight lies the other way round."
        raise CourseError(problem, "name targets that are nn.Linear; GPT-2's layers are not.")
    replace_layers(model, {name: make(layer) for name, layer in targets.items()})
    targets.clear()  # the layers that were replaced make room at once
    gc.collect()
    memory.give_back()
    return model


def bitsandbytes_layer(base: nn.Linear) -> nn.Module:
    """Return bitsandbytes' own layer of the same weight in the same 4 bits, ready to be trained through.

    On processors with AVX512-BF16, bitsandbytes 0.50 repacks a layer's codes for inference when it is first called in
    evaluation mode, and no gradient passes from then on, with a mere warning. That is switched off here.
    """
    from bitsandbytes import nn as theirs

    how = {"compress_statistics": False, "quant_type": "nf4"}  # False: the scales stay as they are, as in Linear4bit
    layer = theirs.Linear4bit(base.in_features, base.out_features, compute_dtype=base.weight.dtype, **how)
    layer.weight = theirs.Params4bit(base.weight.detach(), module=layer, **how)
    layer.bias = base.bias
    layer.support_avx512bf16_for_cpu = False
    return layer.to(base.weight.device)  # this is what quantises


def hide_library_notices() -> None:
    """Hide, from here on, two notices that mean nothing to a reader of a lesson, and no others.

    One is bitsandbytes' log line, on a CPU, about a faster kernel that is not installed; importing peft imports it. The
    other is transformers' warning that a name which peft 0.21 uses is about to change.
    """
    logger, notice = logging.getLogger("bitsandbytes.backends.cpu.ops"), "Failed to load CPU gemm_4bit_forward"
    logger.addFilter(lambda record: not record.getMessage().startswith(notice))
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
