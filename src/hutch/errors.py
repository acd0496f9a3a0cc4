"""Every error that hutch tells people about, with a stable code each.

    HutchError
    ├── InvalidInputError        422  invalid_input
    │   ├── InvalidNameError          invalid_name
    │   ├── InvalidSizeError          invalid_size
    │   ├── InvalidLimitError         invalid_limit
    │   ├── InvalidKeyError           invalid_key
    │   ├── WeakKeyError              weak_key
    │   ├── WeakPasswordError         weak_password
    │   ├── InvalidDurationError      invalid_duration
    │   ├── InvalidPathError          invalid_path
    │   ├── BadRangeError        416  bad_range
    │   ├── NoSuchAcceleratorError    no_such_accelerator
    │   └── NodeTooSmallError         node_too_small
    ├── NotAuthenticatedError    401  not_authenticated
    │   ├── BadLoginError             bad_login
    │   ├── BadTokenError             bad_token
    │   └── BadTicketError            bad_ticket
    ├── ForbiddenError           403  forbidden
    │   └── UntrustedAppError         untrusted_app
    ├── NotFoundError            404  not_found
    ├── ConflictError            409  conflict
    │   ├── NameTakenError            name_taken
    │   ├── KeyTakenError             key_taken
    │   ├── PortTakenError            port_taken
    │   ├── BusyError                 operation_in_progress
    │   ├── WrongStateError           wrong_state
    │   ├── QuotaExceededError        quota_exceeded
    │   ├── ExtensionRefusedError     extension_refused
    │   ├── NoRoomError               no_room
    │   ├── FileTakenError            file_exists
    │   ├── WrongFileTypeError        wrong_file_type
    │   ├── FolderNotEmptyError       folder_not_empty
    │   ├── FileRefusedError          file_refused
    │   ├── FileChangedError          file_changed
    │   ├── WrongOffsetError          wrong_offset
    │   ├── DiskFullError             disk_full
    │   ├── NoPortLeftError           no_port_left
    │   └── NoAddressLeftError        no_address_left
    ├── TooLargeError            413  too_large
    ├── TooManyRequestsError     429  too_many_requests
    ├── AppError                 502  app_unreachable
    │   └── AppTimeoutError      504  app_timeout
    ├── UnavailableError         503  unavailable
    │   ├── DatabaseUnavailableError  database_unavailable
    │   └── EngineUnavailableError    engine_unavailable
    ├── EngineError              500  engine_error
    │   ├── EngineNotFoundError       engine_not_found
    │   ├── EnginePortClosedError     engine_port_closed
    │   └── EngineConflictError       engine_conflict
    ├── ConfigurationError       500  bad_configuration
    └── InternalError            500  internal_error

Each has a message (what happened and why) and a hint (what to do). An answer of the API is always

    {"error": {"code": …, "message": …, "hint": …, "detail": {…}, "request_id": …}}
"""

from typing import Any, ClassVar


class HutchError(Exception):
    """Base of everything hutch raises on purpose."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def as_dict(self) -> dict[str, Any]:
        """The error as it travels in answers and in an operation's row."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "detail": self.detail,
        }


class InvalidInputError(HutchError):
    code = "invalid_input"
    status = 422


class InvalidNameError(InvalidInputError):
    code = "invalid_name"

    def __init__(self, kind: str, given: str, allowed: str) -> None:
        shown = given if len(given) <= 80 else given[:80] + "…"
        super().__init__(
            f"{shown!r} is not a valid {kind} name.",
            hint=f"Use {allowed}.",
            kind=kind,
            given=shown,
        )


class InvalidSizeError(InvalidInputError):
    code = "invalid_size"

    def __init__(self, given: str, allowed: str) -> None:
        shown = given if len(given) <= 40 else given[:40] + "…"
        super().__init__(f"{shown!r} is not a valid size.", hint=f"Give {allowed}.", given=shown)


class InvalidLimitError(InvalidInputError):
    code = "invalid_limit"

    def __init__(self, name: str, given: str, allowed: str) -> None:
        super().__init__(
            f"{name} cannot be {given}.", hint=f"Give {allowed}.", limit=name, given=given
        )


