"""The lesson on scaling out: several processes, runs that go on after a kill, sweeps, costs on paper."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"processes": ["ring_all_reduce", "weighted_mean_gradient"], "run_files": ["read_report"]}
)
