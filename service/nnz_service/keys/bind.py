"""No open door to the network without a key."""

from __future__ import annotations

import hmac
import ipaddress

from nnz_service.errors import ServiceError, UnauthorizedError


class OpenDoorError(ServiceError):
    """The server would be reachable from other machines without a key."""


def check_key(sent: str | None, expected: str | None) -> None:
    """Let a caller in, in a time that says nothing about the key.

    Args:
        sent: The bearer token of the request; None when there is none.
        expected: The key of this server; None lets everybody in.

    Raises:
        UnauthorizedError: when the key is missing or wrong.
    """
    if expected is None:
        return
    if sent is None:
        raise UnauthorizedError("send the API key as `Authorization: Bearer <key>`")
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        raise UnauthorizedError("this API key is not known here")


def check_bind(host: str, key: str | None, *, insecure: bool) -> None:
    """Refuse an address that others can reach while there is no key.

    Raises:
        OpenDoorError: saying what to set.
    """
    if key is None and not insecure and not is_loopback(host):
        raise OpenDoorError(
            f"refusing to listen on {host} without a key: set NNZ_API_KEY, or bind "
            "127.0.0.1, or say --insecure when something else guards this address"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
