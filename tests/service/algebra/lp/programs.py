"""Small programs whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.convert import csr_from_dense
from nnz_service.algebra.lp.model import LinearProgram, linear_program

INF = np.inf


def program(
    rows: list[list[float]],
    c: list[float],
    lc: list[float],
    uc: list[float],
    lv: list[float] | None = None,
    uv: list[float] | None = None,
    **more: Any,
) -> LinearProgram:
    """A program from lists; without bounds variables are at least 0."""
    a = np.array(rows, np.float64).reshape(len(lc), len(c))
    n = len(c)
    vectors = (c, lc, uc, lv or [0.0] * n, uv or [INF] * n)
    return linear_program(csr_from_dense(a), *map(np.array, vectors), **more)


def loop(n: int = 12) -> LinearProgram:
    """Rows that presolve leaves alone, a bound written as a row, a fixed variable."""
    rng = np.random.default_rng(7)
    columns = 2 * n
    dense = np.where(
        rng.random((n, columns)) < 0.4, rng.integers(1, 9, (n, columns)), 0
    )
    dense[-1] = np.eye(columns)[0]
    ax = dense @ rng.random(columns)
    return program(
        dense.tolist(), (-rng.integers(1, 20, columns)).tolist(),
        ax.tolist(), (ax + rng.integers(0, 2, n)).tolist(),
        lv=[0.0] * (columns - 1) + [0.5], uv=[3.0] * (columns - 1) + [0.5],
        maximize=True,
    )  # fmt: skip


#: max 3 x + 5 y, x <= 4, 2 y <= 12, 3 x + 2 y <= 18: (2, 6), 36; duals 0, 3/2, 1.
WYNDOR = program(
    [[1, 0], [0, 2], [3, 2]], [3, 5], [-INF] * 3, [4, 12, 18], maximize=True
)
#: x + y <= 1 and x + y >= 2.
INFEASIBLE = program([[1, 1], [1, 1]], [1, 1], [-INF, 2], [1, INF])
#: min -x - y with x - y <= 1.
UNBOUNDED = program([[1, -1]], [-1, -1], [-INF], [1])

#: WYNDOR as a file.
WYNDOR_MPS = """NAME wyndor
OBJSENSE
 MAX
ROWS
 N profit
 L one
 L two
 L three
COLUMNS
 doors profit 3 one 1
 doors three 3
 windows profit 5 two 2
 windows three 2
RHS
 hours one 4 two 12
 hours three 18
ENDATA
"""
