"""Errors written for people: what was wrong, with the value, and what to do about it."""

from __future__ import annotations


class CourseError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        problem: what was wrong, naming the value.
        remedy: what the reader can do now.
    """

    def __init__(self, problem: str, remedy: str):
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}\nWhat to do: {remedy}")

    def __reduce__(self):
        return type(self), (self.problem, self.remedy)


class ModelNotFound(CourseError):
    """The named model is neither the course's own, nor cached, nor reachable."""


class DownloadFailed(CourseError):
    """A file could not be fetched: no network, cut short, or refused."""


class ChecksumMismatch(CourseError):
    """A file's SHA-256 is not the one that was pinned."""


class NotEnoughDisk(CourseError):
    """A disk has too little room."""


class UnknownTask(CourseError):
    """No task has this name."""


class NotEnoughExamples(CourseError):
    """More examples were asked for than there are."""


class BadPrompt(CourseError):
    """A prompt cannot be built or run: empty query, faulty template, too long for the context."""


class NonFiniteScores(CourseError):
    """The model returned NaN or infinite scores."""


class MissingPackage(CourseError):
    """An installed package that the course needs is absent or broken."""


class AdapterMismatch(CourseError):
    """An adapter does not belong to this model, or its files are damaged."""


class TrainingDiverged(CourseError):
    """The loss or its gradient became NaN or infinite; the last good weights were put back."""


class CheckpointMismatch(CourseError):
    """A checkpoint belongs to another run, or cannot be read."""


class BadData(CourseError):
    """A reader's own file cannot be used as it is."""
