"""Heads that come again: a busy client sends the same bytes before every body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from nnz_service.web.fields import field

_END = b"\r\n\r\n"
#: Bytes and fields of the longest that is kept: an idle connection may have one.
_LONGEST, _FIELDS = 4096, 32


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request that was taken, and what was read in it.

    The same bytes say the same again, to the length of the body. What depends on more
    than these bytes, such as who may do what, is asked anew.

    Args:
        text: All bytes before the body.
        total: Bytes of head and body together.
        scope: What ASGI calls what they say, without a state.
        keeps: Whether the connection may be used again afterwards.
    """

    text: bytes
    total: int
    scope: dict[str, Any]
    keeps: bool

    @classmethod
    def of(cls, data: bytes, scope: dict[str, Any], keeps: bool) -> Self | None:
        """Remember the head of what came as one piece.

        Args:
            data: One request with a Content-Length, and nothing else.
            scope: What it says.
            keeps: Whether the connection may be used again.

        Returns:
            None where the head is long, or does not end where HTTP says, at the first
            empty line of CRLF, for the parser is lenient.
        """
        end = data.find(_END) + len(_END)
        length = int(field(scope, b"content-length") or -1)
        text = data[:end]
        strict = text.count(b"\n") == text.count(b"\r\n")
        if end > _LONGEST or len(scope["headers"]) > _FIELDS:
            return None
        if not strict or end + length != len(data):
            return None
        said = {name: value for name, value in scope.items() if name != "state"}
        return cls(text, len(data), said, keeps)

    def begins(self, data: bytes) -> bool:
        """Whether these bytes are one whole request with this head."""
        return len(data) == self.total and data.startswith(self.text)

    def body_of(self, data: bytes) -> bytearray:
        """Return what follows the head."""
        return bytearray(memoryview(data)[len(self.text) :])
