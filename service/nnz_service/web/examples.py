"""Requests as the description of the interface shows them; a test sends each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Example = dict[str, Any]

#: Stands for a matrix of 3 rows and columns.
MATRIX = "m-0123456789abcdef"


def _vector(name: str, numbers: Sequence[float], datatype: str = "FP64") -> Example:
    shape = [len(numbers)]
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "data": [*numbers],
    }


_X = _vector("x", [1.0, 2.0, 3.0])
_B = _vector("b", [1.0, 2.0, 3.0])

#: By the name of the operation.
OPS: dict[str, Example] = {
    "spmv": {"parameters": {"matrix": MATRIX, "semiring": "min_plus"}, "inputs": [_X]},
    "axpy": {
        "parameters": {"r": -2.0},
        "inputs": [
            _vector("u.indices", [3, 1], "INT64"),
            _vector("u.values", [1.0, 2.0]),
            _vector("v.indices", [1, 7], "INT64"),
            _vector("v.values", [1.0, 4.0]),
        ],
    },
    "spgemm": {"parameters": {"matrix": MATRIX, "other": MATRIX, "name": "two steps"}},
    "add": {
        "parameters": {"matrix": MATRIX, "other": MATRIX, "beta": -1, "preflight": True}
    },
    "triangular_solve": {"parameters": {"matrix": MATRIX}, "inputs": [_B]},
    "norm": {"parameters": {"matrix": MATRIX, "kind": "inf"}},
}

CHAIN: Example = {
    "steps": [
        {"as": "at", "op": "transpose", "matrix": MATRIX},
        {"op": "spgemm", "matrix": "at", "other": MATRIX},
    ]
}

#: By their kind.
JOBS: dict[str, Example] = {
    "solve": {
        "kind": "solve",
        "parameters": {"matrix": MATRIX, "method": "cg", "rtol": 1e-8},
        "inputs": [_B],
    },
    "lp": {
        "kind": "lp",
        "parameters": {"matrix": MATRIX, "method": "highs", "maximize": True},
        "inputs": [_vector("c", [1.0, 1.0, 2.0]), _vector("uc", [8.0, 9.0, 7.0])],
    },
    "op": {
        "kind": "op",
        "parameters": {"op": "spgemm", "matrix": MATRIX, "other": MATRIX},
    },
    "factorize": {"kind": "factorize", "parameters": {"matrix": MATRIX}},
    "graph": {
        "kind": "graph",
        "parameters": {"algorithm": "sssp", "matrix": MATRIX, "source": 0},
    },
    "eigs": {
        "kind": "eigs",
        "parameters": {"matrix": MATRIX, "k": 2, "which": "smallest"},
    },
}
