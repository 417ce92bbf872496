"""LoRA by hand: a frozen layer with a trainable update of low rank beside it (Hu et al. 2021, arXiv 2106.09685).

For a frozen weight W of shape [out, in], LoRA learns B, [out, rank], and A, [rank, in], and computes

    y = W x + b + (lora_alpha / rank) B A dropout(x)                        (section 4.1, with bias and dropout)

B starts at zero, so training starts from the base model exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from ..errors import AdapterMismatch, CourseError
from ..guards import require_at_least
from .targets import find_targets, replace_layers, weight_shape


@dataclass(frozen=True)
class LoRAConfig:
    """What a LoRA adapter looks like, in `peft`'s names, but for `rank`, which it calls `r`.

    Raises CourseError for a value that makes no sense.
    """

    rank: int = 8  # the number of columns of B and rows of A
    lora_alpha: float = 16  # the update is scaled by lora_alpha / rank
    lora_dropout: float = 0.0  # share of the layer's inputs that the update does not see while training
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")  # names of layers or their ends: all "....q_proj"

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_modules", tuple(self.target_modules))
        require_at_least(1, "rank", self.rank, "rank must be 1 or more; 4 to 16 is usual.")
        if not 0 <= self.lora_dropout < 1:
            raise CourseError(f"lora_dropout is {self.lora_dropout}.", "give a share from 0 to below 1, such as 0.05.")
        if not math.isfinite(self.lora_alpha):
            raise CourseError(f"lora_alpha is {self.lora_alpha}.", "give a finite number; 2 * rank is usual.")
        if not self.target_modules:
            raise CourseError("target_modules is empty.", 'name at least one kind of layer, such as "q_proj".')

    @property
    def scaling(self) -> float:
        """lora_alpha / rank."""
        return self.lora_alpha / self.rank


class LoRALinear(nn.Module):
    """A frozen `nn.Linear`, or GPT-2's `Conv1D`, with a LoRA update beside it.

    `lora_A` has shape [rank, in] and `lora_B` [out, rank], both in float32 even where the base is in half precision.
    """

    def __init__(self, base: nn.Linear | Conv1D, config: LoRAConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scaling = config.scaling
        self.dropout = nn.Dropout(config.lora_dropout)
        n_out, n_in = weight_shape(base)
        bound = 1 / math.sqrt(n_in)  # Kaiming-uniform with a = sqrt(5), as peft and nn.Linear start theirs
        start = torch.empty(config.rank, n_in).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(start.to(base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(n_out, config.rank, device=base.weight.device))
        self.unmerged: Tensor | None = None  # the base's weight, kept while the update is merged into it

    def forward(self, x: Tensor) -> Tensor:
        """Return y, [..., out], for x, [..., in]."""
        y = self.base(x)
        if self.unmerged is not None:
            return y
        reduced = F.linear(self.dropout(x.to(self.lora_A.dtype)), self.lora_A)
        return y + F.linear(self.scaling * reduced, self.lora_B).to(y.dtype)  # scaled while it is small: [..., rank]

    @torch.no_grad()
    def delta(self) -> Tensor:
        """Return the update of the weight, (lora_alpha / rank) B A, [out, in]."""
        return self.scaling * self.lora_B @ self.lora_A

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base's weight, so that inference costs nothing extra (section 4.1)."""
        if self.unmerged is None:
            delta = self.delta().T if isinstance(self.base, Conv1D) else self.delta()
            self.unmerged = self.base.weight.detach().clone()
            self.base.weight += delta.to(self.base.weight.dtype)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the base's own weight back, bit for bit."""
        if self.unmerged is not None:
            self.base.weight.copy_(self.unmerged)
            self.unmerged = None


def inject(model: nn.Module, config: LoRAConfig, *, seed: int = 0) -> nn.Module:
    """Freeze a model and put a `LoRALinear` in place of each target layer. Changes the model, and returns it.

    The seed is that of every `lora_A`. Raises CourseError where the model has LoRA layers already, a target matches
    nothing, or the rank is above a layer's size; the model is then as it was.
    """
    targets = _checked_targets(model, config)
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    layers = {name: LoRALinear(base, config, generator).train(model.training) for name, base in targets.items()}
    replace_layers(model, layers)
    return model


