"""Nobody comes in who may not."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from nnz_service.web.door import Door


class Auth:
    """The layer of the door.

    Args:
        app: What is behind it.
        door: Who watches it.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or raise what `Door.enter` raises."""
        if scope["type"] == "http":
            await self._door.enter(scope)
        await self._app(scope, receive, send)
