from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnz_kernels.errors import StructureError
from nnz_kernels.formats import BlockCsr, Csr, Ragged, SparseVector


def ints(*values: int, dtype: Any = np.int32) -> Any:
    return np.array(values, dtype)


# Rows of 2, 0 and 1 entries; three columns.
CSR = Csr(ints(0, 2, 2, 3), ints(0, 2, 1), np.array([1.0, 2.0, 3.0]), (3, 3))
VECTOR = SparseVector(ints(3, 0), np.array([1.0, 2.0]), 4)
RAGGED = Ragged(ints(0, 1, 1, 3), ints(2, 0, 1), np.array([1.0, 2.0, 3.0]), 3)
BLOCKS = BlockCsr(ints(0, 1, 2), ints(0, 2), np.array([[1.0, 2], [3, 0]]), (3, 3), 2)

SHARED = [
    pytest.param({"indptr": ints(0, 2, 2)}, "indptr has 3 .* rows need 4", id="short"),
    pytest.param({"indptr": ints(0, 2, 2, 3, 3)}, "indptr has 5", id="long"),
    pytest.param({"indptr": ints()}, "indptr has 0", id="no indptr"),
    pytest.param({"indptr": ints(1, 2, 2, 3)}, r"indptr\[0\] is 1", id="start"),
    pytest.param({"indptr": ints(-1, 2, 2, 3)}, r"indptr\[0\] is -1", id="negative"),
    pytest.param(
        {"indptr": ints(0, 3, 2, 3)}, r"indptr\[2\] is 2, less than .* = 3", id="falls"
    ),
    pytest.param(
        {"indptr": ints(0, 2, 2, 9)}, r"indptr\[3\] is 9, .* indices, 3", id="past end"
    ),
    pytest.param({"indptr": ints(0, 1, 2, 2)}, r"indptr\[3\] is 2", id="before end"),
    pytest.param({"indptr": ints(0, 2, 2, 3, dtype=np.int64)}, "int64", id="mixed"),
    pytest.param({"indptr": np.array([0.0, 2, 2, 3])}, "float64", id="float indptr"),
    pytest.param({"indices": ints(0, 3, 1)}, r"indices\[1\] is 3, .* 0 to 2", id="big"),
    pytest.param({"indices": ints(0, 2, -1)}, r"indices\[2\] is -1", id="below zero"),
    pytest.param({"indices": ints(0, 2)}, "indptr|data", id="few indices"),
    pytest.param({"indices": np.array([0.0, 2, 1])}, "indices has type", id="float"),
    pytest.param({"indices": ints(0, 2, 1, dtype=np.uint32)}, "uint32", id="unsigned"),
    pytest.param({"indices": ints(0, 2, 1, dtype=np.int16)}, "int16", id="short ints"),
    pytest.param({"indices": ints(0, 2, 1).reshape(1, 3)}, "2 axes", id="2-d"),
    pytest.param({"indices": ints(0, 9, 2, 9, 1)[::2]}, "contiguous", id="strided"),
    pytest.param({"indices": [0, 2, 1]}, "list", id="list"),
    pytest.param({"indices": ints(0, 2, 1).astype(">i4")}, ">i4", id="big endian"),
]


