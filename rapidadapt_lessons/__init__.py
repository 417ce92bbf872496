"""Lessons on the rapid adaptation of language models.

Importing this package is quick: the names below are looked up in their modules when first used, so
neither torch nor transformers is imported before something needs them.
"""

from .lazy import lazy_exports

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "errors": ["CourseError"],
        "lm.model": ["load_model"],
        "lm.tasks": ["list_tasks", "load_task"],
        "prompting.prompts": ["build_prompt"],
        "prompting.scoring": ["exact_matches", "label_logprobs"],
    },
)
