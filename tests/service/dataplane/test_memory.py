from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nnz_service.dataplane.memory import ALIGN, Received, fill, lay_out
from nnz_service.errors import MalformedError
from nnz_service.servable import DATATYPES


@pytest.fixture
def fd() -> Iterator[int]:
    """A sealed memfd of 256 bytes: 0, 1, 2, ..."""
    handle = fill([], {}, 0, bytes(range(256)))
    yield handle
    os.close(handle)


def send(tensors: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    table, size = lay_out(tensors)
    handle = fill(table, tensors, size)
    try:
        return Received(handle).tensors([list(row) for row in table])
    finally:
        os.close(handle)


class TestRoundTrip:
    @pytest.mark.parametrize("name", DATATYPES)
    def test_every_type(self, name: str) -> None:
        x = np.arange(6).reshape(2, 3).astype(DATATYPES[name])

        back = send({"x": x, "y": x[:1]})

        np.testing.assert_array_equal(back["x"], x)
        np.testing.assert_array_equal(back["y"], x[:1])
        assert back["x"].dtype == x.dtype

    def test_any_layout(self) -> None:
        x = np.arange(24.0).reshape(2, 3, 4)

        back = send(
            {"t": x.T, "s": x[:, ::2, ::-1], "b": np.broadcast_to(x, (2, 2, 3, 4))}
        )

        np.testing.assert_array_equal(back["t"], x.T)
        np.testing.assert_array_equal(back["s"], x[:, ::2, ::-1])
        assert back["b"].shape == (2, 2, 3, 4)

    def test_big_endian_becomes_little(self) -> None:
        back = send({"x": np.arange(3, dtype=">i4")})

        assert back["x"].dtype == np.dtype("<i4")
        assert back["x"].tolist() == [0, 1, 2]

    def test_scalars_and_empty_ones(self) -> None:
        back = send({"e": np.empty((0, 5)), "s": np.float32(2.5).reshape(())})

        assert back["e"].shape == (0, 5)
        assert back["s"] == 2.5

    def test_aligned_and_read_only(self) -> None:
        back = send({"a": np.ones(1, np.int8), "b": np.ones(3)})

        assert back["b"].ctypes.data % ALIGN == 0
        with pytest.raises(ValueError, match="read-only"):
            back["b"][0] = 7

    def test_outlives_the_descriptor_and_its_neighbours(self) -> None:
        b = send({"a": np.ones(1000), "b": np.arange(1000.0)})["b"]

        assert b.sum() == 499500

    def test_type_that_cannot_cross(self) -> None:
        with pytest.raises(MalformedError, match=r"'x'.*complex"):
            lay_out({"x": np.ones(2, complex)})


class TestSeals:
    def test_sender_cannot_change_it(self, fd: int) -> None:
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(fd, 1)
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 0)

    @pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_WRITE])
    def test_unsealed_is_refused(self, seals: int) -> None:
        handle = os.memfd_create("x", os.MFD_ALLOW_SEALING)
        os.ftruncate(handle, 64)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)

        with pytest.raises(MalformedError, match="not sealed"):
            Received(handle)
        os.close(handle)

    def test_other_descriptors_are_refused(self) -> None:
        read, write = os.pipe()

        with pytest.raises(MalformedError, match="no memfd"):
            Received(read)
        os.close(read)
        os.close(write)


class TestTable:
    """The header is believed only as far as the file's real size goes."""

    @pytest.mark.parametrize(
        ("row", "why"),
        [
            pytest.param(["x", "FP32", [65], 0, 260], "outside", id="past the end"),
            pytest.param(["x", "FP32", [1], 256, 4], "outside", id="behind the end"),
            pytest.param(["x", "FP32", [1], -64, 4], "outside", id="before the start"),
            pytest.param(["x", "FP32", [1], 4, 4], "unaligned", id="unaligned"),
            pytest.param(["x", "FP32", [1], 1 << 80, 4], "outside", id="huge offset"),
            pytest.param(["x", "FP32", [1], 0.0, 4], "lies at", id="float offset"),
            pytest.param(["x", "FP32", [2], 0, 4], "has 4 bytes", id="wrong length"),
            pytest.param(
                ["x", "FP32", [1 << 62, 4], 0, 0], "has 0 bytes", id="overflow"
            ),
            pytest.param(["x", "FP32", [-1, -4], 0, 16], "shape", id="negative"),
            pytest.param(["x", "FP32", [True], 0, 4], "shape", id="bool"),
            pytest.param(["x", "FP32", 1, 0, 4], "shape", id="no list"),
            pytest.param(["x", "FP32", [1] * 33, 0, 4], "shape", id="many axes"),
            pytest.param(["x", "|O", [1], 0, 8], "unknown type", id="objects"),
            pytest.param(["x", "FP32", [1], 0], "description", id="short"),
            pytest.param([7, "FP32", [1], 0, 4], "unknown type", id="no name"),
            pytest.param("x", "description", id="no row"),
        ],
    )
    def test_lies(self, fd: int, row: Any, why: str) -> None:
        with pytest.raises(MalformedError, match=why):
            Received(fd).tensors([row])

    def test_name_twice(self, fd: int) -> None:
        row = ["x", "INT8", [1], 0, 1]

        with pytest.raises(MalformedError, match="twice"):
            Received(fd).tensors([row, row])

    def test_no_table(self, fd: int) -> None:
        with pytest.raises(MalformedError, match="not a list"):
            Received(fd).tensors({"x": 1})

    def test_to_the_last_byte(self, fd: int) -> None:
        back = Received(fd).tensors([["x", "UINT8", [64], 192, 64]])

        assert back["x"].tolist() == list(range(192, 256))

    @pytest.mark.parametrize(
        ("offset", "count"), [(0, 257), (256, 1), (-1, 1), (0, -1)]
    )
    def test_bytes_outside(self, fd: int, offset: int, count: int) -> None:
        with pytest.raises(MalformedError, match="outside"):
            Received(fd).bytes(offset, count)
