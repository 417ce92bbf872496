"""Names that a folder lends out: each is looked up in its module when it is first used (PEP 562).

So `from rapidadapt_lessons.lora.layers import inject` works, and importing a folder costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a package's `__getattr__`, `__dir__` and `__all__`.

    Args:
        package: its `__name__`.
        names: for each module below it, the names that the package lends out. A name of one of its modules is none of
            them: `package.name` would be the module once that is imported, and the other thing before.
    """
    found_in = {name: module for module, its_names in names.items() for name in its_names}

    def look_up(name: str) -> Any:
        if name not in found_in:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{found_in[name]}"), name)

    return look_up, lambda: sorted(found_in), sorted(found_in)
