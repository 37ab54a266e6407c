"""A message as one datagram, with a memfd beside it when it carries tensors.

The datagram is a JSON object. Its `tensors` is the table of `memory`. Small tensors lie
behind it in the datagram itself, behind a NUL that ends the JSON; larger ones in the
memfd. JSON that is too long for a datagram goes behind the tensors, and the datagram
says where, and which call it belongs to: `{"at": [offset, bytes], "id": 7}`.

A process that has no file descriptor left gets the datagram without its memfd. That is
the trouble of one call, not of the connection: `TensorsLostError` names the call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import orjson
from numpy.typing import NDArray

from nnz_service.dataplane import memory
from nnz_service.dataplane.messages import Tensors
from nnz_service.dataplane.slab import ALIGN, sealed_under
from nnz_service.errors import MalformedError, ServiceError, UnavailableError

#: Longest datagram; the kernel's default send buffer takes several of them.
MAX_DATAGRAM = 32 << 10


class TensorsLostError(MalformedError):
    """The memory of a message did not come with it.

    Args:
        number: The call that the message belongs to.
    """

    def __init__(self, number: int) -> None:
        super().__init__("tensors came without their memory")
        self.number = number

    def for_caller(self) -> UnavailableError:
        """Return what the call ends with."""
        message = "no file descriptor was free for the tensors; ask again"
        return UnavailableError(message, retry_after=1)


def pack(fields: dict[str, Any], tensors: Tensors) -> tuple[bytes, int | None]:
    """Write a message down.

    Returns:
        The datagram, and a memfd (the caller closes it) or None.

    Raises:
        MalformedError: when something in it cannot cross.
    """
    table, size = memory.lay_out(tensors)
    text = _text(fields, table)
    if size > MAX_DATAGRAM and (sealed := sealed_under(tensors)) is not None:
        lent = _text(fields, memory.placed(table, tensors, sealed))
        if len(lent) <= MAX_DATAGRAM:
            return lent, os.dup(sealed.fd)
    if table and len(text) + ALIGN + size <= MAX_DATAGRAM:
        return memory.inline(text, table, tensors, size), None
    if len(text) <= MAX_DATAGRAM:
        return text, memory.fill(table, tensors, size) if table else None
    fd = memory.fill(table, tensors, size, text)
    return orjson.dumps({"at": [size, len(text)], "id": fields.get("id")}), fd


def _text(fields: dict[str, Any], table: Sequence[memory.Row]) -> bytes:
    try:
        return orjson.dumps(fields | {"tensors": table})
    except TypeError as error:
        raise MalformedError(f"the message is not plain JSON: {error}") from error


def unpack(
    datagram: bytes, fd: int | None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a message; the tensors are read-only views of shared memory.

    Args:
        datagram: What was received.
        fd: The memfd that came with it; stays the caller's.

    Raises:
        MalformedError: when it is not a message.
        TensorsLostError: when it is one whose memory is not there.
    """
    received: memory.Source | None = None if fd is None else memory.Received(fd)
    text, found = memory.divide(datagram)
    fields, received = _object(text), received or found
    if "at" in fields:
        if received is None:
            raise _lost(fields)
        if not isinstance(fields["at"], list) or len(fields["at"]) != 2:
            raise MalformedError("a long message does not say where it is")
        fields = _object(received.bytes(*fields["at"]))
    table = fields.pop("tensors", [])
    if received is None:
        if table:
            raise _lost(fields)
        return fields, {}
    return fields, received.tensors(table)


def _lost(fields: dict[str, Any]) -> ServiceError:
    if isinstance(number := fields.get("id"), int):
        return TensorsLostError(number)
    return MalformedError("tensors came without their memory")


def discard(fd: int | None) -> None:
    """Close the memfd of a message that will not be sent."""
    if fd is not None:
        os.close(fd)


def _object(text: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"the message is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MalformedError("the message is not a JSON object")
    return fields
