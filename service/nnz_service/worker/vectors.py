"""Operations on sparse vectors that travel with the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.api import Kernels
from nnz_kernels.errors import DTypeError, ShapeError, StructureError
from nnz_kernels.formats import SparseVector
from nnz_service.errors import InvalidInputError
from nnz_service.servable import Tensors, TensorSpec

_NAMES = ("u.indices", "u.values", "v.indices", "v.values")
_POLICIES = {"zeros": ("keep", "drop_exact"), "duplicates": ("sum", "error", "last")}


class VectorOp:
    """`axpy` (w = u + r v) or `dot` with the parameters of one request.

    Args:
        op: `axpy` or `dot`.
        params: `r`, `size`, `zeros`, `duplicates`; all but `r` of axpy are optional.
        kernels: Where to compute.
    """

    kind = "op"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    max_batch = 0
    nbytes = 0

    def __init__(
        self, op: str, params: Mapping[str, Any], kernels: Kernels[NDArray[Any]]
    ) -> None:
        self._kernels = kernels
        self._compute = self._axpy if op == "axpy" else self._dot
        self._size = _whole("size", params.get("size"))
        self._policies = {
            name: _choice(name, params.get(name), allowed)
            for name, allowed in _POLICIES.items()
        }
        self._r = _number("r", params.get("r")) if op == "axpy" else 0.0

    def check(self, tensors: Tensors) -> None:
        """See `Servable`; finds every fault of the two vectors."""
        if set(tensors) != set(_NAMES):
            raise InvalidInputError(
                f"needs the inputs {', '.join(_NAMES)}; got {[*tensors]}"
            )
        for name, vector in zip("uv", self._vectors(tensors), strict=True):
            try:
                vector.check()
            except StructureError as error:
                raise InvalidInputError(f"{name}.{error}") from error

    def work(self, rows: int) -> int:
        """See `Servable`."""
        return rows

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`."""
        try:
            return self._compute(*self._vectors(tensors))
        except (DTypeError, ShapeError, StructureError) as error:
            raise InvalidInputError(str(error)) from error

    def explain(self) -> list[dict[str, Any]]:
        """See `Servable`."""
        return []

    def _axpy(
        self, u: SparseVector[NDArray[Any]], v: SparseVector[NDArray[Any]]
    ) -> Tensors:
        policies = cast(Any, self._policies)
        w = self._kernels.axpy(u, self._r, v, **policies)
        return {"w.indices": w.indices, "w.values": w.values}

    def _dot(
        self, u: SparseVector[NDArray[Any]], v: SparseVector[NDArray[Any]]
    ) -> Tensors:
        return {"dot": np.array([self._kernels.dot(u, v)], dtype=np.float64)}

    def _vectors(
        self, tensors: Tensors
    ) -> tuple[SparseVector[NDArray[Any]], SparseVector[NDArray[Any]]]:
        ui, uv, vi, vv = (np.ascontiguousarray(tensors[name]) for name in _NAMES)
        size = max(_top(ui), _top(vi)) if self._size is None else self._size
        return SparseVector(ui, uv, size), SparseVector(vi, vv, size)


def _top(indices: NDArray[Any]) -> int:
    return int(indices.max(initial=-1)) + 1 if indices.dtype.kind in "iu" else 0


def _whole(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInputError(f"{name} is {value!r}, but must be a whole number")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{name} is {value!r}, but must be a number")
    return float(value)


def _choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value is None:
        return allowed[0]
    if value not in allowed:
        raise InvalidInputError(f"{name} is {value!r}, but must be one of {allowed}")
    return str(value)
