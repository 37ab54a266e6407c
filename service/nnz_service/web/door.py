"""The door: who calls, and whether they may.

Everything but the health of the server needs a key, where there are keys.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from nnz_service import keys
from nnz_service.errors import ForbiddenError
from nnz_service.gateway.ownership import check_servable
from nnz_service.keys import Caller, Keyring, is_loopback
from nnz_service.repository import Repository
from nnz_service.web.fields import field
from nnz_service.web.rights import OPEN, scopes_for, servable_in

#: Characters of a path in a message.
_SHOWN = 200
_ADMIN = frozenset({keys.Scope.ADMIN})


class Door:
    """Finds out who calls, and refuses what they may not do.

    Args:
        keyring: Knows the keys.
        repository: Knows whose a matrix is.
        routes: A path that is none of theirs is nobody's secret.
        origins: Of web pages that may use a server without keys.
        local: Whether only this machine can reach the server.
    """

    def __init__(
        self,
        keyring: Keyring,
        repository: Repository,
        routes: Sequence[BaseRoute],
        origins: Sequence[str],
        local: bool,
    ) -> None:
        self._keyring = keyring
        self._repository = repository
        self._routes = routes
        self._origins = frozenset(origins)
        self._hosts = frozenset(_host_of(one.partition("://")[2]) for one in origins)
        self._local = local

    async def enter(self, scope: Scope) -> None:
        """Let a request through, with its caller in the state.

        Raises:
            UnauthorizedError: There is no key, or it is not known.
            ForbiddenError: The key does not allow this, or a strange web page asks.
            NotFoundError: The matrix is not there, or not theirs.
        """
        if scope["path"] in OPEN:
            return
        caller = self._keyring.caller(_bearer(scope))
        scope["state"]["caller"] = caller
        if not caller.id:
            self._check_host(scope)
            self._check_page(scope)
        await self._check_rights(scope, caller)

    async def _check_rights(self, scope: Scope, caller: Caller) -> None:
        if caller.admin:
            return
        method, path = scope["method"], scope["path"]
        needed = scopes_for(method, path)
        if needed is None:
            # What is there but has no rule is closed; what is not there is a 404.
            needed = _ADMIN if self._is_there(scope) else frozenset()
        keys.authorise(caller, needed, f"{method} {path[:_SHOWN]}")
        if (name := servable_in(path)) is not None:
            await check_servable(self._repository, caller, name)

    def _is_there(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes)

    def _check_host(self, scope: Scope) -> None:
        """Keep web pages out whose name was made to lead to this machine.

        To a browser such a page and the server are one and the same site: it sends no
        origin when the page looks at something. But the name it still sends. Programs
        of before HTTP/1.1 send none.
        """
        sent = field(scope, b"host") if self._local else None
        if sent is None or "*" in self._origins:
            return
        host = _host_of(sent)
        if not _leads_here(host) and host not in self._hosts:
            raise ForbiddenError(
                f"without keys this server answers only to the names of this machine "
                f"(127.0.0.1, [::1], localhost), not to {sent[:_SHOWN]!r}; name "
                "its origin in NNZ_CORS_ORIGINS, or create keys"
            )

    def _check_page(self, scope: Scope) -> None:
        """Keep web pages out that a browser on this machine shows.

        A browser lets any page send requests to any address, and says whose they are;
        without keys nothing else tells them from those of the machine's owner.
        """
        origin = field(scope, b"origin")
        if origin is None or self._origins & {origin, "*"}:
            return
        if origin.partition("://")[2] != (field(scope, b"host") or "").lower():
            raise ForbiddenError(
                f"a web page of {origin[:_SHOWN]!r} may not use a server without keys; "
                "name it in NNZ_CORS_ORIGINS, or create keys"
            )


@functools.lru_cache(64)
def _host_of(authority: str) -> str:
    """Return the name or address before the port; empty when there is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


@functools.lru_cache(64)
def _leads_here(host: str) -> bool:
    return is_loopback(host) or host.endswith(".localhost")


def _bearer(scope: Scope) -> str | None:
    sent = [value for key, value in scope["headers"] if key == b"authorization"]
    if len(sent) != 1:  # of two that disagree a proxy may have looked at the other one
        return None
    scheme, _, token = str(sent[0], "latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
