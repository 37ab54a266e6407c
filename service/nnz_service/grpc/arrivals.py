"""Messages on their way in, which have no length yet that could be reserved."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext

import grpc

from nnz_service.errors import DeadlineError, MalformedError
from nnz_service.keys import Caller

Context = grpc.aio.ServicerContext[bytes, bytes]


class Arrivals:
    """Receives the one message of a call, a few calls at a time.

    gRPC hands a message over whole and tells its length no sooner, so how much memory
    may fill is bounded by the number of places alone. Who waits for one has sent no
    more than the window of the connection lets through. Of four places or
    more no key takes more than three quarters, so that one whose messages do not come
    leaves the rest to others.

    Args:
        places: Messages on their way at once.
        seconds: After which a message that has not come whole is given up.
    """

    def __init__(self, places: int, seconds: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._each = max(1, places - places // 4)
        self._own: dict[str, asyncio.Semaphore] = {}
        self._seconds = seconds

    async def receive(self, caller: Caller, context: Context) -> bytes:
        """Wait for a place, then for the message.

        Raises:
            MalformedError: The caller ended the call without one.
            DeadlineError: It did not come in time.
        """
        async with self._share(caller), self._places:
            return await self._received(context)

    def _share(self, caller: Caller) -> AbstractAsyncContextManager[None]:
        if not caller.id:  # where there are no keys there are no others
            return nullcontext()
        if caller.id not in self._own:
            self._own[caller.id] = asyncio.Semaphore(self._each)
        return self._own[caller.id]

    async def _received(self, context: Context) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                message: object = await context.read()
        except TimeoutError:
            raise DeadlineError(
                f"no whole message came within {self._seconds:g} s"
            ) from None
        if not isinstance(message, bytes):
            raise MalformedError("the call came without a message")
        return message
