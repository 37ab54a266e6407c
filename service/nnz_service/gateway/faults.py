"""From exceptions that nobody foresaw to what a caller may know of them."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError

from nnz_service.errors import ServiceError, StorageFullError


def fault_of(exc: Exception, request_id: str) -> ServiceError:
    """Say what went wrong inside as far as it helps a caller."""
    if isinstance(exc, DBAPIError):
        full = getattr(exc.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    else:
        full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
    if full:
        return StorageFullError(
            "the disk of the server is full; somebody must make room there"
        )
    return ServiceError(f"internal error; the server's log has request {request_id}")
