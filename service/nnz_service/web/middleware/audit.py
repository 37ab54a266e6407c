"""Writes down who changed what and who was refused, before they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnz_service.errors import CLIENT_LEFT
from nnz_service.keys import ANYBODY, AuditLog

RawHeaders = Iterable[tuple[bytes, bytes]]

_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
#: Posted, but nothing is changed by it.
_COMPUTING = frozenset(
    {
        "/v1/ops",
        "/v1/ops/{op}",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}/infer",
        "/v2/repository/index",
    }
)


class Audit:
    """Watches the answers; what it tells is never of the body or the headers sent."""

    def __init__(
        self, app: ASGIApp, log: AuditLog, routes: Sequence[BaseRoute]
    ) -> None:
        self._app = app
        self._log = log
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the rest of the application and write a line when there is a reason."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answered = False

        async def watched(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start" and not answered:
                answered = True
                headers = message.get("headers", ())
                await self._note(scope, message["status"], headers)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if not answered:
                await self._note(scope, CLIENT_LEFT, ())

    async def _note(self, scope: Scope, status: int, headers: RawHeaders) -> None:
        refused = status in _REFUSALS
        if not refused and scope["method"] in _LOOKING:
            return
        route, params = self._route(scope)
        if not refused and (route is None or route in _COMPUTING):
            return
        state = scope.get("state", {})
        fields = {
            "key": state.get("caller", ANYBODY).id,
            "action": f"{scope['method']} {route}" if route else "unmatched",
            "resource": state.get("resource") or _resource(scope, params),
            "status": status,
            "request": Headers(raw=[*headers]).get("x-request-id"),
            "client": (scope.get("client") or (None,))[0],
        }
        await asyncio.to_thread(self._log.write, refused=refused, **fields)

    def _route(self, scope: Scope) -> tuple[str | None, Mapping[str, Any]]:
        """Return template and parameters of the path; the door may have been closed."""
        if "route" in scope:
            return scope["route"].path, scope["path_params"]
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                return getattr(route, "path", None), found.get("path_params", {})
        return None, {}


def _resource(scope: Scope, params: Mapping[str, Any]) -> str:
    """Name what the request was about, as far as its address says."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return "/".join([*map(str, params.values()), *query.get("version", [])[:1]])
