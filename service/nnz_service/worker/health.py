"""Whether the device still computes: a product with a known answer, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from nnz_kernels.backends import Backend, release_idle
from nnz_kernels.errors import DeviceLostError
from nnz_kernels.formats import Csr
from nnz_service import logs
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import ServiceError
from nnz_service.worker.scheduler import Scheduler

PERIOD = 10.0  # seconds between two products


def check_product(backend: Backend) -> None:
    """Multiply [[0, 2], [3, -1]] by [1, 10].

    Raises:
        DeviceLostError: The answer is wrong: nothing computed here can be trusted.
    """
    matrix = Csr(
        np.array([0, 1, 3], np.int32),
        np.array([1, 0, 1], np.int32),
        np.array([2.0, 3.0, -1.0]),
        (2, 2),
    )
    operator = MatrixOperator(matrix, backend, threads=1)
    found = operator.spmv(np.array([1.0, 10.0])).tolist()
    if found != [20.0, -7.0]:
        raise DeviceLostError(
            f"a product with a known answer gave {found}, not [20.0, -7.0]"
        )


class Watch:
    """Has the product computed between the batches of a scheduler.

    And memory that no result has needed from one to the next goes back to the system.

    Args:
        scheduler: Whose device; it is lost when the answer is wrong.
        check: Computes and compares.
        period: Seconds between two.
    """

    def __init__(
        self, scheduler: Scheduler, check: Callable[[], None], period: float = PERIOD
    ) -> None:
        self._scheduler = scheduler
        self._check = check
        self._period = period
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; the scheduler is closed behind it."""
        self._closing.set()

    def _loop(self) -> None:
        while not self._closing.wait(self._period):
            try:
                self._scheduler.slice(self._check).result()
                release_idle(self._period)
            except ServiceError:  # closed, or lost: it says so itself
                return
            except Exception:
                logs.logger().exception("the product of the watch failed")
