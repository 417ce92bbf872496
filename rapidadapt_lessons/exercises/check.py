"""Check an exercise: `check("lora.scaling", scaling)` says what holds, and what a wrong answer most likely got wrong.

A check calls the learner's function and looks at what comes back: properties, references, random inputs. How the
function is written does not matter. The function runs within limits of time and memory (`limits`), whatever it
raises is told in the report, and the result is written down in the learner's own progress (`progress`). What the course
itself computes from what came back, such as a model's answers to a prompt, runs afterwards and without these limits.
"""

from __future__ import annotations

import sysconfig
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from . import progress
from .catalogue import Exercise, find_exercise
from .compare import Nothing, Test, Wrong, show
from .limits import TookTooLong, is_out_of_memory, limits

_MODULES = {
    "ex01_prompting.ipynb": "prompting",
    "ex02_prompts.ipynb": "prompts",
    "ex03_lora.ipynb": "lora",
    "ex05_maml_math.ipynb": "maml_math",
    "ex06_maml_from_scratch.ipynb": "maml",
    "ex08_continual.ipynb": "continual",
    "ex09_bug_hunts.ipynb": "bugs",
    "ex11_scaling_out.ipynb": "scaling",
}
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Failure:
    """Why one check did not pass. `lines` are pairs of a heading and a text, such as ("expected", "2.0")."""

    label: str
    lines: tuple[tuple[str, str], ...]


