"""Inference requests as they arrive, alone or in streams, within what admission has."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc

from nnz_service.dataplane import Admission, Reservation
from nnz_service.errors import (
    DeadlineError,
    MalformedError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from nnz_service.gateway import Parts
from nnz_service.grpc.account import Account
from nnz_service.grpc.call import Call
from nnz_service.grpc.inference import infer
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.status import details_of
from nnz_service.grpc.wire import parse, split, streamed

Context = grpc.aio.ServicerContext[bytes, bytes]

#: The call whose messages are requests.
STREAM = "ModelStreamInfer"
#: Requests of one stream that are taken before the first of them is answered.
_AHEAD = 16


class Traffic:
    """Takes requests and answers them.

    A message that is on its way in has no length yet that could be reserved. So only
    as many may be on their way at once as fit into the bytes that all may hold; what
    comes then waits in the network, with a slot for each lone request.

    Args:
        parts: What the handlers stand on.
        admission: Where slots and bytes are reserved.
    """

    def __init__(self, parts: Parts, admission: Admission) -> None:
        limits = parts.limits
        room = max(1, limits.max_inflight_bytes // limits.max_body)
        self._parts = parts
        self._admission = admission
        self._arriving = asyncio.Semaphore(room)
        self._most_streams = self._free_streams = room
        #: Set when streams are to end.
        self.closing = asyncio.Event()

    async def one(self, call: Call, context: Context) -> bytes:
        """Answer a lone request with a written ModelInferResponse.

        Raises:
            ServiceError: What was wrong, or that there is no room.
        """
        with self._reserve(0, call) as held:
            async with self._arriving:
                with call.account.measure("receive"):
                    message = await received(context)
            held.grow(len(message))
            with call.account.measure("parse"):
                request, raw = self._read(message)
            return await infer(call, request, raw)

    async def stream(self, call: Call, context: Context) -> None:
        """Answer requests for as long as they come, in their order.

        They are computed beside each other. An error is an answer too; the stream
        goes on.

        Raises:
            OverloadedError: As many streams are open as there may be.
            UnavailableError: The server stops; what was taken is answered.
        """
        if not self._free_streams:
            raise OverloadedError(
                f"{self._most_streams} streams are open, as many as messages of "
                "NNZ_MAX_BODY fit into NNZ_MAX_INFLIGHT_BYTES"
            )
        self._free_streams -= 1
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(_AHEAD)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_send(answers, context))
                while (message := await self._next(context)) is not None:
                    await answers.put(group.create_task(self._part(call, message)))
                await answers.put(None)
        finally:
            self._free_streams += 1
        if self.closing.is_set():
            raise UnavailableError("the server is stopping")

    async def _next(self, context: Context) -> bytes | None:
        """Return the next message of a stream; None when there will be none."""
        coming = asyncio.ensure_future(context.read())
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            await asyncio.wait({coming, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                return None
            message = coming.result()
            return message if isinstance(message, bytes) else None
        finally:
            coming.cancel()
            closing.cancel()

    async def _part(self, of: Call, message: bytes) -> bytes:
        """Answer one request of a stream with a written ModelStreamInferResponse."""
        account = Account(self._parts.metrics, STREAM, of.account.request_id)
        call = replace(of, account=account)
        call.shorten(self._parts.limits.request_timeout)
        request = m.ModelInferRequest()
        try:
            with account.settled():
                request, raw = self._read(message)
                with self._reserve(len(message), call):
                    return streamed(await call.in_time(infer(call, request, raw)))
        except ServiceError as error:
            fault = error
        # With the id its sender knows which request it was that failed.
        return m.ModelStreamInferResponse(
            error_message=details_of(fault),
            infer_response=m.ModelInferResponse(id=request.id),
        ).SerializeToString()

    def _read(self, message: bytes) -> tuple[m.ModelInferRequest, list[memoryview]]:
        description, raw = split(message, self._parts.limits.max_json)
        return parse(m.ModelInferRequest, description), raw

    def _reserve(self, nbytes: int, call: Call) -> Reservation:
        try:
            call.held = self._admission.reserve(nbytes, call.caller)
            return call.held
        except OverloadedError:
            self._parts.metrics.refused.inc()
            raise


async def received(context: Context, seconds: float | None = None) -> bytes:
    """Receive the one message of a call, within so many seconds if they are given.

    Raises:
        MalformedError: The caller ended the call without one.
        DeadlineError: It did not come in time.
    """
    try:
        async with asyncio.timeout(seconds):
            message: object = await context.read()
    except TimeoutError:
        raise DeadlineError(f"no message came within {seconds:g} s") from None
    if not isinstance(message, bytes):
        raise MalformedError("the call came without a message")
    return message


async def _send(
    answers: asyncio.Queue[asyncio.Task[bytes] | None], context: Context
) -> None:
    while (answer := await answers.get()) is not None:
        await context.write(await answer)
