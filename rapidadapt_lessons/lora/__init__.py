"""Lessons on LoRA: an update of low rank beside frozen weights."""

from ..lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "bottleneck": ["inject_bottlenecks"],
        "files": ["load_adapter"],
        "layers": ["LoRAConfig", "adapter_state", "combine", "inject", "merge", "remove", "set_adapter_state"],
        "quantise": ["hide_library_notices"],
    },
)
