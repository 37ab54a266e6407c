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
from nnz_service.errors import ServiceError, UnavailableError
from nnz_service.gateway import Parts
from nnz_service.gateway.request_ids import request_id
from nnz_service.grpc.account import Account, Books
from nnz_service.grpc.call import Call
from nnz_service.grpc.calls import (
    ADMINISTRATIVE,
    CALLS,
    OPEN,
    UNBOUNDED,
    changes,
    resource_of,
)
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.status import code_of, details_of, trailers_of
from nnz_service.grpc.traffic import STREAM, Traffic
from nnz_service.grpc.wire import parse
from nnz_service.keys import ANYBODY, Keyring, Scope, authorise

Context = grpc.aio.ServicerContext[bytes, bytes]
Metadata = tuple[tuple[str, str | bytes], ...]
T = TypeVar("T")

_SERVICE = m.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_ADMIN = frozenset({Scope.ADMIN})
_PREFIX = f"/{_SERVICE.full_name}/"


class Door(grpc.GenericRpcHandler):
    """Answers the calls of the protocol.

    Every call is taken as a stream of bytes, so that no message is received, let alone
    parsed, before its sender is known and there is a place for it; see `Traffic`. Of
    calls that need no key none is received at all.

    Args:
        parts: What the handlers stand on.
        admission: Where slots and bytes are reserved.
        keyring: Knows the keys.
        books: Where calls are counted and written down.
    """

    def __init__(
        self, parts: Parts, admission: Admission, keyring: Keyring, books: Books
    ) -> None:
        self._parts = parts
        self._books = books
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
        sent = tuple(context.invocation_metadata() or ())
        identity = request_id(_text(dict(sent).get("x-request-id")))
        lasting, peer = name == STREAM, context.peer()
        account = Account(self._books, name, identity, peer, lasting=lasting)
        account.trace(sent)
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tasks.add(task)
        try:
            async with account.settled():
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
        sent: Metadata,
        account: Account,
        seconds: float | None,
    ) -> Call:
        """Let a call in, or say why not."""
        caller = ANYBODY
        if name not in OPEN:
            caller = account.caller = self._keyring.caller(_token(sent))
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
        if name in OPEN:  # their messages have no fields, and anybody sends them
            return await self._asked(name, call, b"")
        return await self._traffic.plain(name, call, context, self._asked)

    async def _asked(self, name: str, call: Call, message: bytes) -> bytes:
        kind: type[Message] = GetMessageClass(_SERVICE.methods_by_name[name].input_type)
        asked = parse(kind, message)
        call.account.resource = resource_of(asked)
        call.account.changes = changes(name, asked)
        answer = await CALLS[name](call, asked)
        return answer.SerializeToString()


def _token(sent: Metadata) -> str | None:
    """Return the key in the metadata of a call."""
    found = [value for name, value in sent if name == "authorization"]
    if len(found) != 1:  # of two that disagree a proxy may have looked at the other one
        return None
    scheme, _, token = _text(found[0]).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else ""
