"""The calls that a busy client makes all the time, answered beside the application.

Messages of ASGI, layers around layers, finding a route and solving its dependencies
cost as much as everything else that the web process does for a small tensor. So small
infer and ops requests go through the same parts in the same order, but in one function:
the door, the bounds, the route's own function, the account. Whatever is unusual about a
request, and whoever is refused at the door, is left to the application.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import cast

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from nnz_service import logs
from nnz_service.errors import CLIENT_LEFT, ForbiddenError, UnauthorizedError
from nnz_service.web.account import Account
from nnz_service.web.answers import pieces_of
from nnz_service.web.bounds import Bounds
from nnz_service.web.deps import Parts
from nnz_service.web.door import Door
from nnz_service.web.handlers import failure_answer, own_headers
from nnz_service.web.middleware.gate import too_late
from nnz_service.web.routers import inference, ops
from nnz_service.web.stages import Stages

#: Bytes of the largest body; a larger one is bounded while it comes.
_SMALL = 1 << 16
#: Fields that ask for more than tensors: other codings, a page's rights, a word before
#: the body, a trace to be part of.
_UNUSUAL = frozenset(
    {
        b"content-encoding",
        b"expect",
        b"origin",
        b"traceparent",
        b"transfer-encoding",
        b"upgrade",
    }
)
_HOT = frozenset({inference.infer, ops.apply})
_PARAMETER = re.compile(r"\{(\w+)\}")


class Direct:
    """Answers some requests from their heads and bodies, without an application.

    Args:
        parts: What the routes stand on.
        door: Who may come in.
        bounds: What a request may cost.
        account: Of all requests.
    """

    def __init__(
        self, parts: Parts, door: Door, bounds: Bounds, account: Account
    ) -> None:
        self._parts = parts
        self._door = door
        self._bounds = bounds
        self._account = account
        self._routes = [*_routes()]

    def takes(self, scope: Scope) -> bool:
        """Say whether a request is one of these, by its head; its route is noted.

        What a query says is read and checked by the application alone.
        """
        if scope["method"] != "POST" or scope["query_string"] or not _is_small(scope):
            return False
        for pattern, route in self._routes:
            if (found := pattern.fullmatch(scope["path"])) is not None:
                scope["route"], scope["path_params"] = route, found.groupdict()
                return True
        return False

    async def answer(self, cycle: RequestResponseCycle) -> bool:
        """Answer a request whose body is there, if its client waits so long.

        Args:
            cycle: The request that `takes` said yes to, and its connection.

        Returns:
            False where its caller is refused, which the application has to say, for
            it may have to be written down.
        """
        scope = cast(Scope, cycle.scope)
        stages = self._account.begin(scope)
        with logs.bound(request=stages.request_id):
            try:
                status, size = await self._answered(cycle, scope, stages)
            except (UnauthorizedError, ForbiddenError):
                self._account.forget()
                return False
            except BaseException:
                self._account.end(scope, stages, CLIENT_LEFT, 0)
                raise
            self._account.end(scope, stages, status, size)
        cycle.body = bytearray()  # an idle connection keeps its last request
        return True

    async def _answered(
        self, cycle: RequestResponseCycle, scope: Scope, stages: Stages
    ) -> tuple[int, int]:
        """Return the status of the answer that was sent, and the bytes of its body."""
        seconds = self._bounds.limits.request_timeout
        try:
            async with asyncio.timeout(seconds) as clock:
                response = await self._respond(scope, stages, cycle.body)
                if not cycle.disconnected:
                    size = await self._send(cycle, response, stages)
                    return response.status_code, size
        except ClientDisconnect:
            pass
        except TimeoutError:
            if not clock.expired():
                raise
            if not cycle.response_started:
                late = failure_answer(too_late(seconds), stages)
                return late.status_code, await self._send(cycle, late, stages)
            # Its client may never read: what it has not taken would be held for ever.
            cycle.transport.abort()
        finally:
            if stages.reservation is not None:
                stages.reservation.release()
        return CLIENT_LEFT, 0

    async def _respond(self, scope: Scope, stages: Stages, body: bytearray) -> Response:
        """Compute the answer, be it an error.

        Raises:
            ClientDisconnect: Nobody waits for it.
            UnauthorizedError, ForbiddenError: The caller may not ask for it.
        """

        async def receive() -> Message:
            stages.received, stages.bytes_in = True, len(body)
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self._door.enter(scope)
            self._bounds.admit(scope, stages)
            endpoint = scope["route"].endpoint
            request = Request(scope, receive)
            response: Response = await endpoint(
                request, self._parts, **scope["path_params"]
            )
        except (ClientDisconnect, UnauthorizedError, ForbiddenError):
            raise
        except Exception as exc:  # every failure has an answer
            return failure_answer(exc, stages)
        return response

    async def _send(
        self, cycle: RequestResponseCycle, response: Response, stages: Stages
    ) -> int:
        """Write an answer, and wait until what of it is still held is little.

        Returns:
            Bytes of its body.
        """
        if self._parts.drain.begun:
            cycle.keep_alive = False
        own = own_headers(stages, closing=not cycle.keep_alive)
        lines = [STATUS_LINE[response.status_code]]
        for name, value in (*cycle.default_headers, *response.raw_headers, *own):
            lines += (name, b": ", value, b"\r\n")
        pieces = pieces_of(response)
        size = sum(map(len, pieces))
        cycle.response_started = True
        if size > _SMALL:
            cycle.transport.writelines((*lines, b"\r\n", *pieces))
        else:
            cycle.transport.write(b"".join((*lines, b"\r\n", *pieces)))
        if cycle.flow.write_paused:
            await cycle.flow.drain()
        cycle.response_complete = True
        if not cycle.keep_alive:
            cycle.transport.close()
        return size


def _is_small(scope: Scope) -> bool:
    """Whether a request is said to be short, and nothing else about it matters."""
    length = b""
    for name, value in scope["headers"]:
        if name in _UNUSUAL:
            return False
        if name == b"content-length":
            length = value
    return length.isdigit() and int(length) <= _SMALL


def _routes() -> Iterator[tuple[re.Pattern[str], APIRoute]]:
    for route in (*inference.router.routes, *ops.router.routes):
        if isinstance(route, APIRoute) and route.endpoint in _HOT:
            yield re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", route.path)), route
