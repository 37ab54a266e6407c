"""LU factors as a job: made on a thread of their own, kept for later solves."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nnz_service.algebra.krylov.errand import Errand
from nnz_service.algebra.krylov.lu import LuFactors, factorize
from nnz_service.algebra.krylov.method import Ended
from nnz_service.algebra.krylov.solve import in_float64
from nnz_service.errors import ImpossibleError, InvalidInputError
from nnz_service.worker.factors import FACTORS, FactorCache
from nnz_service.worker.matrices import MatrixServable

if TYPE_CHECKING:
    from nnz_service.algebra.operator import MatrixOperator
    from nnz_service.worker.solvers import FindMatrix

Arrays = dict[str, NDArray[Any]]


class FactorJob:
    """Has a matrix factored; a job `solve` by the method `direct` finds the factors.

    Its slices wait, and hold no device. Factors for which nobody waits any more are
    given up: the process that makes large ones is ended.

    Args:
        cache: Where factors stay.
        name: Id of the matrix.
        operator: It.
    """

    outside = True

    def __init__(self, cache: FactorCache, name: str, operator: MatrixOperator) -> None:
        self._cache, self._name = cache, name
        self._began = time.monotonic()
        self._reused = cache.holds(name)
        self._made: Future[LuFactors] = Future()
        self._over = threading.Event()
        self._errand = Errand(lambda: not self._over.is_set())
        self._operator = in_float64(operator, square=True)
        work = threading.Thread(target=self._make, name="factorize", daemon=True)
        work.start()

    @classmethod
    def make(
        cls,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> FactorJob:
        """See `MakeSolver`; there is no state to go on from.

        Raises:
            InvalidMatrixError: The matrix is not square, real or finite.
        """
        servable = find_matrix(str(params.get("matrix")))
        if not isinstance(servable, MatrixServable):
            raise InvalidInputError(f"{params.get('matrix')!r} is not a matrix")
        return cls(FACTORS, str(params["matrix"]), servable.operator)

    @property
    def elsewhere(self) -> float:
        """See `Metered`."""
        return self._errand.seconds

    def step(self, seconds: float) -> bool:
        """See `Solver`.

        Raises:
            ImpossibleError: There are no factors; the message says why.
        """
        try:
            self._made.result(seconds)
        except NotYetError:
            return False
        except Ended as end:
            raise ImpossibleError(f"{end.status}: {end.message}") from end
        return True

    def progress(self) -> dict[str, Any]:
        """See `Solver`."""
        return {"phase": "factorize", "seconds": time.monotonic() - self._began}

    def state(self) -> Arrays:
        """See `Solver`: SuperLU begins anew."""
        return {}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`."""
        made = self._made.result()
        facts = {
            "entries": made.entries,
            "bytes": made.nbytes,
            "reused": self._reused,
            "kept": self._cache.holds(self._name),
        }
        return {"factors": facts}, {}

    def close(self) -> None:
        """See `Outside`."""
        self._over.set()

    def _make(self) -> None:
        def make(shared: Errand) -> LuFactors:
            return factorize(self._operator, errand=shared)

        try:
            found = self._cache.get(self._name, make, self._errand)
            self._made.set_result(found)
        except BaseException as error:  # whoever asks for the result gets it
            self._made.set_exception(error)
