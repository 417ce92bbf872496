"""`rapidadapt adapt` and `predict`: from a file of examples to an adapted model."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"plan": ["Planned"]})
