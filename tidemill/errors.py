"""The errors that the SDK raises. `error.retryable` says whether doing the same again can help.

TidemillError
├── BadEvent              an event that the contract's message cannot hold: nothing was sent
├── BadTable              a table whose columns do not fit the contract: nothing more of it was sent
├── BadQuery              a condition or an option of a query that is wrong: nothing was sent
├── InputError            a file that cannot be read, or cannot be mapped to the contract
├── RowQuarantined        the service took the row, but keeps it in quarantine: it breaks its contract
├── WaitTimeout           what was waited for has not happened yet (also a builtin TimeoutError)      retryable
├── SendBufferFull        too much is unacknowledged (only with when_full="raise")                   retryable
├── OutboxError           the outbox can't be opened, written or read: what it could not hold was not sent
├── ClientClosed          the client or stream was closed before
├── MissingExtra          a library is not installed that this needs
└── ServiceError          the service answered with an error: `code`, `reason`, and what else it said
    ├── ServiceUnavailable    it does not answer                                                      retryable
    ├── ServiceBusy           it refuses for now: a queue is full, or a view is behind                retryable
    ├── NotFound              it has no stream, view or sealed copy of that name
    ├── OutOfSequence         it does not know how this producer's batches continue
    └── RequestRefused        the request itself is wrong, or comes at the wrong time
        └── AccessDenied          the API key is missing, not valid any more, or does not allow this
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class TidemillError(Exception):
    """Root of the SDK's errors; its text says what was expected, what came and what to do."""

    retryable: bool = False


class BadEvent(TidemillError):
    """An event that the contract's message cannot hold; `field` is the path of the field, or empty."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class BadTable(TidemillError):
    """A table that does not fit the contract; `column` names the column, or is empty."""

    def __init__(self, message: str, column: str = "") -> None:
        super().__init__(message)
        self.column = column


class BadQuery(TidemillError):
    """A query that cannot be sent: its text says which condition or option, and what would be right."""


class InputError(TidemillError):
    """A file that cannot be read or mapped; `file` is its path as given."""

    def __init__(self, message: str, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class RowQuarantined(TidemillError):
    """The row is durable, but in quarantine instead of the stream: it breaks `rule` of its contract in `field`.

    `index` is the row's place in the batch that it was sent in.
    """

    def __init__(self, stream: str, rule: str, field: str, message: str, index: int) -> None:
        super().__init__(f"stream {stream!r} quarantined the row: {field}: {message} (rule {rule})")
        self.stream = stream
        self.rule = rule
        self.field = field
        self.message = message
        self.index = index


class WaitTimeout(TidemillError, TimeoutError):
    """What was waited for has not happened in the time given; it still may."""

    retryable = True


class SendBufferFull(TidemillError):
    """Too much is unacknowledged; the event was not taken. Raised instead of waiting: `when_full="raise"`."""

    retryable = True


class OutboxError(TidemillError):
    """The outbox can't be opened, written or read; `path` is its file. Events that it could not hold were not sent."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class ClientClosed(TidemillError):
    """The client or the stream was closed before."""


class MissingExtra(TidemillError):
    """A library is missing; `extra` is the part of Tidemill that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs more than the light SDK: pip install 'tidemill[{extra}]'")
        self.extra = extra


class ServiceError(TidemillError):
    """The service answered with an error.

    code: the name of its gRPC status, such as "NOT_FOUND". reason: the service's own name for what is wrong, such as
    "OUT_OF_SEQUENCE" (docs/reference/errors.md lists them); "" when no service of ours answered. metadata: the error's
    fields as text, such as {"expected_sequence": "7"}. violations: what is wrong where, as (path of the field, text).
    retry_after_s: how long the service asks to wait before the same is sent again, in seconds.
    """

    def __init__(
        self,
        message: str,
        code: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str]] = (),
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class ServiceUnavailable(ServiceError):
    """The service does not answer. Of events sent but not acknowledged it is not known whether it took them."""

    retryable = True


class ServiceBusy(ServiceError):
    """The service refuses for now: a bounded queue is full, a disk too, or a view has not come far enough."""

    retryable = True


class NotFound(ServiceError):
    """The service has nothing of that name; the text lists what it has."""


class OutOfSequence(ServiceError):
    """The service does not know how this producer's batches continue: it may or may not have taken the last ones."""


class RequestRefused(ServiceError):
    """The request itself is wrong, or comes at the wrong time; the same request would be refused again."""


class AccessDenied(RequestRefused):
    """The API key is missing, not valid any more, or does not allow this; `metadata["needs"]` is the right it lacks."""
