"""Operations on sparse vectors that travel with the request, as a servable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnz_kernels.backends import Backend
from nnz_service.algebra.ops import OPS, run_op
from nnz_service.errors import NotFoundError
from nnz_service.servable import Tensors, TensorSpec

#: Nanoseconds that the smallest one takes, and that a byte of operands costs.
_LEAST, _BYTE_NS = 20_000, 1


class VectorOp:
    """`axpy` or `dot` with the parameters of one request; runs alone.

    Args:
        op: Its name.
        params: `r`, `size`, `zeros`, `duplicates`.
        backend: Where to compute.
        size: Bytes of the operands.

    Raises:
        NotFoundError: when there is no such op.
    """

    kind = "op"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    max_batch = 0
    plans = False
    steady = False
    bitwise = True
    nbytes = 0

    def __init__(
        self, op: str, params: Mapping[str, Any], backend: Backend, size: int
    ) -> None:
        if op not in OPS:
            raise NotFoundError(f"there is no op {op!r}; there are {', '.join(OPS)}")
        self._op = op
        self._params = params
        self._backend = backend
        self._size = size

    def check(self, tensors: Tensors) -> None:
        """See `Servable`; `run` checks everything, and has no mates to harm."""

    def work(self, rows: int) -> int:
        """See `Servable`."""
        return _LEAST + self._size * _BYTE_NS

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`."""
        return run_op(self._op, self._params, tensors, backend=self._backend)

    def explain(self) -> list[dict[str, Any]]:
        """See `Servable`."""
        return []
