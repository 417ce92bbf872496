"""The lesson on choosing: every method on one task, measured, and which one to take."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"methods": ["meta_learned_start"], "own_data": ["read_pairs"], "report": ["save_results"]}
)
