"""Codes, details and trailing metadata of errors."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from nnz_service import errors
from nnz_service.grpc.status import code_of, details_of, trailers_of


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.MalformedError, StatusCode.INVALID_ARGUMENT),
        (errors.UnauthorizedError, StatusCode.UNAUTHENTICATED),
        (errors.NotFoundError, StatusCode.NOT_FOUND),
        (errors.ConflictError, StatusCode.FAILED_PRECONDITION),
        (errors.TooLargeError, StatusCode.RESOURCE_EXHAUSTED),
        (errors.InvalidInputError, StatusCode.INVALID_ARGUMENT),
        (errors.OverloadedError, StatusCode.RESOURCE_EXHAUSTED),
        (errors.NotOfferedError, StatusCode.UNIMPLEMENTED),
        (errors.WorkerLostError, StatusCode.UNAVAILABLE),
        (errors.DeadlineError, StatusCode.DEADLINE_EXCEEDED),
        (errors.StorageFullError, StatusCode.RESOURCE_EXHAUSTED),
        (errors.ServiceError, StatusCode.INTERNAL),
    ],
)
def test_codes(kind: type[errors.ServiceError], code: StatusCode) -> None:
    assert code_of(kind("why")) is code


def test_details_fit_into_metadata() -> None:
    """Each byte beyond plain text counts three times, as it travels."""
    assert details_of(errors.ServiceError("short: é\n")) == "short: é\n"
    assert details_of(errors.ServiceError()) == "ServiceError"
    assert details_of(errors.ServiceError("a" * 5000)) == "a" * 4096 + "..."
    assert details_of(errors.ServiceError("é" * 5000)) == "é" * 682 + "..."


def test_retry_after() -> None:
    assert trailers_of(errors.OverloadedError()) == (("retry-after", "1"),)
    assert trailers_of(errors.NotLoadedError()) == ()
