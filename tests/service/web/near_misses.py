"""Right calls, and what a careless client puts in their places; for every fuzzer."""

from __future__ import annotations

from typing import Any

#: Name, datatype and shape of a tensor.
Spec = tuple[str, str, list[int]]
SIZES = {"FP32": 4, "FP64": 8, "INT32": 4, "INT64": 8}

#: What a field of a tensor may be replaced with: near misses, then anything.
NEAR: dict[str, list[Any]] = {
    "name": ["y", "", "x\0", 7],
    "shape": [[3], [-1, 3], [1, 3, 1], [2**62, 3], [2**64], [True, 3], [1.5], [0, 3]],
    "datatype": ["FP16", "FP64", "BF16", "BYTES", "BOOL", "INT8", "FP31", ""],
    "data": [[], [1], [[1, 2], [3]], [None] * 3, [1, "2", 3], [1e300] * 3, "1 2 3"],
    "parameters": [
        {"binary_data_size": size} for size in (0, 11, 12, -1, 2**70, "12", 12.0)
    ],
}
PARAMETERS = (
    "matrix", "r", "size", "rtol", "timeout", "priority", "binary_data_output",
    "sequence_id", "transpose",
)  # fmt: skip

VECTORS: list[Spec] = [
    ("u.indices", "INT64", [3]),
    ("u.values", "FP64", [3]),
    ("v.indices", "INT64", [2]),
    ("v.values", "FP64", [2]),
]
#: Path, inputs, parameters; {matrix} is a resident matrix, 3 x 3 and FP32.
REAL: list[tuple[str, list[Spec], dict[str, Any]]] = [
    ("/v2/models/fuzzed/infer", [("x", "FP32", [2, 3])], {}),
    ("/v2/models/{matrix}/infer", [("x", "FP32", [2, 3])], {}),
    ("/v1/ops/spmv", [("x", "FP32", [3])], {"matrix": "{matrix}"}),
    ("/v1/ops/spmm", [("x", "FP32", [3, 2])], {"matrix": "{matrix}"}),
    ("/v1/ops/axpy", VECTORS, {"r": -2.0}),
    ("/v1/ops/dot", VECTORS, {}),
    ("/v1/jobs", [("b", "FP32", [3])], {"matrix": "{matrix}", "maxiter": 5}),
]
