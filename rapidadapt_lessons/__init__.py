"""Lessons on the rapid adaptation of language models.

Importing this package is quick: the names below are looked up in their modules when first used, so
neither torch nor transformers is imported before something needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "CourseError": "errors",
    "build_prompt": "prompting",
    "exact_matches": "scoring",
    "label_logprobs": "scoring",
    "list_tasks": "tasks",
    "load_model": "models",
    "load_task": "tasks",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
