"""How a check runs and what its report says, whatever the exercise. The exercises' own checks: test_checks.py."""

from __future__ import annotations

import json
import sys
import time
import warnings
from contextlib import contextmanager

import pytest
import torch

from rapidadapt_lessons import learner
from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.exercises import check as check_module
from rapidadapt_lessons.exercises.catalogue import EXERCISES
from rapidadapt_lessons.exercises.check import Unsolved, check
from rapidadapt_lessons.exercises.compare import Wrong


def right(lora_alpha, rank, rank_stabilised=False):
    return lora_alpha / rank ** (0.5 if rank_stabilised else 1)


def upside_down(lora_alpha, rank, rank_stabilised=False):
    return rank / lora_alpha


def test_a_solved_exercise_names_what_held():
    report = check("lora.scaling", right)
    assert report.solved and len(report.passed) == 4
    assert repr(report).splitlines()[0] == "lora.scaling: solved. All 4 checks passed."
    assert "✓ rank-stabilised" in report._repr_html_()


def test_a_wrong_answer_tells_what_was_expected_what_came_and_why():
    report = check("lora.scaling", upside_down)
    told = dict(report.failure.lines)
    assert told["called"] == "scaling(16, 8)" and told["expected"] == "2.0" and told["came"] == "0.5"
    assert "upside down" in told["likely"]
    text, html = repr(report), report._repr_html_()
    assert "0 of 4 checks passed" in text and "3 more checks wait" in text
    assert all(part in text and part in html for part in told.values())


def test_html_of_the_learner_is_shown_and_not_run():
    html = check("prompting.template", lambda query, support: "<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_an_unknown_exercise_is_named_with_the_nearest():
    with pytest.raises(CourseError, match="lora.scalling.*\n.*did you mean 'lora.scaling'"):
        check("lora.scalling", right)


def test_a_call_in_place_of_the_function_is_told():
    report = check("lora.scaling", right(16, 8))
    assert not report.solved and "without calling it" in repr(report)


def test_an_exception_is_told_with_the_learners_own_line():
    def scaling(lora_alpha, rank, rank_stabilised=False):
        return lora_alpha / (rank - rank)

    told = repr(check("lora.scaling", scaling))
    assert "ZeroDivisionError" in told and "return lora_alpha / (rank - rank)" in told


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("return no_such_name", "a name that is not defined here"),
        ("return scaling(lora_alpha, rank)", "calls itself without an end"),
        ("raise SystemExit", "they end Python"),
        ("return [1][5]", "an index beyond the end"),
        ("import torch; return torch.ones(2).sum(2)", "no such dimension"),
        ("total += 1; return total", "before the function has given it a value"),
        ("step = lambda a, b: a; return step(1)", "the function called in that line"),
        ("return {}['a']", "print its keys"),
        ("return lora_alpha.rank", "print its type"),
        ("raise Exception", "stopped with an error"),
    ],
)
def test_common_errors_are_explained(code, words):
    names: dict = {}
    exec(f"def scaling(lora_alpha, rank, rank_stabilised=False):\n    {code}", names)
    assert words in repr(check("lora.scaling", names["scaling"]))


def test_a_function_with_other_arguments_is_told_so():
    assert "other arguments than the exercise says" in repr(check("lora.scaling", lambda: 1))


def test_what_is_not_written_yet_is_told_kindly_and_partly_written_too():
    def not_yet(*arguments):
        raise NotImplementedError()

    def half(lora_alpha, rank, rank_stabilised=False):
        if rank_stabilised:
            raise NotImplementedError()
        return lora_alpha / rank

    begun, whole = check("lora.scaling", half), check("lora.scaling", not_yet)
    assert whole.failure.lines[0][0] == "to do" and not whole.started and "Begin" not in repr(begun)
    assert begun.started and len(begun.passed) == 3 and "a part of the function is not written yet" in repr(begun)


def test_an_endless_loop_is_told_with_its_line():
    def scaling(lora_alpha, rank, rank_stabilised=False):
        while rank:
            rank = rank + 1

    told = repr(check("lora.scaling", scaling, seconds=0.2))
    assert "no answer in 0.2 seconds" in told and ("rank = rank + 1" in told or "while rank:" in told)
    assert "kernel is fine" in told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not limit a process's memory")
