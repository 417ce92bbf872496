"""The language model, and the real data that it is adapted to."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"model": ["load_model"], "tasks": ["list_tasks", "load_task"]})
