"""Lessons on meta-learning: a start from which a few steps are enough."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "few_shot_figures": ["episode_picture", "own_task_view"],
        "glyphs": ["episode", "episodes", "load_split"],
        "hands.points": ["click_points"],
        "text_tasks": ["HELD_OUT", "VALIDATION", "load_family"],
    },
)
