"""cuSPARSE without a wrapper: descriptors and preprocessing done before the clock."""

from __future__ import annotations

import ctypes
from typing import Any

import cupy

_INT32, _REAL = 2, {"float32": 0, "float64": 1}  # cusparseIndexType_t, cudaDataType
_DEFAULT, _CSR_ALG2 = 0, 3
#: Of products with several columns: cusparseSpMMAlg_t; the second is for row-major.
_SPMM_CSR_ALG2 = 6
_NO_TRANSPOSE, _TRANSPOSE, _ROW_ORDER = 0, 1, 2
# cusparseSpMatAttribute_t, cusparseFillMode_t, cusparseDiagType_t
_FILL_MODE, _DIAG_TYPE, _LOWER, _NON_UNIT = 0, 1, 0, 0


def _library() -> ctypes.CDLL:
    for name in ("libcusparse.so.12", "libcusparse.so.13", "libcusparse.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return ctypes.CDLL(load_nvidia_dynamic_lib("cusparse").abs_path)


class Cusparse:
    """One handle on a stream."""

    def __init__(self, stream: int) -> None:
        self._lib = _library()
        self._handle = ctypes.c_void_p()
        self._ask("cusparseCreate", ctypes.byref(self._handle))
        self._ask("cusparseSetStream", self._handle, ctypes.c_void_p(stream))
        self._kept: list[Any] = []

    def spmv(self, a: Any, x: Any, y: Any, *, algorithm: int = _CSR_ALG2) -> Any:
        """Return a call for ``y = A x``.

        Args:
            a: (indptr, indices, data, shape) of cupy arrays, 32-bit indices.
            x: Dense vector.
            y: Result.
            algorithm: 2 and 3 are the two for CSR; 3 is deterministic.
        """
        matrix, kind = self._matrix(a), _REAL[str(x.dtype)]
        vectors = [self._vector(v) for v in (x, y)]
        one, zero = _scalars(x.dtype)
        common = (
            self._handle, _NO_TRANSPOSE, one, matrix, vectors[0], zero, vectors[1],
            kind, algorithm,
        )  # fmt: skip
        size = ctypes.c_size_t()
        self._ask("cusparseSpMV_bufferSize", *common, ctypes.byref(size))
        buffer = cupy.empty(max(size.value, 16), cupy.uint8)
        address = ctypes.c_void_p(buffer.data.ptr)
        self._ask("cusparseSpMV_preprocess", *common, address)
        self._kept += [buffer, one, zero]
        return lambda: self._ask("cusparseSpMV", *common, address)

    def spmm(self, a: Any, x: Any, y: Any) -> Any:
        """Return a call for ``Y = A X``, both row-major."""
        matrix, kind = self._matrix(a), _REAL[str(x.dtype)]
        dense = [self._dense(v) for v in (x, y)]
        one, zero = _scalars(x.dtype)
        common = (
            self._handle, _NO_TRANSPOSE, _NO_TRANSPOSE, one, matrix, dense[0], zero,
            dense[1], kind, _SPMM_CSR_ALG2,
        )  # fmt: skip
        size = ctypes.c_size_t()
        self._ask("cusparseSpMM_bufferSize", *common, ctypes.byref(size))
        buffer = cupy.empty(max(size.value, 16), cupy.uint8)
        address = ctypes.c_void_p(buffer.data.ptr)
        self._ask("cusparseSpMM_preprocess", *common, address)
        self._kept += [buffer, one, zero]
        return lambda: self._ask("cusparseSpMM", *common, address)

    def spsv(self, a: Any, b: Any, x: Any) -> Any:
        """Return a call for ``L x = b``, L a lower triangle with its diagonal."""
        matrix, kind = self._matrix(a), _REAL[str(b.dtype)]
        for attribute, value in ((_FILL_MODE, _LOWER), (_DIAG_TYPE, _NON_UNIT)):
            number = ctypes.c_int(value)
            self._ask(
                "cusparseSpMatSetAttribute", matrix, attribute, ctypes.byref(number),
                ctypes.c_size_t(4),
            )  # fmt: skip
        vectors, (one, _) = [self._vector(v) for v in (b, x)], _scalars(b.dtype)
        plan = ctypes.c_void_p()
        self._ask("cusparseSpSV_createDescr", ctypes.byref(plan))
        common = (
            self._handle, _NO_TRANSPOSE, one, matrix, *vectors, kind, _DEFAULT, plan,
        )  # fmt: skip
        size = ctypes.c_size_t()
        self._ask("cusparseSpSV_bufferSize", *common, ctypes.byref(size))
        buffer = cupy.empty(max(size.value, 16), cupy.uint8)
        self._ask("cusparseSpSV_analysis", *common, ctypes.c_void_p(buffer.data.ptr))
        self._kept += [buffer, one]
        return lambda: self._ask("cusparseSpSV_solve", *common)

    def sddmm(self, c: Any, x: Any, y: Any) -> Any:
        """Return a call for the values of c: x times y transposed, both row-major."""
        matrix, kind = self._matrix(c), _REAL[str(x.dtype)]
        dense = [self._dense(v) for v in (x, y)]
        one, zero = _scalars(x.dtype)
        common = (
            self._handle, _NO_TRANSPOSE, _TRANSPOSE, one, *dense, zero, matrix, kind,
            _DEFAULT,
        )  # fmt: skip
        size = ctypes.c_size_t()
        self._ask("cusparseSDDMM_bufferSize", *common, ctypes.byref(size))
        buffer = cupy.empty(max(size.value, 16), cupy.uint8)
        address = ctypes.c_void_p(buffer.data.ptr)
        self._ask("cusparseSDDMM_preprocess", *common, address)
        self._kept += [buffer, one, zero]
        return lambda: self._ask("cusparseSDDMM", *common, address)

    def _matrix(self, a: Any) -> ctypes.c_void_p:
        indptr, indices, data, (rows, columns) = a
        made = ctypes.c_void_p()
        pointers = (ctypes.c_void_p(v.data.ptr) for v in (indptr, indices, data))
        self._ask(
            "cusparseCreateCsr", ctypes.byref(made), *map(ctypes.c_int64, (
                rows, columns, data.size,
            )), *pointers, _INT32, _INT32, 0, _REAL[str(data.dtype)],
        )  # fmt: skip
        self._kept.append(a)
        return made

    def _vector(self, v: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        where = ctypes.c_void_p(v.data.ptr)
        size = ctypes.c_int64(v.size)
        kind = _REAL[str(v.dtype)]
        self._ask("cusparseCreateDnVec", ctypes.byref(made), size, where, kind)
        return made

    def _dense(self, v: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        rows, columns = map(ctypes.c_int64, v.shape)
        self._ask(
            "cusparseCreateDnMat", ctypes.byref(made), rows, columns, columns,
            ctypes.c_void_p(v.data.ptr), _REAL[str(v.dtype)], _ROW_ORDER,
        )  # fmt: skip
        return made

    def _ask(self, name: str, *arguments: Any) -> None:
        status = getattr(self._lib, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with status {status}")


def _scalars(dtype: Any) -> tuple[Any, Any]:
    kind = ctypes.c_float if str(dtype) == "float32" else ctypes.c_double
    return ctypes.byref(kind(1)), ctypes.byref(kind(0))
