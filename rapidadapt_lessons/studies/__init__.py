"""Recorded results: many runs over seeds, computed once by `studies/NAME.py` and kept here as NAME.csv."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"records": ["Records", "gain", "load"]})
