"""Limits of time and memory: they stop what they should, and leave everything as it was."""

from __future__ import annotations

import signal
import sys
import threading
import time

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from rapidadapt_lessons.exercises.limits import TookTooLong, is_out_of_memory, limits

LINUX = sys.platform.startswith("linux")


def loop():
    while True:
        pass


def stubborn_loop():
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass


def in_thread(function):
    """Run a function in a second thread, and return what it raised."""
    caught = []

    def run():
        try:
            function()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return caught[0] if caught else None


@pytest.mark.parametrize("endless", [loop, stubborn_loop, lambda: time.sleep(1000)])
def test_an_endless_loop_is_stopped(endless):
    with pytest.raises(TookTooLong), limits(0.2, 1000):
        endless()


@pytest.mark.parametrize("endless", [loop, stubborn_loop])
def test_an_endless_loop_is_stopped_in_another_thread(endless):
    def run():
        with limits(0.2, 1000):
            endless()

    assert isinstance(in_thread(run), TookTooLong)


@pytest.mark.parametrize("run", [lambda function: function(), in_thread])
def test_what_ends_in_time_is_left_alone(run):
    """The limit does not ring later either."""
    done = []

    def short():
        with limits(0.3, 1000):
            done.append(1)
        time.sleep(0.6)
        done.append(2)

    assert run(short) is None and done == [1, 2]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_somebody_elses_timer_and_handler_come_back():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rang.append(number))
    old = signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        with pytest.raises(TookTooLong), limits(0.1, 1000):
            loop()
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left < 500 and rang == []
        signal.raise_signal(signal.SIGALRM)
        assert rang == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *old)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_the_timer_does_not_ring_after_the_block():
    """Where nobody else has a timer; `test_what_ends_in_time_is_left_alone` runs under pytest's own."""
    rang = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rang.append(number))
    old = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        with limits(0.2, 1000):
            pass
        time.sleep(0.5)
        assert rang == [] and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *old)
        signal.signal(signal.SIGALRM, before)


def grow():
    kept = []
    while True:
        kept.append(bytearray(2**20))


@pytest.mark.skipif(not LINUX, reason="the system does not limit a process's memory")
@pytest.mark.parametrize("take", [lambda: torch.empty(10**8), lambda: bytearray(400 * 2**20), grow])
def test_too_much_memory_is_refused_and_the_limit_is_lifted_again(take):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises((MemoryError, RuntimeError)) as caught, limits(20, 200):
        take()
    assert is_out_of_memory(caught.value)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytearray(300 * 2**20)) == 300 * 2**20


def test_what_is_within_the_limit_is_given():
    with limits(20, 300):
        assert torch.zeros(10**7).sum() == 0


def test_where_the_system_has_no_limit_growth_is_watched(monkeypatch):
    monkeypatch.setattr("rapidadapt_lessons.exercises.limits.sys.platform", "darwin")
    with pytest.raises(MemoryError), limits(30, 100):
        grow()


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied")) and not is_out_of_memory(ValueError())


def test_a_kernel_survives_both():
    cells = [
        "from rapidadapt_lessons.exercises.check import check",
        "def endless(alpha, rank, stabilised=False):\n    while True:\n        pass",
        "print(check('lora.scaling', endless, seconds=0.3))",
        "print(check('lora.scaling', lambda *given: bytearray(1200 * 2**20)))",
        "print(check('lora.scaling', lambda alpha, rank, root=False: alpha / rank ** (0.5 if root else 1)))",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    told = [nbformat.from_dict(cell.outputs[0]).text for cell in notebook.cells[2:]]
    assert "no answer in 0.3 seconds, in line" in told[0] and "your kernel is fine" in told[0]
    assert "memory" in told[1] and "solved" in told[2]
