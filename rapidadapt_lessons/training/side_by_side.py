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
IDLE_SECONDS = 5


def side_by_side(work: Callable[..., Any], items: Iterable[Any], processes: int | None = None) -> list[Any]:
    """Return [work(item) for item in items], several of them computed at a time.

    The work and the items are copied into the processes, and the results back: what the work changes elsewhere is
    lost, and it may be a function that was written in a notebook.

    Args:
        processes: how many at a time; None for as many as torch has threads (OMP_NUM_THREADS sets that), and no
            more than there are cores and than memory allows. With one, or one item, it is done in this process.

    Raises:
        CourseError: processes is less than 1. What the work raises comes out as it is.
    """
    items = list(items)
    if processes is None:
        processes = _processes_that_fit(len(items))
    require_at_least(1, "processes", processes, "give 1 or more, or None.")
    if min(processes, len(items)) < 2:
        return [work(item) for item in items]
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", inner_max_num_threads=1, idle_worker_timeout=IDLE_SECONDS):
        return Parallel(n_jobs=processes)(delayed(_do)(work, item) for item in items)


def _do(work: Callable[..., Any], item: Any) -> Any:
    try:
        return work(item)
    finally:
        memory.give_back()  # or the process counts as leaking, and is ended


def _processes_that_fit(items: int) -> int:
    import torch
    from joblib import cpu_count  # which knows of the limits of containers and of processor sets

    return max(1, min(items, torch.get_num_threads(), cpu_count(), memory.available_memory() // PROCESS_BYTES))
