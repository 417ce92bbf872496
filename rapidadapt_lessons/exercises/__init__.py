"""Exercises: what holds of a learner's answer, and what a wrong one most likely got wrong."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"prompt_assignments": ["find_assignment"], "prompt_grading": ["practise"]}
)
