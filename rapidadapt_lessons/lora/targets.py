"""The linear layers of a model that an adapter goes beside or in place of: found by name, and exchanged."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import CourseError


def weight_shape(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """Return (outputs, inputs) of a layer's weight, which GPT-2's `Conv1D` keeps as [inputs, outputs]."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[1], layer.weight.shape[0]
    return layer.out_features, layer.in_features


def find_targets(model: nn.Module, target_modules: Sequence[str]) -> dict[str, nn.Module]:
    """Return the linear layers whose name is, or ends in, one of the targets, by full name, in the model's order.

    Raises CourseError where a target matches nothing, or something that is not a linear layer.
    """
    found: dict[str, nn.Module] = {}
    modules = dict(model.named_modules())
    kinds = sorted({name.rpartition(".")[2] for name, m in modules.items() if isinstance(m, nn.Linear | Conv1D)})
    for target in target_modules:
        matching = {name: m for name, m in modules.items() if name == target or name.endswith(f".{target}")}
        if not matching:
            near = difflib.get_close_matches(target, kinds, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            remedy = f"{hint}Its linear layers are {', '.join(kinds)}."
            raise CourseError(f"no module of this model is called {target!r}.", remedy)
        for name, module in matching.items():
            if not isinstance(module, nn.Linear | Conv1D):
                problem = f"{name!r} is a {type(module).__name__}, and LoRA goes beside linear layers only."
                raise CourseError(problem, f"choose among {', '.join(kinds)}.")
        found |= matching
    return {name: modules[name] for name in modules if name in found}


def replace_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put each layer into the model at its full name, in place of the one that is there."""
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
