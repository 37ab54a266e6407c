"""One API key guards everything but the health of the server."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from nnz_service.keys import check_key

#: Probes carry no secrets, and what they answer is none.
_OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})


class Auth:
    """Refuses requests without ``Authorization: Bearer <key>``, when a key is set."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or raise UnauthorizedError."""
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            check_key(_bearer(scope), self._key)
        await self._app(scope, receive, send)


def _bearer(scope: Scope) -> str | None:
    header = Headers(scope=scope).get("authorization", "")
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
