"""Linear programs as jobs: which program, which method, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnz_service import usage
from nnz_service.algebra.lp.first_order import FirstOrder
from nnz_service.algebra.lp.highs import AUTO_ENTRIES, HighsSolve
from nnz_service.algebra.lp.highs_process import is_installed
from nnz_service.algebra.lp.model import LinearProgram, linear_program
from nnz_service.algebra.lp.outcome import LpOutcome
from nnz_service.algebra.lp.polished import Polished
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.errors import ImpossibleError, InvalidInputError
from nnz_service.worker.matrices import MatrixServable

if TYPE_CHECKING:
    from nnz_service.worker.solvers import FindMatrix

Arrays = dict[str, NDArray[Any]]

#: Inputs that stand for vectors of the program, and what they are without one.
_DEFAULTS = {"lc": -np.inf, "uc": np.inf, "lv": 0.0, "uv": np.inf}
_ROWS = ("lc", "uc")

#: Vectors as long as a row or a column that a program and its iterations hold, and the
#: bytes that they may take: a matrix of a few entries may have any number of columns.
_VECTORS, _MOST = 24, usage.memory_limit() // 2


class FirstOrderJob:
    """`algebra.lp.first_order` as a job: it iterates in the worker's own process."""

    def __init__(self, solve: FirstOrder | Polished) -> None:
        self._solve = solve
        self._done: LpOutcome | None = None

    @property
    def outside(self) -> bool:
        """Whether it waits for presolve, which is another process."""
        return self._solve.outside

    def step(self, seconds: float) -> bool:
        """See `Solver`."""
        outcome = self._solve.step(seconds=seconds)
        self._done = outcome if isinstance(outcome, LpOutcome) else None
        return self._done is not None

    def progress(self) -> dict[str, Any]:
        """See `Solver`."""
        return {"method": "pdhg"} | asdict(self._solve.progress())

    def state(self) -> Arrays:
        """See `Solver`."""
        return {name: np.asarray(x) for name, x in self._solve.state().items()}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`."""
        return _answer(self._done)

    def close(self) -> None:
        """End presolve, if it runs."""
        self._solve.close()


class HighsJob:
    """`algebra.lp.highs` as a job: it waits for another process, and holds nothing."""

    outside = True

    def __init__(self, solve: HighsSolve) -> None:
        self._solve = solve
        self._done: LpOutcome | None = None

    def step(self, seconds: float) -> bool:
        """See `Solver`; it sleeps."""
        self._done = self._solve.step(seconds)
        return self._done is not None

    def progress(self) -> dict[str, Any]:
        """See `Solver`."""
        return {"method": "highs", "seconds": self._solve.seconds}

    def state(self) -> Arrays:
        """See `Solver`: HiGHS begins anew, but its time is counted."""
        return {"seconds": np.array(self._solve.seconds)}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`."""
        return _answer(self._done)

    def close(self) -> None:
        """End the other process."""
        self._solve.close()


def make_lp(
    params: Mapping[str, Any],
    inputs: Arrays,
    find_matrix: FindMatrix,
    state: Arrays | None,
    *,
    memory: int | None = None,
) -> FirstOrderJob | HighsJob:
    """See `MakeSolver`; parameters are those of `LpSettings`, matrix, maximize, offset.

    Inputs are the vectors of the program, where they differ from what is stored with
    the matrix, and perhaps x0 and y0 to start from. *memory* is what a process of HiGHS
    may take, in bytes.

    Raises:
        InvalidInputError: Parameters or inputs do not fit the matrix.
        ImpossibleError: Its vectors would take too much memory.
    """
    servable = find_matrix(str(params.get("matrix")))
    if not isinstance(servable, MatrixServable):
        raise InvalidInputError(f"{params.get('matrix')!r} is not a matrix")
    _check_size(*servable.operator.matrix.shape)
    settings = LpSettings.of(params)
    program = _program(servable, params, inputs)
    starts = [inputs.get("x0"), inputs.get("y0")]
    warm = any(start is not None for start in starts)
    if _chosen(settings, program, warm=warm or settings.polish is not None) == "highs":
        seconds = 0.0 if state is None else float(state["seconds"])
        return HighsJob(HighsSolve(program, settings, seconds=seconds, memory=memory))
    operator = servable.operator
    given: dict[str, Any] = {
        "memory": memory, "threads": operator.threads, "backend": operator.backend
    }  # fmt: skip
    kind = FirstOrder if settings.polish is None else Polished
    if state is not None and "spent" in state:  # not of an earlier version
        return FirstOrderJob(kind.restore(program, settings, state, **given))
    return FirstOrderJob(kind(program, settings, *starts, **given))


def _check_size(rows: int, columns: int) -> None:
    nbytes = 8 * _VECTORS * (rows + columns)
    if nbytes > _MOST:
        raise ImpossibleError(
            f"the vectors of a program of {rows} rows and {columns} columns take about "
            f"{nbytes} bytes; the limit is {_MOST}"
        )


def _chosen(settings: LpSettings, program: LinearProgram, *, warm: bool) -> str:
    """Return the method; only PDHG can start warm, and polish."""
    method = settings.method
    if method == "auto":
        small = program.a.nnz <= AUTO_ENTRIES
        return "highs" if small and not warm and is_installed() else "pdhg"
    if method == "highs":
        if not is_installed():
            raise InvalidInputError("this server has no HiGHS; use the method pdhg")
        if program.a.nnz >= 2**31:
            raise InvalidInputError("HiGHS takes fewer than 2**31 entries; use pdhg")
        if warm:
            raise InvalidInputError(
                "x0, y0 and polish are for the method pdhg, not for highs"
            )
    return method


def _program(
    servable: MatrixServable, params: Mapping[str, Any], inputs: Arrays
) -> LinearProgram:
    stored = servable.program
    changed = {n: inputs[n] for n in ("c", *_DEFAULTS) if n in inputs}
    told = {n: params[n] for n in ("offset", "maximize") if n in params}
    if stored is not None and not changed and not told:
        return stored
    a = servable.operator.matrix
    vectors: Arrays = {}
    for name, value in _DEFAULTS.items():
        size = a.shape[0 if name in _ROWS else 1]
        vectors[name] = np.full(size, value)
    if stored is not None:
        vectors = {name: getattr(stored, name) for name in ("c", *_DEFAULTS)}
    vectors |= changed
    if "c" not in vectors:
        raise InvalidInputError(
            "lp needs the costs as the input c: only a matrix was stored, not a program"
        )
    given: dict[str, Any] = dict(vectors)
    if stored is not None:
        given |= {n: getattr(stored, n) for n in ("offset", "maximize", "notes")}
    return linear_program(a, **given | told)


def _answer(done: LpOutcome | None) -> tuple[dict[str, Any], Arrays]:
    if done is None:
        raise RuntimeError("the solve has not ended")
    return done.result(), done.arrays()
