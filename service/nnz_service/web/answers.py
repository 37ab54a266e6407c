"""Write answers: JSON bodies, tensor bodies, and their compression."""

from __future__ import annotations

import asyncio
import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from fastapi import Response
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from nnz_service.dataplane.slab import ALIGN
from nnz_service.errors import ImpossibleError
from nnz_service.gateway.datatypes import datatype_of
from nnz_service.gateway.regions import Regions
from nnz_service.web.codecs import TensorRequest
from nnz_service.web.lent import deliver

_HEADER = b"inference-header-content-length"
_BINARY, _TEXT = b"application/octet-stream", b"application/json"
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
#: Descriptions of outputs that are kept.
_REMEMBERED = 64
#: Below this compression saves no packet.
_WORTH_COMPRESSING = 256
#: Larger tensors are not copied behind the JSON part once more.
_WORTH_A_PIECE = 1 << 16
#: Numbers of an answer as JSON at most, 80 MiB or so of text: a few bytes may ask for
#: any number, and the bytes of admission count eight for each.
_MOST_NUMBERS = 1 << 22
#: Numbers that are written in a millisecond or so.
_PIECE = 1 << 15
#: Level 1: higher ones cost several times more for a few percent of float data.
_LEVEL = 1
#: Names that libraries list by default; who sends them did not ask for compression.
_DEFAULT_LISTS = frozenset({"br", "zstd", "*"})


class Json(Response):
    """A JSON body, written by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Serialize; numpy scalars and arrays are allowed."""
        return orjson.dumps(content, option=_NUMPY)


async def tensor_answer(
    head: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    request: TensorRequest,
    *,
    accept_encoding: str = "",
    binary_default: bool = False,
    batch: int | None = None,
    regions: Regions | None = None,
) -> TensorAnswer:
    """Answer with tensors, each as JSON numbers or as bytes behind the JSON.

    Args:
        head: Members of the JSON object besides ``outputs``.
        tensors: Outputs, which go out in this order where the request names none.
        request: Says which of them go out, in its order, and how.
        accept_encoding: The header of that name.
        binary_default: For requests that do not say which form they want.
        batch: Rows of the run that it came from.
        regions: Where outputs may be asked to go, if anywhere.

    Raises:
        ImpossibleError: A tensor asked for as JSON has no JSON form, or there are too
            many numbers for it.
    """
    if request.outputs:
        names = [one.name for one in request.outputs]
        tensors = {name: tensors[name] for name in names if name in tensors}
    if _go_as_bytes(tensors, request, binary_default):
        described = _described(tuple((n, a.dtype, a.shape) for n, a in tensors.items()))
        whole = {**head, "outputs": orjson.Fragment(described)}
        text = _aligned(orjson.dumps(whole, option=_NUMPY))
        tail = [_bytes_of(array) for array in tensors.values()]
    else:
        text, tail = await _mixed(head, tensors, request, binary_default, regions)
    pieces, encoding = await _encoded([text, *tail], accept_encoding, bool(tail))
    headers = [(b"vary", b"Accept-Encoding")]
    if tail:
        headers.append((_HEADER, b"%d" % len(text)))
    if batch is not None:
        headers.append((b"x-batch-size", b"%d" % batch))
    if encoding != "identity":
        headers.append((b"content-encoding", encoding.encode()))
    return TensorAnswer(pieces, _BINARY if tail else _TEXT, headers)


def _go_as_bytes(
    tensors: Mapping[str, NDArray[Any]], request: TensorRequest, default: bool
) -> bool:
    """Whether all that goes out is bytes."""
    every = (request.wants_bytes(name, default) for name in tensors)
    return bool(tensors) and all(every)


@lru_cache(_REMEMBERED)
def _described(
    shapes: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...],
) -> bytes:
    """Return the JSON of outputs that go out as bytes; most answers have the same."""
    return orjson.dumps(
        [
            _entry(name, dtype, shape)
            | {"parameters": {"binary_data_size": math.prod(shape) * dtype.itemsize}}
            for name, dtype, shape in shapes
        ]
    )


async def _mixed(
    head: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    request: TensorRequest,
    binary_default: bool,
    regions: Regions | None,
) -> tuple[bytes, list[memoryview]]:
    """Return the JSON of an answer with numbers or places in it, and what follows.

    Raises:
        ImpossibleError: As `tensor_answer`.
    """
    outputs: list[dict[str, Any]] = []
    tail: list[memoryview] = []
    written = (n for n in tensors if not request.wants_binary(n, binary_default))
    _check_count(sum(tensors[n].size for n in written if not request.place_of(n)))
    for name, array in tensors.items():
        entry = _entry(name, array.dtype, array.shape)
        flat = np.ascontiguousarray(array).reshape(-1)
        place = request.place_of(name)
        if place is not None and regions is not None:
            entry["parameters"] = await deliver(regions, place, flat, name)
        elif request.wants_binary(name, binary_default):
            entry["parameters"] = {"binary_data_size": flat.nbytes}
            tail.append(flat.view(np.uint8).data)
        else:
            entry["data"] = await _json_numbers(flat, name)
        outputs.append(entry)
    text = orjson.dumps({**head, "outputs": outputs}, option=_NUMPY)
    return _aligned(text) if tail else text, tail


