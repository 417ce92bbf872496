"""Run independent pieces of work side by side, in a process for each core.

A network of a few thousand weights keeps one core busy: its products are too small to be shared out among threads.
Trainings that do not need each other can still use every core, each in one of joblib's processes with one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..guards import require_at_least
from ..lm import memory

PROCESS_BYTES = 500_000_000  # what a process takes that has imported torch and trains something small


def side_by_side(work: Callable[..., Any], items: Iterable[Any], processes: int | None = None) -> list[Any]:
    """Return [work(item) for item in items], several of them computed at a time.

    Work and items are copied into the processes, and the results back; the work may be a notebook's function, and what
    it changes elsewhere is lost. What it raises comes out as it is.

    Args:
        processes: how many at a time, 1 or more; None for as many as torch has threads (OMP_NUM_THREADS sets that) and
            cores and memory allow. With one, or one item, the work is done in this process.
    """
    import torch
    from joblib import Parallel, cpu_count, delayed, parallel_config

    items = list(items)
    if processes is None:  # joblib's cpu_count knows of the limits of containers and of processor sets
        processes = max(1, min(torch.get_num_threads(), cpu_count(), memory.available_memory() // PROCESS_BYTES))
    require_at_least(1, "processes", processes, "give 1 or more, or None.")
    if min(processes, len(items)) < 2:
        return [work(item) for item in items]
    with parallel_config("loky", inner_max_num_threads=1, idle_worker_timeout=5):
        return Parallel(n_jobs=min(processes, len(items)))(delayed(_do)(work, item) for item in items)


def _do(work: Callable[..., Any], item: Any) -> Any:
    try:
        return work(item)
    finally:
        memory.give_back()  # or the process counts as leaking, and is ended
