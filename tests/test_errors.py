"""Errors are for people: a problem, a remedy, one base class, and they survive the way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from rapidadapt_lessons import errors
from rapidadapt_lessons.errors import CourseError

ALL = [found for _, found in inspect.getmembers(errors, inspect.isclass) if found.__module__ == errors.__name__]


def test_the_errors_that_the_course_names_are_there():
    names = {found.__name__ for found in ALL}
    assert names >= {"CourseError", "ModelNotFound", "DownloadFailed", "ChecksumMismatch", "NotEnoughDisk"}
    assert names >= {"UnknownTask", "NotEnoughExamples", "BadPrompt", "NonFiniteScores", "MissingPackage"}


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_course_error_and_says_what_it_is_for(kind):
    assert issubclass(kind, CourseError) and issubclass(kind, Exception)
    assert kind.__doc__


@pytest.mark.parametrize("kind", ALL)
def test_the_message_is_the_problem_and_then_the_remedy(kind):
    error = kind("'gtp2' is no model.", "check the spelling.")
    assert str(error) == "'gtp2' is no model.\nWhat to do: check the spelling."
    assert (error.problem, error.remedy) == ("'gtp2' is no model.", "check the spelling.")


@pytest.mark.parametrize("kind", ALL)
def test_a_remedy_cannot_be_forgotten(kind):
    with pytest.raises(TypeError, match="remedy"):
        kind("something was wrong")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("protocol", [0, pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL])
def test_pickling_keeps_kind_problem_and_remedy(kind, protocol):
    """A pool of processes sends errors to its parent by pickling them."""
    error = kind("héllo: 3 shots, 2 examples", "ask for 2\nor fewer")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is kind
    assert (back.problem, back.remedy, str(back)) == (error.problem, error.remedy, str(error))


def test_copying_keeps_problem_and_remedy():
    error = errors.BadPrompt("the query is empty.", "type one.")
    for back in (copy.copy(error), copy.deepcopy(error)):
        assert (type(back), back.problem, back.remedy) == (errors.BadPrompt, error.problem, error.remedy)