class TestCsr:
    def test_good(self) -> None:
        """The sound matrix passes, and says what it holds."""
        CSR.check()

        assert CSR.nnz == 3
        assert CSR.nbytes == 4 * 4 + 3 * 4 + 3 * 8
        assert CSR.is_sorted
        assert not CSR.has_duplicates

    @pytest.mark.parametrize(("change", "message"), SHARED)
    def test_structure(self, change: dict[str, Any], message: str) -> None:
        """Each fault of pointers and indices is found and located."""
        with pytest.raises(StructureError, match=message):
            replace(CSR, **change).check()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"data": np.ones(2)}, "data has 2 entries and indices 3"),
            ({"data": np.ones(4)}, "data has 4 entries and indices 3"),
            ({"data": np.ones(3, np.int64)}, "data has type int64"),
            ({"data": np.ones(3, np.float16)}, "float16"),
            ({"data": np.ones(3, np.complex64)}, "complex64"),
            ({"data": np.ones((3, 1))}, "data has 2 axes"),
            ({"shape": (-1, 3)}, r"shape\[0\] is -1"),
            ({"shape": (3, -1)}, r"shape\[1\] is -1"),
            (
                {"shape": (3, 2**54)},
                r"shape\[1\] is \d+, .* 0 to 2\*\*53",
            ),
            ({"shape": (3.0, 3)}, r"shape\[0\] is 3.0"),
            ({"shape": (True, 3)}, r"shape\[0\] is True"),
            ({"shape": (3,)}, "shape is"),
            ({"shape": [3, 3]}, "shape is"),
        ],
    )
    def test_data_and_shape(self, change: dict[str, Any], message: str) -> None:
        """Each fault of entries and sizes is found."""
        with pytest.raises(StructureError, match=message):
            replace(CSR, **change).check()

    def test_misaligned(self) -> None:
        """An array at an odd address would be read wrongly or slowly."""
        raw = np.zeros(3 * 8 + 1, np.uint8)[1:].view(np.float64)
        if raw.flags.aligned:
            pytest.skip("this processor has no alignment rule for float64")
        with pytest.raises(StructureError, match="aligned"):
            replace(CSR, data=raw).check()

    def test_empty(self) -> None:
        """No rows, no columns, no entries."""
        none = np.zeros(0)
        Csr(ints(0), ints(), none, (0, 0)).check()
        Csr(ints(0), ints(), none, (0, 7)).check()
        Csr(ints(0, 0, 0), ints(), none, (2, 0)).check()

    def test_index_into_no_columns(self) -> None:
        """With no columns every index is outside."""
        with pytest.raises(StructureError, match=r"indices\[0\] is 0"):
            Csr(ints(0, 1), ints(0), np.ones(1), (1, 0)).check()

    def test_unsorted_and_duplicates(self) -> None:
        """Both are allowed, and both are told."""
        unsorted = replace(CSR, indices=ints(2, 0, 1))
        twice = replace(CSR, indices=ints(2, 2, 2))
        hidden = Csr(ints(0, 3, 3), ints(1, 0, 1), np.ones(3), (2, 2))

        for each in (unsorted, twice, hidden):
            each.check()
        assert (unsorted.is_sorted, unsorted.has_duplicates) == (False, False)
        assert (twice.is_sorted, twice.has_duplicates) == (True, True)
        assert (hidden.is_sorted, hidden.has_duplicates) == (False, True)

    def test_map(self) -> None:
        """Every array is moved, the shape stays."""
        moved = CSR.map(lambda x: x.tolist())

        assert (moved.indptr, moved.indices) == ([0, 2, 2, 3], [0, 2, 1])
        assert moved.shape == (3, 3)


class TestSparseVector:
    def test_good(self) -> None:
        """Unsorted indices and duplicates are part of the format."""
        VECTOR.check()
        twice = replace(VECTOR, indices=ints(3, 3))
        twice.check()

        assert not VECTOR.has_duplicates
        assert twice.has_duplicates
        assert (VECTOR.nnz, VECTOR.nbytes) == (2, 24)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"indices": ints(4, 0)}, r"indices\[0\] is 4, but must be from 0 to 3"),
            ({"indices": ints(3, -1)}, r"indices\[1\] is -1"),
            ({"indices": ints(3)}, "values has 2 entries and indices 1"),
            ({"values": np.ones(3)}, "values has 3 entries and indices 2"),
            ({"values": ints(1, 2)}, "values has type int32"),
            ({"indices": np.ones(2)}, "indices has type float64"),
            ({"size": -1}, "size is -1"),
            ({"size": 2.5}, "size is 2.5"),
        ],
    )
    def test_faults(self, change: dict[str, Any], message: str) -> None:
        """Each fault is found and located."""
        with pytest.raises(StructureError, match=message):
            replace(VECTOR, **change).check()


class TestRagged:
    def test_good(self) -> None:
        """Three vectors, one of them empty."""
        RAGGED.check()

        assert (RAGGED.count, RAGGED.nnz) == (3, 3)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"indptr": ints()}, "indptr is empty"),
            ({"indptr": ints(0, 2, 1, 3)}, r"indptr\[2\] is 1, less than"),
            ({"indptr": ints(0, 1, 1, 2)}, r"indptr\[3\] is 2"),
            ({"indices": ints(2, 0, 3)}, r"indices\[2\] is 3"),
            ({"values": np.ones(2)}, "values has 2 entries"),
        ],
    )
    def test_faults(self, change: dict[str, Any], message: str) -> None:
        """Each fault is found and located."""
        with pytest.raises(StructureError, match=message):
            replace(RAGGED, **change).check()


class TestBlockCsr:
    def test_good(self) -> None:
        """Three rows in blocks of two: the last half block is padding."""
        BLOCKS.check()

        assert (BLOCKS.nnz, BLOCKS.nbytes) == (4, 3 * 4 + 2 * 4 + 4 * 8)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"block": 3}, "block is 3, but must be one of"),
            ({"block": 4}, "indptr has 3 entries, but 1 rows need 2"),
            ({"data": np.ones((2, 3))}, r"data has shape \(2, 3\)"),
            ({"data": np.ones((3, 2))}, r"data has shape \(3, 2\)"),
            ({"data": np.ones(4)}, "data has 1 axes"),
            ({"data": np.ones((2, 2))}, r"data\[1\] is nonzero below the last row"),
            ({"indices": ints(0, 3)}, r"indices\[1\] is 3"),
            ({"indptr": ints(0, 3, 2)}, r"indptr\[2\] is 2, less than"),
        ],
    )
    def test_faults(self, change: dict[str, Any], message: str) -> None:
        """Each fault is found and located."""
        with pytest.raises(StructureError, match=message):
            replace(BLOCKS, **change).check()
