from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from nnz_service.algebra.csr_body import read_csr_body
from nnz_service.errors import InvalidMatrixError, MalformedError, ServiceError

ARRAYS = {
    "indptr": np.array([0, 1, 3], np.int32),
    "indices": np.array([1, 0, 1], np.int32),
    "data": np.array([1.5, -2.0, 4.0]),
}
EMPTY = {"binary_data_size": 0}
TYPES = {"indptr": "INT32", "indices": "INT32", "data": "FP64"}


def header(**changes: Any) -> dict[str, Any]:
    inputs = [
        {
            "name": name,
            "datatype": TYPES[name],
            "shape": [array.size],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in ARRAYS.items()
    ]
    return {"parameters": {"shape": [2, 2]}, "inputs": inputs} | changes


def body(folder: Path, fields: Any, tail: bytes | None = None) -> tuple[Path, int]:
    text = orjson.dumps(fields)
    binary = b"".join(array.tobytes() for array in ARRAYS.values())
    path = folder / "body"
    path.write_bytes(text + (binary if tail is None else tail))
    return path, len(text)


class TestGood:
    @pytest.mark.parametrize("padding", ["", " ", "  ", "   "])
    def test_binary_at_any_alignment(self, tmp_path: Path, padding: str) -> None:
        path, size = body(tmp_path, header(id=padding))

        arrays, shape = read_csr_body(path, size)

        assert shape == [2, 2]
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)
            assert arrays[name].dtype == array.dtype
            assert arrays[name].flags.aligned

    def test_json(self, tmp_path: Path) -> None:
        inputs = [
            {"name": n, "datatype": TYPES[n], "shape": [a.size], "data": a.tolist()}
            for n, a in ARRAYS.items()
        ]

        arrays, _ = read_csr_body(*body(tmp_path, header(inputs=inputs), b""))

        assert arrays["data"].tolist() == [1.5, -2.0, 4.0]

    def test_empty_matrix(self, tmp_path: Path) -> None:
        inputs = [
            {"name": n, "datatype": TYPES[n], "shape": [0], "parameters": EMPTY}
            for n in ARRAYS
        ]

        arrays, _ = read_csr_body(*body(tmp_path, header(inputs=inputs), b""))

        assert arrays["indices"].size == 0


class TestBad:
    @pytest.mark.parametrize(
        ("fields", "tail", "error", "why"),
        [
            ([], None, MalformedError, "not an object"),
            ({"inputs": 3}, None, MalformedError, "list of tensors"),
            (header(), b"", MalformedError, "0 are left"),
            (header(), b"x" * 99, MalformedError, "51 bytes behind"),
            (header(inputs=[]), b"", InvalidMatrixError, "needs the arrays"),
        ],
    )
    def test_whole(
        self,
        tmp_path: Path,
        fields: Any,
        tail: bytes | None,
        error: type[ServiceError],
        why: str,
    ) -> None:
        with pytest.raises(error, match=why):
            read_csr_body(*body(tmp_path, fields, tail))

    @pytest.mark.parametrize(
        ("change", "error", "why"),
        [
            ({"datatype": "BYTES"}, InvalidMatrixError, "indptr has the unusable type"),
            ({"datatype": None}, InvalidMatrixError, "unusable type"),
            ({"shape": [3, 1]}, InvalidMatrixError, "must have one axis"),
            ({"shape": [-3]}, InvalidMatrixError, "must have one axis"),
            ({"shape": [True]}, InvalidMatrixError, "must have one axis"),
            ({"shape": None}, InvalidMatrixError, "must have one axis"),
            ({"shape": [4]}, MalformedError, "indptr of 4 x INT32 says 12 bytes"),
            ({"shape": [1 << 62]}, MalformedError, "says 12 bytes"),
            ({"parameters": {}}, MalformedError, "needs `data` with 3 numbers"),
            ({"parameters": {}, "data": [0, "x", 1]}, InvalidMatrixError, "indptr"),
            ({"parameters": {}, "data": [0, 1 << 40, 1]}, InvalidMatrixError, "indptr"),
            ({"name": "data"}, InvalidMatrixError, "the array 'data' comes twice"),
            ({"name": "indptrs"}, InvalidMatrixError, "needs the arrays"),
            ({"shape": [3.0]}, InvalidMatrixError, "must have one axis"),
            ({"parameters": {"binary_data_size": 12.0}}, MalformedError, "says 12.0"),
            (
                {"parameters": {}, "data": [0, 1.5, 3]},
                InvalidMatrixError,
                r"\[1\] is 1",
            ),
            ({"parameters": {}, "data": [0, None, 3]}, InvalidMatrixError, "is None"),
            ({"parameters": {}, "data": [0, True, 3]}, InvalidMatrixError, "is True"),
        ],
    )
    def test_one_array(
        self, tmp_path: Path, change: Any, error: type[ServiceError], why: str
    ) -> None:
        fields = header()
        fields["inputs"][0] |= change

        with pytest.raises(error, match=why):
            read_csr_body(*body(tmp_path, fields))

    @pytest.mark.parametrize("size", [0, -1, 10**9])
    def test_length_of_the_json(self, tmp_path: Path, size: int) -> None:
        path, _ = body(tmp_path, header())

        with pytest.raises(MalformedError, match="JSON part"):
            read_csr_body(path, size)
