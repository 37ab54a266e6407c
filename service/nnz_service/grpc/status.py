"""From errors to what gRPC says of them: a code, details, trailing metadata."""

from __future__ import annotations

from grpc import StatusCode

from nnz_service.errors import ServiceError

_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
    507: StatusCode.RESOURCE_EXHAUSTED,
}
#: Clients take 8 KiB of trailing metadata and may refuse an answer with more.
_MOST_DETAILS = 4096


def code_of(error: ServiceError) -> StatusCode:
    """Choose the code; what has none of its own is a fault inside."""
    return _CODES.get(error.status, StatusCode.INTERNAL)


def details_of(error: ServiceError) -> str:
    """Write the message, cut where it would not fit into the metadata."""
    text = str(error) or type(error).__name__
    used = 0
    for at, char in enumerate(text):
        # The others are sent as three characters a byte.
        plain = " " <= char <= "~" and char != "%"
        used += 1 if plain else 3 * len(char.encode(errors="replace"))
        if used > _MOST_DETAILS:
            return f"{text[:at]}..."
    return text


def trailers_of(error: ServiceError) -> tuple[tuple[str, str], ...]:
    """Say after how many seconds a retry may succeed, if one can."""
    if error.retry_after is None:
        return ()
    return (("retry-after", str(error.retry_after)),)
