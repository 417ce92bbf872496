"""A LoRA adapter on disk, in the files and names that `peft` uses, so that each reads the other's.

A few of the base's own weights are noted beside the matrices, to tell an adapter of another model of the same shape.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import AdapterMismatch, CourseError
from . import layers as lora
from .layers import LoRAConfig

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _SUFFIX = "base_model.model.", ".weight"
# What peft may have written that changes the mathematics, and the only value that this module reads.
_PLAIN = {
    "peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False, "rank_pattern": {},
    "alpha_pattern": {}, "modules_to_save": None, "layers_to_transform": None, "layer_replication": None,
    "lora_bias": False, "target_parameters": None, "exclude_modules": None, "use_qalora": False,
}  # fmt: skip


def save_adapter(model: nn.Module, folder: str | Path, config: LoRAConfig) -> None:
    """Write the model's adapter to a folder, all of it or nothing; an adapter that is there is replaced.

    Raises CourseError where the model has no LoRA layers, they are merged, or the folder holds something else; OSError
    where the disk is full, or cannot be written.
    """
    folder = Path(folder)
    place = folder.resolve()
    state = lora.adapter_state(model)
    lora.require_unmerged(model)
    _settle(place)
    if folder.exists() and not (folder / CONFIG).exists() and any(folder.iterdir()):
        raise CourseError(f"the folder {folder.name} holds something other than an adapter.", "name another folder.")
    written = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None),
        "r": config.rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": list(config.target_modules),
        "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in lora.lora_layers(model).values()),
        "bias": "none",
        "inference_mode": True,
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        tensors = {_PREFIX + name + _SUFFIX: tensor for name, tensor in state.items()}
        save_file(tensors, work / WEIGHTS, metadata={"format": "pt", "base_corner": json.dumps(_base_corner(model))})
        (work / CONFIG).write_text(json.dumps(written, indent=1), encoding="utf-8")
        work.chmod(0o755)
        if place.exists():
            os.replace(place, _aside(place))
        os.replace(work, place)
    except SafetensorError as error:
        if "No space left" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        _settle(place)


def load_adapter(model: nn.Module, folder: str | Path) -> LoRAConfig:
    """Read an adapter, written here or by `peft`, into a model, injecting LoRA layers where it has none.

    Nothing is changed unless all of it fits. Raises AdapterMismatch where the files are missing, damaged, or of another
    model, or use what this module does not (DoRA, rank patterns, ...).
    """
    folder = Path(folder)
    if not folder.exists() and (before := _aside(folder.resolve())).exists():
        folder = before  # saving was killed while it replaced this adapter
    written = _read_config(folder)
    config = LoRAConfig(written["r"], written["lora_alpha"], written["lora_dropout"], written["target_modules"])
    state, corner = _read_weights(folder / WEIGHTS)
    fresh = not lora.lora_layers(model)
    if fresh:
        try:
            lora.inject(model, config)
        except CourseError as error:
            raise AdapterMismatch(f"the adapter does not fit this model: {error.problem}", error.remedy) from error
    try:
        lora.require_same_shapes(state, lora.adapter_state(model))
        scaling = {layer.scaling for layer in lora.lora_layers(model).values()}
        if scaling != {config.scaling}:
            problem = f"the adapter's lora_alpha / rank is {config.scaling:g}, the model's LoRA layers have {scaling}."
            raise AdapterMismatch(problem, "call lora.remove(model) first, and load it then.")
        # A hundredth apart is what rounding to bfloat16 may do; another model's weights are far further.
        here = _base_corner(model)
        if corner and here and not torch.allclose(torch.tensor(corner), torch.tensor(here), rtol=0.01, atol=1e-4):
            problem = "the adapter was trained on another model: its shapes are the same, its weights are not."
            raise AdapterMismatch(problem, "load it into the model that it was trained on.")
        lora.set_adapter_state(model, state)
    except CourseError:
        if fresh:
            lora.remove(model)
        raise
    return config


def _aside(place: Path) -> Path:
    """Return where the old adapter lies, for a moment, while a new one takes its place."""
    return place.with_name(f".{place.name}.adapter-before")


def _settle(place: Path) -> None:
    """Bring back an old adapter that was put aside and has no successor; delete one that has."""
    before = _aside(place)
    if before.exists() and not place.exists():
        os.replace(before, place)
    shutil.rmtree(before, ignore_errors=True)


def _read_config(folder: Path) -> dict[str, Any]:
    remedy = "check the folder's name, or save the adapter again."
    try:
        written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        missing = {"r", "lora_alpha", "target_modules"} - written.keys()
    except (OSError, ValueError, AttributeError) as error:
        problem = f"{folder.name} holds no adapter: {CONFIG} cannot be read ({type(error).__name__})."
        raise AdapterMismatch(problem, remedy) from error
    if missing:
        raise AdapterMismatch(f"{CONFIG} in {folder.name} lacks {', '.join(sorted(missing))}.", remedy)
    for key, plain in _PLAIN.items():
        if (found := written.get(key, plain)) != plain and found:
            raise AdapterMismatch(f"the adapter uses {key}={found!r}; this module does not.", "load it with peft.")
    if isinstance(written["target_modules"], str):
        problem = f"the adapter names its layers by the pattern {written['target_modules']!r}."
        raise AdapterMismatch(problem, "load it with peft.")
    return {"lora_dropout": 0.0} | written


def _read_weights(path: Path) -> tuple[dict[str, Tensor], list[float]]:
    """Return the matrices, named as `lora` names them, and the corner of the base (empty if peft wrote them)."""
    try:
        with safe_open(path, "pt") as file:
            state = {k.removeprefix(_PREFIX).removesuffix(_SUFFIX): file.get_tensor(k).float() for k in file.keys()}
            corner = json.loads((file.metadata() or {}).get("base_corner", "[]"))
    except (OSError, SafetensorError, ValueError) as error:
        problem = f"{path.name} in {path.parent.name} is missing or damaged ({type(error).__name__})."
        raise AdapterMismatch(problem, "save the adapter again.") from error
    return state, corner


def _base_corner(model: nn.Module) -> list[float]:
    """Return a few weights of the first layer that LoRA sits on, to tell one base model from another.

    Empty where they are kept in 4 bits: an adapter trained beside those may well be used on the full ones.
    """
    weight = next(iter(lora.lora_layers(model).values())).base.weight
    return weight.detach()[:4, :4].float().flatten().tolist() if isinstance(weight, nn.Parameter) else []
