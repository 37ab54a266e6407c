"""Who may call, what they may do, and how much of it."""

from nnz_service.keys.audit import AuditLog
from nnz_service.keys.bind import OpenDoorError, check_bind, check_origins, is_loopback
from nnz_service.keys.caller import ANYBODY, Caller, Quota, Scope
from nnz_service.keys.file import KeyFile, KeyFileError
from nnz_service.keys.keyring import Keyring, authorise

__all__ = [
    "ANYBODY",
    "AuditLog",
    "Caller",
    "KeyFile",
    "KeyFileError",
    "Keyring",
    "OpenDoorError",
    "Quota",
    "Scope",
    "authorise",
    "check_bind",
    "check_origins",
    "is_loopback",
]
