"""The operations of ``/v1/ops``: one call, one answer, on arrays from outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnz_kernels.api import Kernels
from nnz_kernels.arrays import FLOATS, INDICES, HostArray
from nnz_kernels.backends import Backend, load_hosted
from nnz_kernels.errors import DeviceError, KernelError
from nnz_kernels.formats import SparseVector
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError, NotFoundError

OPS = ("spmv", "spmm", "axpy", "dot")

#: What a vector op takes.
_VECTORS = ("u.indices", "u.values", "v.indices", "v.values")


def run_op(
    op: str,
    params: Mapping[str, Any],
    tensors: Mapping[str, HostArray],
    matrix: MatrixOperator | None = None,
    backend: Backend | str = Backend.CPU,
) -> dict[str, HostArray]:
    """Do one operation and return its outputs.

    Args:
        op: ``spmv`` (x [n] -> y [m]), ``spmm`` (x [n, k] -> y [m, k]), ``axpy``
            (u, v -> w.indices, w.values) or ``dot`` (u, v -> dot, float64 [1]).
        params: ``transpose`` for products; ``r``, ``size``, ``zeros``, ``duplicates``
            for vectors.
        tensors: ``x``, or ``u.indices, u.values, v.indices, v.values``.
        matrix: The matrix that the products need.
        backend: Where the vector ops run.

    Raises:
        NotFoundError: There is no such operation.
        InvalidInputError: An input or parameter is missing, unknown or does not fit.
    """
    if op not in OPS:
        raise NotFoundError(f"there is no operation {op!r}; there are {', '.join(OPS)}")
    if op in ("spmv", "spmm"):
        return {"y": _product(op, params, tensors, matrix)}
    return _vectors(op, params, tensors, load_hosted(Backend(backend)))


def _product(
    op: str,
    params: Mapping[str, Any],
    tensors: Mapping[str, HostArray],
    matrix: MatrixOperator | None,
) -> HostArray:
    if matrix is None:
        raise InvalidInputError(
            f"{op} needs the parameter 'matrix', the id of a matrix"
        )
    _expect_names(op, tensors, ("x",))
    transpose = params.get("transpose", False)
    if not isinstance(transpose, bool):
        raise InvalidInputError(
            f"transpose is {transpose!r}, but must be true or false"
        )
    multiply = matrix.spmv if op == "spmv" else matrix.spmm
    return multiply(tensors["x"], transpose=transpose)


def _vectors(
    op: str,
    params: Mapping[str, Any],
    tensors: Mapping[str, HostArray],
    kernels: Kernels[HostArray],
) -> dict[str, HostArray]:
    _expect_names(op, tensors, _VECTORS)
    u, v = _operands(tensors, params.get("size"))
    try:
        if op == "dot":
            return {"dot": np.array([kernels.dot(u, v)], np.float64)}
        w = kernels.axpy(
            u,
            _number(params, "r"),
            v,
            zeros=params.get("zeros", "keep"),
            duplicates=params.get("duplicates", "sum"),
        )
    except DeviceError:
        raise
    except (KernelError, ValueError) as exc:
        raise InvalidInputError(f"{op}: {exc}") from exc
    return {"w.indices": w.indices, "w.values": w.values}


def _operands(
    tensors: Mapping[str, HostArray], size: Any
) -> tuple[SparseVector[HostArray], SparseVector[HostArray]]:
    """Return two checked vectors of common types."""
    arrays = {name: np.asarray(tensors[name]) for name in _VECTORS}
    for name, array in arrays.items():
        allowed = INDICES if name.endswith("indices") else FLOATS
        if array.dtype not in allowed or array.ndim != 1:
            kinds = " or ".join(str(kind) for kind in allowed)
            raise InvalidInputError(
                f"{name} is {array.dtype} of shape {list(array.shape)}, but must be "
                f"{kinds} of shape [entries]"
            )
    index = np.result_type(arrays["u.indices"], arrays["v.indices"])
    value = np.result_type(arrays["u.values"], arrays["v.values"])
    length = _size(arrays, size)
    out = []
    for name in ("u", "v"):
        vector = SparseVector(
            np.ascontiguousarray(arrays[f"{name}.indices"], index),
            np.ascontiguousarray(arrays[f"{name}.values"], value),
            length,
        )
        try:
            vector.check()
        except KernelError as exc:
            raise InvalidInputError(f"{name}: {exc}") from exc
        out.append(vector)
    return out[0], out[1]


def _size(arrays: Mapping[str, HostArray], size: Any) -> int:
    """Return the declared size, or one more than the largest index."""
    if size is None:
        parts = (arrays["u.indices"], arrays["v.indices"])
        return 1 + max(int(part.max(initial=-1)) for part in parts)
    if isinstance(size, bool) or not isinstance(size, int):
        raise InvalidInputError(f"size is {size!r}, but must be an integer")
    return size


def _number(params: Mapping[str, Any], name: str) -> float:
    value = params.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"parameter {name} is {value!r}, but must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.copysign(math.inf, value)
    return number


def _expect_names(
    op: str, tensors: Mapping[str, HostArray], names: tuple[str, ...]
) -> None:
    if set(tensors) != set(names):
        raise InvalidInputError(
            f"{op} takes the inputs {list(names)}, but got {sorted(tensors)}"
        )
