"""Every error that the client raises.

* NnzError
  - StatusError: the server answered, and refused
    - BadRequestError 400
    - AuthenticationError 401
    - PermissionDeniedError 403
    - NotFoundError 404
    - ConflictError 409
    - TooLargeError 413
    - UnsupportedMediaError 415
    - ImpossibleError 422
    - OverloadedError 429
    - ServerError 5xx
      . UnavailableError 503
      . DeadlineError 504
  - ConnectError: no connection, or it broke
  - RequestTimeoutError: the client stopped waiting
  - ProtocolError: the answer cannot be understood
  - JobFailedError, JobCancelledError: the job ended without a result
  - LocalServerMissingError: ``Client.local()`` without the server package

Bad arguments that never leave the client are plain `TypeError` and `ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class NnzError(Exception):
    """Base class of everything that this package raises on purpose.

    Args:
        message: What was wrong; for a refusal, the server's own words.
        status: HTTP status of the answer; None when there was none.
        request_id: What the server's log calls this request.
        retry_after: Seconds after which the server invites another try.
        details: What the server said besides the message, such as the ``nodes`` of a
            model that it cannot run.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after
        self.details = dict(details or {})

    def __str__(self) -> str:
        """The message, with the status and the request's id where there are any."""
        notes = []
        if self.status is not None:
            notes.append(f"status {self.status}")
        if self.request_id:
            notes.append(f"request {self.request_id}")
        return f"{self.message} ({', '.join(notes)})" if notes else self.message


class StatusError(NnzError):
    """The server answered with an error status."""


class BadRequestError(StatusError):
    """400: the server could not read the request."""


class AuthenticationError(StatusError):
    """401: the API key is missing or unknown."""


class PermissionDeniedError(StatusError):
    """403: the key is known but may not do this."""


class NotFoundError(StatusError):
    """404: there is no such model, matrix, job or operation."""


class ConflictError(StatusError):
    """409: the thing is in a state that does not allow the request."""


class TooLargeError(StatusError):
    """413: the body, or what the key would keep, passes a limit of the server."""


class UnsupportedMediaError(StatusError):
    """415: the server does not know this kind of file."""


class ImpossibleError(StatusError):
    """422: well formed, but it cannot be done: shapes, types or values."""


class OverloadedError(StatusError):
    """429: the queue is full; try again later."""


class ServerError(StatusError):
    """5xx: the server failed."""


class UnavailableError(ServerError):
    """503: starting, draining, or the model is not loaded."""


class DeadlineError(ServerError):
    """504: the server gave up at its deadline."""


class ConnectError(NnzError, ConnectionError):
    """No connection could be made, or it broke before the answer was complete."""


class RequestTimeoutError(NnzError, TimeoutError):
    """The client stopped waiting; the server may still be at work."""


class ProtocolError(NnzError):
    """The answer is not what this client understands."""


class JobFailedError(NnzError):
    """The job ended with an error instead of a result."""


class JobCancelledError(NnzError):
    """The job was cancelled before it had a result."""


class LocalServerMissingError(NnzError, ImportError):
    """The server package is not installed in this environment."""


_BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    415: UnsupportedMediaError,
    422: ImpossibleError,
    429: OverloadedError,
    503: UnavailableError,
    504: DeadlineError,
}


def class_of(status: int) -> type[StatusError]:
    """The error class of an HTTP status."""
    return _BY_STATUS.get(status, ServerError if status >= 500 else StatusError)
