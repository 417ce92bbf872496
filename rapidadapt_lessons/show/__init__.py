"""Figures, schematics, tables and controls: one look for the whole course."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "plots": ["lines"],
        "prediction": ["predict"],
        "svg": ["schematic"],
        "widgets": ["explore", "new_draw", "on_demand", "text_box"],
    },
)
