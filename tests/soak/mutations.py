"""Requests of the binary protocol, and ways to spoil them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
from service.web.near_misses import NEAR, PARAMETERS, SIZES, Spec

LENGTH = b"Inference-Header-Content-Length"
#: What a length may be said to be.
_LENGTHS = (
    b"-1", b"0", b"1", b"7", b"+12", b" 12 ", b"0x10", b"1e3", b"1.0", b"", b"abc",
    b"2147483648", b"9223372036854775807", b"18446744073709551616", b"9" * 400,
    "\u0661\u0662".encode(), b"12, 12", b"12\t",
)  # fmt: skip
_NUMBERS = (
    b"-0", b"1e999", b"-1e999", b"1e-999", b"9" * 400, b"-9223372036854775809", b"00",
    b"1.", b"NaN", b"Infinity", b"0x1", b"18446744073709551616", b"4294967296", b"-1",
    b"1" + b"0" * 5000,
)  # fmt: skip
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**53, 2**64 - 1, 1.5, 1e308, "", "x", "\0", "\ud7ff", [], {},
    [[]], [None], {"": {}}, "a" * 5000, [1] * 2000,
)  # fmt: skip
_LENT = {"shared_memory_region": "r", "shared_memory_byte_size": 12}
_WISHES: tuple[Any, ...] = (
    [{"name": "y"}], [{"name": "y", "parameters": {"binary_data": True}}] * 2,
    [{"name": "y", "parameters": {"binary_data": 1}}],
    [{"name": "y", "parameters": {"classification": 3}}],
    [{"name": "y", "parameters": _LENT}], [{"name": "q"}], [{}], ["y"], {},
)  # fmt: skip
_STRANGE = (
    b"Accept-Encoding: gzip;q=1e999, deflate;q=-1, *;q=", b"Accept: */*;q=\xff",
    b"Content-Type: multipart/form-data", b"Content-Type: \xff\xfe", b"Cookie: " + b"a",
    b"X-Request-Id: " + b"z" * 4000, b"Expect: 100-continue", b"Expect: 200",
    b"traceparent: 00-" + b"0" * 32 + b"-xyz-01", b"Range: bytes=9-1", b"A: " * 50,
    b"Authorization: Bearer nnz_" + b"\xe9" * 20, b"Connection: close", b"TE: trailers",
    b"Content-Encoding: identity", b"Content-Encoding: br", b"Origin: null",
    b"Upgrade: h2c", b"X-Forwarded-For: \x7f", b"Host: other", b"Origin: http://a.b",
)  # fmt: skip
_BEGINNINGS = (
    b"POST /v1/ops/spmv HTTP/1.0", b"POST /v1/ops/spmv HTTP/9.9", b"POST / HTTP/1.1",
    b"GET /v2/health/live", b"POST http://[::1/v2 HTTP/1.1", b"POST * HTTP/1.1",
    b"CONNECT a:1 HTTP/1.1", b"post /v2 HTTP/1.1", b"POST /%zz/%00/%ff HTTP/1.1",
    b"TRACE /v2 HTTP/1.1", b"POST /v2/models/" + b"a" * 9000 + b"/infer HTTP/1.1", b"",
    b"PRI * HTTP/2.0", b"\x16\x03\x01\x02\x00\x01", b"POST  /v2  HTTP/1.1",
)  # fmt: skip
_CHUNKS = (
    b"ffffffffffffffff", b"-5", b"0x5", b"5;" + b"x" * 3000, b"", b"zz", b"7fffffff",
    b"00000000000000000000005", b"5 5", b"5\n", b"1000000000000000000",
)  # fmt: skip


class Draft:
    """A request that is made from the inside to the outside.

    Each stage is made when it is first looked at, from the one before: whoever spoils
    a stage does so before the next one is made, so lengths around it are right.

    Args:
        call: Path, inputs and parameters, as in `near_misses.REAL`.
    """

    def __init__(self, call: tuple[str, list[Spec], dict[str, Any]]) -> None:
        self.path, specs, parameters = call
        arrays = [_array(datatype, shape) for _, datatype, shape in specs]
        self.value: dict[str, Any] = {
            "parameters": {"binary_data_output": True} | parameters,
            "inputs": [
                {
                    "name": name,
                    "shape": shape,
                    "datatype": datatype,
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for (name, datatype, shape), array in zip(specs, arrays, strict=True)
            ],
        }
        self.tail = b"".join(array.tobytes() for array in arrays)
        #: Whether it is known where the request ends, so that an answer is due.
        self.sound = True

    @cached_property
    def text(self) -> bytes:
        """The JSON part."""
        return json.dumps(self.value).encode()

    @cached_property
    def body(self) -> bytes:
        return self.text + self.tail

    @cached_property
    def lines(self) -> list[bytes]:
        """The head."""
        return [
            b"POST %b HTTP/1.1" % self.path.encode(),
            b"Host: localhost",
            b"%b: %d" % (LENGTH, len(self.text)),
            b"Content-Length: %d" % len(self.body),
        ]

    @cached_property
    def raw(self) -> bytes:
        return b"\r\n".join([*self.lines, b"", self.body])


def _array(datatype: str, shape: list[int]) -> np.ndarray:
    kind = "if"[datatype.startswith("FP")]
    count = int(np.prod(shape))
    return (np.arange(count) % 3).astype(f"<{kind}{SIZES[datatype]}")


def flipped(rng: Random, data: bytes, times: int = 4) -> bytes:
    """Change some bytes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, times) if out else 0):
        out[rng.randrange(len(out))] = rng.choice((rng.randrange(256), 0, 34, 10, 44))
    return bytes(out)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def inserted(rng: Random, data: bytes, what: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + what + data[at:]


def member(rng: Random, draft: Draft) -> None:
    """Another name, shape, datatype, size of an input."""
    key = rng.choice(sorted(NEAR))
    entry = rng.choice(draft.value["inputs"])
    entry[key] = rng.choice([*NEAR[key], *_ODD])


def parameter(rng: Random, draft: Draft) -> None:
    draft.value["parameters"][rng.choice(PARAMETERS)] = rng.choice(_ODD)


def list_of_inputs(rng: Random, draft: Draft) -> None:
    """One too many, one too few, another order."""
    inputs = draft.value["inputs"]
    at = rng.randrange(len(inputs))
    change: Callable[[], Any] = rng.choice(
        (
            lambda: inputs.append(inputs[at]),
            lambda: inputs.pop(at),
            inputs.reverse,
            lambda: inputs.extend(inputs * 500),
        )
    )
    change()
    if not inputs:
        inputs.append({})


def wishes(rng: Random, draft: Draft) -> None:
    draft.value["outputs"] = rng.choice(_WISHES)


def top(rng: Random, draft: Draft) -> None:
    key = rng.choice(("id", "inputs", "outputs", "parameters", "x" * 300))
    draft.value[key] = rng.choice(_ODD)


def twice(rng: Random, draft: Draft) -> None:
    """A key that is there already."""
    again = rng.choice((b'"inputs":[],', b'"shape":[9],', b'"name":"y",', b'"":0,'))
    places = [found.end() for found in re.finditer(rb"\{", draft.text)]
    at = rng.choice(places)
    draft.text = draft.text[:at] + again + draft.text[at:]


def number(rng: Random, draft: Draft) -> None:
    found = rng.choice([*re.finditer(rb"-?\d+", draft.text)] or [None])
    if found is not None:
        start, end = found.span()
        draft.text = draft.text[:start] + rng.choice(_NUMBERS) + draft.text[end:]


def depth(rng: Random, draft: Draft) -> None:
    levels = rng.choice((10, 500, 1023, 1025, 20000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")))
    what = opening * levels + b"1" + closing * levels
    at = draft.text.find(b":", rng.randrange(len(draft.text))) + 1
    draft.text = draft.text[:at] + what + b"," + draft.text[at:]


def json_bytes(rng: Random, draft: Draft) -> None:
    draft.text = flipped(rng, draft.text)


def json_cut(rng: Random, draft: Draft) -> None:
    draft.text = cut(rng, draft.text)


def json_noise(rng: Random, draft: Draft) -> None:
    what = rng.choice((b"\xef\xbb\xbf", b"\0", b"/**/", b"\xff", b" " * 9000, b"\x1f"))
    draft.text = inserted(rng, draft.text, what)


def tensor_bytes(rng: Random, draft: Draft) -> None:
    """Any bits: NaN, indices out of range."""
    draft.tail = flipped(rng, draft.tail, 24)


def tensor_length(rng: Random, draft: Draft) -> None:
    draft.tail = rng.choice(
        (b"", cut(rng, draft.tail), draft.tail + rng.randbytes(rng.randint(1, 99)))
    )


def compressed(rng: Random, draft: Draft) -> None:
    """Gzip, or noise that says so."""
    good = gzip.compress(draft.body, 1)
    noise = (good[:-3], flipped(rng, good), good * 2, b"", rng.randbytes(60))
    draft.body = rng.choice((good, good, *noise))
    coding = rng.choice((b"gzip", b"gzip", b"deflate", b"x-gzip", b"gzip, gzip"))
    draft.lines.append(b"Content-Encoding: " + coding)


def header_length(rng: Random, draft: Draft) -> None:
    """Wrong, negative, huge, absent, twice; all the same the end of it is known."""
    lines = draft.lines
    size, body = len(draft.text), len(draft.body)
    near = [b"%d" % (size + d) for d in (-9, -1, 1, 9)] + [b"%d" % body, b"%d" % -size]
    value = rng.choice([*_LENGTHS, *near])
    at = next((n for n, line in enumerate(lines) if line.startswith(LENGTH)), None)
    if at is not None and rng.random() < 0.9:
        del lines[at]
    if rng.random() < 0.9:
        lines.append(LENGTH + b": " + value)


def strange_header(rng: Random, draft: Draft) -> None:
    draft.lines.insert(rng.randint(1, len(draft.lines)), rng.choice(_STRANGE))


def chunked(rng: Random, draft: Draft) -> None:
    """The same body in chunks."""
    body = draft.body
    draft.lines[:] = [x for x in draft.lines if not x.startswith(b"Content-Length")]
    draft.lines.append(b"Transfer-Encoding: chunked")
    parts = pieces(rng, body, 4)
    ended = rng.choice((b"0\r\n\r\n", b"0;x=y\r\n\r\n", b"000\r\nTrailer: 1\r\n\r\n"))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    draft.body = framed + ended


def broken_chunks(rng: Random, draft: Draft) -> None:
    chunked(rng, draft)
    size = rng.choice(_CHUNKS)
    broken = size + draft.body[draft.body.index(b"\r\n") :]
    draft.body = rng.choice((broken, draft.body[:-5], cut(rng, draft.body)))
    draft.sound = False


def content_length(rng: Random, draft: Draft) -> None:
    lines = draft.lines
    size = len(draft.body)
    value = rng.choice([*_LENGTHS, *(b"%d" % (size + d) for d in (-40, -1, 1, 40))])
    if rng.random() < 0.8:
        lines[:] = [line for line in lines if not line.startswith(b"Content-Length")]
    if rng.random() < 0.8:
        lines.append(b"Content-Length: " + value)
    draft.sound = False


def both_framings(rng: Random, draft: Draft) -> None:
    coding = rng.choice((b"chunked", b"identity", b"gzip, chunked", b"\x0bchunked"))
    draft.lines.append(b"Transfer-Encoding: " + coding)
    draft.sound = False


def beginning(rng: Random, draft: Draft) -> None:
    draft.lines[0] = rng.choice(_BEGINNINGS)
    draft.sound = False


def long_head(rng: Random, draft: Draft) -> None:
    draft.lines.extend([b"A: b"] * rng.choice((50, 3000, 20000)))
    draft.sound = False


def head_bytes(rng: Random, draft: Draft) -> None:
    head, mark, body = draft.raw.partition(b"\r\n\r\n")
    draft.raw = flipped(rng, head + mark) + body
    draft.sound = False


def cut_off(rng: Random, draft: Draft) -> None:
    draft.raw = cut(rng, draft.raw)
    draft.sound = False


def noise(rng: Random, draft: Draft) -> None:
    draft.raw = inserted(rng, draft.raw, rng.randbytes(rng.randint(1, 200)))
    draft.sound = False


#: From the inside to the outside; those from `broken_chunks` on break the framing.
OPERATORS: tuple[Callable[[Random, Draft], None], ...] = (
    member, parameter, list_of_inputs, wishes, top, twice, number, depth, json_bytes,
    json_cut, json_noise, tensor_bytes, tensor_length, compressed, header_length,
    strange_header, chunked, broken_chunks, content_length, both_framings, beginning,
    long_head, head_bytes, cut_off, noise,
)  # fmt: skip


def spoil(rng: Random, draft: Draft) -> list[str]:
    """Spoil a request in one to three ways; returns their names."""
    chosen = sorted(rng.sample(range(len(OPERATORS)), rng.choice((1, 1, 2, 3))))
    for at in chosen:
        OPERATORS[at](rng, draft)
    return [OPERATORS[at].__name__ for at in chosen]


def pieces(rng: Random, data: bytes, most: int) -> list[bytes]:
    """Divide at random places."""
    places = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(0, most)))
    return [data[a:b] for a, b in zip([0, *places], [*places, None], strict=True)]
