"""From a call that arrives to its answer: who, until when, how large, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from nnz_service.dataplane import Admission
from nnz_service.errors import ServiceError, TooLargeError, UnavailableError
from nnz_service.gateway import Parts
from nnz_service.gateway.request_ids import request_id
from nnz_service.grpc.account import Account
from nnz_service.grpc.call import Call
from nnz_service.grpc.calls import ADMINISTRATIVE, CALLS, OPEN, UNBOUNDED
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.status import code_of, details_of, trailers_of
from nnz_service.grpc.traffic import STREAM, Traffic, received
from nnz_service.grpc.wire import parse
from nnz_service.keys import ANYBODY, Keyring, Scope, authorise

Context = grpc.aio.ServicerContext[bytes, bytes]
T = TypeVar("T")

_SERVICE = m.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_ADMIN = frozenset({Scope.ADMIN})
_PREFIX = f"/{_SERVICE.full_name}/"


class Door(grpc.GenericRpcHandler):
    """Answers the calls of the protocol.

    Every call is taken as a stream of bytes, so that nothing of it is received, let
    alone parsed, before its sender is known and there is a slot for it.

    Args:
        parts: What the handlers stand on.
        admission: Where slots and bytes are reserved.
        keyring: Knows the keys.
    """

    def __init__(self, parts: Parts, admission: Admission, keyring: Keyring) -> None:
        self._parts = parts
        self._keyring = keyring
        self._tasks: set[asyncio.Task[Any]] = set()
        self._traffic = Traffic(parts, admission)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Find the call by its path; what is not found is UNIMPLEMENTED."""
        path = handler_call_details.method
        name = path.removeprefix(_PREFIX)
        if name == path:
            return None
        # The types of grpc's stubs are those of its servers with threads.
        behaviour: Any = partial(self._unary, name)
        if name == "ModelInfer" or name in CALLS:
            return grpc.stream_unary_rpc_method_handler(behaviour)
        if name == STREAM:
            return grpc.stream_stream_rpc_method_handler(cast(Any, self._stream))
        return None

    async def idle(self) -> None:
        """Wait until no call is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Let streams end once they have answered what they took."""
        self._traffic.closing.set()

    async def _unary(self, name: str, _: object, context: Context) -> bytes:
        one = name == "ModelInfer"
        answer = self._traffic.one if one else partial(self._plain, name)
        return await self._guarded(name, context, answer)

    async def _stream(self, _: object, context: Context) -> None:
        await self._guarded(STREAM, context, self._traffic.stream)

    async def _guarded(
        self,
        name: str,
        context: Context,
        work: Callable[[Call, Context], Awaitable[T]],
    ) -> T:
        """Do the work within its bounds; an error becomes the status of the call."""
        sent = dict(context.invocation_metadata() or ())
        identity = request_id(_text(sent.get("x-request-id")))
        lasting = name == STREAM
        account = Account(self._parts.metrics, name, identity, lasting=lasting)
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tasks.add(task)
        try:
            with account.settled():
                await context.send_initial_metadata((("x-request-id", identity),))
                call = self._admit(name, sent, account, context.time_remaining())
                answer = await call.in_time(work(call, context))
            context.set_trailing_metadata(account.trailers())
            return answer
        except ServiceError as error:
            told = (*trailers_of(error), *account.trailers())
            return await context.abort(code_of(error), details_of(error), told)
        finally:
            self._tasks.discard(task)

    def _admit(
        self,
        name: str,
        sent: dict[str, str | bytes],
        account: Account,
        seconds: float | None,
    ) -> Call:
        """Let a call in, or say why not."""
        caller = ANYBODY
        if name not in OPEN:
            caller = self._keyring.caller(_token(sent))
            authorise(caller, _ADMIN if name in ADMINISTRATIVE else frozenset(), name)
        if self._parts.drain.begun and name not in OPEN:
            raise UnavailableError("the server is stopping")
        call = Call(self._parts, caller, account, None)
        call.shorten(seconds)
        if name not in UNBOUNDED and name != STREAM:
            call.shorten(self._parts.limits.request_timeout)
        return call

    async def _plain(self, name: str, call: Call, context: Context) -> bytes:
        """Answer a call about the server or a servable."""
        message = await received(context, self._parts.limits.body_timeout)
        most = self._parts.limits.max_json
        if len(message) > most:
            raise TooLargeError(
                f"the message has {len(message)} bytes, the limit of {name} is {most} "
                "(NNZ_MAX_JSON)"
            )
        kind: type[Message] = GetMessageClass(_SERVICE.methods_by_name[name].input_type)
        answer = await CALLS[name](call, parse(kind, message))
        return answer.SerializeToString()


def _token(sent: dict[str, str | bytes]) -> str | None:
    """Return the key in the metadata of a call."""
    scheme, _, token = _text(sent.get("authorization")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else ""
