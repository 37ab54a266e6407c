from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnz_service.dataplane.wire import MAX_DATAGRAM, discard, pack, unpack
from nnz_service.errors import MalformedError

FDS = Path("/proc/self/fd")


def cross(fields: dict[str, Any], tensors: dict[str, Any]) -> tuple[Any, Any]:
    datagram, fd = pack(fields, tensors)
    try:
        assert len(datagram) <= MAX_DATAGRAM
        return unpack(datagram, fd)
    finally:
        discard(fd)


class TestRoundTrip:
    def test_plain_json_needs_no_memory(self) -> None:
        datagram, fd = pack({"id": 1, "params": {"a": [1, 2.5, None, "ü"]}}, {})

        assert fd is None
        assert unpack(datagram, None)[0]["params"] == {"a": [1, 2.5, None, "ü"]}

    @pytest.mark.parametrize("size", [10, MAX_DATAGRAM, 3 * MAX_DATAGRAM])
    def test_long_json(self, size: int) -> None:
        fields, tensors = cross({"id": 1, "text": "x" * size}, {"x": np.arange(5)})

        assert fields == {"id": 1, "text": "x" * size}
        assert tensors["x"].tolist() == [0, 1, 2, 3, 4]

    def test_many_tensors(self) -> None:
        sent = {f"tensor {n}": np.full(n, n) for n in range(500)}

        _, back = cross({"id": 1}, sent)

        assert {name: x.tolist() for name, x in back.items()} == {
            name: x.tolist() for name, x in sent.items()
        }

    def test_no_descriptor_is_left_behind(self) -> None:
        before = len(list(FDS.iterdir()))

        for _ in range(20):
            cross({"id": 1}, {"x": np.ones(3)})

        assert len(list(FDS.iterdir())) == before


class TestRefusals:
    @pytest.mark.parametrize("datagram", [b"", b"{", b"[1]", b"\xff", b'"x"'])
    def test_not_a_message(self, datagram: bytes) -> None:
        with pytest.raises(MalformedError, match="the message is not"):
            unpack(datagram, None)

    @pytest.mark.parametrize("at", [b"1", b"[0]", b"[0, 9]", b"{}"])
    def test_long_message_without_memory(self, at: bytes) -> None:
        with pytest.raises(MalformedError, match="without their memory"):
            unpack(b'{"at": %s}' % at, None)

    def test_tensors_without_memory(self) -> None:
        with pytest.raises(MalformedError, match="without their memory"):
            unpack(b'{"tensors": [["x", "INT8", [1], 0, 1]]}', None)

    def test_not_json(self) -> None:
        with pytest.raises(MalformedError, match="not plain JSON"):
            pack({"id": object()}, {})
