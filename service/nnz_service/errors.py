"""Every error of the service; each class carries the HTTP status it becomes.

* ServiceError 500
  - MalformedError 400
  - UnauthorizedError 401
  - ForbiddenError 403
  - NotFoundError 404
  - ConflictError 409
    - RegisteredError 400
  - TooLargeError 413
  - UnsupportedMediaError 415
  - ImpossibleError 422
    - InvalidModelError
    - UnsupportedModelError
    - InvalidInputError
    - InvalidMatrixError
    - DeadlyRequestError
  - OverloadedError 429
  - NotOfferedError 501
  - UnavailableError 503
    - DatabaseAwayError
    - DeviceFullError
    - NotLoadedError
    - WorkerLostError
  - DeadlineError 504
  - StorageFullError 507
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

#: In metrics, logs and the audit where no status was answered: the client left first.
CLIENT_LEFT = 499


class ServiceError(Exception):
    """Base class; the web layer answers ``{"error": str(exc)}`` with `status`."""

    status: ClassVar[int] = 500
    #: Whole seconds after which a retry may succeed; None when a retry cannot help.
    retry_after: int | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        if retry_after is not None:
            self.retry_after = max(1, math.ceil(retry_after))

    def to_dict(self) -> dict[str, Any]:
        """Describe the error so that it can cross a process boundary."""
        found = {"type": type(self).__name__, "message": str(self)}
        return found | {"retry_after": self.retry_after}

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> ServiceError:
        """Rebuild what `to_dict` described; an unknown type becomes the base class."""
        kind = _BY_NAME.get(str(fields.get("type")), ServiceError)
        message = str(fields.get("message", ""))
        if issubclass(kind, UnsupportedModelError):
            return kind(message, nodes=fields.get("nodes", ()))
        return kind(message, retry_after=fields.get("retry_after"))


class MalformedError(ServiceError):
    """The request cannot be read: broken JSON, lengths that disagree, bad syntax."""

    status = 400


class UnauthorizedError(ServiceError):
    """No API key was sent, or one that is not known."""

    status = 401


class ForbiddenError(ServiceError):
    """The API key is known, but does not allow this."""

    status = 403


class NotFoundError(ServiceError):
    """There is no such thing."""

    status = 404


class ConflictError(ServiceError):
    """The thing is in a state that does not allow the request."""

    status = 409


class RegisteredError(ConflictError):
    """Something else is registered under this name; 400 is the protocol's wish."""

    status = 400


class TooLargeError(ServiceError):
    """The body, or what is to be kept, passes a limit."""

    status = 413


class UnsupportedMediaError(ServiceError):
    """The content type or content encoding is not one that is understood."""

    status = 415


class ImpossibleError(ServiceError):
    """The request is well formed but cannot be done: shapes, types or values."""

    status = 422


class InvalidModelError(ImpossibleError):
    """The file is not a valid ONNX model."""


class UnsupportedModelError(ImpossibleError):
    """The model is valid but has nodes that this engine cannot run.

    Args:
        message: What to tell the user, with every node named.
        nodes: One ``"name (Op, domain opset): why"`` string a node.
    """

    def __init__(self, message: str, nodes: tuple[str, ...] | list[str] = ()) -> None:
        super().__init__(message)
        self.nodes = tuple(nodes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the error, nodes included."""
        return {**super().to_dict(), "nodes": list(self.nodes)}


class InvalidInputError(ImpossibleError):
    """An input tensor has the wrong name, shape or type."""


class InvalidMatrixError(ImpossibleError):
    """A matrix or vector breaks the rules of its format."""


class DeadlyRequestError(ImpossibleError):
    """The same request has ended the worker twice, so it is not run again."""


class OverloadedError(ServiceError):
    """The queue is full; the same request may succeed a little later."""

    status = 429
    retry_after = 1


class NotOfferedError(ServiceError):
    """The protocol has it, this server does not, or was told not to."""

    status = 501


class UnavailableError(ServiceError):
    """Starting, draining, or the model is not loaded."""

    status = 503
    retry_after: int | None = 1


class DatabaseAwayError(UnavailableError):
    """The database cannot be reached or is too busy; what it holds is not lost."""

    retry_after = 2


class NotLoadedError(UnavailableError):
    """It is stored, but nobody is loading it: only a call to load it can help."""

    retry_after = None


class WorkerLostError(UnavailableError):
    """The worker process ended while it held the request."""


class DeviceFullError(UnavailableError):
    """The device has no memory left for it: unload something, or send less."""


class DeadlineError(ServiceError):
    """The deadline of the request passed before its answer was ready."""

    status = 504


class StorageFullError(ServiceError):
    """The disk of the server has no room for what is to be kept."""

    status = 507


def _leaves(kind: type[ServiceError]) -> dict[str, type[ServiceError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found |= _leaves(child)
    return found


_BY_NAME = _leaves(ServiceError)
