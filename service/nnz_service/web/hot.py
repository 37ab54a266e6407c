"""The calls that a busy client makes all the time, without FastAPI's machinery.

Finding a route and solving its dependencies costs as much as everything else that the
web process does for a small tensor. So infer and ops are found first, as plain
Starlette routes onto the same functions; their FastAPI twins remain as description.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nnz_service.web.routers import inference, ops

_HOT = frozenset({inference.infer, ops.apply})


def hot_routes() -> Iterator[Route]:
    """Give the routes to put before all others."""
    for route in (*inference.router.routes, *ops.router.routes):
        if isinstance(route, APIRoute) and route.endpoint in _HOT:
            yield _plain(route)


def _plain(twin: APIRoute) -> Route:
    async def answer(request: Request) -> Response:
        request.scope["route"] = twin
        parts = request.app.state.parts
        response: Response = await twin.endpoint(request, parts, **request.path_params)
        return response

    methods = sorted(twin.methods or ())
    return Route(twin.path, answer, methods=methods, include_in_schema=False)
