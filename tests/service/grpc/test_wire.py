"""Requests are divided, and responses put together, as any implementation does it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnz_service.errors import ImpossibleError, MalformedError, TooLargeError
from nnz_service.grpc import wire
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.wire import join, parse, split, streamed

MOST = 1 << 20


class TestSplit:
    @given(st.lists(st.binary(max_size=300)), st.text(max_size=20))
    def test_takes_out_raw_tensors(self, raw: list[bytes], name: str) -> None:
        """The rest stays as it was, and is what the limit counts."""
        whole = m.ModelInferRequest(model_name=name, raw_input_contents=raw)
        whole.inputs.add(name="x", shape=[2, -3])
        whole.parameters["p"].double_param = 0.5
        description = m.ModelInferRequest()
        description.CopyFrom(whole)
        description.ClearField("raw_input_contents")

        rest, found = split(whole.SerializeToString(), MOST)

        assert [bytes(piece) for piece in found] == raw
        assert parse(m.ModelInferRequest, rest) == description

    def test_order_does_not_matter(self) -> None:
        """Other implementations may write fields in any order."""
        first = m.ModelInferRequest(raw_input_contents=[b"a"]).SerializeToString()
        second = m.ModelInferRequest(model_name="m", raw_input_contents=[b"b"])

        rest, found = split(first + second.SerializeToString(), MOST)

        assert parse(m.ModelInferRequest, rest).model_name == "m"
        assert [bytes(piece) for piece in found] == [b"a", b"b"]

    def test_limit(self) -> None:
        """Tensors do not count, everything else does."""
        message = m.ModelInferRequest(raw_input_contents=[bytes(1000)])
        split(message.SerializeToString(), 100)
        message.model_name = "m" * 200

        with pytest.raises(TooLargeError, match="100 bytes besides raw_input_contents"):
            split(message.SerializeToString(), 100)

    def test_number_of_fields(self) -> None:
        with pytest.raises(MalformedError, match="more than 10000 fields"):
            split(b"\x3a\x00" * 10_001, MOST)

    @pytest.mark.parametrize(
        ("message", "problem"),
        [
            (b"\x3a", "cut off"),
            (b"\x3a\x05ab", "claims 5 bytes, 2 are left"),
            (b"\x3a\xff\xff\xff\xff\x0f", "claims 4294967295 bytes"),
            (b"\xff" * 11, "cut off or not one"),
            (b"\x3b\x3c", "unknown kind 3"),
            (b"\x08\x80", "cut off"),
            (b"\x09\x00", "claims 8 bytes"),
            (b"\x0d\x00", "claims 4 bytes"),
        ],
    )
    def test_broken(self, message: bytes, problem: str) -> None:
        with pytest.raises(MalformedError, match=problem):
            split(message, MOST)

    def test_unknown_fields(self) -> None:
        """Those of a later protocol are passed over."""
        later = b"\xf8\x01\x07" + b"\xfa\x01\x02ab" + b"\xf9\x01" + bytes(8)

        rest, found = split(later + b"\x0a\x01m", MOST)

        assert not found
        assert parse(m.ModelInferRequest, rest).model_name == "m"


class TestJoin:
    @pytest.mark.parametrize("sizes", [[], [0], [1, 127, 128], [16384, 3]])
    def test_equals_the_library(self, sizes: list[int]) -> None:
        raw = [np.full(size, 7, np.uint8) for size in sizes]
        head = m.ModelInferResponse(id="i", model_name="m")

        written = join(head, [array.data for array in raw])

        head.raw_output_contents.extend(array.tobytes() for array in raw)
        assert m.ModelInferResponse.FromString(written) == head
        answer = m.ModelStreamInferResponse.FromString(streamed(written))
        assert answer.infer_response == head
        assert not answer.error_message

    def test_too_long_for_clients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What no client could read is not sent."""
        monkeypatch.setattr(wire, "_MOST_BYTES", 50)

        with pytest.raises(ImpossibleError, match="fewer outputs"):
            join(m.ModelInferResponse(), [memoryview(bytes(60))])


def test_parse_refuses_what_is_no_message() -> None:
    with pytest.raises(MalformedError, match="no ModelReadyRequest"):
        parse(m.ModelReadyRequest, b"\x0a\x02\xff\xff")
