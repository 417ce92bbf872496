"""How much memory a method of continual learning needs while it learns: every tensor counts until it is gone.

The process as a whole is no good measure: freed memory is used again, so whatever is measured second looks cheap.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ..training.loop import TrainConfig
from .stream import Method, Stream, set_trainable_state, trainable_state


def peak_bytes(work: Callable[[], Any]) -> int:
    """Return the most bytes that tensors made during the work held at one time, without an operation's own buffers."""
    with _Held() as held:
        work()
    return held.peak


def learning_bytes(method: Method, model: nn.Module, stream: Stream, config: TrainConfig, updates: int = 1) -> int:
    """Learn a stream with a few updates for each experience; return the most bytes held besides model and examples.

    That is what the method stores, and one update's activations, gradients and optimiser: more updates need no more.
    Afterwards the model's trained parameters are what they were. Raises as `run_stream`.
    """
    start, config = trainable_state(model), replace(config, steps=updates)

    def work() -> None:
        method.start(model, stream, config.seed)
        for index in range(len(stream.experiences)):
            method.learn(model, stream, index, config)

    try:
        return peak_bytes(work)
    finally:
        set_trainable_state(model, start)


class _Held(TorchDispatchMode):
    """Adds up the memory of what operations return, backward passes and optimisers included."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        for storage in _storages((args, kwargs)):
            self._seen.setdefault(storage, True)  # was there before
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage not in self._seen:
                self._seen[storage] = True
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
