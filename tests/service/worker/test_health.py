"""A device that gives wrong answers is found, and its worker replaced."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from service.processes import until
from service.worker.servables import SOON

from nnz_kernels.backends import Backend
from nnz_kernels.cpu.recycled import RECYCLER
from nnz_kernels.errors import DeviceLostError
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.worker.health import Watch, check_product
from nnz_service.worker.scheduler import Scheduler


@pytest.mark.parametrize("backend", [Backend.REFERENCE, Backend.CPU])
def test_the_known_answer(backend: Backend) -> None:
    check_product(backend)


def test_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    spmv = MatrixOperator.spmv
    wrong = lambda self, x: spmv(self, x) + 1e-12  # noqa: E731 - a broken device
    monkeypatch.setattr(MatrixOperator, "spmv", wrong)

    with pytest.raises(DeviceLostError, match="known answer"):
        check_product(Backend.REFERENCE)


def test_a_wrong_answer_loses_the_device() -> None:
    scheduler, lost, looks = Scheduler(), threading.Event(), []

    def check() -> None:
        looks.append(threading.current_thread().name)
        if len(looks) == 3:
            raise DeviceLostError("wrong")

    scheduler.on_lost = lost.set
    scheduler.start()
    watch = Watch(scheduler, check, period=0.01)
    watch.start()

    assert lost.wait(SOON)
    assert looks == ["device"] * 3
    watch.close()
    scheduler.close()


def test_memory_that_no_result_needs_goes_back() -> None:
    RECYCLER.empty(1 << 17, np.dtype(np.float64))  # and dropped
    assert RECYCLER.idle
    scheduler = Scheduler()
    scheduler.start()
    watch = Watch(scheduler, lambda: None, period=0.01)
    watch.start()
    try:
        until(lambda: not RECYCLER.idle, SOON)
    finally:
        watch.close()
        scheduler.close()
