"""Bottleneck adapters (Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1).

A small network behind a sub-layer corrects its output h, of shape [..., d]. It cannot be merged into the weights.

    h + W_up gelu(W_down h),        W_down of shape [m, d], W_up of shape [d, m], m much smaller than d.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..guards import require_at_least
from .targets import find_targets, replace_layers, weight_shape


class Bottleneck(nn.Module):
    """A frozen layer with a bottleneck adapter behind it. `up` starts at zero, so training starts from the base."""

    def __init__(self, base: nn.Module, width: int, size: int, generator: torch.Generator | None = None):
        super().__init__()
        require_at_least(1, "the bottleneck's size", size, "size must be 1 or more; 8 to 64 is usual.")
        self.base = base.requires_grad_(False)
        device = next(base.parameters()).device
        self.down = nn.Parameter(torch.empty(size, width).normal_(std=width**-0.5, generator=generator).to(device))
        self.up = nn.Parameter(torch.zeros(width, size, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Return the base's output, corrected."""
        h = self.base(x)
        return h + F.linear(F.gelu(F.linear(h.to(self.down.dtype), self.down)), self.up).to(h.dtype)


def inject_bottlenecks(
    model: nn.Module, size: int = 8, *, target_modules: Sequence[str] = ("o_proj", "down_proj"), seed: int = 0
) -> nn.Module:
    """Freeze a model and put an adapter behind each target layer. Changes the model, and returns it.

    The default places are the ends of each block's attention and feed-forward part, as in Houlsby et al., figure 2.
    Raises CourseError where a target matches nothing or is not a linear layer, or size is less than 1.
    """
    targets = find_targets(model, target_modules)
    generator = torch.Generator().manual_seed(seed)
    adapters = {name: Bottleneck(layer, weight_shape(layer)[0], size, generator) for name, layer in targets.items()}
    model.requires_grad_(False)
    replace_layers(model, adapters)
    return model
