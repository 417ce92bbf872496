"""Work in several processes: the same results, in order, and what goes wrong comes out."""

from __future__ import annotations

import os

import pytest
import torch
from training_parts import slope

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lm import memory
from rapidadapt_lessons.training.side_by_side import PROCESS_BYTES, side_by_side


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_are_those_of_a_loop_in_order(processes):
    assert side_by_side(slope, range(5), processes) == [slope(seed) for seed in range(5)]


def test_other_processes_do_the_work_with_one_thread_each():
    where = side_by_side(lambda _: (os.getpid(), torch.get_num_threads()), range(4), 2)
    assert os.getpid() not in [pid for pid, _ in where]
    assert {threads for _, threads in where} == {1}


def test_one_process_is_this_one():
    assert side_by_side(lambda _: os.getpid(), range(3), 1) == [os.getpid()] * 3
    assert side_by_side(lambda _: os.getpid(), ["one item"], 2) == [os.getpid()]
    assert side_by_side(lambda _: os.getpid(), [], 2) == []


def test_a_function_and_values_of_the_caller_go_along():
    offset = torch.tensor([10.0])

    def shifted(x):  # local, so it can be found nowhere by name
        return (x + offset).tolist()

    assert side_by_side(shifted, [1, 2], 2) == [[11.0], [12.0]]


def test_an_error_in_the_work_comes_out_as_it_is():
    def fail(x):
        raise CourseError(f"{x} is no good.", "take another.")

    with pytest.raises(CourseError, match="is no good") as caught:
        side_by_side(fail, [1, 2], 2)
    assert "take another" in str(caught.value)


@pytest.mark.parametrize("processes", [0, -1])
def test_no_processes_are_refused(processes):
    with pytest.raises(CourseError, match=f"processes is {processes}"):
        side_by_side(slope, range(3), processes)


@pytest.mark.parametrize(
    ("room", "cores", "threads", "expected"),
    [(0.5, 4, 4, 1), (2.5, 4, 4, 2), (100, 4, 4, 4), (100, 1, 4, 1), (100, 4, 1, 1)],
)
def test_no_more_processes_than_memory_cores_and_threads_allow(monkeypatch, room, cores, threads, expected):
    import joblib

    monkeypatch.setattr(memory, "available_memory", lambda: int(room * PROCESS_BYTES))
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    pids = side_by_side(lambda _: os.getpid(), range(8))
    if expected == 1:
        assert set(pids) == {os.getpid()}
    else:
        assert os.getpid() not in pids and len(set(pids)) <= expected
