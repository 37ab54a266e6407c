"""Who watches the door of one web process."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnz_service.keys import AuditLog, Keyring, is_loopback
from nnz_service.settings import Settings


@dataclass(frozen=True, slots=True)
class Guard:
    """Keys, web pages and what is written down; as it is, everybody may come in.

    Args:
        keyring: Finds out who a caller is.
        audit: Where changes and refusals are written; None writes nothing.
        origins: Of web pages that may call, exactly as browsers send them, or `*`.
        local: Whether the server listens on a loopback address, so that requests
            without a key must have been sent to one.
    """

    keyring: Keyring = field(default_factory=Keyring)
    audit: AuditLog | None = None
    origins: tuple[str, ...] = ()
    local: bool = False


def guard_of(settings: Settings) -> Guard:
    """Build the guard that the settings ask for."""
    home = settings.home.resolve()
    return Guard(
        Keyring(settings.key, home),
        AuditLog(home, settings.audit_bytes),
        settings.origins,
        is_loopback(settings.host),
    )
