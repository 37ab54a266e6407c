"""Primal-dual hybrid gradients: the iterations of first-order linear programming."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.saddle import SaddleProblem, SaddleState

A = TypeVar("A")


class SaddleOps(Protocol[A]):
    """Iterations on a saddle-point problem, float64."""

    def halpern_pdhg(
        self,
        problem: SaddleProblem[A],
        state: SaddleState[A],
        tau: float,
        sigma: float,
        done: int,
        count: int,
        /,
        *,
        threads: int | None = None,
    ) -> None:
        """Do *count* reflected Halpern iterations on *state*, in place.

        One iteration from ``z = (x, y)``, k = *done* at the first::

            xh = clip(x - tau (c - A'y), lv, uv)      xb = 2 xh - x
            q = y / sigma - A xb
            yh = sigma (q - clip(q, -uc, -lc))        yb = 2 yh - y
            z = (k + 1) / (k + 2) (xb, yb) + 1 / (k + 2) (x0, y0)

        ``xh``, ``yh``, ``r = (xh - (x - tau (c - A'y))) / tau``, ``dx`` and ``dy`` are
        those of the last iteration. Every sum runs over a row in stored order, so the
        number of threads and the division into calls change no bit; a device adds a row
        of more than 1,024 entries in a tree of fixed shape. Source: Lu, Yang,
        "Restarted Halpern PDHG for linear programming", arXiv 2407.16144, section 3.

        Args:
            problem: The program; it is trusted.
            state: Where it stands.
            tau: Primal step size, positive.
            sigma: Dual step size, positive.
            done: Iterations since the anchor was set.
            count: Iterations to do, 1 at least.
            threads: How many threads may be used; None means all.

        Raises:
            ShapeError: A vector does not fit the matrix.
            DTypeError: An array is not float64, or indices are of two types.
        """
        ...


def check_saddle(problem: SaddleProblem[Any], state: SaddleState[Any]) -> None:
    """Refuse arrays that do not fit."""
    rows, columns = problem.a.shape
    if problem.at.shape != (columns, rows):
        raise ShapeError(
            f"the transpose has shape {problem.at.shape}, but must have "
            f"{(columns, rows)}"
        )
    sized: dict[str, tuple[Any, int]] = {
        name: (getattr(problem, name), size)
        for name, size in (
            ("c", columns), ("lv", columns), ("uv", columns), ("lc", rows), ("uc", rows)
        )
    }  # fmt: skip
    for name in ("x", "x0", "xh", "r", "dx", "xb"):
        sized[name] = getattr(state, name), columns
    for name in ("y", "y0", "yh", "dy"):
        sized[name] = getattr(state, name), rows
    for name, (array, size) in sized.items():
        if array.shape != (size,):
            raise ShapeError(f"{name} has shape {array.shape}, but must have ({size},)")
        if array.dtype != np.float64:
            raise DTypeError(f"{name} is {array.dtype}, but must be float64")
    for matrix in (problem.a, problem.at):
        kinds = {matrix.indptr.dtype, matrix.indices.dtype}
        if len(kinds) > 1 or matrix.data.dtype != np.float64:
            raise DTypeError(
                "the matrix must hold float64, with pointers and indices of one type"
            )
