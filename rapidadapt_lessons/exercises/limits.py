"""Run somebody's code within limits of time and memory, so that neither an endless loop nor a huge allocation ends
the kernel.

Time: in the main thread of Linux and macOS a timer interrupts (SIGALRM), whatever Python is doing. Elsewhere a second
thread watches the clock and asks Python to raise in the running thread, which happens between two steps of Python
code. In both ways, one long call into compiled code is only stopped when it comes back, and code that catches
everything inside its own endless loop (a bare `except`) is not stopped at all.

Memory: on Linux the process may grow by so much and no more (RLIMIT_AS), so an allocation beyond it raises
`MemoryError`, or PyTorch's `RuntimeError`, instead of filling the machine. Elsewhere the watching thread looks at the
memory in use, which stops what grows step by step, and not one allocation at a single stroke.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


class TookTooLong(BaseException):
    """The time was up. Not an `Exception`, so that the code which is stopped does not catch it by chance."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory could not be had: Python's, numpy's or PyTorch's."""
    told = str(error)
    refused = "can't allocate memory" in told or "not enough memory" in told or "out of memory" in told
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and refused)


@contextmanager
def limits(seconds: float, megabytes: float) -> Iterator[None]:
    """Run the block within limits, and put everything back as it was.

    Args:
        seconds: wall-clock time that the block may take.
        megabytes: memory that the process may take in addition to what it has, in units of 2^20 bytes.

    Raises:
        TookTooLong: the time was up.
        MemoryError: more memory was asked for; from PyTorch a RuntimeError (see `is_out_of_memory`).
    """
    main_thread = threading.current_thread() is threading.main_thread()
    alarm = main_thread and hasattr(signal, "setitimer")
    with ExitStack() as stack:
        limited = stack.enter_context(_address_space(megabytes))
        if not (alarm and limited):
            stack.enter_context(_watcher(None if alarm else seconds, None if limited else megabytes))
        if alarm:
            stack.enter_context(_alarm(seconds))
        yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise TookTooLong

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    # Once more every second: the code may have caught the first, and gone on to something that takes long too.
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if left:  # somebody else's timer was running
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 0.001), interval)


@contextmanager
def _address_space(megabytes: float) -> Iterator[bool]:
    """Limit the process's address space where the system does that. Yields whether it does."""
    if not sys.platform.startswith("linux"):
        yield False
        return
    import resource

    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = psutil.Process().memory_info().vms + int(megabytes * 2**20)
    known = [ceiling, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _watcher(seconds: float | None, megabytes: float | None) -> Iterator[None]:
    """Watch the clock and the memory from a second thread; None leaves that limit out."""
    import psutil

    process, watched, over = psutil.Process(), threading.get_ident(), threading.Event()
    lock = threading.Lock()
    start, started = process.memory_info().rss, time.monotonic()

    def watch() -> None:
        while not over.wait(0.05):
            late = seconds is not None and time.monotonic() - started > seconds
            large = megabytes is not None and process.memory_info().rss - start > megabytes * 2**20
            with lock:
                if (late or large) and not over.is_set():
                    _raise_in(watched, TookTooLong if late else MemoryError)
                    over.wait(1.0)  # and once more, for code that caught it

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _raise_in(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
