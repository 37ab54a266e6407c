"""Which operation a step is; products of complex matrices, which are of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnz_service.algebra.operands import Operands
from nnz_service.algebra.operator import MAX_RESULT, MatrixOperator
from nnz_service.algebra.ops import run_op
from nnz_service.algebra.pairs import to_pairs
from nnz_service.errors import TooLargeError
from nnz_service.servable import Tensors
from nnz_service.worker.sparse import PRODUCTS, Known, Product, SparseOperation

_USUAL = "plus_times"


class PairedProduct(Product):
    """`spmv` or `spmm` of a complex matrix as one of several operations."""

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`.

        Raises:
            InvalidInputError: The operand is not of pairs, or does not fit.
            TooLargeError: The result would not fit.
            ImpossibleError: It would take too long; both with numbers.
        """
        if self._params.get("semiring", _USUAL) != _USUAL:
            return super().run(tensors, outputs)  # which says that there is none
        operator = self._operators[0]
        a = operator.matrix
        ndim = 1 if self.op == "spmv" else 2
        x = Operands(a, tensors=self.tensors).dense("x", ndim=ndim)
        width = x.shape[1] if x.ndim == 2 else 1
        nbytes = width * max(a.shape) * x.itemsize
        if nbytes > MAX_RESULT:
            raise TooLargeError(
                f"{self.op}: {width} columns take up to {nbytes} bytes; the limit is "
                f"{MAX_RESULT}"
            )
        name, work = f"complex {self.op}", width * (a.nnz + sum(a.shape))
        self._known.check_time(name, work, 8 * width * a.nnz)
        given = {**self.tensors, "x": x}
        found = self._known.timed(
            name, work, lambda: run_op(self.op, self._params, given, operator)
        )
        return {"y": to_pairs(found["y"])}


def operation_of(
    known: Known,
    op: str,
    params: Mapping[str, Any],
    tensors: Tensors,
    operators: list[MatrixOperator],
) -> SparseOperation:
    """Describe an operation, or a product with a dense operand."""
    kind = SparseOperation
    if op in PRODUCTS:
        paired = operators[0].matrix.data.dtype.kind == "c"
        kind = PairedProduct if paired else Product
    return kind(known, op, params, tensors, operators)