@pytest.mark.parametrize("take", [lambda: torch.empty(2 * 10**8), lambda: [0] * 10**8])
def test_a_huge_allocation_is_told(take):
    told = repr(check("lora.scaling", lambda *arguments: take(), megabytes=300))
    assert "more than 300 MB of memory asked for" in told and "kernel is fine" in told


def test_the_stop_button_still_stops():
    def pressed(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("lora.scaling", pressed)


def test_nothing_goes_to_standard_error(capfd):
    """A grader takes what stands on standard error for a failure."""

    def warns(lora_alpha, rank, rank_stabilised=False):
        warnings.warn("careful", stacklevel=1)
        return torch.tensor(right(lora_alpha, rank, rank_stabilised), requires_grad=True)

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert check("lora.scaling", warns).solved
    assert shown == [] and capfd.readouterr().err == ""


def test_pytorch_has_as_many_threads_afterwards_as_before():
    inside, before = [], torch.get_num_threads()

    def looks(lora_alpha, rank, rank_stabilised=False):
        inside.append(torch.get_num_threads())
        return right(lora_alpha, rank, rank_stabilised)

    torch.set_num_threads(2)
    try:
        assert check("lora.scaling", looks).solved
        assert set(inside) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_require_shows_the_report_and_stops_short_of_a_traceback(capsys):
    check("lora.scaling", right).require()
    assert "solved" in capsys.readouterr().out
    with pytest.raises(Unsolved, match="Not solved yet: lora.scaling") as caught:
        check("lora.scaling", upside_down).require()
    assert "upside down" in capsys.readouterr().out
    assert caught.value._render_traceback_() == [str(caught.value)]


def test_reports_do_not_depend_on_when_they_are_made():
    """Stored notebooks are compared with a new run."""
    first = check("continual.reservoir", lambda buffer, *rest: buffer or [rest[0]])
    time.sleep(0.01)
    assert repr(check("continual.reservoir", lambda buffer, *rest: buffer or [rest[0]])) == repr(first)


def test_a_try_is_written_down_and_an_untouched_exercise_is_not(tmp_path, monkeypatch):
    file = tmp_path / "progress.json"
    monkeypatch.setenv(learner.VARIABLE, str(file))

    def untouched(*arguments):
        raise NotImplementedError()

    check("lora.scaling", untouched)
    check("lora.scaling", lambda *arguments: None)
    assert not file.exists()
    check("lora.scaling", upside_down)
    check("lora.merge", lambda W, A, B, a: W + a / len(A) * B @ A, record=False)
    check("lora.scaling", right)
    entries = json.loads(file.read_text())["exercises"]
    assert set(entries) == {"lora.scaling"}
    assert entries["lora.scaling"]["tries"] == 2 and entries["lora.scaling"]["solved"]


def test_trouble_with_the_progress_file_does_not_hide_the_report(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(learner.VARIABLE, str(tmp_path / "file" / "progress.json"))
    report = check("lora.scaling", right)
    assert report.solved and "this try was not written down" in repr(report) and report.note in report._repr_html_()


def test_the_catalogue_is_in_order_and_each_exercise_has_a_first_step():
    names = [exercise.name for exercise in EXERCISES]
    assert len(set(names)) == len(names)
    notebooks = [exercise.notebook for exercise in EXERCISES]
    assert notebooks == sorted(notebooks)
    assert all(exercise.begin.endswith((".", "?")) and 1 <= exercise.points <= 3 for exercise in EXERCISES)


def test_what_the_course_computes_itself_runs_without_limits_and_may_add_a_remark(monkeypatch):
    seen = []

    @contextmanager
    def limits(seconds, megabytes):
        seen.append("limits")
        yield
        seen.append("no limits")

    def rest():
        seen.append("rest")
        return "3 of 4"

    def fails():
        raise Wrong("the model", "four lines", "one\ntwo", "a reason")

    monkeypatch.setattr(check_module, "limits", limits)
    monkeypatch.setattr(check_module, "_tests", lambda exercise: {"first": lambda f: rest, "second": lambda f: fails})
    report = check("lora.scaling", lambda: None)
    assert seen[:3] == ["limits", "no limits", "rest"]
    assert report.passed == ("first: 3 of 4",) and report.failure.label == "second"
    shown = repr(report).splitlines()
    assert [line.index(word) for line, word in zip(shown[-3:], ("one", "two", "a reason"))] == [16] * 3
