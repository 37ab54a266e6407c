"""The calls that a busy client makes all the time, without FastAPI's machinery.

Finding a route, solving its dependencies and the layers around it cost as much as
everything else that the web process does for a small tensor. So infer and ops are
answered before them, by the same functions; their FastAPI twins remain as description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from nnz_service.web.deps import Parts
from nnz_service.web.routers import inference, ops

_HOT = frozenset({inference.infer, ops.apply})
_PARAMETER = re.compile(r"\{(\w+)\}")


class Hot:
    """The innermost layer: answers the hot calls, and leaves the others to the rest.

    Args:
        app: The rest of the application.
        parts: What the routes stand on.
    """

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts
        self._routes = [*_routes()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on; errors are for the layers outside."""
        if scope["type"] == "http" and scope["method"] == "POST":
            for pattern, route in self._routes:
                if (found := pattern.fullmatch(scope["path"])) is not None:
                    scope["route"], params = route, found.groupdict()
                    scope["path_params"] = params
                    request = Request(scope, receive, send)
                    answer = route.endpoint(request, self._parts, **params)
                    response: Response = await answer
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _routes() -> Iterator[tuple[re.Pattern[str], APIRoute]]:
    for route in (*inference.router.routes, *ops.router.routes):
        if isinstance(route, APIRoute) and route.endpoint in _HOT:
            yield re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", route.path)), route
