from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from nnz import SparseVector
from nnz._matrices import floats, pairs, upload, values
from nnz._tensors import JSON_LENGTH


def sent(source: Any) -> tuple[dict[str, Any], bytes]:
    headers, content = upload(source)
    assert headers["Content-Type"] == "application/x-nnz-csr"
    body = b"".join(content.open())
    split = int(headers[JSON_LENGTH])
    return json.loads(body[:split]), body[split:]


class TestUpload:
    def test_by_hand(self) -> None:
        matrix = sp.csr_matrix(np.float32([[0, 2, 0], [3, 0, 4]]))

        head, tail = sent(matrix)

        assert head["parameters"]["shape"] == [2, 3]
        assert [(t["name"], t["datatype"], t["shape"]) for t in head["inputs"]] == [
            ("indptr", "INT32", [3]),
            ("indices", "INT32", [3]),
            ("data", "FP32", [3]),
        ]
        assert tail == (
            np.int32([0, 1, 3, 1, 0, 2]).tobytes() + np.float32([2, 3, 4]).tobytes()
        )

    @pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dia", "dok", "lil", "bsr"])
    @pytest.mark.parametrize("make", [sp.csr_array, sp.csr_matrix])
    def test_every_scipy_format_is_the_same_matrix(self, kind: str, make: Any) -> None:
        matrix = make(np.float64([[0, 2, 0], [3, 0, 4]]))

        assert sent(matrix.asformat(kind)) == sent(matrix)

    def test_duplicates_are_summed_without_touching_the_callers(self) -> None:
        matrix = sp.csr_array(
            (np.float64([1, 2, 5]), np.int32([2, 2, 0]), np.int32([0, 3])), (1, 3)
        )

        head, tail = sent(matrix)

        assert head["inputs"][2]["shape"] == [2]
        assert tail.endswith(np.float64([5, 3]).tobytes())
        assert matrix.indices.tolist() == [2, 2, 0]

    @pytest.mark.parametrize(
        ("name", "headers"),
        [
            ("a.npz", {"Content-Type": "application/x-npz"}),
            ("a.b.mtx", {"Content-Type": "text/x-matrix-market"}),
            (
                "a.mtx.gz",
                {"Content-Type": "text/x-matrix-market", "Content-Encoding": "gzip"},
            ),
        ],
    )
    def test_files_go_as_they_are(
        self, tmp_path: Path, name: str, headers: dict[str, str]
    ) -> None:
        path = tmp_path / name
        path.write_bytes(b"content")

        for source in (path, str(path)):
            found, content = upload(source)
            assert found == headers
            assert b"".join(content.open()) == b"content"

    def test_unknown_file_name(self) -> None:
        with pytest.raises(ValueError, match=r"a\.txt: .* \.npz, \.mtx, \.mtx\.gz"):
            upload("folder/a.txt")

    def test_a_dense_array_is_shown_the_way(self) -> None:
        with pytest.raises(TypeError, match=r"not ndarray; .*csr_array\(array\)"):
            upload(np.zeros((2, 2)))

    def test_one_dimension(self) -> None:
        with pytest.raises(ValueError, match="two dimensions, not 1"):
            upload(sp.coo_array(np.ones(3)))

    @pytest.mark.parametrize(("given", "name"), [("c8", "C64"), ("c16", "C128")])
    def test_complex_values(self, given: str, name: str) -> None:
        head, tail = sent(sp.csr_array(np.array([[1j]], given)))

        assert head["inputs"][2]["datatype"] == name
        assert tail.endswith(np.array([1j], given).tobytes())

    def test_no_numbers(self) -> None:
        with pytest.raises(TypeError, match="real numbers of up to 64 bits"):
            upload(sp.csr_array(np.array([[1j]], np.clongdouble)))


