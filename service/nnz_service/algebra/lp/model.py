"""The linear program, and the rules that its numbers obey."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service.errors import InvalidInputError, InvalidMatrixError

Vector = npt.NDArray[np.float64]

#: Bounds of this size or more are no bounds: what HiGHS, Gurobi and CPLEX agree on.
INFINITE = 1e20


@dataclass(frozen=True, slots=True)
class LinearProgram:
    """``min c'x + offset`` with ``lc <= A x <= uc`` and ``lv <= x <= uv``; or max.

    Args:
        a: The matrix (m, n), float64, with no duplicates.
        c: Costs (n,), finite.
        lc: Lower bounds of the rows (m,), -inf where there is none.
        uc: Upper bounds of the rows (m,), inf where there is none.
        lv: Lower bounds of the variables (n,).
        uv: Upper bounds of the variables (n,).
        offset: Constant of the objective.
        maximize: Whether the objective is to be as large as it can be.
        notes: What was read otherwise than it was written, sentences for people.
    """

    a: Csr[HostArray]
    c: Vector
    lc: Vector
    uc: Vector
    lv: Vector
    uv: Vector
    offset: float = 0.0
    maximize: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and variables."""
        return self.a.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        bounds = (self.c, self.lc, self.uc, self.lv, self.uv)
        return self.a.nbytes + sum(x.nbytes for x in bounds)

    @property
    def sign(self) -> float:
        """What turns the objective into one to minimize."""
        return -1.0 if self.maximize else 1.0

    def description(self) -> dict[str, Any]:
        """Return what a client wants to know, as JSON types."""
        rows, columns = self.shape
        return {
            "rows": rows,
            "columns": columns,
            "nnz": self.a.nnz,
            "bytes": self.nbytes,
            "dense_bytes": 8 * rows * columns,
            "maximize": self.maximize,
            "empty_rows": int((np.diff(self.a.indptr) == 0).sum()),
            "notes": list(self.notes),
        }


def linear_program(
    a: Csr[HostArray],
    c: HostArray,
    lc: HostArray,
    uc: HostArray,
    lv: HostArray,
    uv: HostArray,
    *,
    offset: float = 0.0,
    maximize: bool = False,
    notes: tuple[str, ...] = (),
) -> LinearProgram:
    """Return a checked program; bounds of 1e20 and more become infinite, and a note.

    Args:
        a: A matrix whose ``check`` has passed.
        c: See `LinearProgram`, as the other arguments.
        lc: Lower bounds of the rows.
        uc: Upper bounds of the rows.
        lv: Lower bounds of the variables.
        uv: Upper bounds of the variables.
        offset: Constant of the objective.
        maximize: Sense of the objective.
        notes: What is known already.

    Raises:
        InvalidMatrixError: The matrix is complex, or holds a NaN, an infinity or an
            entry twice.
        InvalidInputError: A vector has another length, a NaN, or bounds that cross.
    """
    rows, columns = a.shape
    if a.data.dtype.kind == "c":
        raise InvalidMatrixError(f"the matrix holds {a.data.dtype}, but must be real")
    _check_entries(a)
    costs = _vector("c", c, columns)
    _refuse("c", costs, ~np.isfinite(costs), "finite")
    if not np.isfinite(offset):
        raise InvalidInputError(f"the offset is {offset}, but must be finite")
    rl, ru, huge_rows = _bounds("lc", "uc", lc, uc, rows)
    vl, vu, huge_columns = _bounds("lv", "uv", lv, uv, columns)
    if huge := huge_rows + huge_columns:
        notes += (f"{huge} bounds of 1e20 or more were taken as infinite",)
    wide = a if a.data.dtype == np.float64 else replace(a, data=a.data.astype("f8"))
    return LinearProgram(
        wide, costs, rl, ru, vl, vu, float(offset), bool(maximize), notes
    )


def _check_entries(a: Csr[HostArray]) -> None:
    finite = np.isfinite(a.data)
    if not finite.all():
        at = int(np.argmin(finite))
        row = int(np.searchsorted(a.indptr, at, side="right")) - 1
        raise InvalidMatrixError(
            f"the entry in row {row}, column {a.indices[at]} is {a.data[at]}, but must "
            "be finite"
        )
    if a.has_duplicates:
        raise InvalidMatrixError(
            "the matrix holds an entry twice; add duplicates up before"
        )


def _bounds(
    low: str, high: str, lower: HostArray, upper: HostArray, size: int
) -> tuple[Vector, Vector, int]:
    """Return both bounds with infinities, and how many finite ones were too large."""
    down, up = _vector(low, lower, size), _vector(high, upper, size)
    huge = 0
    for bound in (down, up):
        beyond = (np.abs(bound) >= INFINITE) & np.isfinite(bound)
        huge += int(beyond.sum())
        bound[beyond] = np.copysign(np.inf, bound[beyond])
    _refuse(low, down, down == np.inf, "below infinity (1e20)")
    _refuse(high, up, up == -np.inf, "above minus infinity (-1e20)")
    crossed = down > up
    if crossed.any():
        at = int(np.argmax(crossed))
        raise InvalidInputError(
            f"{low}[{at}] is {down[at]}, but {high}[{at}] is {up[at]}: a lower bound "
            "must not pass the upper one"
        )
    return down, up, huge


def _vector(name: str, x: HostArray, size: int) -> Vector:
    if x.shape != (size,) or x.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{name} is {x.dtype} of shape {list(x.shape)}, but must be real of shape "
            f"[{size}]"
        )
    out = np.array(x, np.float64)
    _refuse(name, out, np.isnan(out), "a number")
    return out


def _refuse(name: str, x: Vector, wrong: npt.NDArray[np.bool_], right: str) -> None:
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InvalidInputError(f"{name}[{at}] is {x[at]}, but must be {right}")
