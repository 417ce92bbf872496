"""Lessons 1 and 2: what a prompt says, and what the model answers to it."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "answers": ["CHAT", "task_prompts"],
        "prompts": [
            "ARROW",
            "NearestExamples",
            "Template",
            "build_prompt",
            "build_prompts",
            "chat_prompt",
            "cue_template",
            "reorder",
            "templates_for",
        ],
        "scoring": ["exact_matches"],
        "views": ["order_view", "prompt_view"],
    },
)
