"""Lessons 1 and 2: what a prompt says, and what the model answers to it."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "matching": ["lenient_match"],
        "prompts": [
            "ARROW",
            "CHAT",
            "NearestExamples",
            "Template",
            "build_prompt",
            "build_prompts",
            "chat_prompt",
            "reorder",
            "task_prompts",
            "template_of",
            "templates_for",
        ],
        "scoring": ["exact_matches"],
        "orders": ["in_every_order", "order_view"],
        "spelling": ["spelling_rule"],
        "views": ["prompt_view", "shots_view"],
    },
)
