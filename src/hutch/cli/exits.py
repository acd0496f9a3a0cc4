"""The exit codes: stable, documented, and what scripts rely on."""

from hutch.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    HutchError,
    InvalidInputError,
    NotAuthenticatedError,
    NotFoundError,
    TooLargeError,
    TooManyRequestsError,
    UnavailableError,
)

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
NOT_PERMITTED = 4
CONFLICT = 5
INVALID = 6
UNAVAILABLE = 7
INTERRUPTED = 130
PIPE_CLOSED = 141

MEANINGS = {
    OK: "It was done.",
    FAILED: "The operation failed, is stuck or was cancelled, a part of a folder could not be "
    "brought over, or something unforeseen happened.",
    USAGE: "The command line was not understood, or it asks and there is no terminal to answer.",
    NOT_FOUND: "There is no such thing, or it is somebody else's.",
    NOT_PERMITTED: "Not signed in, or not allowed.",
    CONFLICT: "It cannot be had now: quota, no room, busy, wrong state, name taken.",
    INVALID: "A name, size, key, password, file or setting is not valid.",
    UNAVAILABLE: "The server or its engine does not answer, or asks to try again later.",
    INTERRUPTED: "Interrupted, or the answer to a question was no. Work that had begun goes on.",
    PIPE_CLOSED: "The program that read the output closed it.",
}


class UsageError(HutchError):
    code = "usage"


class ConfirmationNeededError(UsageError):
    code = "confirmation_needed"


class InterruptedByPersonError(HutchError):
    code = "interrupted"


class DeclinedError(InterruptedByPersonError):
    code = "declined"


class FailedOperationError(Exception):
    """An operation ended badly. Its own `error` says why, which is not why this command fails."""

    def __init__(self, error: HutchError) -> None:
        super().__init__(error.message)
        self.error = error


_BY_CLASS: tuple[tuple[type[HutchError], int], ...] = (
    (UsageError, USAGE),
    (InterruptedByPersonError, INTERRUPTED),
    (NotFoundError, NOT_FOUND),
    (NotAuthenticatedError, NOT_PERMITTED),
    (ForbiddenError, NOT_PERMITTED),
    (ConflictError, CONFLICT),
    (InvalidInputError, INVALID),
    (TooLargeError, INVALID),
    (ConfigurationError, INVALID),
    (UnavailableError, UNAVAILABLE),
    (TooManyRequestsError, UNAVAILABLE),
)


def exit_code(error: HutchError) -> int:
    """The exit code for an error that ended a command."""
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), FAILED)
