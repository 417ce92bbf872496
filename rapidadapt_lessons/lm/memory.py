"""How much memory may still be taken, and how many rows of a batch fit into it.

Where memory is short (Binder has 2 GB), a forward pass takes fewer rows; results are the same up to rounding.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SHARE = 0.75  # of what is available: the rest is for what the estimate leaves out, and for other programs


def available_memory(root: Path = Path("/")) -> int:
    """Return how many bytes this process may still take, from whichever limit is nearest.

    The limits are the machine's memory; those of the process's control groups, of version 2 or 1, as containers and
    TLJH set them; and the variable MEM_LIMIT, in bytes, of JupyterHub and Binder. Pages of files, such as the mapped
    weights, are not counted as taken: the system drops them when it needs the room. `root` holds `proc` and `sys`.
    """
    import psutil

    left = [psutil.virtual_memory().available, *_left_in_groups(root)]
    used = psutil.Process().memory_info()
    with suppress(KeyError, ValueError, OverflowError):  # not set, or not to a number
        left.append(int(float(os.environ["MEM_LIMIT"])) - used.rss + getattr(used, "shared", 0))
    return max(0, min(left))


def batch_size(model: nn.Module, wanted: int, tokens: int, predicted: int, *, training: bool = False) -> int:
    """Return how many rows to put through a model at once: `wanted`, halved until they fit, and at least 1.

    `tokens` are in the longest row, and `predicted` of them have their output layer computed. In `training` a backward
    pass follows.
    """
    if wanted <= 1 or (config := getattr(model, "config", None)) is None:
        return wanted
    import torch

    device = next(model.parameters()).device
    available = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    one = row_bytes(config, tokens, predicted, training=training)
    while wanted > 1 and wanted * one > SHARE * available:
        wanted = (wanted + 1) // 2
    return wanted


def row_bytes(config: object, tokens: int, predicted: int, *, training: bool = False) -> float:
    """Estimate the bytes that one row takes in a transformer decoder, beside the weights, in float32.

    The output layer: its scores, their log-softmax, and a copy (in training, their gradient). One layer's working
    space: its attention weights, and vectors of the hidden and the inner size. In training every layer's is kept.
    """
    usual = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 50_000}
    hidden, layers, heads, vocabulary = (getattr(config, name, None) or other for name, other in usual.items())
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    layer = tokens * (8 * hidden + 4 * inner) + heads * tokens * tokens
    return 4.0 * (3 * predicted * vocabulary + (layers if training else 1) * layer)


def give_back() -> None:
    """Hand free memory back to the system, where the C library can: glibc keeps pieces of up to 32 MB for itself."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(0)


def _left_in_groups(root: Path) -> list[int]:
    """Return what is left in each control group with a limit that this process is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []  # not Linux
    left = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:  # version 2
            top, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            top, files = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        here = top / name.lstrip("/")
        for folder in (here, *here.parents):
            if folder.is_relative_to(top):
                left += _left(folder, *files)
    return left


def _left(folder: Path, limit: str, used: str, prefix: str) -> list[int]:
    """Return what is left in one control group: nothing where it has no limit, else one number."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return []
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        files = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        return [int(most) - int((folder / used).read_text()) + files]
    except (OSError, ValueError):
        return []
