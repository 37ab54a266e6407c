"""Who may call, what they may do, and how much of it."""

from nnz_service.keys.bind import OpenDoorError, check_bind, check_key, is_loopback
from nnz_service.keys.caller import ANYBODY, Caller, Quota, Scope

__all__ = [
    "ANYBODY",
    "Caller",
    "OpenDoorError",
    "Quota",
    "Scope",
    "check_bind",
    "check_key",
    "is_loopback",
]