class InvalidKeyError(InvalidInputError):
    code = "invalid_key"


class WeakKeyError(InvalidInputError):
    code = "weak_key"


class WeakPasswordError(InvalidInputError):
    code = "weak_password"


class InvalidDurationError(InvalidInputError):
    code = "invalid_duration"

    def __init__(self, given: str, allowed: str) -> None:
        shown = given if len(given) <= 40 else given[:40] + "…"
        super().__init__(
            f"{shown!r} is not a duration that is allowed.", hint=f"Give {allowed}.", given=shown
        )


class InvalidPathError(InvalidInputError):
    code = "invalid_path"


class BadRangeError(InvalidInputError):
    code = "bad_range"
    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The file has {size} bytes, and none of those that were asked for.",
            hint="Ask for it without a Range.",
            size=size,
        )


class NoSuchAcceleratorError(InvalidInputError):
    """No node will ever have what was asked for, so waiting would be in vain."""

    code = "no_such_accelerator"


class NodeTooSmallError(InvalidInputError):
    code = "node_too_small"

    def __init__(self, node: str, resource: str, has: int) -> None:
        amount = "that many CPUs" if resource == "cpus" else f"that much {resource}"
        super().__init__(
            f"Node {node} does not have {amount} in all.",
            hint="Ask for less, or for another node: `hutch node list` shows what each has.",
            node=node,
            resource=resource,
            has=has,
        )


class NotAuthenticatedError(HutchError):
    code = "not_authenticated"
    status = 401


class BadLoginError(NotAuthenticatedError):
    code = "bad_login"

    def __init__(self) -> None:
        # One message for every reason, so that nobody learns which names exist.
        super().__init__(
            "The name or the password is wrong.",
            hint="Try again, or ask your administrator to reset the password.",
        )


class BadTokenError(NotAuthenticatedError):
    code = "bad_token"

    def __init__(self) -> None:
        super().__init__(
            "The token is unknown, expired or revoked.", hint="Sign in again with `hutch login`."
        )


class BadTicketError(NotAuthenticatedError):
    code = "bad_ticket"

    def __init__(self) -> None:
        # One message for every reason: whoever has found one learns nothing about it.
        super().__init__(
            "The ticket is not for this, was used already, or its time is over.",
            hint="Ask for another one: each is good for one connection, and half a minute.",
        )


class ForbiddenError(HutchError):
    code = "forbidden"
    status = 403


class UntrustedAppError(ForbiddenError):
    """Nobody has said yet that they trust the owner of an app which shares hutch's address."""

    code = "untrusted_app"

    def __init__(self, owner: str) -> None:
        super().__init__(
            f"This app is {owner}'s, and you have not said that you trust it.",
            hint="Open it in a browser, which tells what that means.",
            owner=owner,
        )


_LISTED_BY = {"instance": "list"}


class NotFoundError(HutchError):
    code = "not_found"
    status = 404

    def __init__(self, noun: str, name: str, *, hint: str = "") -> None:
        shown = name if len(name) <= 80 else name[:80] + "…"
        super().__init__(
            f"There is no {noun} {shown!r}.",
            hint=hint or f"`hutch {_LISTED_BY.get(noun, noun + ' list')}` shows what there is.",
            noun=noun,
            name=shown,
        )


class ConflictError(HutchError):
    code = "conflict"
    status = 409


class NameTakenError(ConflictError):
    code = "name_taken"

    def __init__(self, noun: str, name: str) -> None:
        super().__init__(
            f"There is already {noun} {name!r}.", hint="Choose another name.", noun=noun, name=name
        )


class KeyTakenError(ConflictError):
    code = "key_taken"


class PortTakenError(ConflictError):
    code = "port_taken"

    def __init__(self, port: int) -> None:
        super().__init__(
            f"Host port {port} is in use.",
            hint="Ask for another one, or leave it to hutch to give you one.",
            port=port,
        )