class Unsolved(Exception):
    """An exercise that has to be solved is not. Notebooks show its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Report:
    """What a check found. The last expression of a notebook cell shows it; `print` writes it as text.

    Attributes:
        exercise: which one.
        passed: what held, in the order of checking; where there is a figure to it, with that.
        failure: the first thing that did not hold; None when all did.
        waiting: how many checks come after that one.
        started: False where the function is still as it was handed out.
        note: something about the progress file that the learner should know, or "".
    """

    exercise: Exercise
    passed: tuple[str, ...]
    failure: Failure | None
    waiting: int
    started: bool = True
    note: str = ""

    @property
    def solved(self) -> bool:
        return self.failure is None

    @property
    def headline(self) -> str:
        total = len(self.passed) + self.waiting + (self.failure is not None)
        if self.solved:
            return f"{self.exercise.name}: solved. All {total} checks passed."
        if not self.started:
            return f"{self.exercise.name}: " + ("nothing comes back yet." if self.failure.label else "not started yet.")
        return f"{self.exercise.name}: not yet. {len(self.passed)} of {total} checks passed."

    def require(self) -> None:
        """Show the report; raise unless the exercise is solved. This is the line that a grader looks at.

        Raises:
            Unsolved: it is not solved.
        """
        from IPython.display import display

        display(self)
        if not self.solved:
            raise Unsolved(f"Not solved yet: {self.exercise.name}. The report above says what to look at.")

    def __repr__(self) -> str:
        lines = [self.headline, *(f"  passed: {label}" for label in self.passed)]
        if self.failure:
            lines += [f"  to do:  {self.failure.label}"] if self.failure.label else []
            width = max(len(heading) for heading, _ in self.failure.lines) + 1
            for heading, text in self.failure.lines:
                lines.append(f"      {heading + ':':<{width}} " + text.replace("\n", "\n" + " " * (width + 7)))
        if self.waiting and self.started:
            lines.append(f"  {_waiting(self.waiting)}")
        return "\n".join([*lines, *([f"  Note: {self.note}"] if self.note else [])])

    def _repr_html_(self) -> str:
        colour = "#009E73" if self.solved else "#E69F00" if self.started else "#56B4E9"
        rows = [f"<div>✓ {escape(label)}</div>" for label in self.passed]
        if self.failure:
            rows += [f"<div><b>to do: {escape(self.failure.label)}</b></div>"] if self.failure.label else []
            cells = (
                f"<tr><td style='text-align:left;vertical-align:top;padding:1px 12px 1px 0'>{escape(heading)}</td>"
                f"<td style='text-align:left;white-space:pre-wrap'>{escape(text)}</td></tr>"
                for heading, text in self.failure.lines
            )
            rows.append(f"<table style='margin:4px 0 4px 1em'>{''.join(cells)}</table>")
        rows += [f"<div>{_waiting(self.waiting)}</div>"] if self.waiting and self.started else []
        rows += [f"<div><i>{escape(self.note)}</i></div>"] if self.note else []
        body = "".join(rows)
        return (
            f"<div role='status' style='border-left:5px solid {colour};padding:4px 12px'>"
            f"<div><b>{escape(self.headline)}</b></div>{body}</div>"
        )


def check(
    name: str, function: Callable[..., Any], *, record: bool = True, seconds: float = 10.0, megabytes: float = 1024.0
) -> Report:
    """Check a learner's function against what the exercise asks for.

    Args:
        name: of the exercise, such as "lora.scaling".
        function: the function itself, not a call of it.
        record: write the result down in the learner's progress (see `progress.progress_file` for where).
        seconds: how long each single check may take.
        megabytes: how much memory, in units of 2^20 bytes, the function may take in addition to what is in use.

    Raises:
        CourseError: there is no exercise of that name.
    """
    exercise = find_exercise(name)
    if not callable(function):
        failure = Failure("", (("came", show(function)), ("to do", _not_a_function(exercise, function))))
        return Report(exercise, (), failure, 0)
    tests = _tests(exercise)
    passed: list[str] = []
    report = None
    for label, test in tests.items():
        failure, started, remark = _run(test, label, function, exercise, not passed, seconds, megabytes)
        if failure:
            report = Report(exercise, tuple(passed), failure, len(tests) - len(passed) - 1, started)
            break
        passed.append(f"{label}: {remark}" if remark else label)
    report = report or Report(exercise, tuple(passed), None, 0)
    if record and report.started:
        report = replace(report, note=progress.record(exercise.name, report.solved))
    return report


def _tests(exercise: Exercise) -> dict[str, Test]:
    return import_module(f".checks.{_MODULES[exercise.notebook]}", __package__).CHECKS[exercise.name]


def _run(
    test: Test, label: str, function: Callable, exercise: Exercise, first: bool, seconds: float, megabytes: float
) -> tuple[Failure | None, bool, str]:
    """Return why the test failed, or None; whether the learner has begun; and a remark on what held, or ""."""
    begin = ("to begin", f"{exercise.begin} The hints under the exercise go on from there.")
    try:
        with warnings.catch_warnings(action="ignore"), _one_thread(), limits(seconds, megabytes):
            rest = test(function)  # without warnings: nbgrader takes every line on standard error for a failure
    except Nothing as wrong:
        lines = (("called", wrong.call), ("came", f"{wrong.came}: {wrong.why}"))
        return Failure(label, (*lines, begin) if first else lines), not first, ""
    except Wrong as wrong:
        return _wrong(label, wrong), True, ""
    except NotImplementedError as error:
        if first:
            todo = "put your own lines in the place of `raise NotImplementedError()`, then run that cell and this one."
            return Failure("", (("to do", todo), begin)), False, ""
        return Failure(label, (("came", f"NotImplementedError{_where(error.__traceback__)}"), _PARTLY)), True, ""
    except TookTooLong as stop:
        came = f"no answer in {seconds:g} seconds{_where(stop.__traceback__)}"
        return Failure(label, (("came", came), _LOOP)), True, ""
    except KeyboardInterrupt:
        raise  # the learner pressed stop
    except BaseException as error:  # whatever the learner's code raises, SystemExit too, is told and not passed on
        return Failure(label, _explain(error, function, megabytes)), True, ""
    try:
        with warnings.catch_warnings(action="ignore"):
            return None, True, rest() if rest else ""
    except Wrong as wrong:
        return _wrong(label, wrong), True, ""


def _wrong(label: str, wrong: Wrong) -> Failure:
    told = (("called", wrong.call), ("expected", wrong.expected), ("came", wrong.came), ("likely", wrong.why))
    return Failure(label, told)


_PARTLY = ("likely", "a part of the function is not written yet.")
_LOOP = ("likely", "a loop that never ends, or far more work than is needed. It was stopped; your kernel is fine.")
_REASONS: tuple[tuple[type[BaseException], str, str], ...] = (
    (TypeError, "positional argument", "it takes other arguments than the exercise says. Keep its first line."),
    (UnboundLocalError, "", "a name is used before the function has given it a value: begin with one, such as "
     "`total = 0`."),
    (NameError, "", "a name that is not defined here: a typing slip, or a cell further up that has not been run."),
    (RecursionError, "", "the function calls itself without an end."),
    (SystemExit, "", "leave out `exit` and `quit`: they end Python."),
    (RuntimeError, "shapes cannot be multiplied", "the inner sizes differ: print the shapes. Is a transpose missing?"),
    (RuntimeError, "must match the size", "two tensors of different shapes meet: print both shapes just before."),
    (RuntimeError, "does not require grad", "nothing here can be differentiated: was the graph cut by `detach`, "
     "`item` or `no_grad`, or is `requires_grad_` missing?"),
    (RuntimeError, "backward through the graph a second time", "a graph is used twice: `create_graph=True` keeps it."),
    (RuntimeError, "modified by an inplace operation", "a tensor that the gradient needs was changed in place: make "
     "a new one."),
    (RuntimeError, "in-place operation", "a tensor that needs its gradient was changed in place: make a new one."),
    (RuntimeError, "not have been used in the graph", "the loss does not depend on what it is differentiated by."),
    (IndexError, "Dimension out of range", "the tensor has no such dimension: print its shape. The last one is -1."),
    (IndexError, "", "an index beyond the end: print the length, and mind that counting starts at 0."),
    (KeyError, "", "a name that the dict does not hold: print its keys."),
    (AttributeError, "", "a value of another kind than you expect here: print its type."),
)  # fmt: skip


def _explain(error: BaseException, function: Callable, megabytes: float) -> tuple[tuple[str, str], ...]:
    where = _where(error.__traceback__)
    if is_out_of_memory(error):
        came = f"more than {megabytes:g} MB of memory asked for{where}"
        why = "a shape that is far too large, or a list that grows without end. It was refused; your kernel is fine."
        return (("came", came), ("likely", why))
    told = textwrap.shorten(f"{type(error).__name__}: {error}", 240, placeholder=" ...")
    called = not told.startswith(f"TypeError: {getattr(function, '__qualname__', '')}()")
    known = [why for kind, part, why in _REASONS if isinstance(error, kind) and part in str(error)]
    if called and where and isinstance(error, TypeError) and "positional argument" in str(error):
        known = ["the function called in that line takes other arguments: compare the call with its first line."]
    if not where and called:  # the check stumbled over what the function gave back
        why = "the function gave back something that the exercise does not ask for."
        return (("came", f"an answer that cannot be used ({told})"), ("likely", known[0] if known else why))
    why = known[0] if known else "your function stopped with an error, in the line named above."
    return (("came", f"{told}{where}"), ("likely", why))


def _where(trace: TracebackType | None) -> str:
    """Return the learner's own line that a traceback goes through last, or "" when it goes through none."""
    libraries = (str(_PACKAGE), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    own = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith((*libraries, "<frozen"))]
    if not own:
        return ""
    line = (own[-1].line or "").strip()
    return f", in line {own[-1].lineno}" + (f": {line}" if line else "")


def _not_a_function(exercise: Exercise, value: Any) -> str:
    return f'hand over the function itself, check("{exercise.name}", your_function), without calling it.'


def _waiting(count: int) -> str:
    return f"{count} more {'check waits' if count == 1 else 'checks wait'} until this one passes."


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch work in one thread: a new one cannot be made once memory is used up, and that ends the process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
