"""Receive request bodies: into memory, decompressed, or chunk by chunk to disk."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request

from nnz_service.dataplane.slab import ALIGN, Sealed, Slab
from nnz_service.errors import (
    ImpossibleError,
    MalformedError,
    OverloadedError,
    TooLargeError,
    UnsupportedMediaError,
)
from nnz_service.web.codecs import Body, TensorRequest, read_object, read_tensors
from nnz_service.web.exchange import Exchange, exchange_of
from nnz_service.web.fields import field
from nnz_service.web.stages import stages_of

HEADER_LENGTH = "Inference-Header-Content-Length"
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
#: From here on a body is worth memory of its own.
_LARGE = 1 << 18
#: Decompressing or parsing more than this happens outside the event loop.
_ON_THE_LOOP = 1 << 16
#: Chunks go to disk joined to about this size, to save thread hops.
_PIECE = 1 << 20
#: zlib's window arguments: 16 + 15 reads gzip, 15 reads the zlib container.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_DIGITS = re.compile(r"[0-9]{1,18}")


async def read_body(request: Request, limit: int) -> Body:
    """Receive a whole tensor body, decompressed, at most `limit` bytes.

    The bytes lie in memory so that what follows the JSON part is aligned.

    Raises:
        TooLargeError: It is longer, as sent or decompressed.
        MalformedError: The header length or the compressed stream is broken.
        UnsupportedMediaError: The content encoding is unknown.
    """
    header, window = header_length(request), content_window(request)
    pad = -(header or 0) % ALIGN
    stages, exchange = stages_of(request), exchange_of(request.scope)
    data: bytearray | Sealed
    with stages.measure("receive"):
        if window is None and exchange is not None and _is_large(request):
            data = await _collect(request, exchange, pad)
        else:
            data = await _gather(request, pad)
    if window is not None:
        with stages.measure("decompress"):
            if len(data) > _ON_THE_LOOP:
                data = await asyncio.to_thread(_inflate, data, pad, window, limit)
            else:
                data = _inflate(data, pad, window, limit)
    if stages.reservation is not None:
        stages.reservation.true_up(len(data))
    return Body(memoryview(data)[pad:], header)


async def _gather(request: Request, pad: int) -> bytearray:
    """Receive a body into ordinary memory, behind so many bytes."""
    stages, data = stages_of(request), bytearray(pad)
    while not stages.received:
        data += await _piece(request)
    return data


def _is_large(request: Request) -> bool:
    length = field(request.scope, b"content-length")
    return length is not None and int(length) >= _LARGE


async def _collect(request: Request, exchange: Exchange, pad: int) -> Sealed:
    """Receive a large body into the memory in which it goes to the worker.

    Raises:
        ClientDisconnect: The client left before the end.
        OverloadedError: There is no memory for it now.
    """
    stages = stages_of(request)
    try:
        slab = Slab(pad)
        try:
            # What came before the collecting began is what the first message brings.
            slab.write(await _piece(request))
            exchange.collect(slab.write)
            while not stages.received:
                slab.write(await _piece(request))
                exchange.check()
            exchange.check()
            return slab.seal()
        finally:
            slab.close()
    except OSError as error:
        raise OverloadedError(
            f"no memory for the body now: {error.strerror}", retry_after=1.0
        ) from error


async def _piece(request: Request) -> bytes:
    """Receive what of the body has come.

    Raises:
        ClientDisconnect: The client left before the end.
    """
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return cast(bytes, message.get("body", b""))


async def parse_body(
    request: Request, body: Body, max_json: int, *, lent: bool = False, least: int = 1
) -> TensorRequest:
    """Parse a tensor body; much JSON goes to a thread, so that others go on meanwhile.

    Args:
        request: Whose body.
        body: What it is.
        max_json: Bytes of its JSON part.
        lent: Whether tensors may lie in shared memory.
        least: How many tensors there must be.

    Raises:
        MalformedError, ImpossibleError, TooLargeError: As `read_tensors`.
    """
    header = len(body.data) if body.header is None else body.header
    with stages_of(request).measure("parse"):
        if header > _ON_THE_LOOP:
            asked = await asyncio.to_thread(read_tensors, body, max_json, least=least)
        else:
            asked = read_tensors(body, max_json, least=least)
    if asked.places and not lent:
        raise ImpossibleError(
            "shared memory is for /v2/models/{name}/infer alone; send the bytes"
        )
    return asked


def content_window(request: Request) -> int | None:
    """Return zlib's window argument for the body's encoding, None for identity.

    Raises:
        UnsupportedMediaError: The encoding is unknown.
    """
    sent = field(request.scope, b"content-encoding")
    if sent is None or (encoding := sent.strip().lower()) in ("identity", ""):
        return None
    try:
        return _WINDOWS[encoding]
    except KeyError:
        raise UnsupportedMediaError(
            f"Content-Encoding {encoding!r} is unknown; use gzip, deflate or identity"
        ) from None


async def stream_body(request: Request, write: Callable[[bytes], None]) -> None:
    """Hand the body, decompressed, to `write` in a thread, about 1 MiB at a time.

    Raises:
        ClientDisconnect: The client left before the end.
        MalformedError: The compressed stream is broken.
        UnsupportedMediaError: The content encoding is unknown.
    """
    window = content_window(request)
    inflater = None if window is None else Inflater(window)

    def store(chunk: bytes) -> None:
        for piece in (chunk,) if inflater is None else inflater.pieces(chunk):
            write(piece)

    waiting = bytearray()
    with stages_of(request).measure("receive"):
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= _PIECE:
                await asyncio.to_thread(store, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(store, bytes(waiting))
    if inflater is not None:
        inflater.finish()


def header_length(request: Request) -> int | None:
    """Return the length of the JSON part, None when the header is not there.

    Raises:
        MalformedError: It is not a number.
    """
    text = field(request.scope, _HEADER_LENGTH)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text.strip()):
        raise MalformedError(
            f"{HEADER_LENGTH} is {text[:40]!r}; it must be the length of the JSON part"
        )
    return int(text)


def _inflate(data: bytearray | Sealed, pad: int, window: int, limit: int) -> bytearray:
    """Decompress what follows `pad`, keeping the pad; stops at the limit."""
    out = bytearray(pad)
    inflater = Inflater(window)
    for piece in inflater.pieces(memoryview(data)[pad:]):
        out += piece
        if len(out) - pad > limit:
            raise TooLargeError(
                f"the body decompresses to more than the limit of {limit} bytes"
            )
    inflater.finish()
    return out


class Inflater:
    """Decompresses a stream in pieces of bounded size, however hard it was packed."""

    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(window)

    def pieces(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Yield what `chunk` unfolds to, at most 1 MiB at a time.

        Raises:
            MalformedError: The stream is broken, or bytes follow its end.
        """
        rest = chunk
        while True:
            try:
                piece = self._stream.decompress(rest, _PIECE)
            except zlib.error as exc:
                raise MalformedError(f"the compressed body is broken: {exc}") from None
            yield piece
            rest = self._stream.unconsumed_tail
            if self._stream.unused_data:
                # A second gzip member too: a body of many tiny ones is an attack.
                raise MalformedError("bytes follow the end of the compressed body")
            if self._stream.eof or (not rest and len(piece) < _PIECE):
                return

    def finish(self) -> None:
        """Check that the stream is complete.

        Raises:
            MalformedError: It is not.
        """
        if not self._stream.eof:
            raise MalformedError("the compressed body ends too early")


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """Receive a small JSON object; an empty body is an empty object.

    Raises:
        MalformedError: It is not a JSON object.
        TooLargeError: It is longer than `limit`.
    """
    body = await read_body(request, limit)
    return read_object(body.data, limit) if len(body.data) else {}