class BusyError(ConflictError):
    code = "operation_in_progress"

    def __init__(self, what: str, operation_id: str, kind: str) -> None:
        super().__init__(
            f"{what} is busy: {kind} is still in progress.",
            hint=f"Wait for it (`hutch operation show {operation_id}`), then try again.",
            operation=operation_id,
            kind=kind,
        )


class WrongStateError(ConflictError):
    code = "wrong_state"


class QuotaExceededError(ConflictError):
    code = "quota_exceeded"

    def __init__(
        self, resource: str, allowed: str, held: str, asked: str, *, hint: str = ""
    ) -> None:
        super().__init__(
            f"This would exceed the quota of {resource}: "
            f"{allowed} allowed, {held} held, {asked} more asked for.",
            hint=hint
            or "Delete or shrink an instance, or ask your administrator for a larger quota.",
            resource=resource,
            allowed=allowed,
            held=held,
            asked=asked,
        )


class ExtensionRefusedError(ConflictError):
    """Somebody who is entitled to the accelerators waits for them."""

    code = "extension_refused"


class NoRoomError(ConflictError):
    code = "no_room"


class FileTakenError(ConflictError):
    code = "file_exists"


class WrongFileTypeError(ConflictError):
    code = "wrong_file_type"


class FolderNotEmptyError(ConflictError):
    code = "folder_not_empty"


class FileRefusedError(ConflictError):
    """The instance's own kernel said no to its root."""

    code = "file_refused"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"The instance refuses that for {path}: {reason}.",
            hint="Its kernel refuses its root: is that place read-only, or not an ordinary file?",
            path=path,
            reason=reason,
        )


class FileChangedError(ConflictError):
    code = "file_changed"


class WrongOffsetError(ConflictError):
    code = "wrong_offset"

    def __init__(self, has: int, given: int) -> None:
        super().__init__(
            f"{has} bytes of this upload have arrived, so it cannot go on at {given}.",
            hint=f"Go on at byte {has}.",
            offset=has,
        )


class DiskFullError(ConflictError):
    code = "disk_full"


class NoPortLeftError(ConflictError):
    code = "no_port_left"

    def __init__(self, first: int, last: int) -> None:
        super().__init__(
            f"Every host port from {first} to {last} is taken.",
            hint="An administrator can widen the range in hutch's settings.",
        )


class NoAddressLeftError(ConflictError):
    code = "no_address_left"

    def __init__(self, subnet: str) -> None:
        super().__init__(
            f"Every address of the instances' network {subnet} is taken.",
            hint="Delete instances that are no longer used, or add a node.",
        )


class TooLargeError(HutchError):
    code = "too_large"
    status = 413


class TooManyRequestsError(HutchError):
    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(
            message, hint=f"Wait {retry_after} s, then try again.", retry_after=retry_after
        )
        self.retry_after = retry_after
        """Seconds until another attempt is looked at."""


class AppError(HutchError):
    """What listens in an instance does not answer as a web server does."""

    code = "app_unreachable"
    status = 502


class AppTimeoutError(AppError):
    code = "app_timeout"
    status = 504


class UnavailableError(HutchError):
    code = "unavailable"
    status = 503


class DatabaseUnavailableError(UnavailableError):
    code = "database_unavailable"


class EngineUnavailableError(UnavailableError):
    """The engine does not answer. Nothing is known about what it did."""

    code = "engine_unavailable"


class EngineError(HutchError):
    """The engine answered, and refused or failed."""

    code = "engine_error"
    status = 500


class EngineNotFoundError(EngineError):
    code = "engine_not_found"


class EnginePortClosedError(EngineError):
    code = "engine_port_closed"

    def __init__(self, port: int) -> None:
        super().__init__(
            f"Nothing listens at port {port} inside.",
            hint="Start what is to listen there, at 127.0.0.1 or at every address.",
            port=port,
        )


class EngineConflictError(EngineError):
    """The engine is doing something else with that container, or the name is taken."""

    code = "engine_conflict"


class ConfigurationError(HutchError):
    code = "bad_configuration"


class InternalError(HutchError):
    code = "internal_error"