def _entry(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype_of(dtype), "shape": list(shape)}


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _aligned(text: bytes) -> bytes:
    """Add spaces, which mean nothing behind JSON.

    With them the first tensor is aligned for whoever received the whole body into
    aligned memory.
    """
    return text + b" " * (-len(text) % ALIGN)


async def _encoded(
    pieces: list[bytes | memoryview], accept: str, binary: bool
) -> tuple[list[bytes | memoryview], str]:
    """Return what goes out, compressed where that is wanted, and how."""
    size = sum(map(len, pieces))
    encoding = _encoding(accept, size, binary)
    if encoding == "identity":
        return ([b"".join(pieces)] if size < _WORTH_A_PIECE else pieces), encoding
    # zlib lets go of the interpreter, so a large answer stops nobody else.
    return [await asyncio.to_thread(_compress, b"".join(pieces), encoding)], encoding


class TensorAnswer(Response):
    """An answer whose head is ready to be sent; Starlette's own are made slowly.

    Large tensors go out from where they lie; a small answer is one message.

    Args:
        pieces: Of the body, in order.
        kind: Its media type.
        headers: Further ones.
    """

    def __init__(
        self,
        pieces: Sequence[bytes | memoryview],
        kind: bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self.status_code, self.background = 200, None
        self.pieces = pieces
        length = (b"content-length", b"%d" % sum(map(len, pieces)))
        self.raw_headers = [(b"content-type", kind), length, *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        *others, last = self.pieces
        if others or len(last) >= _WORTH_A_PIECE:
            # The server waits for what it holds before it takes more. With an end of
            # its own behind it, the last piece is no longer in memory when the request
            # has ended, however slowly its client reads.
            others, last = [*self.pieces], b""
        for piece in others:
            body = {"body": piece, "more_body": True}
            await send({"type": "http.response.body", **body})
        await send({"type": "http.response.body", "body": last})


def pieces_of(response: Response) -> Sequence[bytes | memoryview]:
    """Return the body of an answer that is complete."""
    if isinstance(response, TensorAnswer):
        return response.pieces
    return [response.body]


def _check_count(numbers: int) -> None:
    if numbers > _MOST_NUMBERS:
        raise ImpossibleError(
            f"the answer has {numbers} numbers, JSON goes up to {_MOST_NUMBERS}; ask "
            "for binary data"
        )


async def _json_numbers(
    flat: NDArray[Any], name: str
) -> NDArray[Any] | orjson.Fragment:
    """Return what orjson can write exactly; many numbers are written elsewhere.

    JSON has no NaN and no infinity, and null is not a number: an output that
    holds one is refused here, never silently changed.
    """
    if flat.dtype == np.float16:
        raise ImpossibleError(
            f"output '{name}' is FP16, which has no JSON form; ask for binary data"
        )
    if flat.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(flat))
        if bad.size:
            raise ImpossibleError(
                f"output '{name}' holds {bad.size} NaN or infinite values (the first, "
                f"{flat[bad[0]]}, at flat index {bad[0]}), which JSON cannot say; ask "
                "for binary data (parameters.binary_data_output)"
            )
    if flat.size > _PIECE:
        return await asyncio.to_thread(_written, flat)
    return flat


def _written(flat: NDArray[Any]) -> orjson.Fragment:
    """Write numbers a piece at a time: orjson keeps the interpreter to itself."""
    pieces = (flat[at : at + _PIECE] for at in range(0, flat.size, _PIECE))
    texts = [orjson.dumps(piece, option=_NUMPY)[1:-1] for piece in pieces]
    return orjson.Fragment(b"[" + b",".join(texts) + b"]")


def _encoding(accept: str, size: int, binary: bool) -> str:
    """Choose gzip, deflate or identity by q-value; ties keep the first listed."""
    if size < _WORTH_COMPRESSING or not accept:
        return "identity"
    weights: dict[str, float] = {}
    for part in accept.split(","):
        name, _, quality = part.strip().partition(";")
        try:
            weights[name.strip().lower()] = float(quality.strip()[2:] or 1)
        except ValueError:
            weights[name.strip().lower()] = 0.0
    if binary and not _DEFAULT_LISTS.isdisjoint(weights):
        return "identity"
    offered = {n: q for n, q in weights.items() if n in ("gzip", "deflate", "identity")}
    best = max(offered, key=lambda n: offered[n], default="identity")
    return best if offered.get(best, 0) > 0 else "identity"


def _compress(content: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.compress(content, _LEVEL, mtime=0)
    return zlib.compress(content, _LEVEL)