def remove(model: nn.Module) -> nn.Module:
    """Take every LoRA layer out again: the base model, bit for bit, still frozen. Returns the model."""
    unmerge(model)
    replace_layers(model, {name: layer.base for name, layer in lora_layers(model).items()})
    return model


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the model's LoRA layers by name; none is no error."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def merge(model: nn.Module) -> None:
    """Merge every layer's update into its base weight. Raises CourseError where a base keeps that in 4 bits."""
    layers = lora_layers(model).values()
    for base in [layer.base for layer in layers]:
        if not isinstance(base.weight, nn.Parameter):
            raise CourseError(f"a {type(base).__name__} holds no weight to merge into.", "keep the adapter beside it.")
    for layer in layers:
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`, bit for bit."""
    for layer in lora_layers(model).values():
        layer.unmerge()


# An adapter without its model.


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the adapter alone: "<layer>.lora_A" and "<layer>.lora_B", float32, on the CPU.

    Raises CourseError where the model has no LoRA layers.
    """
    if not (layers := lora_layers(model)):
        raise CourseError("this model has no LoRA layers.", "call lora.inject(model, LoRAConfig(...)) first.")
    pairs = ((name, kind) for name in layers for kind in ("lora_A", "lora_B"))
    return {f"{name}.{kind}": getattr(layers[name], kind).detach().cpu().clone() for name, kind in pairs}


@torch.no_grad()
def set_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Swap in another adapter of the same shape. Nothing is changed unless all of it fits.

    Raises AdapterMismatch for other names or shapes, CourseError where the model has no LoRA layers or they are merged.
    """
    require_unmerged(model)
    require_same_shapes(state, adapter_state(model))
    for name, layer in lora_layers(model).items():
        layer.lora_A.copy_(state[f"{name}.lora_A"])
        layer.lora_B.copy_(state[f"{name}.lora_B"])


def combine(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return one adapter that adds up several: sum_i weights[i] B_i A_i, exactly, at the sum of their ranks.

    The matrices are set side by side: B = [w_1 B_1, w_2 B_2, ...] and A = [A_1; A_2; ...]. All must have the same
    lora_alpha / rank, and the model that takes the result too. Raises CourseError where there is nothing to combine or
    not one weight for each, AdapterMismatch where the layers or their widths differ.
    """
    _require_like_adapters(states, weights)
    joined = {}
    for name in states[0]:
        if name.endswith(".lora_A"):
            joined[name] = torch.cat([state[name] for state in states], dim=0)
        else:
            joined[name] = torch.cat([w * state[name] for w, state in zip(weights, states)], dim=1)
    return joined


# Guards. They raise before anything is changed.


def _checked_targets(model: nn.Module, config: LoRAConfig) -> dict[str, nn.Module]:
    if lora_layers(model):
        raise CourseError("this model has LoRA layers already.", "call lora.remove(model) first.")
    targets = find_targets(model, config.target_modules)
    for n_out, n_in in map(weight_shape, targets.values()):
        if config.rank > min(n_out, n_in):
            raise CourseError(
                f"rank {config.rank} is above the size of a layer of {n_in} inputs and {n_out} outputs.",
                f"choose a rank up to {min(n_out, n_in)}: no matrix of that shape has a higher one.",
            )
    return targets


def require_unmerged(model: nn.Module) -> None:
    """Raise CourseError where an adapter is merged into the model."""
    if any(layer.unmerged is not None for layer in lora_layers(model).values()):
        raise CourseError("the adapter is merged into the model.", "call lora.unmerge(model) first.")


def require_same_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise AdapterMismatch, naming the first difference, unless both hold the same names and shapes."""
    different = sorted(state.keys() ^ expected.keys())
    different += [k for k in expected if k in state and state[k].shape != expected[k].shape]
    if different:
        name = different[0]
        shapes = [list(tensors[name].shape) if name in tensors else "nothing" for tensors in (state, expected)]
        raise AdapterMismatch(
            f"the adapter does not fit this model: {name} is {shapes[0]} in the adapter and {shapes[1]} in the model "
            f"({len(different)} such differences).",
            "load it into the model, and with the target modules and rank, that it was trained with.",
        )


def _require_like_adapters(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> None:
    if not states or len(states) != len(weights):
        raise CourseError(f"{len(states)} adapters came with {len(weights)} weights.", "give one weight to each.")
    for other in states[1:]:
        if missing := sorted(states[0].keys() ^ other.keys()):
            problem = f"{missing[0]} is in one adapter and not in another."
            raise AdapterMismatch(problem, "combine adapters of the same target modules.")
        for name, tensor in states[0].items():
            side = 1 if name.endswith(".lora_A") else 0  # the other side is the rank, which may differ
            if tensor.shape[side] != other[name].shape[side]:
                problem = f"{name} is {list(tensor.shape)} in one adapter and {list(other[name].shape)} in another."
                raise AdapterMismatch(problem, "combine adapters of the same model.")
