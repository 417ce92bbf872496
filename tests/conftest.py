"""What several test files share: the course's own model, loaded once. No test writes into a learner's progress."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

os.environ["RAPIDADAPT_PROGRESS"] = "off"  # for what tests start, too: commands, and the kernels of notebooks


def fingerprint(model) -> dict[str, int]:
    """Return an exact sum over the bits of every weight, by name."""
    import torch

    return {name: int(p.detach().contiguous().view(torch.int32).sum()) for name, p in model.named_parameters()}


@pytest.fixture(scope="session")
def real_model() -> Iterator[tuple]:
    """The course's model and its tokenizer. All tests share it, so none may leave it changed."""
    from rapidadapt_lessons.lm.model import load_model

    model, tokenizer = load_model()
    before = fingerprint(model)
    yield model, tokenizer
    assert fingerprint(model) == before, "a test changed the weights of the model that all tests share"
    assert not model.training, "a test left the model that all tests share in training mode"


@contextmanager
def imported_benchmark(name: str) -> Iterator[ModuleType]:
    """Import benchmarks/NAME.py, which is no package's, for as long as the block lasts."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
