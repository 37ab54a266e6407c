"""Operations that are answered at once, as tickets for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnz_service.errors import InvalidInputError
from nnz_service.servable import Tensors
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.servables import Entry
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Order, Ticket, ticket
from nnz_service.worker.toolbox import Toolbox
from nnz_service.worker.vectors import VectorOp

Params = Mapping[str, Any]


class Ops:
    """Turns parameters and tensors of an op into a ticket, and its answer back.

    Products travel as rows of a matrix's servable, so that a lone `spmv`, the columns
    of an `spmm` and an `infer` on the same matrix can share one product.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._counters = {"axpy": Counters(), "dot": Counters()}

    def product(
        self,
        op: str,
        params: Params,
        tensors: Tensors,
        entry: Entry,
        deadline: float | None,
        order: Order,
    ) -> Ticket:
        """A ticket for `spmv` (x [n]) or `spmm` (x [n, k]).

        Raises:
            InvalidInputError: when x does not fit.
        """
        servable = entry.ready
        if not isinstance(servable, MatrixServable):
            raise InvalidInputError(f"{entry.name!r} is a {entry.kind}, not a matrix")
        transpose = params.get("transpose", False)
        if not isinstance(transpose, bool):
            raise InvalidInputError(f"transpose is {transpose!r}, not true or false")
        if transpose and servable.transpose is not None:
            servable = servable.transpose
        rows = _rows(op, tensors, servable)
        return ticket(servable, {"x": rows}, None, entry.counters, deadline, order)

    def vector(
        self,
        op: str,
        params: Params,
        tensors: Tensors,
        deadline: float | None,
        order: Order,
    ) -> Ticket:
        """A ticket for `axpy` or `dot`.

        Raises:
            NotFoundError: when there is no such op.
        """
        size = sum(tensor.nbytes for tensor in tensors.values())
        servable = VectorOp(op, params, self._toolbox.backend, size)
        return ticket(servable, tensors, None, self._counters[op], deadline, order)

    def shape(self, op: str, tensors: Tensors) -> Tensors:
        """Bring the answer of a ticket into the shape that the op promises."""
        if op == "spmv":
            return {"y": tensors["y"][0]}
        return {"y": tensors["y"].swapaxes(0, 1)} if op == "spmm" else tensors


def _rows(op: str, tensors: Tensors, servable: MatrixServable) -> np.ndarray[Any, Any]:
    """Check x against the matrix as the caller sees it; return its columns as rows."""
    if set(tensors) != {"x"}:
        raise InvalidInputError(f"{op} takes one input x, not {[*tensors]}")
    x, columns = tensors["x"], servable.inputs[0].shape[1]
    pair = (2,) if servable.complex else ()
    sizes = [columns, *pair] if op == "spmv" else [columns, "k", *pair]
    if x.ndim != len(sizes) or x.shape[:1] + x.shape[len(sizes) - len(pair) :] != (
        columns,
        *pair,
    ):
        what = ": the matrix is complex, real and imaginary parts last" * bool(pair)
        wanted = ", ".join(map(str, sizes))
        raise InvalidInputError(
            f"x has shape {[*x.shape]}, but must be [{wanted}]{what}"
        )
    if x.dtype.kind not in "biuf":
        raise InvalidInputError(f"x is {x.dtype}, but must be real numbers")
    x = x.astype(servable.inputs[0].dtype, copy=False)
    return x[np.newaxis] if op == "spmv" else x.swapaxes(0, 1)
