"""One API key guards everything but the health of the server."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from nnz_service.errors import UnauthorizedError

#: Probes carry no secrets, and what they answer is none.
_OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})


class Auth:
    """Refuses requests without ``Authorization: Bearer <key>``, when a key is set."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = key.encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or raise UnauthorizedError."""
        guarded = self._key is not None and scope["type"] == "http"
        if guarded and scope["path"] not in _OPEN:
            self._check(Headers(scope=scope).get("authorization"))
        await self._app(scope, receive, send)

    def _check(self, header: str | None) -> None:
        if header is None:
            raise UnauthorizedError("send the API key: Authorization: Bearer <key>")
        scheme, _, token = header.partition(" ")
        # Compared in constant time, so that timing tells nothing about the key.
        known = hmac.compare_digest(token.strip().encode(), self._key or b"")
        if scheme.lower() != "bearer" or not known:
            raise UnauthorizedError("the API key is not known")
