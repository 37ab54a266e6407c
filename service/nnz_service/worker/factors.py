"""Factorisations that stay in the worker between jobs, within a budget of bytes."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from nnz_service.algebra.krylov.errand import Errand, Unwanted
from nnz_service.algebra.krylov.lu import LuFactors

#: Bytes of all factors that are kept; a matrix of a grid with 500 x 500 points, whose
#: factors have 25 million entries, takes a third of it.
BUDGET = 1 << 30


class FactorCache:
    """Factors by the id of their matrix, which is made from its content.

    Whoever wants factors that are being made waits for them, and they are made for as
    long as anybody waits. The least recently used ones go first; what passes the budget
    by itself is used once and not kept.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._kept: OrderedDict[str, LuFactors] = OrderedDict()
        self._making: dict[str, _Making] = {}
        self._lock = threading.Lock()

    def get(
        self,
        key: str,
        make: Callable[[Errand], LuFactors],
        errand: Errand | None = None,
    ) -> LuFactors:
        """Return the factors of a matrix; what `make` raises is raised.

        Args:
            key: Id of the matrix.
            make: Makes them, unless they are there or somebody makes them.
            errand: Of who wants them.

        Raises:
            Unwanted: Nobody waits for them any more.
        """
        errand = errand or Errand()
        while True:
            with self._lock:
                if (found := self._kept.get(key)) is not None:
                    self._kept.move_to_end(key)
                    return found
                if (others := self._making.get(key)) is None:
                    making = self._making[key] = _Making(errand)
                    break
                others.errands.append(errand)
            try:
                return others.future.result()
            except Unwanted:  # it was given up just before
                if not errand.wanted():
                    raise
        return self._made(key, make, making)

    def _made(
        self, key: str, make: Callable[[Errand], LuFactors], making: _Making
    ) -> LuFactors:
        try:
            made = make(making)
        except BaseException as error:
            with self._lock:
                del self._making[key]
            making.future.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._keep(key, made)
        making.future.set_result(made)
        return made

    def holds(self, key: str) -> bool:
        """Whether the factors are there."""
        with self._lock:
            return key in self._kept

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        with self._lock:
            return sum(factors.nbytes for factors in self._kept.values())

    def _keep(self, key: str, made: LuFactors) -> None:
        if made.nbytes > self._budget:
            return
        self._kept[key] = made
        held = sum(factors.nbytes for factors in self._kept.values())
        while held > self._budget:
            _, gone = self._kept.popitem(last=False)
            held -= gone.nbytes


class _Making(Errand):
    """Factors that are being made, for the first who wants them and who came later.

    The time goes to the first who still waits: one of them is charged for it.
    """

    def __init__(self, first: Errand) -> None:
        super().__init__()
        self.errands = [first]
        self.future: Future[LuFactors] = Future()

    def wanted(self) -> bool:
        """See `Errand`."""
        first = next((one for one in self.errands if one.wanted()), None)
        for one in self.errands:
            one.compute(self.computing and one is first)
        return first is not None

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """See `Errand`."""
        with super().at_work():
            self.wanted()
            yield
        self.wanted()


#: The worker's; jobs of all kinds share it.
FACTORS = FactorCache()
