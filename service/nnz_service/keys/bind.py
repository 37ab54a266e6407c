"""No open door to the network, or to web pages, without a key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from nnz_service.errors import ServiceError

#: What a browser sends as Origin: scheme, host, port; no path and no capitals.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")


class OpenDoorError(ServiceError):
    """Others than meant could use the server: no key, or a wrong list of origins."""


def check_bind(host: str, *, guarded: bool, insecure: bool) -> None:
    """Refuse an address that others can reach while there is no key.

    Args:
        host: The address.
        guarded: Whether there is a key with which somebody can come in.
        insecure: Whether the operator wants no key.

    Raises:
        OpenDoorError: saying what to set.
    """
    if not guarded and not insecure and not is_loopback(host):
        raise OpenDoorError(
            f"refusing to listen on {host} without a key: set NNZ_API_KEY, or create "
            "one with `nnz keys create`, or bind 127.0.0.1, or say --insecure when "
            "something else guards this address"
        )


def check_origins(origins: Sequence[str], *, guarded: bool, insecure: bool) -> None:
    """Refuse a list of origins of web pages that is wrong, or lets in too many.

    With keys, `*` lets in pages that know one, as any other program. Without, every
    page that a browser on this machine shows could use the server.

    Raises:
        OpenDoorError: saying what to set.
    """
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise OpenDoorError(
                f"NNZ_CORS_ORIGINS has {origin[:200]!r}; an origin is written "
                "https://host or https://host:port, in small letters, without a path"
            )
    if "*" in origins and not guarded and not insecure:
        raise OpenDoorError(
            "refusing NNZ_CORS_ORIGINS=* without a key: any web page could use this "
            "server; name the origins, or set NNZ_API_KEY, or say --insecure"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