class TestValues:
    def test_of_a_matrix(self) -> None:
        """In canonical order, with the digest of the places."""
        unsorted = sp.csr_array(
            (np.float64([1, 2, 3]), np.int64([2, 0, 1]), np.int64([0, 2, 3])), (2, 3)
        )

        data, pattern = values(unsorted)
        other, same = values(unsorted.tocsc())

        assert data.tolist() == other.tolist() == [2, 1, 3]
        assert pattern == same
        assert len(pattern or "") == 32

    def test_of_an_array(self) -> None:
        assert values([1, 2])[0].tolist() == [1.0, 2.0]
        assert values([1, 2])[1] is None

    def test_complex_ones_travel_in_parts(self) -> None:
        assert values(np.complex64([1 + 2j, -3j]))[0].tolist() == [[1, 2], [0, -3]]


class TestWholeNumbers:
    """They go as float64, where that holds them."""

    def test_held(self) -> None:
        large = np.array([2**53, -(2**60), 7])

        assert floats(large).tolist() == [2.0**53, -(2.0**60), 7.0]
        assert floats(np.array([2**63], np.uint64)).tolist() == [2.0**63]

    @pytest.mark.parametrize("value", [2**53 + 1, -(2**60) - 1, 2**64 - 1])
    def test_not_held(self, value: int) -> None:
        with pytest.raises(ValueError, match=f"does not hold {value}"):
            floats(np.array([value], np.int64 if value < 2**63 else np.uint64))

    def test_an_index_beyond_all(self) -> None:
        beyond = np.array([2**63], np.uint64), [1.0]

        with pytest.raises(
            ValueError, match="indices of u go up to 922337203685477580"
        ):
            pairs(beyond, "u")


class TestFloats:
    @pytest.mark.parametrize(
        ("given", "becomes"),
        [("f4", "f4"), ("f8", "f8"), ("f2", "f4"), ("i4", "f8"), ("?", "f8")],
    )
    def test_takes_the_type_that_holds_the_values(
        self, given: str, becomes: str
    ) -> None:
        assert floats(np.zeros(2, given)).dtype == becomes


class TestPairs:
    @pytest.mark.parametrize(
        "source",
        [
            pytest.param(([4, 1], [2.0, 3.0]), id="lists"),
            pytest.param((np.array([4, 1]), np.array([2, 3])), id="arrays"),
            pytest.param(SparseVector(np.array([4, 1]), np.array([2.0, 3])), id="ours"),
        ],
    )
    def test_the_order_is_kept(self, source: Any) -> None:
        vector = pairs(source, "u")

        assert vector.indices.tolist() == [4, 1]
        assert vector.values.tolist() == [2.0, 3.0]
        assert vector.values.dtype == np.float64
        assert vector.size is None

    @pytest.mark.parametrize("shape", [(1, 9), (9, 1), (9,)], ids=str)
    def test_scipy_vectors(self, shape: tuple[int, ...]) -> None:
        dense = np.zeros(9)
        dense[[2, 5]] = [7, 8]

        vector = pairs(sp.coo_array(dense.reshape(shape)), "u")

        assert vector.indices.tolist() == [2, 5]
        assert vector.values.tolist() == [7, 8]
        assert vector.size == 9

    def test_empty(self) -> None:
        vector = pairs(([], []), "u")

        assert vector.indices.dtype.kind == "i"
        assert vector.indices.shape == vector.values.shape == (0,)

    @pytest.mark.parametrize(
        ("source", "kind", "message"),
        [
            pytest.param([1, 2, 3], TypeError, "u is a pair", id="no pair"),
            pytest.param(
                ([1.5], [1.0]), TypeError, "integers, not float64", id="float"
            ),
            pytest.param(([1], [1.0, 2.0]), ValueError, r"u has \(1,\)", id="lengths"),
            pytest.param(([[1]], [[1.0]]), ValueError, "one-dimensional", id="rank"),
            pytest.param(
                sp.csr_array((2, 2)), ValueError, "one row or column", id="matrix"
            ),
        ],
    )
    def test_says_what_is_wrong(
        self, source: Any, kind: type[Exception], message: str
    ) -> None:
        with pytest.raises(kind, match=message):
            pairs(source, "u")
