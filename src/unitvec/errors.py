"""One family of errors: each has a message for a person and knows its HTTP status."""

from __future__ import annotations


class UnitvecError(Exception):
    """Something that the user is told in one line. ``status`` is the HTTP status it answers with."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(UnitvecError):
    """The caller's mistake: the message says what is wrong and what to do."""

    status = 400


class TextTooLong(InvalidRequest):
    """A text is longer than the context, and may not be cut."""


class ModelNotFound(UnitvecError):
    """No such model here."""

    status = 404


class InvalidCheckpoint(UnitvecError):
    """A model's files are damaged, or of a kind that cannot be run."""


class FetchFailed(UnitvecError):
    """A model could not be fetched: the message says which sources were tried."""

    status = 502


class Overloaded(UnitvecError):
    """The queue is full; ``retry_after`` says in how many seconds it is worth another try."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoSpace(UnitvecError):
    """The disk cannot hold what is to be fetched."""

    status = 507


class NotWritable(UnitvecError):
    """A store that cannot be changed: read-only, or somebody else's."""
