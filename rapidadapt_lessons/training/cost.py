"""What a piece of work costs: seconds and memory, measured, and the bytes of training counted tensor by tensor."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from ..lm import memory

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Cost:
    """What `measure` found."""

    seconds: float  # wall-clock time
    peak_bytes: int  # the most memory that the process, or the CUDA device, held above what it held before


def measure(work: Callable[[], _Result], device: torch.device | str = "cpu") -> tuple[_Result, Cost]:
    """Do the work once and return its result with what it cost.

    On the CPU memory is sampled every 2 ms, so a shorter peak can be missed, and memory that earlier work has freed may
    be used again without showing: measure the larger thing first.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before, start = torch.cuda.memory_allocated(device), time.perf_counter()
        result = work()
        torch.cuda.synchronize(device)
        return result, Cost(time.perf_counter() - start, torch.cuda.max_memory_allocated(device) - before)
    import psutil

    process, over = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        ended = False
        while not ended:
            ended = over.wait(0.002)  # it looks once more at the end
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
    finally:
        over.set()
        watcher.join()
    return result, Cost(seconds, peak - before)


def training_bytes(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]
) -> dict[str, int]:
    """Count the bytes that one training step needs, tensor by tensor. The model is not changed.

    Each gradient is counted and let go, and the optimiser steps on a stand-in without memory (on the "meta" device), so
    counting fits where the training would not. Returns "weights"; "activations", which the forward pass keeps for the
    backward pass, weights and shared memory not counted twice; "gradients"; "optimiser", its running averages.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    groups = optimizer.param_groups
    settings = {p: {key: group[key] for key in optimizer.defaults} for group in groups for p in group["params"]}
    saved: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()  # what the graph lets go again drops out by itself
    counted = {"gradients": 0, "optimiser": 0}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.add(one := tensor.detach())  # with its graph it would hold itself alive
        return one

    def count(parameter: torch.Tensor) -> None:
        counted["gradients"] += parameter.grad.nbytes
        if parameter in settings:
            stand_in = nn.Parameter(torch.empty_like(parameter, device="meta"))
            stand_in.grad = torch.empty_like(stand_in)
            own = type(optimizer)([stand_in])
            own.param_groups[0].update(settings[parameter])
            own.step()
            tensors = (t for state in own.state.values() for t in state.values() if isinstance(t, torch.Tensor))
            counted["optimiser"] += sum(t.nbytes for t in tensors)
        parameter.grad = None

    optimizer.zero_grad(set_to_none=True)
    memory.give_back()  # what earlier work let go stays with the process in pieces, which the step may not fit into
    hooks = [p.register_post_accumulate_grad_hook(count) for p in model.parameters() if p.requires_grad]
    try:
        with saved_tensors_hooks(pack, lambda one: one):
            value = loss()
        storages = (one.untyped_storage() for one in saved)
        kept = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.data_ptr() not in weights}
        value.backward()
    finally:
        for hook in hooks:
            hook.remove()
    return {"weights": sum(p.nbytes for p in model.parameters()), "activations": sum(kept.values()), **counted}
