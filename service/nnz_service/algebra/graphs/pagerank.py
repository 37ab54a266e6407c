"""PageRank by the power method, as NetworkX defines it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nnz_kernels.api.graphs import Links
from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import load_graphs, load_sparse
from nnz_kernels.formats import Csr
from nnz_service.algebra.graphs.course import Arrays, number_of
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidMatrixError

#: Sums of weights below which their inverses would overflow.
TINY = 1e-300


class PageRank:
    """Where a walk is that follows an edge, by weight, or else jumps anywhere.

    Page, Brin, Motwani and Winograd 1999. A walk jumps from vertices without edges
    that go out. Converged when the sum of changes of a round is below ``n tol``.

    Args:
        a: In float64, square; weights are not negative.
        damping: Chance to follow an edge.
        tol: Of the change of one rank on average.
        maxiter: Rounds at most.
        state: To go on from.

    Raises:
        InvalidMatrixError: A weight is negative, or weights of a row overflow.
    """

    def __init__(
        self,
        a: MatrixOperator,
        damping: float = 0.85,
        tol: float = 1e-6,
        maxiter: int = 100,
        state: Arrays | None = None,
    ) -> None:
        matrix, n = a.matrix, a.shape[0]
        self._ops, self._threads = load_graphs(a.backend), a.threads
        sums = _sums(matrix)
        self._stuck = np.flatnonzero(sums == 0)
        if _is_uniform(matrix):
            self._links = self._ops.turn(matrix)
            sums = np.diff(matrix.indptr).astype(np.float64)
        else:
            if sums.min(initial=1.0, where=sums > 0) < TINY:
                matrix, sums = _divided(matrix, sums), np.sign(sums)
            turned = load_sparse(a.backend).transpose(matrix, threads=a.threads)
            self._links = Links(turned.indptr, turned.indices, turned.data)
        sums[self._stuck] = np.inf  # they give nothing to anybody
        self._shares = 1 / sums
        self._damping, self._goal, self._maxiter = damping, n * tol, maxiter
        self._x = np.full(n, 1 / max(n, 1)) if state is None else state["x"].copy()
        self._done = 0 if state is None else number_of(state, "done")
        self._change = np.inf if state is None else float(state["change"])
        self._status = ""

    def round(self) -> bool:
        """See `Course`."""
        if self._x.size == 0:
            self._change = 0.0
        elif self._done < self._maxiter:
            jumping = self._damping * self._x[self._stuck].sum() + 1 - self._damping
            self._x, self._change = self._ops.follow(
                self._links, self._x, self._x * self._shares, self._damping,
                float(jumping) / self._x.size, threads=self._threads,
            )  # fmt: skip
            self._done += 1
        if self._change < self._goal or self._change == 0:
            self._status = "converged"
        elif self._done >= self._maxiter:
            self._status = "iteration_limit"
        return bool(self._status)

    def progress(self) -> dict[str, Any]:
        """See `Course`."""
        change = self._change if np.isfinite(self._change) else None
        return {"iterations": self._done, "change": change, "target": self._goal}

    def state(self) -> Arrays:
        """See `Course`."""
        return {
            "x": self._x.copy(),
            "done": np.array(self._done),
            "change": np.array(self._change),
        }

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Course`."""
        return {"status": self._status} | self.progress(), {"ranks": self._x}


def _sums(a: Csr[HostArray]) -> HostArray:
    """Return the weights of each row added up, or refuse them."""
    if a.data.size and a.data.min() < 0:
        raise InvalidMatrixError(
            f"pagerank needs weights that are not negative; entry "
            f"{int(a.data.argmin())} is {a.data.min()}"
        )
    sums = np.zeros(a.shape[0])
    filled = np.flatnonzero(np.diff(a.indptr))
    with np.errstate(over="ignore"):
        sums[filled] = np.add.reduceat(a.data, a.indptr[filled]) if filled.size else 0
    if not np.isfinite(sums).all():
        raise InvalidMatrixError("the weights of a row add up to infinity")
    return sums


def _divided(a: Csr[HostArray], sums: HostArray) -> Csr[HostArray]:
    """Return rows that add up to one, except where they add up to nothing."""
    rows = np.repeat(np.where(sums == 0, 1, sums), np.diff(a.indptr))
    return replace(a, data=a.data / rows)


def _is_uniform(a: Csr[HostArray]) -> bool:
    """Whether all weights are the same, so that only their number counts."""
    return bool(a.nnz) and bool(a.data[0] > 0) and bool((a.data == a.data[0]).all())
