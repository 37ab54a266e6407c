"""Messages of inference as bytes: tensors are taken out of them and put in uncopied.

A message is a row of fields, each a tag (its number and how it ends) and its content;
an embedded message is bytes. Source: the encoding specification of Protocol Buffers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from nnz_service.errors import ImpossibleError, MalformedError, TooLargeError
from nnz_service.grpc.protocol import messages as m

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_RAW_INPUT = m.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES
_RAW_OUTPUT = m.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES
_INFER_RESPONSE = m.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | _BYTES
#: Fields of one request; each costs a turn of an interpreted loop.
_MOST_FIELDS = 10_000
#: What a message may have for implementations to read it.
_MOST_BYTES = 2**31 - 1

M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes) -> M:
    """Read a message.

    Raises:
        MalformedError: The bytes are not such a message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        name = kind.DESCRIPTOR.name
        raise MalformedError(f"the bytes received are no {name}: {exc}") from None


def split(message: bytes, most: int) -> tuple[bytes, list[memoryview]]:
    """Divide a ModelInferRequest into its description and its raw tensors.

    What describes takes many times its bytes once it is parsed, so it has a limit of
    its own, as the JSON part of a body over HTTP has.

    Args:
        message: As received.
        most: Bytes that all but `raw_input_contents` may have.

    Returns:
        The message without `raw_input_contents`, and these, as views of `message`.

    Raises:
        MalformedError: The fields do not add up to the message, or are too many.
        TooLargeError: The description is longer than `most`.
    """
    view = memoryview(message)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    at = described = 0
    while at < len(view):
        if len(kept) + len(raw) >= _MOST_FIELDS:
            raise MalformedError(f"the message has more than {_MOST_FIELDS} fields")
        start = at
        tag, at = _varint(view, at)
        at, content = _content_end(view, tag, at)
        if tag == _RAW_INPUT:
            raw.append(view[content:at])
            described += content - start
        else:
            kept.append(view[start:at])
            described += at - start
        if described > most:
            raise TooLargeError(
                f"the message has more than {most} bytes besides raw_input_contents, "
                "which is the limit (NNZ_MAX_JSON); send tensors in raw_input_contents"
            )
    return b"".join(kept), raw


def join(response: m.ModelInferResponse, tensors: Iterable[memoryview]) -> bytes:
    """Write a response with tensors behind it as `raw_output_contents`.

    Raises:
        ImpossibleError: No client could read so long a message.
    """
    pieces: list[bytes | memoryview] = [response.SerializeToString()]
    for tensor in tensors:
        pieces += [_header(_RAW_OUTPUT, tensor.nbytes), tensor]
    size = sum(memoryview(piece).nbytes for piece in pieces)
    if size > _MOST_BYTES:
        raise ImpossibleError(
            f"the answer has {size} bytes, a message over gRPC at most {_MOST_BYTES}; "
            "ask for fewer outputs or rows at once, or use HTTP"
        )
    return b"".join(pieces)


def streamed(response: bytes) -> bytes:
    """Put a written ModelInferResponse into a ModelStreamInferResponse."""
    return _header(_INFER_RESPONSE, len(response)) + response


def _content_end(view: memoryview, tag: int, at: int) -> tuple[int, int]:
    """Return where a field ends and where its content begins; its tag ends at `at`."""
    ending = tag & 7
    if ending == _VARINT:
        return _varint(view, at)[1], at
    if ending == _BYTES:
        size, at = _varint(view, at)
    elif ending in _FIXED:
        size = _FIXED[ending]
    else:
        raise MalformedError(f"the message has a field of the unknown kind {ending}")
    if at + size > len(view):
        raise MalformedError(
            f"a field of the message claims {size} bytes, {len(view) - at} are left"
        )
    return at + size, at


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, low ones first; return it and its end."""
    value = 0
    for place, byte in enumerate(view[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise MalformedError("the message is cut off or not one of Protocol Buffers")


def _header(tag: int, size: int) -> bytes:
    """Write what stands before the bytes of a field; its tag is below 128."""
    out = bytearray([tag])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)
