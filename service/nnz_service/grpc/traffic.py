"""Messages as they arrive, alone or in streams, within what admission has."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import grpc

from nnz_service.dataplane import Admission, Reservation
from nnz_service.errors import (
    DeadlineError,
    OverloadedError,
    ServiceError,
    TooLargeError,
    UnavailableError,
)
from nnz_service.gateway import Parts
from nnz_service.grpc.arrivals import Arrivals
from nnz_service.grpc.call import Call
from nnz_service.grpc.inference import infer
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.status import details_of
from nnz_service.grpc.wire import parse, split, streamed
from nnz_service.keys import Caller

Context = grpc.aio.ServicerContext[bytes, bytes]

#: The call whose messages are requests.
STREAM = "ModelStreamInfer"
#: Requests of one stream that are taken before the first of them is answered.
_AHEAD = 16
#: Seconds without a request after which a stream is ended.
_IDLE = 600.0
#: A message that is not inference and has more holds a slot until it is answered.
_SMALL = 1 << 16


class Traffic:
    """Takes messages and answers them.

    A message that is on its way in has no length yet that could be reserved. So only
    as many may be on their way at once as fit into the bytes that all may hold, which
    is beside what is reserved: half of them in streams, which have one each, an eighth
    in calls that are not inference, the rest in lone requests; at least one of each.
    What comes then waits in the network, with a slot for each lone request.

    Args:
        parts: What the handlers stand on.
        admission: Where slots and bytes are reserved.
    """

    def __init__(self, parts: Parts, admission: Admission) -> None:
        limits = parts.limits
        room = max(1, limits.max_inflight_bytes // limits.max_body)
        self._parts = parts
        self._admission = admission
        self._most_streams = max(1, room // 2)
        self._streams: Counter[str] = Counter()
        others = max(1, room // 8)
        self._plain = Arrivals(others, limits.body_timeout)
        alone = max(1, room - self._most_streams - others)
        self._alone = Arrivals(alone, limits.body_timeout)
        #: Set when streams are to end.
        self.closing = asyncio.Event()

    async def one(self, call: Call, context: Context) -> bytes:
        """Answer a lone request with a written ModelInferResponse.

        Raises:
            ServiceError: What was wrong, or that there is no room.
        """
        with self._reserve(0, call) as held:
            with call.account.measure("receive"):
                message = await self._alone.receive(call.caller, context)
            with call.account.admission():
                held.grow(len(message))
            with call.account.measure("parse"):
                request, raw = self._read(message)
            return await infer(call, request, raw)

    async def plain(
        self,
        name: str,
        call: Call,
        context: Context,
        answer: Callable[[str, Call, bytes], Awaitable[bytes]],
    ) -> bytes:
        """Answer a call that is not inference.

        Raises:
            TooLargeError: Its message is longer than a description may be.
            ServiceError: What was wrong, or that there is no room.
        """
        message = await self._plain.receive(call.caller, context)
        most = self._parts.limits.max_json
        if len(message) > most:
            raise TooLargeError(
                f"the message has {len(message)} bytes, the limit of {name} is {most} "
                "(NNZ_MAX_JSON)"
            )
        if len(message) <= _SMALL:
            return await answer(name, call, message)
        with self._reserve(len(message), call):
            return await answer(name, call, message)

    async def stream(self, call: Call, context: Context) -> None:
        """Answer requests for as long as they come, in their order.

        They are computed beside each other. An error is an answer too; the stream
        goes on.

        Raises:
            OverloadedError: As many streams are open as there may be.
            UnavailableError: The server stops; what was taken is answered.
            DeadlineError: No request came for long; likewise.
        """
        with self._open(call):
            answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(_AHEAD)
            async with asyncio.TaskGroup() as group:
                group.create_task(_send(answers, context))
                while isinstance(message := await self._next(context), bytes):
                    await answers.put(group.create_task(self._part(call, message)))
                await answers.put(None)
        if message is not None:
            raise message

    @contextmanager
    def _open(self, call: Call) -> Iterator[None]:
        """Count a stream while it is open."""
        with call.account.admission():
            self._check_streams(call.caller)
        self._streams[call.caller.id] += 1
        try:
            yield
        finally:
            self._streams[call.caller.id] -= 1

    def _check_streams(self, caller: Caller) -> None:
        if self._streams.total() >= self._most_streams:
            raise OverloadedError(
                f"{self._most_streams} streams are open, as many as messages of "
                "NNZ_MAX_BODY fit into half of NNZ_MAX_INFLIGHT_BYTES"
            )
        own, most = self._streams[caller.id], caller.quota.inflight
        if most is not None and own >= most:
            raise OverloadedError(
                f"{own} streams of this key are open, as many as it may have requests "
                "under way"
            )

    async def _next(self, context: Context) -> bytes | ServiceError | None:
        """Return the next message of a stream; else why it is ended, or None.

        None says that its client has ended it.
        """
        coming = asyncio.ensure_future(context.read())
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            await asyncio.wait(
                {coming, closing},
                timeout=_IDLE,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not coming.done():
                if closing.done():
                    return UnavailableError("the server is stopping")
                return DeadlineError(f"no request came for {_IDLE:g} s")
            message = coming.result()
            return message if isinstance(message, bytes) else None
        finally:
            coming.cancel()
            closing.cancel()

    async def _part(self, of: Call, message: bytes) -> bytes:
        """Answer one request of a stream with a written ModelStreamInferResponse."""
        account = of.account.part()
        call = replace(of, account=account)
        call.shorten(self._parts.limits.request_timeout)
        request = m.ModelInferRequest()
        try:
            async with account.settled():
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
        with call.account.admission():
            call.held = self._admission.reserve(nbytes, call.caller)
        return call.held


async def _send(
    answers: asyncio.Queue[asyncio.Task[bytes] | None], context: Context
) -> None:
    while (answer := await answers.get()) is not None:
        await context.write(await answer)
