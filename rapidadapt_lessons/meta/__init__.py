"""Lessons on meta-learning: a start from which a few steps are enough."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "few_shot_figures": ["own_task_view", "prototype_map", "reading_picture"],
        "glyphs": ["episodes", "load_split"],
        "hands.letters": ["draw_letters"],
        "hands.points": ["click_points"],
        "hands.start": ["drag_start"],
        "text_tasks": ["HELD_OUT", "VALIDATION", "load_family"],
    },
)
