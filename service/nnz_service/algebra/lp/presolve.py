"""What HiGHS's presolve leaves of a program, and the way back; in a process of its own.

A reduced program needs fewer iterations, and its solution is one of the program as it
was given only after `HighsProcess("postsolve", ...)` and a look at all residuals there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load
from nnz_kernels.formats import Csr
from nnz_service.algebra.lp.highs_process import HighsProcess, arrays_of
from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.scaling import transposed

#: By which postsolve tells which bounds hold. It is made for exact solutions: with 1e-7
#: alone the dual residual of what is right to 1e-5 may come back as 1e2.
TOLERANCES = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)


@dataclass(frozen=True, slots=True)
class Reduction:
    """A smaller program.

    Args:
        program: To minimize; empty when presolve solved it all. Its offset is a part
            of ``c'x``: that of the program is not told to HiGHS.
        digest: Of its numbers: presolving again must give the same ones.
    """

    program: LinearProgram
    digest: str

    @property
    def facts(self) -> dict[str, int]:
        """Its size."""
        rows, columns = self.program.shape
        return {"rows": rows, "columns": columns, "nnz": self.program.a.nnz}


def start_presolve(
    program: LinearProgram, memory: int | None, limit: float
) -> HighsProcess:
    """Begin to presolve, in at most so many bytes and seconds."""
    return HighsProcess("presolve", arrays_of(program), memory, limit)


def start_postsolve(
    program: LinearProgram,
    reduction: Reduction,
    x: Vector,
    y: Vector,
    memory: int | None,
    limit: float,
) -> HighsProcess:
    """Begin to take a pair of the reduction back to the program."""
    left = reduction.program
    # Exactly dual to y: what is not adds up, multiplied, on the way back.
    r = left.c - load(Backend.CPU).spmv_t(left.a, y)
    given = arrays_of(program) | {
        "x": x,
        "y": y,
        "r": r,
        "digest": np.array(reduction.digest),
        "tolerances": np.array(TOLERANCES),
    }
    return HighsProcess("postsolve", given, memory, limit)


def reduction_of(answer: Mapping[str, HostArray]) -> Reduction | None:
    """Return what is left; None when presolve found nothing to do, or no solution."""
    if str(answer["status"]) not in ("kReduced", "kReducedToEmpty"):
        return None
    rows, columns = answer["lc"].size, answer["c"].size
    at = Csr(
        answer["at_indptr"], answer["at_indices"], answer["at_data"], (columns, rows)
    )
    vectors: dict[str, Any] = {n: answer[n] for n in ("c", "lc", "uc", "lv", "uv")}
    program = LinearProgram(transposed(at), **vectors, offset=float(answer["offset"]))
    return Reduction(program, str(answer["digest"]))
